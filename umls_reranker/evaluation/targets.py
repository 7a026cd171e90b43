"""The targets of a recipe: does each figure reach its own?"""

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import UserError
from .formatting import interval, is_there, markdown_table, number
from .metrics import SMALL_SUPPORT

PASS = "PASS"
FAIL = "FAIL"
UNDECIDED = "INCONCLUSIVE"
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_TARGET = re.compile(
    rf">=\s*(?P<least>{_NUMBER})|<=\s*(?P<most>{_NUMBER})"
    rf"|(?P<low>{_NUMBER})\s*\.\.\s*(?P<high>{_NUMBER})"
)


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
        UserError: a line without a name and a target that can be read, or two lines with the same
            name.
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
        parse_target(name, target)
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
