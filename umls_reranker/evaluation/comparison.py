"""Two versions of a model on the same mentions: is the new one worse, or as good within a margin?

Differences are taken mention by mention, and documents are resampled as a whole. This finds
differences that the separate intervals of the two versions would hide.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..calibration.reliability import document_index, document_sums, jackknife_sums
from ..core.errors import UserError
from ..core.keys import NON_INFERIORITY_MARGIN
from .formatting import markdown_table
from .metrics import FIGURES, Figure
from .outcomes import Outcomes

BETTER = "better"
NOT_INFERIOR = "not inferior"
INCONCLUSIVE = "inconclusive"
WORSE = "worse"
# Two versions must share a minimum share of each one's mentions, because a few common mentions
# prove nothing, and a minimum number of documents, below which the interval does not reach its
# confidence.
SMALLEST_OVERLAP = 0.5
FEWEST_DOCUMENTS = 20


@dataclass(frozen=True)
class Difference:
    """One figure of both versions.

    Attributes:
        name: name of the figure.
        former: its value for the former version.
        present: its value for the present version.
        low: lower end of the interval of present minus former.
        high: upper end of this interval.
        margin: how much worse still counts as as good.
        verdict: ``worse`` or ``better`` if the interval lies entirely on that side of 0; else
            ``not inferior`` if its end on the worse side is within the margin, and ``inconclusive``
            if not.
    """

    name: str
    former: float
    present: float
    low: float
    high: float
    margin: float
    verdict: str


def figure_difference(
    figure: Figure, present: np.ndarray, former: np.ndarray, margin: float, confidence: float
) -> Difference:
    """Both values of a figure and the interval of their difference.

    Args:
        figure: the figure.
        present: (documents, k) sums of the columns of the present version.
        former: (documents, k) sums of the columns of the former version.
        margin: how much worse accuracy may be and still count as as good; other figures have a
            share of it.
        confidence: confidence of the interval.
    """
    k = present.shape[1]

    def difference(sums: np.ndarray) -> np.ndarray:
        return figure.statistic(sums[..., :k]) - figure.statistic(sums[..., k:])

    low, high = jackknife_sums(
        np.concatenate([present, former], axis=1), difference, confidence=confidence
    )
    sign = 1 if figure.higher_is_better else -1
    worst, best = sorted((sign * low, sign * high))
    margin *= figure.margin
    if worst > 0:
        verdict = BETTER
    elif best < 0:
        verdict = WORSE
    else:
        verdict = NOT_INFERIOR if worst >= -margin else INCONCLUSIVE
    return Difference(
        name=figure.name,
        former=float(figure.statistic(former.sum(axis=0))),
        present=float(figure.statistic(present.sum(axis=0))),
        low=low,
        high=high,
        margin=margin,
        verdict=verdict,
    )


@dataclass(frozen=True)
class Comparison:
    """All differences, over the mentions that both versions answered.

    Attributes:
        mentions: number of compared mentions.
        documents: number of their documents.
        gained: mentions that only the present version ranked correctly.
        lost: mentions that only the former version ranked correctly.
        differences: differences of the deciding figures.
    """

    mentions: int
    documents: int
    gained: int
    lost: int
    differences: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        """``worse`` or ``inconclusive`` if any figure is, else ``not inferior``."""
        verdicts = {difference.verdict for difference in self.differences}
        return next(
            (verdict for verdict in (WORSE, INCONCLUSIVE) if verdict in verdicts), NOT_INFERIOR
        )

    @property
    def passes(self) -> bool:
        """Whether no figure is worse, and each is shown to be as good within its margin."""
        return self.verdict == NOT_INFERIOR

    def text(self, former: str) -> str:
        """The differences as a Markdown table, the changes at rank 1, and the verdict.

        Args:
            former: what the former version is called.
        """
        rows = [
            (
                one.name,
                f"{one.former:.4f}",
                f"{one.present:.4f}",
                f"{one.low:+.4f} .. {one.high:+.4f}",
                f"{one.margin:g}",
                one.verdict,
            )
            for one in self.differences
        ]
        ends = "joint interval of the difference"
        header = ("figure", "former", "present", ends, "margin", "verdict")
        hint = ""
        if self.verdict == INCONCLUSIVE:
            hint = "; evaluate on more documents or set a larger margin (--margin)"
        return (
            f"{markdown_table(header, rows)}\n"
            f"correct at rank 1 only now: {self.gained:,}, only before: {self.lost:,}\n\n"
            f"compared with {former}: {self.verdict} on the same {self.mentions:,} mentions of "
            f"{self.documents:,} documents{hint}"
        )


def compare(
    present: Outcomes,
    former: Outcomes,
    *,
    margin: float = NON_INFERIORITY_MARGIN,
    confidence: float = 0.95,
) -> Comparison:
    """Compare two versions over their common mentions, found by document, offsets and gold concept.

    The figures with a margin decide: they matter to a service. They share the error probability
    (Bonferroni), so an equally good version is called worse with a probability of about
    ``1 - confidence`` or less. Intervals come from the jackknife by document (`jackknife_sums`).

    Args:
        present: outcomes of the present version.
        former: outcomes of the former version.
        margin: by how much acc@1 and F1 may be lower and still count as as good; the Brier score
            may be higher by half of it.
        confidence: joint confidence of the intervals.

    Raises:
        UserError: the common mentions are less than `SMALLEST_OVERLAP` of one version's, or of
            fewer than `FEWEST_DOCUMENTS` documents.
    """
    rows, former_rows = _common(present, former)
    if len(rows) < SMALLEST_OVERLAP * max(len(present), len(former), 1):
        raise UserError(
            f"the versions share {len(rows):,} of {len(present):,} and {len(former):,} mentions, "
            f"less than {SMALLEST_OVERLAP:.0%} of one; evaluate both on the same test split"
        )
    present = present.select(rows)
    former = former.select(former_rows)
    index, documents = document_index(present.document)
    if documents < FEWEST_DOCUMENTS:
        raise UserError(
            f"the versions share {documents} documents, fewer than {FEWEST_DOCUMENTS}; "
            "evaluate both on a larger test split"
        )
    figures = [figure for figure in FIGURES if figure.margin]
    level = 1.0 - (1.0 - confidence) / len(figures)
    differences = (
        figure_difference(
            figure,
            document_sums(index, documents, figure.columns(present)),
            document_sums(index, documents, figure.columns(former)),
            margin,
            level,
        )
        for figure in figures
    )
    return Comparison(
        mentions=len(present),
        documents=documents,
        gained=int((present.correct & ~former.correct).sum()),
        lost=int((former.correct & ~present.correct).sum()),
        differences=tuple(differences),
    )


def _keys(outcomes: Outcomes) -> Iterable[tuple]:
    """One key per mention; the second mention with the same offsets gets a number."""
    seen: Counter[tuple] = Counter()
    columns = (outcomes.document, outcomes.start, outcomes.end, outcomes.gold)
    for key in zip(*(column.tolist() for column in columns), strict=True):
        yield (*key, seen[key])
        seen[key] += 1


def _common(present: Outcomes, former: Outcomes) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the mentions that both versions have, in the order of the present one."""
    former_rows = {key: row for row, key in enumerate(_keys(former))}
    rows = [(row, former_rows[key]) for row, key in enumerate(_keys(present)) if key in former_rows]
    return np.array(rows, dtype=np.int64).reshape(-1, 2).T
