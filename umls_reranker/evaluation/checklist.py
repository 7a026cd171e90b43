"""Measured figures against the targets of a recipe: PASS, FAIL, or INCONCLUSIVE where too little was measured."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..core.errors import UserError
from .formats import interval, markdown_table, number

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"
# With fewer mentions, an interval that contains the target's bound is inconclusive.
SMALL_SUPPORT = 1_000

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_ONE_SIDED = re.compile(rf"(>=|<=)\s*({_NUMBER})")
_RANGE = re.compile(rf"({_NUMBER})\s*\.\.\s*({_NUMBER})")


@dataclass(frozen=True)
class Measured:
    """A figure, its 95 % interval (None where there is none), what it was measured on, and how many mentions that is.

    A `support` of None means a figure that does not come from a sample.
    """

    value: float
    low: float | None = None
    high: float | None = None
    population: str = ""
    support: int | None = None


@dataclass(frozen=True)
class Target:
    """A range that a figure has to lie in."""

    low: float
    high: float

    @classmethod
    def parse(cls, name: str, text: str) -> "Target":
        """Read ``">= 0.95"``, ``"<= 0.015"`` or ``"0.40 .. 0.60"``.

        Raises:
            UserError: anything else, or a range whose ends are swapped.
        """
        text = str(text).strip()
        if match := _ONE_SIDED.fullmatch(text):
            sign, bound = match.group(1), float(match.group(2))
            return cls(bound, math.inf) if sign == ">=" else cls(-math.inf, bound)
        if match := _RANGE.fullmatch(text):
            low, high = float(match.group(1)), float(match.group(2))
            if low <= high:
                return cls(low, high)
        raise UserError(f"target '{name}': cannot read '{text}'; write '>= 0.9', '<= 0.015' or '0.40 .. 0.60'")

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def splits(self, low: float, high: float) -> bool:
        """Whether an interval holds values on both sides of the target."""
        is_inside = low in self and high in self
        is_outside = high < self.low or low > self.high
        return not is_inside and not is_outside


@dataclass(frozen=True, kw_only=True)
class Check(Measured):
    """What was measured, compared with one target; `result` is PASS, FAIL or INCONCLUSIVE (`result_of`)."""

    name: str
    target: str
    result: str


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
                f"targets: {name} occurs twice; write one target, such as {name} >= 0.75, or a range, 0.40 .. 0.60"
            )
        targets[name] = target
    return targets


def result_of(measured: Measured, target: Target) -> str:
    """PASS or FAIL by the value itself, except where the measurement cannot decide.

    INCONCLUSIVE, in exactly two cases: the figure is not defined on this data (NaN: nothing to measure it on); or it
    rests on fewer than `SMALL_SUPPORT` mentions *and* its 95 % interval holds values on both sides of the target. With
    more mentions the value decides alone: to fail for the width of the interval would punish what was measured well.
    """
    if math.isnan(measured.value):
        return INCONCLUSIVE
    low, high = measured.low, measured.high
    is_small = measured.support is not None and measured.support < SMALL_SUPPORT
    if is_small and low is not None and high is not None and target.splits(low, high):
        return INCONCLUSIVE
    return PASS if measured.value in target else FAIL


def check_targets(targets: Mapping[str, str], figures: Mapping[str, Measured]) -> list[Check]:
    """Compare each target with the figure of its name, in the order of `targets`.

    Raises:
        UserError: a target that cannot be read, or a name that was not measured (the nearest is given).
    """
    checks = []
    for name, text in targets.items():
        target = Target.parse(name, text)
        if name not in figures:
            nearest = difflib.get_close_matches(name, figures, n=1, cutoff=0.0)
            hint = f"did you mean '{nearest[0]}'?" if nearest else "nothing was measured"
            raise UserError(f"target '{name}' is not a measured metric; {hint}")
        result = result_of(figures[name], target)
        checks.append(Check(**vars(figures[name]), name=name, target=str(text).strip(), result=result))
    return checks


def format_table(checks: Iterable[Check]) -> str:
    """A Markdown table, aligned for reading in a terminal as well."""
    header = ("metric", "value", "95 % interval", "target", "result", "measured on")
    rows = []
    for check in checks:
        measured = number(check.value, 4), interval(vars(check), 4, 1.0, " .. ")
        rows.append((check.name, *measured, check.target, check.result, check.population))
    return markdown_table(header, rows)


def measured_figures(report: Mapping[str, Any]) -> dict[str, Measured]:
    """The figures that targets can name, out of ``metrics.json``, by the names used in recipes.

    Figures over pairs have the support of the mentions that the pairs belong to.
    """
    split, mentions, in_dictionary = report["split"], report["mentions"], report["in_dictionary"]
    everywhere = {"population": f"{mentions:,} {split} mentions", "support": mentions}
    known = {"population": f"{in_dictionary:,} {split} mentions with gold in the dictionary", "support": in_dictionary}
    candidates = {"population": f"{report['candidates']:,} candidates", "support": mentions}

    figures = {name: _measured(entry, support=mentions) for name, entry in report["pair"].items()}
    for name, entry in report["candidate_pair"].items():
        figures[f"candidate_{name}"] = _measured(entry, support=mentions)
    linking = report["linking"]["reranker"]
    for name, entry in linking["in_dictionary"].items():
        figures[name] = _measured(linking[name], **everywhere)
        figures[f"{name}_in_dictionary"] = _measured(entry, **known)
    figures["acc@1_gain_over_retriever"] = _measured(report["gain_over_retriever"], **known)
    for name, entry in report["calibration"].items():
        figures[name] = _measured(entry, **(everywhere if name.startswith("top1_") else candidates))
    figures |= _worst_groups(report["groups"])
    for name, entry in report["serving"].items():
        figures[name] = _measured(entry)
    for view, entry in report["answering"].items():
        for name, support in (("precision", entry["predicted"]), ("recall", entry["actual"]), ("f1", mentions)):
            population = f"{support:,} {split} mentions"
            figures[f"{view}_{name}"] = _measured(entry[name], population=population, support=support)
    for precision, entry in report["coverage"]["reranker"].items():
        figures[f"coverage_at_{precision}"] = _measured(entry, **everywhere)
    return figures


def _measured(entry: Mapping[str, Any], **counted: Any) -> Measured:
    """A figure of the report, with what it does not say itself about who is counted."""
    known = {key: entry[key] for key in ("value", "low", "high", "population", "support") if key in entry}
    # JSON null stands for NaN: an undefined metric, or the interval of a single document.
    known |= {key: math.nan for key, value in known.items() if value is None}
    return Measured(**known, **counted)


def _worst_groups(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, Measured]:
    """The worst semantic group of enough mentions, by debiased ECE of top scores and by acc@1."""
    large = [group for group in groups.values() if group["mentions"] >= SMALL_SUPPORT and "debiased_ece" in group]
    figures = {}
    for name, figure, sign in (("top1_debiased_ece", "debiased_ece", 1), ("acc@1", "acc@1", -1)):
        worst = max(large, key=lambda group: sign * group[figure]["value"], default=None)
        if worst is None:
            measured = Measured(math.nan, population=f"no semantic group has {SMALL_SUPPORT:,} mentions", support=0)
        else:
            population = f"{worst['mentions']:,} mentions of {worst['name']}"
            values = {key: worst[figure][key] for key in ("value", "low", "high")}
            measured = _measured(values, population=population, support=worst["mentions"])
        figures[f"worst_group_{name}"] = measured
    return figures
