"""Fusion, calibrator and thresholds from candidate lists, thresholds on held-out documents."""

from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset
from list_fixtures import make_lists

from umls_reranker.calibration import cross_fitting, fitting
from umls_reranker.calibration.cross_validation import document_folds, sampled_documents
from umls_reranker.calibration.features import feature_table
from umls_reranker.calibration.fitting import fit_calibration
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.inputs import without
from umls_reranker.calibration.probabilities import Part
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.thresholds import ThresholdTable
from umls_reranker.core import cores as cores_module
from umls_reranker.core import progress
from umls_reranker.core.arrays import best_candidates
from umls_reranker.core.settings import CalibrationArguments
from umls_reranker.data.candidate_lists import CandidateLists
from umls_reranker.data.semantic_types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy([SemanticType("T047", "Disease"), SemanticType("T121", "Drug")])
SIZE = 4


def lists(n: int = 240, documents: int = 24, seed: int = 0, spread: float = 2.0) -> tuple[CandidateLists, np.ndarray]:
    """Lists whose gold concept, or none, is drawn by the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, spread, (n, SIZE)).astype(np.float32)
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
COUNTS = StringCounts.of_split(TRAINING)


def fit(
    given,
    names=("cross_encoder", "retrieval"),
    calibrator="platt",
    network_inputs=(),
    outlook=False,
    may_drop_network=False,
    **settings,
):
    settings = CalibrationArguments(features=list(names), calibrator=calibrator, **settings)
    lists, logits = given
    scored = logits if isinstance(logits, dict) else defaultdict(lambda: logits)
    return fit_calibration(
        lists,
        lambda unseen, wanted: scored[unseen],
        COUNTS,
        settings,
        HIERARCHY,
        13,
        network_inputs,
        may_drop_network=may_drop_network,
        has_outlook=outlook,
    )


def probabilities(calibration, lists, logits, network_inputs=()):
    return calibration.plan(lists, network_inputs).scores(logits).probabilities


def content(table):
    """What decides, and the certificate without the outlook."""
    return table.to_dict() | {"certificate": replace(table.certificate, outlook={})}


def test_thresholds_rest_on_documents_that_were_not_fitted_on():
    given = lists()
    calibration, fitted = fit(given)
    assert fitted["thresholds_on_held_out_documents"] is True
    own = probabilities(calibration, *given)
    # The acceptance threshold lies between two probabilities of the folds' fits, not of the one that is served.
    assert 0 < calibration.thresholds.rows["default"].accept < 1
    again, _ = fit(given, outlook=True)
    outlooks = [bool(model.thresholds.certificate.outlook) for model in again.models]
    assert outlooks == [True, False, False] and content(again.thresholds) == content(calibration.thresholds)
    assert again.to_dict() == calibration.to_dict()
    np.testing.assert_array_equal(probabilities(again, *given), own)


def test_a_calibrator_that_memorizes_gets_no_credit_for_it():
    # Logits without any meaning: isotonic regression finds some in the very labels, none in other documents.
    given, logits = lists()
    rng = np.random.default_rng(5)
    logits = np.where(given.labels == 1, 0.3, 0.0) + rng.normal(0, 1, len(logits))
    calibration, _ = fit((given, logits), (), "isotonic")
    p, labels = probabilities(calibration, given, logits), given.labels

    def f1(threshold):
        return 2 * labels[p >= threshold].sum() / (np.count_nonzero(p >= threshold) + labels.sum())

    assert calibration.thresholds.rows["default"].own_f1 < max(f1(t) for t in np.unique(p))


def test_calibration_mentions_are_counted_apart_from_those_of_training():
    """Else a model calibrated again on the same documents would take each mention as known from elsewhere."""
    calibration, _ = fit(lists(), names=("cross_encoder", "mention_concept_prior"))
    assert calibration.training_counts is COUNTS and len(calibration.counts) > len(COUNTS)


def test_one_document_leaves_nothing_to_hold_out():
    assert fit(lists(documents=1))[1]["thresholds_on_held_out_documents"] is False


def test_mentions_that_do_not_certify_take_part_in_all_but_the_certificate():
    given, logits = lists(n=400, documents=100, spread=12.0)
    certifies = np.arange(400) % 100 >= 25
    marked = replace(given, annotations=replace(given.annotations, certifies=certifies))
    table, usual = (fit((each, logits), target_precision=0.8)[0].thresholds for each in (marked, given))
    assert table.certificate.threshold is not None and 50 < table.certificate.documents <= 75
    assert usual.certificate.documents > 75 and table.rows["default"].accept == usual.rows["default"].accept


def test_identity_without_features_fuses_the_cross_encoder_alone():
    calibration, _ = fit(lists(), (), "identity")
    assert [list(model.fusion.weights) for model in calibration.models] == [["cross_encoder"]]
    assert calibration.models[0].calibrator.name == "identity"


def informed(**options) -> tuple[CandidateLists, np.ndarray]:
    """Lists whose retrieval scores say as much as the logits, other than those of `lists`."""
    given, logits = lists(spread=6.0, **options)
    return replace(given, scores={"retrieval": logits.astype(np.float64)}), logits


def test_a_pruning_threshold_keeps_to_its_limits(monkeypatch):
    given = informed()
    calibration, _ = fit(given)
    exhaustive, _ = fit(given, exhaustive=True)
    scored = calibration.plan(given[0]).retained
    thresholds = [each.models[0].pruning_threshold for each in (calibration, exhaustive)]
    assert thresholds == [0.01, 0] and scored.mean() < 0.6
    # The weights are about those of whole lists.
    whole, served = (found.models[0].fusion for found in (exhaustive, calibration))
    assert served.weights == pytest.approx(whole.weights, rel=0.05)
    assert served.none_intercept == pytest.approx(whole.none_intercept, abs=0.05)
    for name, value in (("LEAST_SAME_TOP", 1.01), ("MOST_LOST", -0.01), ("MOST_NATS_LOST", -1.0)):
        with monkeypatch.context() as patched:
            patched.setattr(cross_fitting, name, value)
            assert fit(given)[0].models[0].pruning_threshold == 0


def test_no_choice_about_a_fold_depends_on_its_own_labels(monkeypatch):
    """Its weights, calibrator and cut are those of the other folds, and one certificate is computed of each model."""
    tables, original = [], ThresholdTable.fit.__func__

    def noted(cls, pair_p, *rest, **options):
        tables.append(pair_p)
        return original(cls, pair_p, *rest, **options)

    monkeypatch.setattr(ThresholdTable, "fit", classmethod(noted))
    given, logits = lists(n=1200, documents=120, spread=6.0)
    retrieval = logits + np.random.default_rng(1).normal(0, 0.5, len(logits))
    inside, gold = document_folds(given.annotations.documents, 13) == 0, given.annotations.gold
    # A few of its lists that retrieval gets wrong, by which the network would be spared the best candidate.
    best = logits.reshape(-1, SIZE).argmax(axis=1)
    sure = logits.reshape(-1, SIZE).max(axis=1) > 3
    wrong = np.flatnonzero(inside & sure & (gold == best))[:5]
    retrieval[wrong * SIZE + best[wrong]] = retrieval.min()
    given, chosen = replace(given, scores={"retrieval": retrieval}), []
    for name in ("right", "wrong"):
        labels = gold.copy()
        labels[wrong] = best[wrong] if name == "right" else (best[wrong] + 1) % SIZE
        relabelled = replace(given, annotations=replace(given.annotations, gold=labels))
        calibration, _ = fit((relabelled, logits), calibrator="identity")
        assert len(tables) == len(calibration.models)
        chosen.append(tables[0][inside[given.owner]])
        tables.clear()
    np.testing.assert_allclose(*chosen, atol=1e-6)


def test_lists_are_scored_whole_for_a_sample_of_documents_and_others_as_far_as_they_are_served(monkeypatch):
    monkeypatch.setattr(fitting, "FEWEST_WHOLE", 100)
    monkeypatch.setattr(fitting, "FEWEST_GOLD", 50)
    (given, logits), asked = informed(n=600, documents=60), []

    def score(unseen, wanted):
        asked.append(wanted)
        return np.where(wanted, logits, np.nan).astype(np.float32)

    settings = CalibrationArguments(features=["cross_encoder", "retrieval"], calibrator="platt")
    options = COUNTS, settings, HIERARCHY, 13
    calibration, fitted = fit_calibration(given, score, *options, has_outlook=False)
    documents = given.annotations.documents
    sample = sampled_documents(documents, 120, 13)
    facts = fitted["scoring"]["all"]
    assert facts["mentions_scored_whole"] == sample.sum() == 120
    # A fifth of the documents, of all folds.
    assert np.unique(document_folds(documents, 13)[sample], return_counts=True)[1].tolist() == [30, 30, 20, 20, 20]
    # Of the model of all inputs; without scores nothing but the logit tells candidates apart, so all are scored.
    np.testing.assert_array_equal(asked[0], sample[given.owner])
    assert (asked[1] >= asked[0]).all() and asked[2].all()
    assert facts["scored"] == asked[1].mean() < 0.7 and set(facts["pruning_thresholds_of_folds"]) == {0.01}
    # What the served model scores was scored, but where it counts these very mentions too; what is known besides
    # changes nothing.
    served = calibration.plan(given).retained
    assert asked[1][served].mean() > 0.9
    again, _ = fit_calibration(given, lambda unseen, wanted: logits, *options, has_outlook=False)
    assert again.to_dict() == calibration.to_dict() and again.thresholds.to_dict() == calibration.thresholds.to_dict()
    # A sample that holds too few gold concepts to choose by is all.
    monkeypatch.setattr(fitting, "FEWEST_GOLD", 121)
    _, fitted = fit_calibration(given, score, *options, has_outlook=False)
    assert fitted["scoring"]["all"]["mentions_scored_whole"] == 600


def test_without_features_that_tell_candidates_apart_or_documents_to_hold_out_all_are_scored():
    assert fit(informed(documents=1))[0].models[0].pruning_threshold == 0
    assert fit(informed(), ("cross_encoder",), "identity")[0].models[0].pruning_threshold == 0
    given, _ = lists()
    assert fit(lists())[0].plan(given).retained.all()


def test_a_small_sample_does_not_make_the_calibrator_believe_in_noise():
    """Two dozen scores, of which one means anything: fitted to a few lists, the fusion makes something of all."""
    names = ["retrieval", *(f"noise{number}" for number in range(23))]

    def noisy(n: int, seed: int) -> tuple[CandidateLists, np.ndarray]:
        given, logits = lists(n, n // 5, seed)
        columns = np.random.default_rng(seed).normal(size=(len(names), len(logits)))
        return replace(given, scores=dict(zip(names, [logits + columns[0], *columns[1:]], strict=True))), logits

    calibration, _ = fit(noisy(60, 0), names)
    fresh, logits = noisy(2000, 1)
    # All scores count, however far from those of the few lists.
    part = Part.of(calibration.models[0], feature_table(fresh, calibration.counts))
    scores = part.scores(logits)
    first = best_candidates(scores.log_odds, fresh.offsets)
    overconfidence = scores.probabilities[first].mean() - fresh.is_gold(first).mean()
    assert abs(overconfidence) < 0.1


def test_auto_says_what_every_method_lost():
    calibration, fitted = fit(lists(), calibrator="auto")
    losses = fitted["cross_validated_losses"]
    assert losses[calibration.models[0].calibrator.name] == min(losses.values())


def test_no_part_of_a_fit_is_silent(monkeypatch, capsys):
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    fit(lists(), calibrator="auto", outlook=True)
    told = capsys.readouterr().err.splitlines()
    assert list(dict.fromkeys(line.partition(":")[0] for line in told)) == [
        "computing features",
        "fitting the model and its fallback models",
        "fitting weights",
        "comparing calibrators",
        "fitting calibrators",
        "estimating other certificates",
    ]


def test_lists_keep_below_one_whatever_the_calibrator():
    given, logits = lists()
    for method in ("beta", "hierarchical_beta"):
        p = probabilities(fit((given, logits), calibrator=method)[0], given, logits)
        assert np.add.reduceat(p, given.offsets[:-1]).max() <= 1


def test_mentions_that_lack_what_the_template_reads_certify_nothing_but_the_fallback_without():
    given, logits = lists(400, 40)
    whole, shown = replace(given, lefts=["before"] * 400), ["context"]
    nearly_none = replace(given, lefts=["before"] + [""] * 399)
    cases = ((given, ()), (whole, shown), (nearly_none, shown))
    fits = [fit((one, logits), ("cross_encoder",), "identity", asked, target_precision=0.5)[0] for one, asked in cases]
    tables = [calibration.thresholds for calibration in fits]
    assert tables[0].to_dict() == tables[1].to_dict() and tables[1].for_type().high is not None
    assert tables[2].for_type().high is None and tables[2].for_type().accept == tables[1].for_type().accept
    assert [[model.name for model in calibration.models] for calibration in fits] == [
        ["all"],
        ["all", "no context", "no type, no context"],
        ["all", "no context", "no type, no context"],
    ]
    # Without context all of these are alike.
    alike = fits[2].models[1].thresholds, fits[1].models[1].thresholds, tables[0]
    assert alike[0].to_dict() == alike[1].to_dict() == alike[2].to_dict()
    chosen = fits[1].choose(given, shown)
    assert chosen.complete.all() and set(chosen.models) == {1}


def test_an_input_of_the_network_that_no_list_has_is_absent_and_not_missing():
    given, logits = informed()
    untyped = given.with_types([[]] * len(given))
    for one, absent in ((given, "preferred_name"), (untyped, "entity_type")):
        usual, without_it = (
            fit((one, {(): logits, (absent,): logits}), network_inputs=read, target_precision=0.5)[0]
            for read in ((), (absent,))
        )
        first = without_it.models[0]
        assert (first.name, first.removed) == ("all", (absent,))
        assert first.fusion.to_dict() == usual.models[0].fusion.to_dict()
        assert first.thresholds.certificate == usual.thresholds.certificate
        assert first.thresholds.is_certified
        # Requests that bring it are decided as calibration saw them, without.
        brought = one.with_types([["T047"]] * len(one))
        assert without_it.choose(brought, [absent]).complete.all()
        assert not without_it.choose(brought, [absent]).models.any()
        names = [model.name for model in without_it.models]
        assert names == [model.name for model in usual.models] and len(set(names)) == len(names)


def test_a_cross_encoder_that_adds_nothing_is_left_out_where_it_may_be():
    given, logits = informed()
    names = ["cross_encoder", "retrieval", "concept_count"]
    kept, fitted = fit((given, logits), names)
    assert "cross_encoder" not in fitted and kept.models[0].uses_network
    dropped, fitted = fit((given, logits), names, may_drop_network=True)
    choice = fitted["cross_encoder"]
    assert not choice["kept"] and choice["kept_in_folds"] == [False] * 5 and abs(choice["nats_gained"]) < 0.002
    # All models follow the choice of the first: of names alone, where only the network would tell, there is none.
    assert [model.name for model in kept.models if model.name.startswith("names")]
    assert not any(model.uses_network for model in dropped.models)
    assert not dropped.plan(given).retained.any()
    # What is left is fitted as if the cross-encoder had never been there.
    alone = fit((given, np.full(len(logits), np.nan, np.float32)), names[1:])[0]
    found, expected = (each.plan(given).scores(np.full(len(logits), np.nan)) for each in (dropped, alone))
    np.testing.assert_allclose(found.probabilities, expected.probabilities, atol=2e-3)
    useful, fitted = fit(lists(), may_drop_network=True)
    assert fitted["cross_encoder"]["kept"] and useful.models[0].uses_network
    assert useful.to_dict() == fit(lists())[0].to_dict()


def test_a_cross_encoder_without_weight_is_left_out():
    given, logits = informed()
    backwards = fit((given, -logits), ["cross_encoder", "retrieval"], may_drop_network=True)[1]["cross_encoder"]
    assert (backwards["kept"], backwards["nats_gained"], backwards["standard_error"]) == (False, 0.0, 0.0)


def test_whether_the_cross_encoder_decides_about_a_fold_is_no_matter_of_its_own_labels(monkeypatch):
    choices, original = [], cross_fitting.CrossFitting.choose_network

    def noted(self):
        choices.append(original(self))
        return choices[-1]

    monkeypatch.setattr(cross_fitting.CrossFitting, "choose_network", noted)
    given, logits = lists()
    inside = document_folds(given.annotations.documents, 13) == 2
    annotations = given.annotations
    changed = inside & (np.arange(len(given)) % 4 == 0)
    other = replace(annotations, gold=np.where(changed, (annotations.gold + 1) % SIZE, annotations.gold))
    for one in (given, replace(given, annotations=other)):
        fit((one, logits), may_drop_network=True)
    first, second = ({fold: gain.nats for fold, gain in choice.gains.items()} for choice in choices)
    assert first[(2,)] == pytest.approx(second[(2,)], abs=1e-4)
    assert abs(first[()] - second[()]) > 1e-3 and abs(first[(1,)] - second[(1,)]) > 1e-3


def test_lists_without_types_have_no_model_for_mentions_without_type():
    given, logits = informed()
    fits = [fit((one, logits))[0] for one in (given, given.with_types([[]] * len(given)))]
    names = [[model.name for model in calibration.models] for calibration in fits]
    assert names == [["all", "names", "names, no type"], ["all", "names"]]


def test_thresholds_go_by_the_types_that_the_lists_were_given():
    given, logits = lists()
    calibration, _ = fit((given.with_types([["T121"]] * len(given)), logits))
    assert set(calibration.thresholds.rows) == {"default", "T121"}
    untyped = [model for model in calibration.models if "entity_type" in model.removed]
    assert [model.name for model in untyped] == ["names, no type"]
    assert set(untyped[0].thresholds.rows) == {"default"}


def test_a_fallback_has_weights_thresholds_and_a_certificate_of_its_own():
    """The network sees types; without them its logits say less."""
    given, logits = lists(800, 200)
    noise = np.random.default_rng(3).normal(0, 4, len(logits))
    scored = {(): logits * 3, ("entity_type",): (logits + noise).astype(np.float32)}
    calibration, _ = fit((given, scored), calibrator="beta", network_inputs=["entity_type"], target_precision=0.6)
    models = {model.name: model for model in calibration.models}
    assert list(models) == ["all", "names", "no type", "names, no type"]
    assert models["no type"].removed == ("entity_type",)
    assert models["names, no type"].removed == ("entity_type", "retrieval_score")
    assert list(models["names"].fusion.weights) == ["cross_encoder"]
    weights = [models[name].fusion.weights["cross_encoder"] for name in ("all", "no type")]
    assert weights[0] == pytest.approx(1 / 3, abs=0.06) and weights[1] < weights[0] / 2
    shares = {name: model.thresholds.certificate.share for name, model in models.items()}
    assert shares["all"] > 2 * shares["no type"] and shares["all"] == pytest.approx(shares["names"], abs=0.05)
    chosen = calibration.choose(given.with_types([None] * len(given)), ["entity_type"])
    assert chosen.complete.all() and {calibration.models[number].name for number in chosen.models} == {"no type"}


def test_models_that_use_the_same_features_share_their_fusions(monkeypatch):
    fitted, original = [], FeatureFusion.fit

    def counted(names, table, gold, *rest):
        fitted.append((tuple(names), gold.tobytes()))
        return original(names, table, gold, *rest)

    monkeypatch.setattr(FeatureFusion, "fit", counted)
    calibration, _ = fit(lists(), ("cross_encoder", "retrieval", "type_compatibility"))
    models = {model.name: model for model in calibration.models}
    assert models["names"].fusion is models["names, no type"].fusion
    assert len(fitted) == len(set(fitted))


def test_the_number_of_cores_changes_nothing(monkeypatch):
    states = []
    for cores in (1, 4):
        monkeypatch.setattr(cores_module, "usable_cores", lambda cores=cores: cores)
        calibration, fitted = fit(informed(), calibrator="beta")
        states.append((calibration.to_dict(), [model.thresholds.to_dict() for model in calibration.models], fitted))
    assert states[0] == states[1]


def test_a_fallback_is_fitted_as_if_the_lists_had_never_had_its_inputs():
    given, logits = lists()
    calibration, _ = fit((given, logits))
    bare, _ = fit((without(given, ("retrieval_score", "entity_type")), logits), ("cross_encoder",))
    poorest = calibration.models[-1]
    assert poorest.name == "names, no type" and poorest.fusion.to_dict() == bare.models[0].fusion.to_dict()
    assert poorest.calibrator.to_dict() == bare.models[0].calibrator.to_dict()
    assert poorest.thresholds.to_dict() == bare.thresholds.to_dict()


def test_mentions_without_types_have_no_say_in_a_model_that_never_decides_about_them():
    n, rng = 900, np.random.default_rng(0)
    kinds, own, logits = rng.integers(0, 2, n), rng.integers(0, 2, (n, SIZE)), rng.normal(0, 2, (n, SIZE))
    utility = 1.2 * logits + 3.5 * (own == kinds[:, None]) - 4
    gold = np.argmax(np.column_stack([np.zeros(n), utility]) + rng.gumbel(size=(n, SIZE + 1)), axis=1) - 1
    names = ["Disease", "Drug"]
    items = [
        [{"name": f"n{p}", "cui": f"C{p}", "semantic_types": [names[kind]]} for p, kind in enumerate(row)]
        for row in own
    ]
    types = [None if row % 10 < 6 else names[kind] for row, kind in enumerate(kinds)]
    # Of each document some mentions have types, so that the folds are the same with and without the others.
    documents = [str(row // 20) for row in range(n)]
    given = make_lists([f"m{row}" for row in range(n)], items, types, HIERARCHY, gold=gold, documents=documents)
    typed, logits = given.types.is_known, logits.ravel().astype(np.float32)
    of_all, of_typed = (
        fit((some, part), ("cross_encoder", "type_compatibility"))[0].models[0]
        for some, part in ((given, logits), (given.take(typed), logits[typed[given.owner]]))
    )
    assert of_all.fusion.weights == pytest.approx(of_typed.fusion.weights)
    assert of_all.calibrator.to_dict()["parameters"] == pytest.approx(of_typed.calibrator.to_dict()["parameters"])
