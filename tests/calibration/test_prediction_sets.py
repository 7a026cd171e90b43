import numpy as np
import pytest

from umls_reranker.calibration.prediction_sets import (
    COVERAGE,
    SetThreshold,
    correct_ranks,
    correct_weights,
    fit_set_threshold,
    rank_labels,
    set_sizes,
)
from umls_reranker.core.arrays import ranking

# Two names of concept 0, a list without candidates, and one whose probabilities exceed 1.
P = np.array([0.3, 0.25, 0.2, 0.05, 0.7, 0.6])
CONCEPTS = np.array([0, 0, 1, 2, 3, 4])
OFFSETS = np.array([0, 4, 4, 6])


@pytest.fixture
def labels():
    return rank_labels(P, CONCEPTS, OFFSETS, ranking(P, OFFSETS))


def test_nil_stands_among_the_concepts_by_what_they_leave(labels):
    np.testing.assert_allclose(labels.nil, [0.45, 1.0, 0.0])
    assert labels.nil_ranks.tolist() == [0, 0, 2]
    # The second name of a concept is in no set.
    assert labels.ranks.tolist() == [1, 5, 2, 3, 0, 1]


def test_a_set_holds_what_reaches_its_threshold_and_never_nothing(labels):
    # The third label has 0.2 x 0.81.
    sizes = [set_sizes(labels, P, OFFSETS, np.full(3, t)).tolist() for t in (0.16, 0.17, 0.99)]
    assert sizes == [[3, 1, 2], [2, 1, 2], [1, 1, 1]]
    assert set_sizes(labels, P, OFFSETS, np.array([np.nan, 0.1, 0.54])).tolist() == [0, 1, 2]


def test_nil_is_correct_where_no_candidate_is(labels):
    correct = np.array([True, True, False, True, False, False])
    assert correct_ranks(labels, correct, OFFSETS).tolist() == [1, 0, 2]
    # The most probable label is in every set.
    found = correct_weights(labels, P, correct, OFFSETS)
    np.testing.assert_allclose(found, [0.3 * 0.9, 1.0, 0.0])


def test_one_further_document_is_assumed_to_be_missed():
    p = np.linspace(0.02, 0.8, 40)
    every = np.arange(40)
    # 0.05 x 20 is this document, so none of 19 may be missed; of 40, one and a part.
    assert fit_set_threshold(p[:18], every[:18]) == SetThreshold(None, 18)
    assert fit_set_threshold(p[:19], every[:19]) == SetThreshold(p[0], 19)
    assert fit_set_threshold(p, every) == SetThreshold(p[1], 40)
    # Half of a document twice is one document.
    pairs = np.repeat(every, 2)
    least = np.column_stack([p, np.full(40, 0.9)]).ravel()
    assert fit_set_threshold(least, pairs) == SetThreshold(p[2], 40)


@pytest.mark.parametrize("documents", [25, 100])
def test_the_expected_coverage_is_kept_for_documents_of_any_size_and_correlation(documents):
    rng = np.random.default_rng(0)
    missed = []
    for _ in range(400):
        size = rng.integers(1, 40, documents + 1)
        owner = np.repeat(np.arange(documents + 1), size)
        # Each document is easy or hard throughout; large ones are harder.
        p = np.clip(rng.beta(5, 1, documents + 1)[owner] ** (1 + size[owner] / 20), 0, 1)
        p *= rng.beta(20, 1, len(p))
        seen = owner < documents
        threshold = fit_set_threshold(p[seen], owner[seen]).threshold
        missed.append(np.mean(p[~seen] < threshold))
    error = np.std(missed) / np.sqrt(len(missed))
    assert np.mean(missed) < 1 - COVERAGE + 2 * error
    # Each document of calibration costs one part of itself.
    assert np.mean(missed) > 1 - COVERAGE - 1 / documents - 2 * error
