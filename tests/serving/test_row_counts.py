"""Counts of the rows of a file."""

import json
from dataclasses import fields

from umls_reranker.calibration.decisions import TIERS
from umls_reranker.serving.row_counts import RowCounts


def test_counts_are_added_field_by_field():
    number = len(fields(RowCounts))
    counts = RowCounts(*range(number))
    doubled = RowCounts(*(2 * count for count in range(number)))
    assert counts + counts == doubled and counts + RowCounts() == counts


def test_counts_come_back_from_the_state_of_a_part():
    counts = RowCounts(*range(len(fields(RowCounts))))
    assert RowCounts.from_json(json.loads(json.dumps(counts.as_json()))) == counts
    assert RowCounts.from_json({}) == RowCounts()


def test_keys_in_the_state_of_a_part_stay():
    state = {"ranked": 3, "error": 1, "gold": 2, "known": 5, "high": 2}
    counts = RowCounts.from_json(state)
    assert (counts.errors, counts.with_gold, counts.of_counted_concepts) == (1, 2, 5)
    assert counts.as_json() == state


def test_each_tier_has_a_count():
    counts = RowCounts(high=1, medium=2, low=3, reject=4)
    assert counts.by_tier == dict(zip(TIERS, (1, 2, 3, 4), strict=True))
