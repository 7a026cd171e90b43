"""Figures against the targets of a recipe, and two versions of a model on the same mentions.

Is a target met? Is the new version worse, or as good within a margin? Differences are taken mention
by mention, and documents are resampled as a whole. This finds differences that the separate
intervals of the two versions would hide.
"""

import difflib
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..calibration.reliability import document_index, document_sums, jackknife_sums
from ..core.errors import UserError
from ..core.keys import NON_INFERIORITY_MARGIN
from .metrics import FIGURES, SMALL_SUPPORT, Figure, Outcomes
from .render import interval, is_there, markdown_table, number

PASS = "PASS"
FAIL = "FAIL"
UNDECIDED = "INCONCLUSIVE"

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TARGET = re.compile(
    rf">=\s*(?P<least>{_NUMBER})|<=\s*(?P<most>{_NUMBER})"
    rf"|(?P<low>{_NUMBER})\s*\.\.\s*(?P<high>{_NUMBER})"
)

BETTER = "better"
NOT_INFERIOR = "not inferior"
INCONCLUSIVE = "inconclusive"
WORSE = "worse"
# Two versions must share a minimum share of each one's mentions, because a few common mentions
# prove nothing, and a minimum number of documents, below which the interval does not reach its
# confidence.
SMALLEST_OVERLAP = 0.5
FEWEST_DOCUMENTS = 20


def parse_target(name: str, text: str) -> tuple[float, float]:
    """The ends of the range of ``">= 0.95"``, ``"<= 0.015"`` or ``"0.40 .. 0.60"``.

    Raises:
        UserError: anything else, or a range whose ends are swapped.
    """
    match = _TARGET.fullmatch(str(text).strip())
    if match:
        least = float(match["least"] or match["low"] or -math.inf)
        most = float(match["most"] or match["high"] or math.inf)
        if least <= most:
            return least, most
    raise UserError(
        f"target '{name}': cannot read '{text}'; write '>= 0.9', '<= 0.015' or '0.40 .. 0.60'"
    )


def parse_targets(texts: Iterable[str]) -> dict[str, str]:
    """Name -> target of lines such as ``"acc@1 >= 0.75"``.

    Raises:
        UserError: a line without a name and a target, or two lines with the same name.
    """
    targets = {}
    for text in texts:
        match = re.fullmatch(r"\s*(\S+)\s+(\S.*?)\s*", text)
        if not match:
            raise UserError(f'targets: cannot read {text!r}; write e.g. "acc@1 >= 0.75"')
        name, target = match.groups()
        if name in targets:
            raise UserError(
                f"targets: {name} occurs twice; write one target, such as {name} >= 0.75, "
                "or a range, 0.40 .. 0.60"
            )
        targets[name] = target
    return targets


def result_of(figure: Mapping[str, Any], least: float, most: float) -> str:
    """PASS or FAIL by the value itself, except where the measurement cannot decide.

    INCONCLUSIVE, in exactly two cases: the figure is not defined on this data (NaN: nothing to
    measure it on); or it rests on fewer than `SMALL_SUPPORT` mentions *and* its 95 % interval holds
    values on both sides of the target. With more mentions the value decides alone: to fail for the
    width of the interval would punish what was measured well.

    Args:
        figure: the figure.
        least: the least value that passes.
        most: the largest value that passes.
    """
    if not is_there(figure["value"]):
        return UNDECIDED
    low = figure.get("low")
    high = figure.get("high")
    if (
        figure.get("n", SMALL_SUPPORT) < SMALL_SUPPORT
        and is_there(low)
        and is_there(high)
        and (low < least <= high or low <= most < high)
    ):
        return UNDECIDED
    return PASS if least <= figure["value"] <= most else FAIL


def check_targets(
    targets: Mapping[str, str], figures: Mapping[str, Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Compare each target with the figure of its name, in the order of `targets`.

    Returns:
        The figures with ``name``, ``target`` and ``result``: PASS, FAIL or INCONCLUSIVE
        (`result_of`).

    Raises:
        UserError: a target that cannot be read, or a name that was not measured (the nearest is
            given).
    """
    checks = []
    for name, text in targets.items():
        least, most = parse_target(name, text)
        if name not in figures:
            nearest = difflib.get_close_matches(name, figures, n=1, cutoff=0.0)
            raise UserError(
                f"target '{name}' is not a measured figure; did you mean '{''.join(nearest)}'?"
            )
        checks.append(
            {
                "name": name,
                "target": str(text).strip(),
                "result": result_of(figures[name], least, most),
                **figures[name],
            }
        )
    return checks


def format_table(checks: Iterable[Mapping[str, Any]]) -> str:
    """A Markdown table, aligned for reading in a terminal as well."""
    header = ("figure", "value", "95 % interval", "target", "result", "measured on")
    rows = [
        (
            check["name"],
            number(check, 4),
            interval(check, 4, 1.0, " .. "),
            check["target"],
            check["result"],
            _measured_on(check),
        )
        for check in checks
    ]
    return markdown_table(header, rows)


def _measured_on(check: Mapping[str, Any]) -> str:
    """The number of mentions of a check and which they are, "" of a figure without a number."""
    return f"{check['n']:,} {check.get('population', 'mentions')}" if "n" in check else ""


def verdict_on_targets(checks: Sequence[Mapping[str, Any]]) -> str:
    """How many checks passed and failed, and the names of those that did not pass."""
    names = {
        result: [check["name"] for check in checks if check["result"] == result]
        for result in (PASS, FAIL, UNDECIDED)
    }
    failed = f": {', '.join(names[FAIL])}" if names[FAIL] else ""
    undecided = f"; inconclusive: {', '.join(names[UNDECIDED])}" if names[UNDECIDED] else ""
    return f"{len(names[PASS])} passed, {len(names[FAIL])} failed{failed}{undecided}"


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
