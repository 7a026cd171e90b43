"""Fusion, calibrator and thresholds from candidate lists, thresholds on held-out documents."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
from datasets import Dataset
from list_fixtures import make_lists

from umls_reranker.calibration.fitting import fit_parts
from umls_reranker.core.arguments import CalibrationArguments
from umls_reranker.data.candidate_lists import CandidateLists
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy([SemanticType("T047", "Disease"), SemanticType("T121", "Drug")])
SIZE = 4


def lists(n: int = 240, documents: int = 24, seed: int = 0) -> tuple[CandidateLists, np.ndarray]:
    """Lists whose gold concept, or none, is drawn by the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 2, (n, SIZE)).astype(np.float32)
    noise = rng.gumbel(size=(n, SIZE + 1))
    gold = np.argmax(np.column_stack([np.zeros(n), logits]) + noise, axis=1) - 1
    items = [
        [{"name": f"name {p}", "cui": f"C{p}", "retrieval_score": score} for p, score in enumerate(scores)]
        for scores in rng.random((n, SIZE)).astype(np.float32)
    ]
    given = make_lists(
        [f"mention {row}" for row in range(n)],
        items,
        ["Drug" if row % 2 else "Disease" for row in range(n)],
        HIERARCHY,
        gold=gold,
        documents=[str(row % documents) for row in range(n)],
    )
    return given, logits.ravel()


TRAINING = Dataset.from_dict({"mention": ["mention 1"], "cui": ["C0"], "semantic_types": [["T121"]]})


def fit(given, names=("cross_encoder", "retrieval"), calibrator="platt", reads=(), **settings):
    settings = CalibrationArguments(features=list(names), calibrator=calibrator, **settings)
    return fit_parts(*given, TRAINING, settings, HIERARCHY, 13, reads)


def test_thresholds_rest_on_documents_that_were_not_fitted_on():
    given = lists()
    calibration, thresholds, fitted = fit(given)
    assert fitted["thresholds_on_held_out_documents"] is True
    own = calibration(*given).probabilities
    # The acceptance threshold lies between two probabilities of the folds' fits, not of the one that is served.
    assert 0 < thresholds.rows["default"].accept < 1
    again = fit(given)
    assert again[1].to_dict() == thresholds.to_dict() and again[0].to_dict() == calibration.to_dict()
    np.testing.assert_array_equal(again[0](*given).probabilities, own)


def test_a_calibrator_that_memorizes_gets_no_credit_for_it():
    # Logits without any meaning: isotonic regression finds some in the very labels, none in other documents.
    given, logits = lists()
    rng = np.random.default_rng(5)
    logits = np.where(given.labels == 1, 0.3, 0.0) + rng.normal(0, 1, len(logits))
    calibration, thresholds, _ = fit((given, logits), (), "isotonic")
    p, labels = calibration(given, logits).probabilities, given.labels

    def f1(threshold):
        return 2 * labels[p >= threshold].sum() / (np.count_nonzero(p >= threshold) + labels.sum())

    assert thresholds.rows["default"].own_f1 < max(f1(t) for t in np.unique(p))


def test_one_document_leaves_nothing_to_hold_out():
    assert fit(lists(documents=1))[2]["thresholds_on_held_out_documents"] is False


def test_listwise_without_features_fuses_the_cross_encoder_alone():
    calibration, _, _ = fit(lists(), (), "listwise")
    assert [list(fusion.weights) for fusion in calibration.fusions] == [["cross_encoder"]]
    assert calibration.calibrator.method == "listwise" and calibration.counts is not None


def test_auto_says_what_every_method_lost():
    calibration, _, fitted = fit(lists(), calibrator="auto")
    losses = fitted["cross_validated_losses"]
    assert losses[calibration.calibrator.method] == min(losses.values())


def test_lists_keep_below_one_whatever_the_calibrator():
    given, logits = lists()
    for method in ("beta", "hierarchical_beta"):
        calibration, _, _ = fit((given, logits), calibrator=method)
        p = calibration(given, logits).probabilities
        assert np.add.reduceat(p, given.offsets[:-1]).max() <= 1


def test_mentions_that_lack_what_the_template_reads_certify_nothing():
    given, logits = lists(400, 40)
    whole, reads = replace(given, lefts=pa.array(["before"] * 400)), ["context"]
    cases = ((given, ()), (whole, reads), (given, reads))
    fits = [fit((one, logits), ("cross_encoder",), "listwise", asked, target_precision=0.5) for one, asked in cases]
    tables = [thresholds for _, thresholds, _ in fits]
    assert tables[0].to_dict() == tables[1].to_dict() and tables[1].for_type().high is not None
    assert tables[2].for_type().high is None and tables[2].for_type().accept == tables[1].for_type().accept
    served = fits[1][0]
    assert not served(given, logits, reads).complete.any() and served(whole, logits, reads).complete.all()


def test_thresholds_go_by_the_types_that_the_lists_were_given():
    given, logits = lists()
    _, thresholds, _ = fit((given.with_types([["T121"]] * len(given)), logits))
    assert set(thresholds.rows) == {"default", "T121"}
