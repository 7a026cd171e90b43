"""Compare two versions of a model on the same mentions: is the new one worse, or as good within a margin?

Differences are taken mention by mention, and documents are resampled as a whole. This finds differences that the
separate intervals of the two versions would hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from ..calibration.resampling import document_index, document_sums, jackknife_sums, ratio
from ..core.arguments import USUAL_MARGIN
from ..core.errors import UserError
from .checklist import markdown_table
from .outcomes import Outcomes, right_answer_sums, sums_to_f1

__all__ = ["compare"]

BETTER, NOT_INFERIOR, CANNOT_TELL, WORSE = "better", "not inferior", "cannot tell", "worse"
# Two versions must share a minimum part of each one's mentions, because a few common mentions prove nothing, and a
# minimum number of documents, below which the interval does not keep its confidence.
SMALLEST_OVERLAP = 0.5
# Where calibrated answers are right with p = 0.75, their Brier score p (1 - p) moves by half of what accuracy does.
BRIER_PART = 0.5
FEWEST_DOCUMENTS = 20


@dataclass(frozen=True)
class Difference:
    """One figure of both versions.

    Attributes:
        name: the figure.
        former, present: its values.
        low, high: interval of present minus former. bad_end: the one on the worse side.
        margin: how much worse is as good.
        verdict: ``worse`` or ``better`` if the interval lies entirely on that side of 0; else ``not inferior`` if its
            bad end is within the margin, and ``cannot tell`` if not.
    """

    name: str
    former: float
    present: float
    low: float
    high: float
    bad_end: float
    margin: float
    verdict: str


@dataclass(frozen=True)
class Figure:
    """What is compared.

    Attributes:
        present, former: columns (n,) of both versions; `statistic` makes the figure of their sums (..., k).
        margin: how much worse is as good.
    """

    present: Sequence[np.ndarray]
    former: Sequence[np.ndarray]
    statistic: Callable[[np.ndarray], np.ndarray]
    margin: float
    higher_is_better: bool = True

    def difference(self, name: str, index: np.ndarray, documents: int, confidence: float) -> Difference:
        """Both values and the interval of their difference, from `document_index` of the n mentions."""
        sums, k = document_sums(index, documents, [*self.present, *self.former]), len(self.present)

        def difference(drawn: np.ndarray) -> np.ndarray:
            return self.statistic(drawn[..., :k]) - self.statistic(drawn[..., k:])

        low, high = jackknife_sums(sums, difference, confidence=confidence)
        total, sign = sums.sum(axis=0), 1 if self.higher_is_better else -1
        present = float(self.statistic(total[:k]))
        former = float(self.statistic(total[k:]))
        worst, best = sorted((sign * low, sign * high))
        if worst > 0:
            verdict = BETTER
        elif best < 0:
            verdict = WORSE
        else:
            verdict = NOT_INFERIOR if worst >= -self.margin else CANNOT_TELL
        return Difference(name, former, present, low, high, sign * worst, self.margin, verdict)


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

    @property
    def passes(self) -> bool:
        """Whether no figure is worse, and each is shown to be as good within its margin."""
        return all(difference.verdict in (BETTER, NOT_INFERIOR) for difference in self.differences)

    def to_dict(self) -> dict[str, Any]:
        """JSON numbers, texts and lists only."""
        return asdict(self)

    def table(self) -> str:
        """A Markdown table of the differences, with the changes at rank 1 below it."""
        header = (
            "figure",
            "former",
            "present",
            f"{self.confidence:.0%} interval of the difference",
            "margin",
            "verdict",
        )
        rows = [
            (
                d.name,
                f"{d.former:.4f}",
                f"{d.present:.4f}",
                f"{d.low:+.4f} .. {d.high:+.4f}",
                f"{d.margin:g}",
                d.verdict,
            )
            for d in self.differences
        ]
        changed = f"right at rank 1 only now: {self.gained:,}, only before: {self.lost:,}; exact McNemar test p = "
        return f"{markdown_table(header, rows)}\n{changed}{self.mcnemar_p:.2g}"

    def sentence(self) -> str:
        """The verdict in one sentence."""
        over = f"on the same {self.mentions:,} mentions of {self.documents:,} documents"
        if self.worse:
            parts = [
                f"{d.name} {d.former:.4f} -> {d.present:.4f} (difference {d.low:+.4f} .. {d.high:+.4f})"
                for d in self.worse
            ]
            return f"worse {over}: {', '.join(parts)}"
        if not self.passes:
            parts = [
                f"the interval of {d.name} reaches {d.bad_end:+.4f}, beyond the margin of {d.margin:g}"
                for d in self.differences
                if d.verdict == CANNOT_TELL
            ]
            remedy = "evaluate on more documents, or set a larger margin (--margin)"
            return f"cannot tell {over}: {', '.join(parts)}; {remedy}"
        accuracy, *_, brier = self.differences
        better = [difference.name for difference in self.differences if difference.verdict == BETTER]
        return f"not inferior {over}, within a margin of {accuracy.margin:g} ({brier.margin:g} of {brier.name})" + (
            f"; better in {' and '.join(better)}" if better else ""
        )


def compare(
    present: Outcomes, former: Outcomes, *, margin: float = USUAL_MARGIN, confidence: float = 0.95
) -> Comparison:
    """Compare two versions over their common mentions, found by document, offsets and gold concept.

    Three figures that matter to a service decide: ``acc@1``; ``right_answers_f1``, the end-to-end figure with
    abstention (`answering`); and ``brier_of_top``, the mean squared error of the top scores, which rises with a worse
    order or calibration. The three share the error probability (Bonferroni), so an equally good version is called
    worse with a probability of about ``1 - confidence`` or less. Intervals come from the jackknife by document
    (`jackknife_sums`).

    Args:
        margin: by how much acc@1 and F1 may be lower and still count as as good; the Brier score may be higher by
            `BRIER_PART` of it.

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
    each = np.ones(len(ours))
    figures = {
        "acc@1": Figure([right, each], [former_right, each], ratio, margin),
        "right_answers_f1": Figure(right_answer_sums(ours), right_answer_sums(theirs), sums_to_f1, margin),
        "brier_of_top": Figure(
            [_errors(ours), each], [_errors(theirs), each], ratio, BRIER_PART * margin, higher_is_better=False
        ),
    }
    level = 1.0 - (1.0 - confidence) / len(figures)
    return Comparison(
        mentions=len(ours),
        documents=documents,
        only_former=len(former) - len(rows),
        only_present=len(present) - len(rows),
        gained=gained,
        lost=lost,
        mcnemar_p=_mcnemar(gained, lost),
        differences=tuple(figure.difference(name, index, documents, level) for name, figure in figures.items()),
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
