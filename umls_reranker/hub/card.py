"""The model card: figures, settings and identifiers, but no names from a licensed vocabulary.

It is written from the files of a model folder. On the Hub, each version replaces the part between
the marks, and what people wrote around it stays.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml
from huggingface_hub import (
    EvalResult,
    EvalResultEntry,
    ModelCard,
    ModelCardData,
    eval_result_entries_to_yaml,
)
from huggingface_hub.utils import yaml_dump

from ..calibration.list_source import ListSource
from ..core.errors import UserError
from ..core.json_files import read_json
from ..evaluation.formatting import is_there, percent
from ..evaluation.metrics import read_metrics
from ..evaluation.render import TEMPLATES, rendered
from ..evaluation.tables import COMPARISON, TIERS, as_markdown, report_tables, title_of
from ..models.arguments import BUILT_IN, BUILT_IN_FOLDERS, ENCODER
from ..models.hub_calls import HUB_DATASET
from ..models.pair_template import PairTemplate
from .file_names import (
    CALIBRATOR,
    CARD,
    MANIFEST,
    METRICS_FILE,
    RECIPE,
    RELIABILITY,
    RISK_COVERAGE,
    THRESHOLDS,
)
from .model_download import REPO_ID

EVAL_RESULTS = ".eval_results/umls_reranker.yaml"
# Of tags, languages (LAT of MRCONSO, as the Hub writes them), figures in the metadata (with task
# and title), sources by a part of their locator, and a pair with all that a template may show.
TABLES = read_json(TEMPLATES / "model_card.json")
# Tables that are not folded: a page of all is long.
OPEN_TABLES = (COMPARISON, TIERS)
# The part of a card that each version writes anew, and the keys of its metadata.
BEGIN = "<!-- umls-reranker:begin (each version replaces the text from here to the end mark) -->"
END = "<!-- umls-reranker:end -->"
OWN_METADATA = (
    "base_model",
    "library_name",
    "pipeline_tag",
    "metrics",
    "model_name",
    "model-index",
)


class LicensedSource(NamedTuple):
    """What something was made from, and its license in words."""

    name: str
    terms: str


OWN_LICENSE = "set by its publisher"
# In the loading example, the folder of a model that is not published.
A_FOLDER = "path/to/model"


class OfficialDataset(NamedTuple):
    """A release of a corpus on the Hub, whose results can be compared.

    Attributes:
        id: its id on the Hub.
        variant: begin of the ids of its tasks.
        test_documents: name of the file that lists the documents of its test split.
    """

    id: str
    variant: str
    test_documents: str


MEDMENTIONS = "bigbio/medmentions"
MEDMENTIONS_FOLDER = re.compile(r"(^|/)medmentions[^/]*/", re.IGNORECASE)
MEDMENTIONS_TEST = "corpus_pubtator_pmids_test.txt"
# Mentions of a full release, which `prepare_data` has counted -> the release.
OFFICIAL_DATASETS = {
    352_496: OfficialDataset(MEDMENTIONS, "full", MEDMENTIONS_TEST),
    203_282: OfficialDataset(MEDMENTIONS, "st21pv", MEDMENTIONS_TEST),
}


@dataclass(kw_only=True)
class Card:
    """What a card is written from; `text` is the card.

    Attributes:
        metrics: content of ``metrics.json``.
        recipe: content of ``recipe.yaml``; for a model that was made of lists, some keys only.
        info: content of ``reranker.json``, with the base model that `with_known_base` gives.
        thresholds: content of ``thresholds.json``.
        score_ranges: name of a score -> its lowest and highest value in calibration.
        source: the lists that get tiers, in words.
        ids: two ids of concepts, for the loading example; none: those of the UMLS.
        repo_id: Hub repo, for the loading example; None: it is not published.
        tag: version that the example pins.
        plots: SVG files next to the card.
        is_encoder: whether its network is an encoder instead of a cross-encoder.
        own_name: name of a model in the package; else a placeholder for the folder.
        is_from_built_in: whether it was trained from `BUILT_IN`.
    """

    metrics: Mapping[str, Any]
    recipe: Mapping[str, Any]
    info: Mapping[str, Any]
    thresholds: Mapping[str, Any]
    score_ranges: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    source: str = ""
    ids: Sequence[str] = ()
    repo_id: str | None = None
    tag: str | None = None
    plots: Sequence[str] = ()
    is_encoder: bool = False
    own_name: str = A_FOLDER
    is_from_built_in: bool = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.repo_id.split("/")[-1] if self.repo_id else self.recipe["run_name"]

    @property
    def corpus(self) -> str:
        """Name of the source of the mentions."""
        recipe = self.recipe
        if recipe.get("mention_source") == "held_out_synonyms":
            terms = source_of(recipe.get("obo") or recipe.get("names") or "UMLS Metathesaurus")
            return f"held-out synonyms of {terms.name}"
        return source_of(recipe.get("corpus") or "corpus").name

    @property
    def official_dataset(self) -> OfficialDataset | None:
        """The dataset on the Hub whose official test split the figures were measured on.

        None: it was another split, not all of it, or user-provided lists.
        """
        recipe = self.recipe
        official = OFFICIAL_DATASETS.get(recipe.get("expected_mentions") or 0)
        if official is None or official.id not in _datasets(recipe):
            return None
        documents = _file_name(recipe.get("test_documents") or "")
        is_of_test = self.metrics["split"] == "test" and "lists" not in self.metrics
        return official if is_of_test and documents == official.test_documents else None

    @property
    def locator(self) -> str:
        """What `from_pretrained` of the loading example gets."""
        return self.repo_id or self.own_name

    @property
    def results(self) -> list[EvalResult]:
        """The figures of the metadata that were measured."""
        corpus = "user-provided candidate lists" if "lists" in self.metrics else self.corpus
        official = self.official_dataset
        dataset = official.id if official else _slug(corpus)
        figures = self.metrics["figures"]
        results = []
        for key, (task_type, task_name) in TABLES["figures"].items():
            value = figures.get(key, {}).get("value")
            if not is_there(value):
                continue
            # Pairs are those of training.
            split = "dev" if key in ("f1", "roc_auc") else self.metrics["split"]
            results.append(
                EvalResult(
                    task_type=task_type,
                    task_name=task_name,
                    dataset_type=dataset,
                    dataset_name=corpus,
                    dataset_split=split,
                    metric_type=key,
                    metric_name=title_of(key),
                    metric_value=round(value, 4),
                )
            )
        return results

    @property
    def tags(self) -> list[str]:
        """What people search for, and the vocabularies of the dictionary."""
        dictionary = self.info["dictionary"] or {}
        names = [vocabulary["id"] for vocabulary in dictionary.get("vocabularies") or ()]
        if dictionary.get("release"):
            names += [self.recipe.get("identifiers") or "", *(self.recipe.get("sources") or ())]
        tags = [*TABLES["tags"]]
        if self.info["base_model"] and not self.is_encoder:
            tags += TABLES["cross_encoder_tags"]
        # An ontology's id may be a URL.
        words = [name.lower() for name in names if re.fullmatch(r"[\w-]+", name)]
        tags += [TABLES["vocabulary_tags"].get(word, word) for word in words]
        return [*dict.fromkeys(tags)]

    @property
    def thresholds_of_types(self) -> list[float]:
        """The scores from which on the model of all inputs accepts, one of each type or group."""
        tables = self.thresholds["models"]
        if not tables:
            return []
        return [row["accept"] for row in tables[0]["types"].values()]

    @property
    def metadata(self) -> ModelCardData:
        """The metadata, with `results`."""
        base_model = self.info["base_model"]
        linked_base_model = base_model if base_model and _is_hub_id(base_model) else None
        library = "transformers" if base_model else "umls_reranker"
        languages = [
            TABLES["languages"].get(code, code) for code in self.recipe.get("languages") or ()
        ]
        license_link = None
        if self.repo_id:
            license_link = f"https://huggingface.co/{self.repo_id}#licenses-of-the-sources"
        return ModelCardData(
            language=languages or None,
            license="other",
            license_name="licenses-of-the-sources",
            license_link=license_link,
            datasets=_datasets(self.recipe) or None,
            metrics=[result.metric_type for result in self.results] or None,
            base_model=linked_base_model,
            library_name=library,
            pipeline_tag="text-ranking",
            tags=self.tags,
            model_name=self.name,
            eval_results=self.results or None,
        )

    def eval_results(self) -> str | None:
        """The content of `EVAL_RESULTS`; None if the figures are not of an `official_dataset`.

        Source of the format: https://huggingface.co/docs/hub/eval-results
        """
        official = self.official_dataset
        if official is None:
            return None
        notes = f"{self.metrics['split']} split, {self.metrics['mentions']:,} mentions"
        entries = [
            EvalResultEntry(
                dataset_id=result.dataset_type,
                task_id=f"{official.variant}-{_slug(result.metric_type)}",
                value=result.metric_value,
                source_url=self.repo_id and f"https://huggingface.co/{self.repo_id}",
                source_name=self.repo_id and "Model card",
                notes=f"{result.metric_name}, {notes}",
            )
            for result in self.results
            if result.dataset_split == self.metrics["split"]
        ]
        return yaml_dump(eval_result_entries_to_yaml(entries), sort_keys=False)

    def text(self) -> str:
        """The content of ``README.md``: YAML metadata with ``model-index``, then Markdown."""
        template = self.info["template"] and PairTemplate.from_dict(self.info["template"])
        pair = template and [*template.pair_text(**TABLES["example"]).values()]
        body = rendered(
            "model_card.md",
            card=self,
            has_cuis=all(re.fullmatch(r"C\d{7}", name) for name in self.ids),
            begin=BEGIN,
            end=END,
            template=template,
            example_pair=pair and json.dumps(pair)[1:-1],
            tables={table.title: as_markdown(table) for table in report_tables(self.metrics)},
            open_tables=OPEN_TABLES,
            as_text=as_text,
            median=median,
            linked_model=linked_model,
            source_of=source_of,
            own_license=OWN_LICENSE,
            percent=percent,
            sentence=sentence,
        )
        body = re.sub(r"\n{3,}", "\n\n", body).strip()
        return f"---\n{self.metadata.to_yaml()}\n---\n\n{body}\n"


def folder_card(
    folder: Path, repo_id: str | None = None, tag: str | None = None, evaluated: Path | None = None
) -> Card:
    """The card of a model folder, from its own files.

    Args:
        folder: the model folder.
        repo_id: as for `Card`.
        tag: as for `Card`.
        evaluated: folder with evaluation files that `folder` does not hold yet.
    """
    evaluated = evaluated or folder
    names = {path: name for name, path in BUILT_IN_FOLDERS.items()}
    info = read_json(folder / MANIFEST)
    calibrator = read_json(folder / CALIBRATOR)
    return Card(
        metrics=read_metrics(evaluated / METRICS_FILE),
        recipe=yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")),
        info=with_known_base(info),
        thresholds=read_json(folder / THRESHOLDS),
        score_ranges=calibrator.get("score_ranges") or {},
        source=ListSource.from_dict(calibrator).in_words,
        ids=calibrator.get("fitted_on", {}).get("ids") or (),
        repo_id=repo_id,
        tag=tag,
        plots=[name for name in (RELIABILITY, RISK_COVERAGE) if (evaluated / name).is_file()],
        is_encoder=read_json(folder / "config.json").get("architectures") == ENCODER,
        own_name=names.get(folder.resolve(), A_FOLDER),
        is_from_built_in=info["base_model"] == BUILT_IN,
    )


def with_known_base(info: Mapping[str, Any]) -> dict[str, Any]:
    """The content of ``reranker.json``, with a base model that the Hub knows.

    In place of `BUILT_IN` that is the one which the encoder of this package was made from.
    """
    if info["base_model"] != BUILT_IN:
        return dict(info)
    built_in = read_json(BUILT_IN_FOLDERS[BUILT_IN] / MANIFEST)
    base = {name: built_in[name] for name in ("base_model", "base_revision")}
    return {**info, **base}


def with_former(card: str, former: str) -> str:
    """A card with what people wrote into the former version's: text around ours, and metadata.

    Raises:
        UserError: the former card's metadata cannot be read.
    """
    new = ModelCard(card)
    try:
        old = ModelCard(former, ignore_metadata_errors=True)
    except (ValueError, yaml.YAMLError):
        raise UserError(
            f"{CARD} on the Hub begins with metadata that are not a YAML mapping; edit it there"
        ) from None
    theirs = {key: value for key, value in old.data.to_dict().items() if key not in OWN_METADATA}
    ours = new.data.to_dict()
    # The order stays, so our cards do not change.
    data = ours | theirs
    for key in ("tags", "datasets"):
        if values := [*_locators(ours.get(key)), *_locators(theirs.get(key))]:
            data[key] = [*dict.fromkeys(values)]
    if "license" in theirs:
        # A license, its name and its link belong together.
        for key in {"license_name", "license_link"} - theirs.keys():
            data.pop(key, None)
    before, _, rest = old.text.partition(BEGIN)
    after = rest.partition(END)[2]
    texts = [text.strip() for text in (before, new.text, after) if text.strip()]
    return "\n\n".join([f"---\n{yaml_dump(data, sort_keys=False)}---", *texts]) + "\n"


def _datasets(recipe: Mapping[str, Any]) -> list[str]:
    """Ids on the Hub of the corpora, as far as they are known."""
    ids = []
    for locator in _locators(recipe.get("corpus")):
        if match := HUB_DATASET.match(locator):
            ids.append(match["repo"])
        elif MEDMENTIONS_FOLDER.search(locator):
            ids.append(MEDMENTIONS)
    return [*dict.fromkeys(ids)]


def _slug(text: str) -> str:
    """Words as an id: in lower case, with dashes."""
    return re.sub(r"\W+", "-", text.lower()).strip("-")


def _locators(value: str | Iterable[str] | None) -> list[str]:
    """One or several texts as a list."""
    return [value] if isinstance(value, str) else [*(value or ())]


def as_text(text: str) -> str:
    """Text from data as one line of plain Markdown: no heading, HTML, link or table cell."""
    words = re.sub(r"[^\S\u00a0]+", " ", str(text)).strip()
    line = "".join(
        character for character in words if character.isprintable() or character == "\u00a0"
    )
    if re.fullmatch(r"[\w ,:;.()/+%\u00a0–-]*", line, re.ASCII) and not re.search(
        r"\b_|_\b|://|www\.", line
    ):
        return line
    # In code, Markdown interprets only the closing backtick and, in tables, the bar of a cell.
    return "`" + line.replace("`", "'").replace("|", "\\|") + "`"


def sentence(text: str) -> str:
    """Words as a sentence."""
    return f"{text[:1].upper()}{text[1:]}."


def _is_hub_id(model: str) -> bool:
    """Whether a base model is a Hub id, not a folder."""
    return re.fullmatch(REPO_ID, model) is not None and not Path(model).is_dir()


def linked_model(model: str) -> str:
    """A base model as Markdown: a link to the Hub, or the folder's name."""
    name = _file_name(model).replace("`", "")
    return f"[{model}](https://huggingface.co/{model})" if _is_hub_id(model) else f"`{name}`"


def _file_name(locator: str) -> str:
    """The last part of a path or URL: paths on someone's disk are private."""
    return Path(urlsplit(locator).path).name or locator


def source_of(locators: str | Iterable[str]) -> LicensedSource:
    """Names and licenses of what is at one or several locators."""
    sources = [_source_at(locator) for locator in _locators(locators)]
    return LicensedSource(
        " and ".join(dict.fromkeys(source.name for source in sources)),
        ", ".join(dict.fromkeys(source.terms for source in sources)),
    )


def _source_at(locator: str) -> LicensedSource:
    """Name and license of what is at a locator; of one that is not known, the file's name."""
    for part, name_and_terms in TABLES["sources"].items():
        if part in locator.lower():
            return LicensedSource(*name_and_terms)
    return LicensedSource(_file_name(locator), OWN_LICENSE)
