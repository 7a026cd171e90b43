import numpy as np
import pytest
from scipy.stats import t

from umls_reranker.calibration.reliability import (
    bootstrap_sums,
    document_index,
    document_sums,
    jackknife_sums,
    random_signs,
    ratio,
)


def test_document_sums_by_hand():
    index, documents = document_index(["b", "a", "b"])
    np.testing.assert_array_equal(index, [1, 0, 1])
    np.testing.assert_array_equal(
        document_sums(index, documents, [[1.0, 2.0, 4.0]]), [[2.0], [5.0]]
    )
    cells = document_sums(index, documents, [[1.0, 2.0, 4.0]], cell=np.array([0, 1, 1]), cells=2)
    np.testing.assert_array_equal(cells, [[[0.0, 2.0]], [[1.0, 4.0]]])


def test_bootstrap_percentiles_are_those_of_resamples_by_hand():
    values = np.random.default_rng(0).random(18)
    groups = np.repeat(np.arange(6), [1, 2, 3, 3, 4, 5])
    sums = document_sums(*document_index(groups), [values, np.ones(18)])
    draws = ratio(np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), size=300) @ sums)
    for confidence in (0.95, 0.5):
        found = bootstrap_sums(sums, ratio, resamples=300, confidence=confidence, seed=7)
        assert found == pytest.approx(
            np.quantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
        )
    # Draws of the second document alone have nothing to divide by.
    assert bootstrap_sums(np.array([[1.0, 2.0], [0.0, 0.0]]), ratio) == (0.5, 0.5)


def test_random_signs_keep_the_size_of_noise():
    noise = random_signs(np.array([[3.0, 0.0], [4.0, 1.0]]), draws=400)
    assert set(np.abs(noise[:, 0])) == {1.0, 7.0} and set(np.abs(noise[:, 1])) == {1.0}
    np.testing.assert_array_equal(
        noise, random_signs(np.array([[3.0, 0.0], [4.0, 1.0]]), draws=400)
    )
    assert (noise != random_signs(np.array([[3.0, 0.0], [4.0, 1.0]]), draws=400, seed=1)).any()


def test_the_jackknife_of_a_mean_is_the_t_interval():
    values = np.random.default_rng(0).normal(size=12)
    low, high = jackknife_sums(np.stack([values, np.ones(12)], 1), ratio)
    expected = t.interval(0.95, 11, values.mean(), values.std(ddof=1) / np.sqrt(12))
    assert (low, high) == (pytest.approx(expected[0]), pytest.approx(expected[1]))


def test_the_jackknife_of_what_one_document_decides_has_no_interval():
    sums = np.array([[1.0, 1.0], [0.0, 0.0], [0.0, 0.0]])
    assert np.isnan(jackknife_sums(sums, ratio)).all()
    assert np.isnan(jackknife_sums(sums[:1], ratio)).all()
