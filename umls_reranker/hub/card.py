"""The model card, written from a run's ``metrics.json`` and recipe. It contains only what the run measured.

It holds figures, settings and identifiers, but no names from a licensed vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.utils import yaml_dump
from yaml import YAMLError

from ..core.fetch import HUB_DATASET
from ..core.files import read_json
from ..core.text_files import UserError
from ..evaluation.metrics import read_metrics
from ..evaluation.page import TEMPLATES
from ..evaluation.render import as_markdown, is_there, markdown_table, percent, report_tables, title_of
from ..models.pairs import PairTemplate
from .download import REPO_ID
from .model_folder import (
    CALIBRATOR,
    CARD,
    MANIFEST,
    METRICS,
    RELIABILITY,
    RISK_COVERAGE,
    THRESHOLDS,
    has_network,
    model_recipe,
)

NETWORK_TAGS = ["cross-encoder", "sentence-transformers"]
# Figures in the card's metadata, with task and title.
RANKING, CALIBRATION = ("text-ranking", "Concept reranking"), ("text-classification", "Calibration")
PAIRS = ("text-classification", "Pair classification")
INDEXED = {
    **dict.fromkeys(("acc@1", "mrr", "recall@5"), RANKING),
    **dict.fromkeys(("f1", "roc_auc"), PAIRS),
    **dict.fromkeys(("ece", "brier", "log_loss"), CALIBRATION),
}


# The part of a card that each version writes anew, and the keys of its metadata.
BEGIN = "<!-- umls-reranker:begin (each version replaces the text from here to the end mark) -->"
END = "<!-- umls-reranker:end -->"
OWN_METADATA = ("base_model", "library_name", "pipeline_tag", "metrics", "model_name", "model-index")
# A pair with all that a template may show.
EXAMPLE: dict[str, Any] = {
    "mention": "neuropathy due to diabetes",
    "types": ["Disease or Syndrome"],
    "left": "She has ",
    "right": " since 2019.",
    "name": "diabetic neuropathy",
    "preferred_name": "Diabetic Neuropathies",
    "definition": "nerve damage by diabetes",
}


class Source(NamedTuple):
    """What something was made from, and its license in words."""

    name: str
    terms: str


# Keyed by a substring of the locator.
KNOWN_SOURCES = {
    "medmentions": Source("MedMentions", "CC0 1.0"),
    "hp.obo": Source("Human Phenotype Ontology", "HPO license: free use, citing source and version"),
    "sapbert": Source("SapBERT", "Apache-2.0"),
    "all-minilm-l6-v2": Source("all-MiniLM-L6-v2", "Apache-2.0"),
}
UMLS_LICENSE = "UMLS Metathesaurus License Agreement and the licenses of the source vocabularies"
OWN_LICENSE = "set by its publisher"


def folder_card(
    folder: Path, repo_id: str | None = None, tag: str | None = None, evaluated: Path | None = None
) -> str:
    """The card of a model folder, from its own files.

    Args:
        folder: the model folder.
        repo_id: Hub repo, for the loading example; None writes a placeholder.
        tag: version that the example pins.
        evaluated: folder with evaluation files that `folder` does not hold yet.
    """
    evaluated = evaluated or folder
    info, calibrator, thresholds = (read_json(folder / name) for name in (MANIFEST, CALIBRATOR, THRESHOLDS))
    plots = [name for name in (RELIABILITY, RISK_COVERAGE) if (evaluated / name).is_file()]
    recipe, metrics = model_recipe(folder).to_dict(), read_metrics(evaluated / METRICS)
    return model_card(metrics, recipe, info, calibrator, thresholds, repo_id=repo_id, tag=tag, plots=plots)


def model_card(
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any],
    info: Mapping[str, Any],
    calibrator: Mapping[str, Any],
    thresholds: Mapping[str, Any],
    *,
    repo_id: str | None = None,
    tag: str | None = None,
    plots: Sequence[str] = (),
) -> str:
    """Write the card.

    Args:
        metrics: content of ``metrics.json``.
        recipe: the flat recipe (`Recipe.to_dict`).
        info: content of ``reranker.json``.
        calibrator: content of ``calibrator.json``.
        thresholds: content of ``thresholds.json``.
        repo_id: as for `folder_card`.
        tag: as for `folder_card`.
        plots: SVG files next to the card.

    Returns:
        Text of ``README.md``: YAML metadata with ``model-index``, then Markdown.
    """
    name, network = repo_id.split("/")[-1] if repo_id else recipe["run_name"], has_network(info)
    template = PairTemplate.from_dict(info["template"]) if network else PairTemplate()
    lists = metrics.get("lists") or {}
    certificates = []
    for entry in thresholds["inputs"]:
        certificate = entry["certificate"] or {"threshold": None}
        is_certified = certificate["threshold"] is not None
        figures = [percent(certificate[key] if is_certified else None) for key in ("share", "precision")]
        certificates.append([entry["name"], "yes" if is_certified else "no", *figures])
    card = ModelCard.from_template(
        _metadata(metrics, recipe, name, network, repo_id),
        template_path=str(TEMPLATES / "model_card.md"),
        begin=BEGIN,
        end=END,
        model_name=_as_text(name),
        candidates=_example(calibrator.get("score_ranges") or {}),
        load_arguments=f'"{repo_id or "path/to/model"}"' + (f', revision="{tag}"' if tag else ""),
        results={table.title: as_markdown(table) for table in report_tables(metrics)},
        is_certified=any(row[1] == "yes" for row in certificates),
        certificates=markdown_table(["inputs", "certified", "coverage", "precision"], certificates),
        sources=markdown_table(["source", "license"], _source_rows(recipe, info)),
        plots=plots,
        metrics=metrics,
        recipe=recipe,
        lists=lists,
        is_plain=lists.get("is_plain", False),
        network=network,
        template=template,
        pair=json.dumps(list(template.pair_text(**EXAMPLE).values()))[1:-1],
        calibrated_on="the lists" if lists else "the calibration split",
        corpus=_corpus_name(recipe),
        as_text=_as_text,
        linked_model=_linked_model,
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def with_former(card: str, former: str) -> str:
    """A card with what people wrote into that of the former version: text around ours, and metadata.

    Raises:
        UserError: the former card's metadata cannot be read.
    """
    try:
        new, old = ModelCard(card), ModelCard(former, ignore_metadata_errors=True)
    except (ValueError, YAMLError):
        raise UserError(f"{CARD} on the Hub begins with metadata that are not a YAML mapping; edit it there") from None
    theirs = {key: value for key, value in old.data.to_dict().items() if key not in OWN_METADATA}
    # A license and its name and link belong together. The order stays: a card of ours is returned unchanged.
    dropped = {"license_name", "license_link"} - theirs.keys() if "license" in theirs else set()
    ours = {key: value for key, value in new.data.to_dict().items() if key not in dropped}
    for key in ("tags", "datasets"):
        values = [[value] if isinstance(value, str) else value for data in (ours, theirs) if (value := data.get(key))]
        theirs |= {key: [*dict.fromkeys(chain(*values))]} if values else {}
    before, _, rest = old.text.partition(BEGIN)
    parts = [part.strip() for part in (before, new.text, rest.partition(END)[2]) if part.strip()]
    return "\n\n".join([f"---\n{yaml_dump(ours | theirs, sort_keys=False)}---", *parts]) + "\n"


def _metadata(
    metrics: Mapping[str, Any], recipe: Mapping[str, Any], name: str, network: bool, repo_id: str | None
) -> ModelCardData:
    corpus = "user-provided candidate lists" if "lists" in metrics else _corpus_name(recipe)
    values = {key: metrics["figures"].get(key, {}).get("value") for key in INDEXED}
    figures = {key: value for key, value in values.items() if is_there(value)}
    return ModelCardData(
        language="en",
        license="other",
        license_name="licenses-of-the-sources",
        license_link=repo_id and f"https://huggingface.co/{repo_id}#licenses-of-the-sources",
        datasets=_datasets(recipe) or None,
        metrics=[*figures] or None,
        base_model=recipe["model"] if network and _is_hub_id(recipe["model"]) else None,
        library_name="transformers" if network else "umls_reranker",
        pipeline_tag="text-ranking",
        tags=["umls", "entity-linking", "reranker", *(NETWORK_TAGS if network else []), "biomedical"],
        model_name=name,
        eval_results=[
            EvalResult(
                task_type=INDEXED[key][0],
                task_name=INDEXED[key][1],
                dataset_type=re.sub(r"\W+", "-", corpus.lower()).strip("-"),
                dataset_name=corpus,
                dataset_split=metrics["split"],
                metric_type=key,
                metric_name=title_of(key),
                metric_value=round(value, 4),
            )
            for key, value in figures.items()
        ]
        or None,
    )


def _datasets(recipe: Mapping[str, Any]) -> list[str]:
    """Ids on the Hub of the corpora and lists, as far as they are known."""
    corpus = recipe.get("corpus") or []
    found: list[str] = []
    for locator in [recipe.get("candidate_lists") or "", *([corpus] if isinstance(corpus, str) else corpus)]:
        match = HUB_DATASET.match(locator)
        found += [match["repo"]] if match else ["bigbio/medmentions"] if "medmentions" in locator.lower() else []
    return [*dict.fromkeys(found)]


def _example(ranges: Mapping[str, Mapping[str, float]]) -> str:
    """Two candidates with scores as calibration saw them, as code."""
    candidates: list[dict[str, Any]] = [
        {"cui": "C0011882", "name": "diabetic neuropathy"},
        {"cui": "C0031117", "name": "Peripheral neuropathy"},
    ]
    for name, ends in ranges.items():
        for candidate, score in zip(candidates, (ends["high"], (ends["low"] + ends["high"]) / 2), strict=True):
            candidate[f"{name}_score"] = float(f"{score:.3g}")
    return "[\n" + "".join(f"    {json.dumps(candidate)},\n" for candidate in candidates) + "]"


def _as_text(text: str) -> str:
    """Text from data as one line of plain Markdown: no heading, HTML, link or table cell."""
    line = "".join(character for character in " ".join(str(text).split()) if character.isprintable())
    if re.fullmatch(r"[\w ,:;.()/+-]*", line, re.ASCII) and not re.search(r"\b_|_\b|://|www\.", line):
        return line
    # In code, Markdown interprets only the closing backtick and, in tables, the bar that ends a cell.
    return "`" + line.replace("`", "'").replace("|", "\\|") + "`"


def _is_hub_id(model: str) -> bool:
    """Whether a base model is a Hub id, not a folder."""
    return re.fullmatch(REPO_ID, model) is not None and not Path(model).is_dir()


def _linked_model(model: str) -> str:
    """A base model as Markdown: a link to the Hub, or the folder's name."""
    name = _file_name(model).replace("`", "")
    return f"[{model}](https://huggingface.co/{model})" if _is_hub_id(model) else f"`{name}`"


def _file_name(locator: str) -> str:
    """The last part of a path or URL: paths on someone's disk are private."""
    return Path(urlsplit(locator).path).name or locator


def _sources(locators: str | Iterable[str]) -> Source:
    """Names and licenses of what is at one or several locators."""
    found = []
    for locator in [locators] if isinstance(locators, str) else locators:
        known = (source for part, source in KNOWN_SOURCES.items() if part in locator.lower())
        found.append(next(known, Source(_file_name(locator), OWN_LICENSE)))
    names, terms = (dict.fromkeys(texts) for texts in zip(*found, strict=True))
    return Source(" and ".join(names), ", ".join(terms))


def _corpus_name(recipe: Mapping[str, Any]) -> str:
    """Source of the mentions."""
    if recipe.get("candidate_lists"):
        return f"candidate lists {_file_name(recipe['candidate_lists'])}"
    if recipe["mention_source"] == "held_out_synonyms":
        return (
            f"held-out synonyms of {_sources(recipe.get('obo') or recipe.get('names') or 'UMLS Metathesaurus').name}"
        )
    return _sources(recipe.get("corpus") or "corpus").name


def _source_rows(recipe: Mapping[str, Any], info: Mapping[str, Any]) -> list[list[str]]:
    """Source and license of concepts and mentions, if the model knows its dictionary, and of base model or lists."""
    dictionary, rows = info.get("dictionary") or {}, []
    if release := dictionary.get("release"):
        sources = recipe.get("identifiers") or ", ".join(recipe.get("sources") or ())
        only = f", names from {sources} only" if sources else ""
        name = f"UMLS Metathesaurus {release['name'] or ''}".rstrip()
        rows.append([f"concepts: {_as_text(name + only)}", UMLS_LICENSE])
    for vocabulary in dictionary.get("vocabularies") or ():
        name, terms = _sources(vocabulary["file"])
        if terms == OWN_LICENSE:
            name, terms = vocabulary["id"] or name, vocabulary["license"] or terms
        version = f", version {vocabulary['version']}" if vocabulary["version"] else ""
        rows.append([f"concepts: {_as_text(name + version)}", _as_text(terms)])
    if dictionary and recipe["mention_source"] == "corpus":
        terms = OWN_LICENSE if recipe.get("candidate_lists") else _sources(recipe.get("corpus") or "corpus").terms
        rows.append([f"mentions: {_as_text(_corpus_name(recipe))}", terms])
    if has_network(info):
        return [*rows, [f"base model: {_linked_model(recipe['model'])}", _sources(recipe["model"]).terms]]
    return [*rows, ["candidate lists used for calibration", "set by their publishers"]]
