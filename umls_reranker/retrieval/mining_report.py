"""The report of mining: pairs, drops per filter, missing pairs, cosines, examples; as JSON and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from .false_negatives import FILTERS

if TYPE_CHECKING:
    from ..models.bi_encoder import BiEncoder

SOURCES = ("positive", "nearest", "type", "random")
POSITIVE, NEAREST, TYPE, RANDOM = range(len(SOURCES))
# Examples of each source, evenly spaced in a sample of the mentions.
EXAMPLES, SAMPLE = 3, 256
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass
class Example:
    """A pair of the report; `cosine` compares mention and name, NaN while it is unknown."""

    mention: str
    gold_name: str
    name: str
    cui: str
    cosine: float


class MiningReport:
    """Counts while pairs are mined.

    Args:
        mentions: number of mentions that will be mined.
    """

    def __init__(self, mentions: int) -> None:
        self._dropped = np.zeros((len(FILTERS), len(SOURCES)), np.int64)
        self._pairs = np.zeros(len(SOURCES), np.int64)
        self._nearest_cosines = [np.empty(0, np.float32)]
        self._named_as_mention = 0
        # Evenly spaced over the split, independent of the chunks.
        self._sample = np.unique(np.linspace(0, max(mentions - 1, 0), SAMPLE).astype(np.int64))
        # Of each source, mention -> its first pair.
        self._examples: list[dict[int, Example]] = [{} for _ in SOURCES]

    def count_drops(self, source: int, reasons: np.ndarray) -> None:
        """Count concepts that filters dropped.

        Args:
            source: number of the negative's source.
            reasons: numbers in `FILTERS`; -1 for a concept that was not dropped.
        """
        self._dropped[:, source] += np.bincount(reasons[reasons >= 0], minlength=len(FILTERS))

    def count_pairs(
        self, pairs: dict[str, Any], mentions: np.ndarray, cosines: np.ndarray, gold_names: pa.ChunkedArray
    ) -> None:
        """Count pairs, in the order in which they are written.

        Args:
            pairs: columns, with ``mention``, ``name``, ``cui`` and ``source``.
            mentions: (n,) number of each pair's mention among those mined, ascending.
            cosines: (n,) cosine of mention and name; NaN if they were not compared.
            gold_names: n names of the gold concepts.
        """
        source = pairs["source"]
        self._pairs += np.bincount(source, minlength=len(SOURCES))
        self._nearest_cosines.append(cosines[source == NEAREST])
        same = pc.equal(pc.utf8_lower(pairs["mention"]), pc.utf8_lower(pairs["name"])).to_numpy()
        self._named_as_mention += int((same & (source == NEAREST)).sum())
        for row in np.flatnonzero(np.isin(mentions, self._sample)).tolist():
            example = Example(
                mention=str(pairs["mention"][row]),
                gold_name=str(gold_names[row]),
                name=str(pairs["name"][row]),
                cui=str(pairs["cui"][row]),
                cosine=float(cosines[row]),
            )
            self._examples[source[row]].setdefault(int(mentions[row]), example)

    def to_dict(self, encoder: BiEncoder | None, *, requested: dict[str, int], cosine_floor: float) -> dict[str, Any]:
        """The report for JSON.

        Args:
            encoder: computes cosines of examples of same-type and random negatives; None: no cosines.
            requested: requested negatives by source.
            cosine_floor: cosine that a nearest negative should reach.
        """
        pairs = dict(zip(SOURCES, self._pairs.tolist(), strict=True))
        cosines = np.concatenate(self._nearest_cosines)
        cosines = cosines[~np.isnan(cosines)]
        quantiles = np.quantile(cosines, QUANTILES).round(4).tolist() if len(cosines) else [None] * len(QUANTILES)
        dropped = {}
        for name, counts in zip(FILTERS, self._dropped[:, 1:].tolist(), strict=True):
            dropped[name] = dict(zip(SOURCES[1:], counts, strict=True))
        replaced = requested["type"] - pairs["type"]
        return {
            "pairs": pairs,
            "dropped": dropped,
            "cosine_floor": cosine_floor,
            "nearest_below_floor": int((cosines < cosine_floor).sum()),
            "nearest_named_as_mention": self._named_as_mention,
            "nearest_missing": requested["nearest"] - pairs["nearest"],
            "type_replaced_by_random": replaced,
            "random_missing": requested["random"] + replaced - pairs["random"],
            "nearest_cosine": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
            "examples": self._chosen_examples(encoder),
        }

    def _chosen_examples(self, encoder: BiEncoder | None) -> dict[str, list[dict[str, Any]]]:
        """Examples of each source, with the cosines that mining itself did not need."""
        chosen = {}
        for source, examples in zip(SOURCES, self._examples, strict=True):
            mentions = sorted(examples)
            positions = {len(mentions) * (2 * i + 1) // (2 * EXAMPLES) for i in range(EXAMPLES)} if mentions else ()
            chosen[source] = [examples[mentions[position]] for position in sorted(positions)]
        unknown = [example for group in chosen.values() for example in group if np.isnan(example.cosine)]
        if encoder is not None and unknown:
            mention_vectors = encoder.encode([example.mention for example in unknown])
            name_vectors = encoder.encode([example.name for example in unknown])
            cosines = np.einsum("nd,nd->n", mention_vectors, name_vectors).tolist()
            for example, cosine in zip(unknown, cosines, strict=True):
                example.cosine = cosine
        return {source: [_rounded(example) for example in group] for source, group in chosen.items()}


def _rounded(example: Example) -> dict[str, Any]:
    return asdict(example) | {"cosine": None if np.isnan(example.cosine) else round(example.cosine, 4)}


def mining_table(reports: dict[str, dict[str, Any]]) -> Table:
    """The counts of each split's report, side by side."""
    table = Table(title="Pairs", title_justify="left")
    table.add_column("count")
    for split in reports:
        table.add_column(split, justify="right")

    def add(title: str, *keys: str) -> None:
        table.add_row(title, *(f"{_get(report, keys):,}" for report in reports.values()))

    add("mentions", "mentions")
    add("  gold concept not in the dictionary", "gold_concept_unknown")
    if any("gold_concept_not_in_list" in report for report in reports.values()):
        add("  left out: gold concept not in the list", "gold_concept_not_in_list")
    add("  left out by max_train_mentions", "mentions_not_drawn")
    add("  gold concept not among the nearest neighbors", "gold_concept_not_retrieved")
    add("  searched deeper, because the filters left too few", "searched_deeper")
    table.add_section()
    for source in SOURCES:
        add(f"{source} pairs", "pairs", source)
    add("  nearest-neighbor negatives below cosine_floor", "nearest_below_floor")
    add("  nearest-neighbor negatives with the mention's name", "nearest_named_as_mention")
    add("  nearest-neighbor negatives missing", "nearest_missing")
    add("  same-type negatives replaced by random ones", "type_replaced_by_random")
    add("  random negatives missing", "random_missing")
    table.add_section()
    for name in FILTERS:
        title = "already chosen" if name == "chosen" else name.replace("_", " ")
        for source in SOURCES[1:]:
            if any(_get(report, ("dropped", name, source)) for report in reports.values()):
                add(f"dropped, {title}: {source}", "dropped", name, source)
    return table


def mining_examples(report: dict[str, Any]) -> Table:
    """Examples of each source, and the distribution of the nearest negatives' cosines."""
    quantiles = [
        f"{float(share):.0%} {value:.2f}" for share, value in report["nearest_cosine"].items() if value is not None
    ]
    caption = f"Quantiles of the cosines of nearest-neighbor negatives: {', '.join(quantiles)}" if quantiles else None
    table = Table(title="Examples", caption=caption)
    table.title_justify = table.caption_justify = "left"
    for title in ("source", "mention", "gold concept's name", "name of the pair", "CUI"):
        table.add_column(title)
    table.add_column("cosine", justify="right")
    for source in SOURCES[1:]:
        for number, example in enumerate(report["examples"][source]):
            texts = (escape(example[key]) for key in ("mention", "gold_name", "name", "cui"))
            cosine = "" if example["cosine"] is None else f"{example['cosine']:.2f}"
            table.add_row("" if number else source, *texts, cosine)
        table.add_section()
    return table


def _get(report: dict[str, Any], keys: Sequence[str]) -> int:
    for key in keys:
        report = report[key]
    return sum(report.values()) if isinstance(report, dict) else report
