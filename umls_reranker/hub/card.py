"""The model card: figures, settings and identifiers, but no names from a licensed vocabulary.

It is written from the files of a model folder. On the Hub, each version replaces the part between
the marks, and what people wrote around it stays.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from ..calibration.list_source import ListSource
from ..core.json_files import read_json
from ..evaluation.formatting import percent
from ..evaluation.metrics import read_metrics
from ..evaluation.render import rendered
from ..evaluation.tables import COMPARISON, TIERS, as_markdown, report_tables
from ..models.arguments import BUILT_IN, BUILT_IN_FOLDERS, ENCODER
from ..models.pair_template import PairTemplate
from .card_facts import PLACEHOLDER_FOLDER, CardFacts
from .card_markdown import linked_model, plain_markdown, sentence
from .card_metadata import card_metadata
from .card_sources import (
    OWN_LICENSE,
    licensed_source,
)
from .card_tables import CARD_TABLES
from .file_names import (
    CALIBRATOR,
    MANIFEST,
    METRICS_FILE,
    RECIPE,
    RELIABILITY,
    RISK_COVERAGE,
    THRESHOLDS,
)
from .former_card import BEGIN, END

# Tables that are not folded: a page of all is long.
OPEN_TABLES = (COMPARISON, TIERS)
# Of the two candidates of the loading example: of a model without an example of its own, and of
# others, in place of names, which may be licensed.
UMLS_IDS = ("C0011882", "C0031117")
UMLS_NAMES = ("diabetic neuropathy", "Peripheral neuropathy")
NAMES = ("a name of this concept", "a name of another")


class Card(CardFacts):
    """A model card; `text` is its content."""

    def text(self) -> str:
        """The content of ``README.md``: YAML metadata with ``model-index``, then Markdown."""
        template = self.info["template"] and PairTemplate.from_dict(self.info["template"])
        texts = CARD_TABLES["example"]
        pair = template and [*template.pair_text(**texts).values()]
        example = self.example or {name: texts[name] for name in ("mention", "types")}
        ids = example.get("ids", UMLS_IDS)
        body = rendered(
            "model_card.md",
            card=self,
            has_cuis=all(re.fullmatch(r"C\d{7}", name) for name in ids),
            example={**example, "ids": ids},
            names_of_example=NAMES if self.example else UMLS_NAMES,
            begin=BEGIN,
            end=END,
            template=template,
            example_pair=pair and json.dumps(pair)[1:-1],
            tables={table.title: as_markdown(table) for table in report_tables(self.metrics)},
            open_tables=OPEN_TABLES,
            plain_markdown=plain_markdown,
            median=median,
            linked_model=linked_model,
            licensed_source=licensed_source,
            own_license=OWN_LICENSE,
            percent=percent,
            sentence=sentence,
        )
        body = re.sub(r"\n{3,}", "\n\n", body).strip()
        return f"---\n{card_metadata(self).to_yaml()}\n---\n\n{body}\n"


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
        example=calibrator.get("fitted_on", {}).get("example"),
        repo_id=repo_id,
        tag=tag,
        plots=[name for name in (RELIABILITY, RISK_COVERAGE) if (evaluated / name).is_file()],
        is_encoder=read_json(folder / "config.json").get("architectures") == ENCODER,
        own_name=names.get(folder.resolve(), PLACEHOLDER_FOLDER),
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
