"""The model card, written from a run's ``metrics.json`` and recipe. It contains only what the run measured.

It holds figures, settings and identifiers, but no names from a licensed vocabulary.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..core.files import read_json
from ..evaluation.figures import read_metrics
from ..evaluation.formats import FORMATS, figure_name, inputs_label, is_there, markdown_table, percent, with_interval
from ..evaluation.list_systems import systems_markdown
from ..evaluation.page import TEMPLATES
from .download import REPO_ID
from .model_folder import (
    CALIBRATOR,
    MANIFEST,
    METRICS,
    RELIABILITY,
    RISK_COVERAGE,
    THRESHOLDS,
    has_network,
    model_recipe,
)

# Figures in the card's metadata, by section of metrics.json.
INDEXED = {
    "linking": ("text-ranking", "Concept reranking", ("acc@1", "mrr", "recall@5")),
    "pair": ("text-classification", "Pair classification", ("f1", "roc_auc")),
    "calibration": ("text-classification", "Calibration", ("ece", "brier", "log_loss")),
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
# Maximum characters per line of the example.
LINE = 110
UMLS_LICENSE = "UMLS Metathesaurus License Agreement and the licenses of the source vocabularies"
OWN_LICENSE = "set by its publisher"


def folder_card(
    folder: Path, repo_id: str | None = None, tag: str | None = None, evaluated: Path | None = None
) -> str:
    """The card of a model folder, from its ``metrics.json``, ``recipe.yaml`` and plots.

    Args:
        folder: the model folder.
        repo_id: as for `model_card`.
        tag: as for `model_card`.
        evaluated: folder with evaluation files that `folder` does not hold yet.
    """
    evaluated = evaluated or folder
    recipe, metrics = model_recipe(folder), read_metrics(evaluated / METRICS)
    plots = [name for name in (RELIABILITY, RISK_COVERAGE) if (evaluated / name).is_file()]
    info, calibrator, thresholds = (read_json(folder / name) for name in (MANIFEST, CALIBRATOR, THRESHOLDS))
    return model_card(
        metrics,
        recipe.to_dict(),
        repo_id,
        tag=tag,
        plots=plots,
        dictionary=info.get("dictionary"),
        corrections=calibrator["fitted_on"].get("corrections", {}).get("used", 0),
        score_ranges=calibrator.get("score_ranges") or {},
        network=has_network(info),
        certificates={entry["name"]: entry["certificate"] for entry in thresholds["inputs"]},
    )


def model_card(
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any],
    repo_id: str | None = None,
    *,
    tag: str | None = None,
    plots: Sequence[str] = (),
    dictionary: Mapping[str, Any] | None = None,
    corrections: int = 0,
    score_ranges: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    network: bool = True,
    certificates: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Write the card.

    Args:
        metrics: content of ``metrics.json``. A figure is ``{"value", "low", "high", "population"}``, of which only the
            value is required; figures that were not measured are left out.
        recipe: the flat recipe (`Recipe.to_dict`).
        repo_id: Hub repo, for the loading example; None writes a placeholder.
        tag: version that the example pins.
        plots: SVG files next to the card.
        dictionary: release or ontologies of the concepts, from ``reranker.json``; None if unknown.
        corrections: number of reviewed mentions that the calibration was also fitted on.
        score_ranges: name of a retriever -> ``low`` and ``high`` of its scores, for the example.
        network: whether the model has a network.
        certificates: name of a model's inputs -> its `Certificate`, or None, as in ``thresholds.json``.

    Returns:
        Text of ``README.md``: YAML metadata with ``model-index``, then Markdown.
    """
    name = repo_id.split("/")[-1] if repo_id else recipe["run_name"]
    lists = metrics.get("lists") or {}
    is_plain = lists.get("is_plain", False)
    calibrated_on = "the lists" if lists else "the calibration split"
    if corrections:
        calibrated_on += f" and {corrections:,} reviewed mentions"
    linking = metrics.get("linking", {})
    tables = {
        "systems": systems_markdown(metrics.get("systems", [])),
        "linking": _systems_table(linking),
        "in_dictionary": _systems_table({system: part["in_dictionary"] for system, part in linking.items()}),
        "coverage": _systems_table(metrics.get("coverage", {}), "precision {}"),
        "pair": _figures_table([metrics.get("pair", {}), metrics.get("candidate_pair", {})]),
        "calibration": _figures_table([metrics.get("calibration", {})], digits=4, over=_candidates(metrics)),
        "serving": _figures_table([metrics.get("serving", {})]),
        "certificates": _certificates_table(certificates),
        "sources": _table(["source", "license"], _source_rows(recipe, dictionary or {}, is_plain, network)),
    }
    card = ModelCard.from_template(
        _metadata(metrics, recipe, name, network),
        template_path=str(TEMPLATES / "model_card.md"),
        model_name=_as_text(name),
        candidates=_example(lists.get("scores", ()), score_ranges),
        load_arguments=f'"{repo_id or "path/to/model"}"' + (f', revision="{tag}"' if tag else ""),
        tables=tables,
        plots=plots,
        metrics=metrics,
        recipe=recipe,
        lists=lists,
        is_plain=is_plain,
        network=network,
        calibrated_on=calibrated_on,
        corpus=_corpus_name(recipe),
        subsets=metrics.get("subsets", {}),
        system=_system,
        as_text=_as_text,
        linked_model=_linked_model,
        **FORMATS,
    )
    return re.sub(r"\n{3,}", "\n\n", str(card)).rstrip() + "\n"


def _metadata(metrics: Mapping[str, Any], recipe: Mapping[str, Any], name: str, network: bool) -> ModelCardData:
    corpus = "user-provided candidate lists" if "lists" in metrics else _corpus_name(recipe)
    sections = {
        "linking": metrics.get("linking", {}).get("reranker", {}),
        "pair": metrics.get("pair", {}),
        "calibration": metrics.get("calibration", {}),
    }
    results = []
    for section, figures in sections.items():
        task, title, indexed = INDEXED[section]
        for key in indexed:
            if is_there(figures.get(key, {}).get("value")):
                result = EvalResult(
                    task_type=task,
                    task_name=title,
                    dataset_type=re.sub(r"\W+", "-", corpus.lower()).strip("-"),
                    dataset_name=corpus,
                    dataset_split=metrics.get("split", "test"),
                    metric_type=key,
                    metric_name=figure_name(key),
                    metric_value=round(figures[key]["value"], 4),
                )
                results.append(result)
    return ModelCardData(
        language="en",
        license="other",
        license_name="licenses-of-the-sources",
        base_model=recipe["model"] if network and _is_hub_id(recipe["model"]) else None,
        library_name="transformers" if network else "umls_reranker",
        pipeline_tag="text-ranking",
        tags=["umls", "entity-linking", "reranker", *(["cross-encoder"] if network else []), "biomedical"],
        model_name=name,
        eval_results=results or None,
    )


def _example(names: Sequence[str], ranges: Mapping[str, Mapping[str, float]]) -> str:
    """Two candidates with scores as calibration saw them, as code."""
    candidates: list[dict[str, Any]] = [
        {"cui": "C0011882", "name": "diabetic neuropathy"},
        {"cui": "C0031117", "name": "Peripheral neuropathy"},
    ]
    for name in names:
        if name in ranges:
            low, high = ranges[name]["low"], ranges[name]["high"]
            for candidate, score in zip(candidates, (high, (low + high) / 2), strict=True):
                candidate[f"{name}_score"] = float(f"{score:.3g}")
    items = [json.dumps(candidate, ensure_ascii=False) for candidate in candidates]
    line = f"[{', '.join(items)}]"
    return line if len(line) < LINE else "[\n" + "".join(f"    {item},\n" for item in items) + "]"


def _system(key: str) -> str:
    return f"**{figure_name(key)}**" if key == "reranker" else figure_name(key)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(header, rows) if rows else "Not measured."


def _systems_table(systems: Mapping[str, Mapping[str, Any]], title: str = "{}") -> str:
    figures = dict.fromkeys(key for part in systems.values() for key in part if key != "in_dictionary")
    header = ["system", *(title.format(figure_name(key)) for key in figures)]
    return _table(
        header, [[_system(name), *(with_interval(part.get(key)) for key in figures)] for name, part in systems.items()]
    )


def _figures_table(sections: Sequence[Mapping[str, Any]], digits: int = 3, over: str = "–") -> str:
    rows = []
    for section in sections:
        for key, figure in section.items():
            population = figure.get("population") or ("top candidates" if "top1" in key else over)
            rows.append([figure_name(key), with_interval(figure, digits), population])
    return _table(["metric", "value", "over"], rows)


def _certificates_table(certificates: Mapping[str, Any]) -> str:
    rows = []
    for name, certificate in certificates.items():
        certified = certificate if certificate and certificate["threshold"] is not None else {}
        figures = percent(certified.get("share")), percent(certified.get("precision"))
        rows.append((inputs_label(name, certificates), "yes" if certified else "no", *figures))
    return _table(["inputs", "certified", "coverage", "precision"], rows)


def _candidates(metrics: Mapping[str, Any]) -> str:
    return f"{metrics['candidates']:,} candidates" if "candidates" in metrics else "–"


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
    return (
        f"[{model}](https://huggingface.co/{model})"
        if _is_hub_id(model)
        else f"`{_file_name(model).replace('`', '')}`"
    )


def _file_name(locator: str) -> str:
    """The last part of a path or URL: paths on someone's disk are private."""
    return Path(urlsplit(locator).path).name or locator


def _known(locator: str) -> Source | None:
    return next((source for part, source in KNOWN_SOURCES.items() if part in locator.lower()), None)


def _corpus_name(recipe: Mapping[str, Any]) -> str:
    """Source of the mentions."""
    if recipe.get("candidate_lists"):
        return f"candidate lists {_file_name(recipe['candidate_lists'])}"
    if recipe["mention_source"] == "held_out_synonyms":
        return f"held-out synonyms of {_ontology(recipe).name}"
    return _joined(recipe.get("corpus") or "corpus").name


def _ontology(recipe: Mapping[str, Any]) -> Source:
    if recipe["concept_source"] == "rrf":
        return Source("UMLS Metathesaurus", UMLS_LICENSE)
    return _joined(recipe.get("obo") or "ontology")


def _joined(locators: str | Sequence[str]) -> Source:
    """Names and licenses of the files at one or several locators."""
    locators = [locators] if isinstance(locators, str) else locators
    sources = [_known(locator) or Source(_file_name(locator), OWN_LICENSE) for locator in locators]
    names, terms = (dict.fromkeys(texts) for texts in zip(*sources, strict=True))
    return Source(" and ".join(names), ", ".join(terms))


def _concept_sources(recipe: Mapping[str, Any], dictionary: Mapping[str, Any]) -> list[Source]:
    ontology = _ontology(recipe)
    if recipe["concept_source"] == "rrf":
        if recipe.get("candidate_lists") and not recipe["umls_dir"]:
            return [Source("those of the candidate lists", OWN_LICENSE)]
        release = (dictionary.get("release") or {}).get("name")
        name = f"{ontology.name} {_as_text(release)}" if release else ontology.name
        if recipe.get("sources"):
            name += f", names from {', '.join(map(_as_text, recipe['sources']))} only"
        return [Source(name, ontology.terms)]
    sources = []
    for vocabulary in dictionary.get("vocabularies") or ():
        name, terms = _known(vocabulary["file"]) or (_as_text(vocabulary["id"] or vocabulary["file"]), "")
        version = f", version {_as_text(vocabulary['version'])}" if vocabulary["version"] else ""
        stated = _as_text(vocabulary["license"]) if vocabulary["license"] else ""
        sources.append(Source(f"{name}{version}", ", ".join(filter(None, [terms, stated])) or OWN_LICENSE))
    return sources or [Source(_as_text(ontology.name), ontology.terms)]


def _source_rows(
    recipe: Mapping[str, Any], dictionary: Mapping[str, Any], is_plain: bool, network: bool
) -> list[tuple[str, str]]:
    """Source and license of concepts, mentions and base model, or of the lists where there is no network.

    Args:
        recipe: the flat recipe.
        dictionary: ``release`` or ``vocabularies`` of the concepts, if known (`sources.describe_dictionary`).
        is_plain: whether the recipe's concepts and mentions were not used: no training, or training elsewhere.
        network: whether the model has a network.
    """
    rows = []
    # The counts of a model without a network may come from a training.
    if not is_plain and (network or any(map(recipe.get, ("corpus", "candidate_lists", "umls_dir", "obo")))):
        rows += [(f"concepts: {name}", terms) for name, terms in _concept_sources(recipe, dictionary)]
        if recipe["mention_source"] == "corpus":
            terms = _joined(recipe.get("corpus") or "corpus").terms
            rows.append((f"mentions: {_as_text(_corpus_name(recipe))}", terms))
    if not network:
        return [*rows, ("candidate lists used for calibration", "set by their publishers")]
    base = _known(recipe["model"])
    rows.append((f"base model: {_linked_model(recipe['model'])}", base.terms if base else OWN_LICENSE))
    return rows
