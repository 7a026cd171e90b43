import math

import pytest

from umls_reranker.core.text_files import UserError
from umls_reranker.evaluation.checklist import Target, check_targets, format_table, parse_targets, result_of


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
        ("pair.f1", ">=0.912", True),
        ("pair.f1", "<= 0.91", False),
        ("calibration.ece", "<= 0.015", True),
        ("calibration.ece", "<= 1.5e-2", True),
        ("tiers.high", "0.40 .. 0.60", False),
        ("tiers.high", "0.40..0.61", True),
        ("speed", ">= 2000", True),
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
        (">= 0.9", figure(0.88, 0.84, 0.92, n=999), "INCONCLUSIVE"),
        ("0.4 .. 0.6", figure(0.59, 0.55, 0.63, n=10), "INCONCLUSIVE"),
        ("0.4 .. 0.6", figure(0.30, 0.20, 0.70, n=10), "INCONCLUSIVE"),
        # Few mentions, but all of the interval on one side.
        (">= 0.9", figure(0.95, 0.90, 0.99, n=10), "PASS"),
        (">= 0.9", figure(0.80, 0.70, 0.89, n=10), "FAIL"),
        ("0.4 .. 0.6", figure(0.70, 0.65, 0.75, n=10), "FAIL"),
        # Enough mentions: the value decides.
        (">= 0.9", figure(0.92, 0.88, 0.96, n=1000), "PASS"),
        (">= 0.9", figure(0.88, 0.84, 0.92, n=1000), "FAIL"),
        # No interval, or no sample.
        (">= 0.9", figure(0.92, n=10), "PASS"),
        (">= 0.9", figure(0.88, 0.84, 0.92), "FAIL"),
        # Nothing to measure it on.
        ("<= 1", figure(math.nan, n=5000), "INCONCLUSIVE"),
    ],
)
def test_cannot_tell_needs_few_mentions_and_an_interval_on_both_sides(target, measured, result):
    assert result_of(measured, Target.parse("figure", target)) == result


def test_lines_of_targets():
    assert parse_targets(["acc@1 >= 0.75", "  share 0.4 .. 0.6 "]) == {"acc@1": ">= 0.75", "share": "0.4 .. 0.6"}
    with pytest.raises(UserError, match="targets: cannot read 'acc@1'"):
        parse_targets(["acc@1"])
    with pytest.raises(UserError, match="acc@1 occurs twice"):
        parse_targets(["acc@1 >= 0.9", "acc@1 <= 0.95"])


def test_order_is_that_of_the_targets():
    checks = check_targets({"speed": ">= 1", "pair.f1": ">= 0"}, MEASURED)
    assert [check["name"] for check in checks] == ["speed", "pair.f1"]


def test_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match="'pair.fl' .* 'pair.f1'"):
        check_targets({"pair.fl": ">= 0"}, MEASURED)


@pytest.mark.parametrize("text", ["0.9", "> 0.9", "0.4 - 0.6", "=> 0.9", ">= high", "0.6 .. 0.4", "", "0.4 ... 0.6"])
def test_unreadable_targets_are_named(text):
    with pytest.raises(UserError, match="target 'pair.f1'"):
        check_targets({"pair.f1": text}, MEASURED)


def test_table():
    checks = check_targets({"pair.f1": ">= 0.90", "speed": "<= 100", "undefined": ">= 0"}, MEASURED)
    assert format_table(checks).splitlines() == [
        "| figure    | value      | 95 % interval    | target  | result       | measured on    |",
        "| --------- | ---------- | ---------------- | ------- | ------------ | -------------- |",
        "| pair.f1   | 0.9120     | 0.9000 .. 0.9200 | >= 0.90 | PASS         | 5,000 mentions |",
        "| speed     | 12345.6000 |                  | <= 100  | FAIL         |                |",
        "| undefined | –          |                  | >= 0    | INCONCLUSIVE |                |",
    ]
