"""Compare two versions of a model on the same mentions: is the new one worse?

Differences are taken mention by mention, and documents are resampled as a whole. This finds differences that the
separate intervals of the two versions would hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ..calibration.resampling import document_index, document_sums, jackknife_sums, ratio
from ..core.errors import UserError
from .checklist import markdown_table
from .outcomes import Outcomes, right_answer_sums, sums_to_f1

__all__ = ["compare"]

BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
# Two versions must share a minimum part of each one's mentions, because a few common mentions prove nothing, and a
# minimum number of documents, below which the interval does not keep its confidence.
SMALLEST_OVERLAP = 0.5
FEWEST_DOCUMENTS = 20


@dataclass(frozen=True)
class Difference:
    """One figure of both versions.

    Attributes:
        name: the figure.
        former, present: its values.
        low, high: interval of present minus former.
        verdict: ``worse`` or ``better`` if the interval lies entirely on that side of 0.
    """

    name: str
    former: float
    present: float
    low: float
    high: float
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """All differences, over the mentions that both versions answered.

    Attributes:
        mentions, documents: compared. only_former, only_present: mentions that only one version has, or whose gold
            concepts differ.
        gained, lost: mentions that only the present, or only the former, version ranked correctly.
        mcnemar_p: two-sided exact McNemar test of these counts. It treats mentions as independent, which mentions of
            one document are not, so `differences` decide.
        differences: of the deciding figures. confidence: of their intervals together.
    """

    mentions: int
    documents: int
    only_former: int
    only_present: int
    gained: int
    lost: int
    mcnemar_p: float
    differences: tuple[Difference, ...]
    confidence: float

    @property
    def worse(self) -> list[Difference]:
        """The figures that got worse."""
        return [difference for difference in self.differences if difference.verdict == WORSE]

    def to_dict(self) -> dict[str, Any]:
        """JSON numbers, texts and lists only."""
        return asdict(self)

    def table(self) -> str:
        """A Markdown table of the differences, with the changes at rank 1 below it."""
        header = ("figure", "former", "present", f"{self.confidence:.0%} interval of the difference", "verdict")
        rows = [
            (d.name, f"{d.former:.4f}", f"{d.present:.4f}", f"{d.low:+.4f} .. {d.high:+.4f}", d.verdict)
            for d in self.differences
        ]
        changed = f"right at rank 1 only now: {self.gained:,}, only before: {self.lost:,}; exact McNemar test p = "
        return f"{markdown_table(header, rows)}\n{changed}{self.mcnemar_p:.2g}"

    def sentence(self) -> str:
        """The verdict in one sentence."""
        over = f"on the same {self.mentions:,} mentions of {self.documents:,} documents"
        if not self.worse:
            better = [difference.name for difference in self.differences if difference.verdict == BETTER]
            return f"not shown to be worse {over}" + (f"; better in {' and '.join(better)}" if better else "")
        parts = [
            f"{d.name} {d.former:.4f} -> {d.present:.4f} (difference {d.low:+.4f} .. {d.high:+.4f})"
            for d in self.worse
        ]
        return f"worse {over}: {', '.join(parts)}"


def compare(present: Outcomes, former: Outcomes, *, confidence: float = 0.95) -> Comparison:
    """Compare two versions over their common mentions, found by document, offsets and gold concept.

    Three figures that matter to a service decide: ``acc@1``; ``right_answers_f1``, the end-to-end figure with
    abstention (`answering`); and ``brier_of_top``, the mean squared error of the top scores, which rises with a worse
    order or calibration. The three share the error probability (Bonferroni), so an equally good version is called
    worse with probability ``1 - confidence`` at most. Intervals come from the jackknife by document
    (`jackknife_sums`).

    Raises:
        UserError: the common mentions are less than `SMALLEST_OVERLAP` of one version's, or of fewer than
            `FEWEST_DOCUMENTS` documents.
    """
    rows, former_rows = _common(present, former)
    if len(rows) < SMALLEST_OVERLAP * max(len(present), len(former), 1):
        raise UserError(
            f"the two versions share {len(rows):,} mentions ({len(rows) / max(len(present), 1):.0%} of the one "
            f"version's {len(present):,}, {len(rows) / max(len(former), 1):.0%} of the other's {len(former):,}); at "
            f"least {SMALLEST_OVERLAP:.0%} of both are needed; evaluate both on the same test split"
        )
    ours, theirs = present.select(rows), former.select(former_rows)
    index, documents = document_index(ours.document)
    if documents < FEWEST_DOCUMENTS:
        raise UserError(
            f"the two versions share {documents} documents; at least {FEWEST_DOCUMENTS} are needed; evaluate both on "
            "a larger test split"
        )
    right, former_right = ours.correct, theirs.correct
    gained, lost = int((right & ~former_right).sum()), int((former_right & ~right).sum())
    figures: dict[str, tuple[list[np.ndarray], Callable, int]] = {
        "acc@1": ([right, np.ones(len(ours)), former_right, np.ones(len(ours))], ratio, 1),
        "right_answers_f1": ([*right_answer_sums(ours), *right_answer_sums(theirs)], sums_to_f1, 1),
        "brier_of_top": ([_errors(ours), np.ones(len(ours)), _errors(theirs), np.ones(len(ours))], ratio, -1),
    }
    differences = []
    for name, (columns, statistic, sign) in figures.items():
        sums, half = document_sums(index, documents, columns), len(columns) // 2

        def difference(drawn: np.ndarray, statistic: Callable = statistic, half: int = half) -> np.ndarray:
            return statistic(drawn[..., :half]) - statistic(drawn[..., half:])

        level = 1.0 - (1.0 - confidence) / len(figures)
        low, high = jackknife_sums(sums, difference, confidence=level)
        worst, best = sorted((sign * low, sign * high))
        verdict = BETTER if worst > 0 else WORSE if best < 0 else NO_DIFFERENCE
        whole = sums.sum(axis=0)
        was, now = (float(statistic(whole[part])) for part in (slice(half, None), slice(half)))
        differences.append(Difference(name, was, now, low, high, verdict))
    return Comparison(
        mentions=len(ours),
        documents=documents,
        only_former=len(former) - len(rows),
        only_present=len(present) - len(rows),
        gained=gained,
        lost=lost,
        mcnemar_p=_mcnemar(gained, lost),
        differences=tuple(differences),
        confidence=confidence,
    )


def _keys(outcomes: Outcomes) -> Iterable[tuple]:
    """One key a mention; the second mention of the same place gets a number."""
    seen: dict[tuple, int] = {}
    columns = (outcomes.document, outcomes.start, outcomes.end, outcomes.gold)
    for key in zip(*(column.tolist() for column in columns), strict=True):
        seen[key] = seen.get(key, -1) + 1
        yield (*key, seen[key])


def _common(present: Outcomes, former: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    places = {key: row for row, key in enumerate(_keys(former))}
    pairs = [(row, places[key]) for row, key in enumerate(_keys(present)) if key in places]
    rows = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _errors(outcomes: Outcomes) -> np.ndarray:
    return (np.nan_to_num(outcomes.score) - outcomes.correct) ** 2


def _mcnemar(gained: int, lost: int) -> float:
    changed = gained + lost
    return float(binomtest(gained, changed).pvalue) if changed else 1.0
