"""The exact chances and the draws of the benchmark of certificates that hold at any time."""

import sys
from pathlib import Path

import numpy as np
import pytest

from umls_reranker.calibration.precision_test import PrecisionTest

sys.path.append(str(Path(__file__).parents[1]))
import any_time


def test_chances_are_those_of_all_sequences():
    # After two terms no error passes, after three one.
    rule = np.array([-1, -1, 0, 1])
    chance = any_time.chance_to_pass(rule, 0.5)
    assert chance.tolist() == pytest.approx([0, 0, 2 / 8, 4 / 8])
    once = any_time.chance_at_once(rule, 0.5)
    assert once.tolist() == pytest.approx([0, 0, 2 / 8, 4 / 8])
    later = any_time.at_looks(rule, [3])
    assert any_time.chance_to_pass(later, 0.5)[-1] == pytest.approx(4 / 8)


def test_rules_begin_where_no_error_passes():
    first = {name: int(np.argmax(rule >= 0)) for name, rule in any_time.rules(0.9, 100).items()}
    assert first["any time"] == PrecisionTest(0.9).needed == 43
    assert first["mixture martingale"] == 43


@pytest.mark.parametrize(
    "name", ["ten each, correlation 0.1", "terms that occur 1, 2, 4 or 8 times"]
)
def test_draws_pass_as_documents_do(name):
    drawn = any_time.FALSE_REGIMES[name](20, np.random.default_rng(3), 0.99)
    for test in (PrecisionTest(), PrecisionTest(is_one_look=True)):
        passed = any_time.passes_at(drawn, 1_000, test)
        for row in range(20):
            size = drawn.size[row, :1_000]
            assert passed[row] == test.for_sizes(size).passes(size, drawn.correct[row, :1_000])
        assert passed.any()
