"""Measured figures against the targets of a recipe: one line each, passed or not."""

import difflib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import UserError

__all__ = ["Check", "Measured", "Target", "check_targets", "format_table"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_ONE_SIDED = re.compile(rf"(>=|<=|>|<)\s*({_NUMBER})")
_RANGE = re.compile(rf"({_NUMBER})\s*(?:\.\.|-|to)\s*({_NUMBER})")


@dataclass(frozen=True)
class Measured:
    """A figure, its 95 % interval (None where there is none) and what it was measured on."""

    value: float
    low: float | None = None
    high: float | None = None
    population: str = ""


@dataclass(frozen=True)
class Target:
    """A range that a figure has to lie in; `strict` leaves its ends out."""

    low: float
    high: float
    strict: bool

    @classmethod
    def parse(cls, name: str, text: str) -> "Target":
        """Read ``">= 0.95"``, ``"<= 0.015"``, ``"> 0"``, ``"< 1"`` or ``"0.40 .. 0.60"``.

        Raises:
            UserError: anything else, or a range whose ends are swapped.
        """
        text = str(text).strip()
        if match := _ONE_SIDED.fullmatch(text):
            sign, bound = match.group(1), float(match.group(2))
            low, high = (bound, math.inf) if sign[0] == ">" else (-math.inf, bound)
            return cls(low, high, strict=sign in "<>")
        if match := _RANGE.fullmatch(text):
            low, high = float(match.group(1)), float(match.group(2))
            if low <= high:
                return cls(low, high, strict=False)
        raise UserError(f"target '{name}': cannot read '{text}'; write '>= 0.9', '<= 0.015' or '0.40 .. 0.60'")

    def __contains__(self, value: float) -> bool:
        return self.low < value < self.high if self.strict else self.low <= value <= self.high


@dataclass(frozen=True)
class Check:
    """One target beside what was measured; `passed` compares the value itself, not its interval."""

    name: str
    value: float
    low: float | None
    high: float | None
    target: str
    population: str
    passed: bool


def check_targets(targets: Mapping[str, str], measured: Mapping[str, Measured]) -> list[Check]:
    """Compare each target with the figure of its name, in the order of `targets`.

    A figure that is NaN (not defined on this data) does not pass.

    Raises:
        UserError: a target that cannot be read, or a name that was not measured (the nearest is given).
    """
    checks = []
    for name, text in targets.items():
        target = Target.parse(name, text)
        if name not in measured:
            nearest = difflib.get_close_matches(name, measured, n=1, cutoff=0.0)
            hint = f"did you mean '{nearest[0]}'?" if nearest else "nothing was measured"
            raise UserError(f"target '{name}' is not a measured figure; {hint}")
        found = measured[name]
        checks.append(
            Check(
                name=name,
                value=found.value,
                low=found.low,
                high=found.high,
                target=str(text).strip(),
                population=found.population,
                passed=found.value in target,
            )
        )
    return checks


def format_table(checks: Iterable[Check]) -> str:
    """A Markdown table, aligned for reading in a terminal as well."""
    header = ("figure", "value", "95 % interval", "target", "result", "measured on")
    rows = [
        (
            check.name,
            _number(check.value),
            "" if check.low is None or check.high is None else f"{_number(check.low)} .. {_number(check.high)}",
            check.target,
            "PASS" if check.passed else "FAIL",
            check.population,
        )
        for check in checks
    ]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4f}"
