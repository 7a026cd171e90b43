"""The report of mining: pairs, drops per guard, missing pairs, cosines, examples; as JSON and as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from rich.markup import escape
from rich.table import Table

from .guards import GUARDS

if TYPE_CHECKING:
    from ..models.bi_encoder import BiEncoder

__all__ = ["SOURCES", "MiningReport", "mining_examples", "mining_table"]

SOURCES = ("positive", "semantic", "type", "random")
POSITIVE, SEMANTIC, TYPE, RANDOM = range(len(SOURCES))
EXAMPLES = 3
# Number of mentions whose random and same-type negatives are encoded for their cosines.
SAMPLE = 256
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
BINS = 20


class MiningReport:
    """Counts while pairs are mined.

    Args:
        mentions: number of mentions that will be mined.
    """

    def __init__(self, mentions: int) -> None:
        self._dropped = np.zeros((len(GUARDS), len(SOURCES)), np.int64)
        self._pairs = np.zeros(len(SOURCES), np.int64)
        self._histogram = np.zeros((len(SOURCES), BINS), np.int64)
        self._semantic_cosines = [np.empty(0, np.float32)]
        self._named_as_mention = 0
        # Evenly over the split, whatever the chunks.
        self._sample = np.unique(np.linspace(0, max(mentions - 1, 0), SAMPLE).astype(np.int64))
        self._sampled: list[dict[str, Any]] = []

    def count_drops(self, source: int, reasons: np.ndarray) -> None:
        """Count concepts that guards dropped.

        Args:
            source: kind of negative.
            reasons: indices into `GUARDS`; -1 for a concept that was not dropped.
        """
        self._dropped[:, source] += np.bincount(reasons[reasons >= 0], minlength=len(GUARDS))

    def count_pairs(
        self, pairs: dict[str, Any], mentions: np.ndarray, cosines: np.ndarray, gold_names: pa.ChunkedArray
    ) -> None:
        """Count pairs, in the order in which they are written.

        Args:
            pairs: columns, with ``mention``, ``name``, ``cui`` and ``source``.
            mentions: (n,) number of each pair's mention among those mined.
            cosines: (n,) of mention and name; NaN where they were not compared.
            gold_names: n names of the gold concepts.
        """
        source = pairs["source"]
        self._pairs += np.bincount(source, minlength=len(SOURCES))
        for number in range(len(SOURCES)):
            self._histogram[number] += _histogram(cosines[(source == number) & ~np.isnan(cosines)])
        self._semantic_cosines.append(cosines[source == SEMANTIC])
        same = pc.equal(pc.utf8_lower(pairs["mention"]), pc.utf8_lower(pairs["name"])).to_numpy()
        self._named_as_mention += int((same & (source == SEMANTIC)).sum())
        for row in np.flatnonzero(np.isin(mentions, self._sample)).tolist():
            entry: dict[str, Any] = {"mention": str(pairs["mention"][row]), "gold_name": str(gold_names[row])}
            entry |= {"name": str(pairs["name"][row]), "cui": str(pairs["cui"][row]), "cosine": float(cosines[row])}
            self._sampled.append(entry | {"source": int(source[row]), "number": int(mentions[row])})

    def to_dict(self, encoder: BiEncoder | None, *, wanted: dict[str, int], cosine_floor: float) -> dict[str, Any]:
        """The JSON-able report.

        Args:
            encoder: for the cosines of a sample of same-type and random negatives; None: no cosines.
            wanted: requested negatives by kind.
            cosine_floor: minimum cosine of a semantic negative.
        """
        if encoder is not None:
            self._encode_sample(encoder)
        pairs = dict(zip(SOURCES, self._pairs.tolist(), strict=True))
        cosines = np.concatenate(self._semantic_cosines)
        cosines = cosines[~np.isnan(cosines)]
        quantiles = np.quantile(cosines, QUANTILES).round(4).tolist() if len(cosines) else [None] * len(QUANTILES)
        replaced = wanted["type"] - pairs["type"]
        return {
            "pairs": pairs,
            "dropped": {
                guard: dict(zip(SOURCES[1:], counts[1:].tolist(), strict=True))
                for guard, counts in zip(GUARDS, self._dropped, strict=True)
            },
            "cosine_floor": cosine_floor,
            "semantic_below_floor": int((cosines < cosine_floor).sum()),
            "semantic_named_as_mention": self._named_as_mention,
            "semantic_missing": wanted["semantic"] - pairs["semantic"],
            "type_replaced_by_random": replaced,
            "random_missing": wanted["random"] + replaced - pairs["random"],
            "semantic_cosine": dict(zip(map(str, QUANTILES), quantiles, strict=True)),
            "cosine_histogram": {
                "edges": [number / BINS for number in range(BINS + 1)],
                **dict(zip(SOURCES, self._histogram.tolist(), strict=True)),
                "sampled_mentions": len({entry["number"] for entry in self._sampled}),
            },
            "examples": {name: self._examples(number) for number, name in enumerate(SOURCES)},
        }

    def _encode_sample(self, encoder: BiEncoder) -> None:
        """The cosines that mining itself did not need."""
        unknown = [entry for entry in self._sampled if np.isnan(entry["cosine"])]
        if not unknown:
            return
        cosines = np.einsum(
            "nd,nd->n", *(encoder.encode([entry[key] for entry in unknown]) for key in ("mention", "name"))
        )
        for entry, cosine in zip(unknown, cosines.tolist(), strict=True):
            entry["cosine"] = cosine
            self._histogram[entry["source"]] += _histogram(np.array([cosine]))

    def _examples(self, source: int) -> list[dict[str, Any]]:
        """The first pair of its kind of some mentions, evenly over the sample."""
        firsts = {entry["number"]: entry for entry in reversed(self._sampled) if entry["source"] == source}
        numbers = sorted(firsts)
        chosen = [numbers[len(numbers) * (2 * i + 1) // (2 * EXAMPLES)] for i in range(EXAMPLES)] if numbers else []
        keys = ("mention", "gold_name", "name", "cui")
        return [
            {key: firsts[n][key] for key in keys}
            | {"cosine": None if np.isnan(firsts[n]["cosine"]) else round(firsts[n]["cosine"], 4)}
            for n in dict.fromkeys(chosen)
        ]


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
        add("  left out, since the gold concept is not in the list", "gold_concept_not_in_list")
    add("  left out by max_train_mentions", "mentions_not_drawn")
    add("  gold concept not among the nearest", "gold_concept_not_retrieved")
    add("  searched deeper, since guards left too few", "searched_deeper")
    table.add_section()
    for source in SOURCES:
        add(f"{source} pairs", "pairs", source)
    add("  semantic below the cosine floor", "semantic_below_floor")
    add("  semantic named as the mention", "semantic_named_as_mention")
    add("  semantic missing", "semantic_missing")
    add("  same-type replaced by random", "type_replaced_by_random")
    add("  random missing", "random_missing")
    table.add_section()
    for guard in GUARDS:
        title = "chosen already" if guard == "chosen" else guard.replace("_", " ")
        for source in SOURCES[1:]:
            if any(_get(report, ("dropped", guard, source)) for report in reports.values()):
                add(f"dropped, {title}: {source}", "dropped", guard, source)
    return table


def mining_examples(report: dict[str, Any]) -> Table:
    """Examples of each kind, and the distribution of the semantic negatives' cosines."""
    quantiles = ((f"{float(share):.0%}", value) for share, value in report["semantic_cosine"].items())
    shown = ", ".join(f"{share} {value:.2f}" for share, value in quantiles if value is not None)
    table = Table(title="Examples", caption=shown and f"Quantiles of the semantic negatives' cosines: {shown}")
    table.title_justify = table.caption_justify = "left"
    for title in ("kind", "mention", "gold concept's name", "name of the pair", "CUI"):
        table.add_column(title)
    table.add_column("cosine", justify="right")
    for kind in SOURCES[1:]:
        for place, own in enumerate(report["examples"][kind]):
            names = own["mention"], own["gold_name"], own["name"], own["cui"]
            cosine = "" if own["cosine"] is None else f"{own['cosine']:.2f}"
            table.add_row("" if place else kind, *map(escape, names), cosine)
        table.add_section()
    return table


def _get(report: dict[str, Any], keys: Sequence[str]) -> int:
    for key in keys:
        report = report[key]
    return sum(report.values()) if isinstance(report, dict) else report


def _histogram(cosines: np.ndarray) -> np.ndarray:
    """Counts in `BINS` bins from 0 to 1; values outside count in the outermost bins."""
    return np.bincount((cosines * BINS).astype(np.int64).clip(0, BINS - 1), minlength=BINS)
