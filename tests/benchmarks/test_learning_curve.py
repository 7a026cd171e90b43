"""Figures of the learning curve."""

import sys
from pathlib import Path

import numpy as np
from list_fixtures import make_lists

from umls_reranker.calibration.string_counts import StringCounts

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from learning_curve import accuracy


def test_a_mention_is_judged_by_weights_of_other_documents():
    lists = make_lists(["m"] * 20, [["a", "b"]] * 20, gold=[row % 2 for row in range(20)])
    logits = np.where(lists.labels == 1, 2.0, -2.0)
    logits[:2] = logits[1::-1]
    features = ["cross_encoder", "exact_name"]
    found = [accuracy(lists, logits, StringCounts.fit([]), features, 13, drop) for drop in (False, True)]
    assert found == [0.95, 0.5]
