import math

import pytest

from umls_reranker.core.errors import UserError
from umls_reranker.evaluation.comparison import (
    check_targets,
    parse_target,
    parse_targets,
    result_of,
)


def figure(value, low=None, high=None, **more):
    return {"value": value, "low": low, "high": high} | more


MEASURED = {
    "pair.f1": figure(0.912, 0.90, 0.92, n=5000, population="mentions"),
    "calibration.ece": figure(0.015),
    "tiers.high": figure(0.61, 0.58, 0.64),
    "speed": figure(12345.6),
    "undefined": figure(math.nan),
}


@pytest.mark.parametrize(
    ("name", "target", "passed"),
    [
        ("pair.f1", ">= 0.90", True),
        ("pair.f1", "<= 0.91", False),
        ("calibration.ece", "<= 0.015", True),
        ("tiers.high", "0.40 .. 0.60", False),
        ("tiers.high", "0.40..0.61", True),
    ],
)
def test_targets(name, target, passed):
    (check,) = check_targets({name: target}, MEASURED)
    assert check["result"] == ("PASS" if passed else "FAIL")
    assert check == {"name": name, "target": target, "result": check["result"], **MEASURED[name]}


@pytest.mark.parametrize(
    ("target", "measured", "result"),
    [
        # Few mentions and an interval on both sides of the target.
        (">= 0.9", figure(0.92, 0.88, 0.96, n=999), "INCONCLUSIVE"),
        ("0.4 .. 0.6", figure(0.59, 0.55, 0.63, n=10), "INCONCLUSIVE"),
        ("0.4 .. 0.6", figure(0.30, 0.20, 0.70, n=10), "INCONCLUSIVE"),
        # Few mentions, but all of the interval on one side.
        (">= 0.9", figure(0.95, 0.90, 0.99, n=10), "PASS"),
        ("0.4 .. 0.6", figure(0.70, 0.65, 0.75, n=10), "FAIL"),
        # Enough mentions: the value decides.
        (">= 0.9", figure(0.88, 0.84, 0.92, n=1000), "FAIL"),
        # No interval, or no sample.
        (">= 0.9", figure(0.92, n=10), "PASS"),
        (">= 0.9", figure(0.88, 0.84, 0.92), "FAIL"),
        # Nothing to measure it on.
        ("<= 1", figure(math.nan, n=5000), "INCONCLUSIVE"),
    ],
)
def test_cannot_tell_needs_few_mentions_and_an_interval_on_both_sides(target, measured, result):
    assert result_of(measured, *parse_target("figure", target)) == result


def test_lines_of_targets():
    assert parse_targets(["acc@1 >= 0.75", "  share 0.4 .. 0.6 "]) == {
        "acc@1": ">= 0.75",
        "share": "0.4 .. 0.6",
    }
    with pytest.raises(UserError, match="targets: cannot read 'acc@1'"):
        parse_targets(["acc@1"])
    with pytest.raises(UserError, match="acc@1 occurs twice"):
        parse_targets(["acc@1 >= 0.9", "acc@1 <= 0.95"])


@pytest.mark.parametrize(
    "text", ["0.9", "> 0.9", "0.4 - 0.6", "=> 0.9", ">= high", "0.6 .. 0.4", "", "0.4 ... 0.6"]
)
def test_unreadable_targets_are_named(text):
    with pytest.raises(UserError, match="target 'pair.f1'"):
        check_targets({"pair.f1": text}, MEASURED)
