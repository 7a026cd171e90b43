import math

import pytest

from umls_reranker.errors import UserError
from umls_reranker.evaluation.checklist import Measured, check_targets, format_table

MEASURED = {
    "pair.f1": Measured(0.912, 0.90, 0.92, "test pairs"),
    "calibration.ece": Measured(0.015),
    "tiers.high": Measured(0.61, 0.58, 0.64, "test mentions"),
    "speed": Measured(12345.6),
    "undefined": Measured(math.nan),
}


@pytest.mark.parametrize(
    ("name", "target", "passed"),
    [
        ("pair.f1", ">= 0.90", True),
        ("pair.f1", ">=0.912", True),
        ("pair.f1", "> 0.912", False),
        ("pair.f1", "< 0.95", True),
        ("calibration.ece", "<= 0.015", True),
        ("calibration.ece", "< 1.5e-2", False),
        ("tiers.high", "0.40 .. 0.60", False),
        ("tiers.high", "0.40 - 0.70", True),
        ("tiers.high", "0.40 to 0.61", True),
        ("speed", ">= 2000", True),
        ("undefined", "<= 1", False),
    ],
)
def test_targets(name, target, passed):
    (check,) = check_targets({name: target}, MEASURED)
    assert check.passed is passed
    assert (check.name, check.target) == (name, target)
    assert (check.low, check.high, check.population) == (
        MEASURED[name].low,
        MEASURED[name].high,
        MEASURED[name].population,
    )


def test_order_is_that_of_the_targets():
    checks = check_targets({"speed": "> 1", "pair.f1": "> 0"}, MEASURED)
    assert [check.name for check in checks] == ["speed", "pair.f1"]


def test_unknown_name_gives_the_nearest():
    with pytest.raises(UserError, match="'pair.fl' is not a measured figure; did you mean 'pair.f1'"):
        check_targets({"pair.fl": "> 0"}, MEASURED)
    with pytest.raises(UserError, match="nothing was measured"):
        check_targets({"pair.f1": "> 0"}, {})


@pytest.mark.parametrize("text", ["0.9", "=> 0.9", ">= high", "0.6 .. 0.4", "", "0.4 ... 0.6"])
def test_unreadable_targets_are_named(text):
    with pytest.raises(UserError, match="target 'pair.f1'"):
        check_targets({"pair.f1": text}, MEASURED)


def test_table():
    checks = check_targets({"pair.f1": ">= 0.90", "speed": "< 100"}, MEASURED)
    assert format_table(checks).splitlines() == [
        "| figure  | value  | 95 % interval    | target  | result | measured on |",
        "| ------- | ------ | ---------------- | ------- | ------ | ----------- |",
        "| pair.f1 | 0.9120 | 0.9000 .. 0.9200 | >= 0.90 | PASS   | test pairs  |",
        "| speed   | 12,346 |                  | < 100   | FAIL   |             |",
    ]
