"""Fusion, calibrator and thresholds from candidate lists, thresholds on held-out documents."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset
from list_fixtures import ReadsEverything, make_lists, with_types
from sklearn.metrics import f1_score

from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.cross_encoder_logits import CrossEncoderLogits
from umls_reranker.calibration.cross_fitting import FoldedLists, NestedFit
from umls_reranker.calibration.fitting import FitOptions, fit_calibration
from umls_reranker.calibration.list_source import ListSource
from umls_reranker.calibration.missing_inputs import without_inputs
from umls_reranker.calibration.ranking import rank_scored
from umls_reranker.calibration.reliability import document_folds
from umls_reranker.calibration.string_counts import StringCounts, counted_mentions
from umls_reranker.core import parallel as cores_module
from umls_reranker.core.arrays import RepeatedTexts
from umls_reranker.core.errors import UserError
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

HIERARCHY = TypeHierarchy([SemanticType("T047", "Disease"), SemanticType("T121", "Drug")])
SIZE = 4
ONE_MODEL = FitOptions(has_fallbacks=False)
ALL_MODELS = FitOptions()


def lists(
    n: int = 240, documents: int = 24, seed: int = 0, spread: float = 2.0
) -> tuple[CandidateLists, np.ndarray]:
    """Lists whose gold concept, or none, is drawn by the logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, spread, (n, SIZE)).astype(np.float32)
    noise = rng.gumbel(size=(n, SIZE + 1))
    gold = np.argmax(np.column_stack([np.zeros(n), logits]) + noise, axis=1) - 1
    items = [
        [
            {"name": f"name {p}", "cui": f"C{p}", "retrieval_score": score}
            for p, score in enumerate(scores)
        ]
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


TRAINING = Dataset.from_dict(
    {"mention": ["mention 1"], "cui": [[["C0"]]], "semantic_types": [["T121"]]}
)
COUNTS = StringCounts.fit(counted_mentions(TRAINING))


def fit(
    given,
    names=("cross_encoder", "retrieval"),
    cross_encoder_inputs=(),
    counts=COUNTS,
    options=ONE_MODEL,
    **settings,
):
    """`fit_calibration` with known logits, or by the inputs that the cross-encoder does not see."""
    settings = CalibrationArguments(**{"features": list(names), "calibrator": "platt"} | settings)
    lists, logits = given
    known = logits if isinstance(logits, dict) else {(): logits}
    cross_encoder = SimpleNamespace(template=SimpleNamespace(reads=tuple(cross_encoder_inputs)))
    logits = CrossEncoderLogits(cross_encoder, lists, by_missing_inputs=known)
    return fit_calibration(lists, logits, counts, settings, 13, options=options)


def served(calibration, lists, logits):
    return rank_scored(lists, Scores(np.asarray(logits, np.float32), 0), calibration)


def informed(**options) -> tuple[CandidateLists, np.ndarray]:
    """Lists whose retrieval scores say as much as the logits, other than those of `lists`."""
    given, logits = lists(spread=6.0, **options)
    return replace(given, scores={"retrieval": logits.astype(np.float64)}), logits


def test_decisions_are_held_out_and_have_the_delivered_thresholds():
    # Logits without any meaning: isotonic regression finds some in the very labels, none in other
    # documents.
    given, logits = lists(n=600, documents=60)
    noise = fit((given, np.random.default_rng(5).normal(0, 1, len(logits)).astype(np.float32)), ())
    own = fit((given, logits))
    edges = own.calibration.thresholds.edges(given.types)[given.owner]
    np.testing.assert_array_equal(
        own.decisions.tiers,
        edges.shape[1] - (own.decisions.probabilities[:, None] >= edges).sum(axis=1),
    )
    scores = []
    for one in (noise, own):
        accept = one.calibration.thresholds.for_type().accept
        scores.append(f1_score(given.labels, one.decisions.probabilities >= accept))
    assert scores[0] < scores[1]


def test_no_score_of_a_fold_depends_on_its_own_labels():
    given, logits = lists()
    inside = document_folds(given.annotations.documents, 13) == 2
    gold = given.annotations.gold
    changed = np.where(inside & (np.arange(len(given)) % 4 == 0), (gold + 1) % SIZE, gold)
    other = replace(given, annotations=replace(given.annotations, gold=changed))
    first = fit((given, logits)).decisions.probabilities
    second = fit((other, logits)).decisions.probabilities
    rows = inside[given.owner]
    np.testing.assert_allclose(first[rows], second[rows], atol=1e-4)
    assert np.abs(first[~rows] - second[~rows]).max() > 1e-3


def test_calibration_mentions_are_counted_apart_from_those_of_training():
    """Else a model calibrated again on the same documents would take each mention as known."""
    calibration = fit(lists(), names=("cross_encoder", "mention_concept_prior")).calibration
    assert calibration.training_counts is COUNTS and len(calibration.counts) > len(COUNTS)


def test_where_nothing_can_be_held_out_nothing_is_certified():
    one, logits = lists(documents=1)
    two = lists(documents=2)[0]
    gold = np.where(two.annotations.documents == "0", two.annotations.gold, -1)
    two = replace(two, annotations=replace(two.annotations, gold=gold))
    for given in (one, two):
        fitted = fit((given, logits))
        assert not fitted.is_held_out
        assert fitted.calibration.thresholds.certificate is None
    alone = fit((one, logits))
    decided = served(alone.calibration, one, logits)
    np.testing.assert_allclose(alone.decisions.probabilities, decided.probabilities)


def test_mentions_that_do_not_certify_take_part_in_all_but_the_certificate():
    given, logits = lists(n=400, documents=100, spread=12.0)
    is_random_sample = np.arange(400) % 100 >= 25
    marked = replace(
        given, annotations=replace(given.annotations, is_random_sample=is_random_sample)
    )
    first = fit((marked, logits), target_precision=0.8).calibration
    usual = fit((given, logits), target_precision=0.8).calibration.thresholds
    table = first.thresholds
    assert table.certificate.threshold is not None and 50 < table.certificate.documents <= 75
    assert usual.certificate.documents > 75
    assert table.rows["default"].accept == usual.rows["default"].accept
    # Documents that it was calibrated on do not certify again, also those that were no sample.
    cross_encoder = CrossEncoderLogits(None, given, by_missing_inputs={(): logits})
    settings = CalibrationArguments(
        features=["cross_encoder", "retrieval"], calibrator="platt", target_precision=0.8
    )
    earlier = first.documents.all_earlier()
    later = fit_calibration(given, cross_encoder, COUNTS, settings, 13, earlier, ONE_MODEL)
    assert later.facts["certified_by"] == {"documents": 0, "mentions": 0}
    assert not later.calibration.thresholds.is_certified


def test_what_is_not_tested_has_no_certificate():
    given, logits = lists(n=400, documents=100, spread=12.0)
    options = replace(ONE_MODEL, may_certify=False)
    settings = CalibrationArguments(features=["cross_encoder", "retrieval"], calibrator="platt")
    cross_encoder = CrossEncoderLogits(None, given, by_missing_inputs={(): logits})
    fitted = fit_calibration(given, cross_encoder, COUNTS, settings, 13, options=options)
    assert fitted.calibration.thresholds.certificate is None
    assert fitted.facts["certified_by"]["documents"] == 0


def test_weights_with_pruned_candidates_are_about_those_of_whole_lists(monkeypatch):
    pruned = fit(informed())
    assert pruned.facts["pruning"]["scored"] < 0.7 and pruned.facts["pruning"]["changed_top"] < 0.02
    monkeypatch.setattr("umls_reranker.calibration.calibrated_model.PRUNING_THRESHOLD", 0.0)
    whole = fit(informed())
    assert whole.facts["pruning"] == {"scored": 1.0, "changed_top": 0.0}
    weights = whole.calibration.models[0].fusion.weights
    assert pruned.calibration.models[0].fusion.weights == pytest.approx(weights, rel=0.05)


def test_a_small_sample_does_not_make_the_calibrator_believe_in_noise():
    """Two dozen scores, of which one means anything: of few lists, a fusion makes sense of all."""
    names = ["retrieval", *(f"noise{number}" for number in range(23))]

    def noisy(n: int, seed: int) -> tuple[CandidateLists, np.ndarray]:
        given, logits = lists(n, n // 5, seed)
        columns = np.random.default_rng(seed).normal(size=(len(names), len(logits)))
        return replace(
            given, scores=dict(zip(names, [logits + columns[0], *columns[1:]], strict=True))
        ), logits

    calibration = fit(noisy(60, 0), names).calibration
    fresh, logits = noisy(2000, 1)
    # All scores count, however far from those of the few lists.
    decided = served(
        replace(calibration, models=calibration.models[:1], source=ListSource()), fresh, logits
    )
    overconfidence = np.subtract(
        decided.tops.probabilities, fresh.is_gold(decided.tops.positions)
    ).mean()
    assert abs(overconfidence) < 0.1


def test_an_input_of_the_cross_encoder_that_no_list_has_is_missing_of_no_mention():
    given, logits = informed()
    untyped = with_types(given, [[]] * len(given))
    for one, name in ((given, "preferred_name"), (untyped, "entity_type")):
        usual = fit((one, logits)).calibration
        without = fit((one, logits), cross_encoder_inputs=(name,), options=ALL_MODELS).calibration
        first = without.models[0]
        assert (first.name, first.missing) == ("all", (name,))
        assert first.fusion.to_dict() == usual.models[0].fusion.to_dict()
        # Requests that bring it are decided as calibration saw them, without.
        brought = without.model_for(with_types(one, [["T047"]] * len(one)), [name])
        assert brought.complete.all() and not brought.models.any()


def test_what_the_cross_encoder_gains_is_a_fact():
    given, logits = informed()
    names = ["cross_encoder", "retrieval", "concept_count"]
    fitted = fit((given, logits), names)
    assert fitted.calibration.models[0].uses_cross_encoder
    assert abs(fitted.facts["cross_encoder"]["nats_gained"]) < 0.002
    assert fit(lists()).facts["cross_encoder"]["nats_gained"] > 0.002
    alone = fit((given, np.full(len(logits), np.nan, np.float32)), names[1:])
    assert "cross_encoder" not in alone.facts


@pytest.mark.parametrize(
    ("typed", "names", "cross_encoder_inputs", "expected"),
    [
        (True, ["cross_encoder", "retrieval"], [], ["all", "names", "names, no type"]),
        (False, ["cross_encoder"], [], ["all"]),
        # Without the scores nothing is left to rank by.
        (False, ["retrieval"], [], ["all"]),
        (False, ["cross_encoder"], ["context"], ["all", "names"]),
    ],
)
def test_models_are_of_what_lists_may_lack(typed, names, cross_encoder_inputs, expected):
    given, logits = informed()
    given = replace(given, lefts=["before"] * len(given))
    given = given if typed else with_types(given, [[]] * len(given))
    known = {(): logits, ("context",): logits}
    fitted = fit((given, known), names, cross_encoder_inputs, options=ALL_MODELS)
    assert [model.name for model in fitted.calibration.models] == expected


def test_own_similarities_are_weighed_where_no_score_is():
    names = ("cross_encoder", "retrieval", "own_similarity")
    models = fit(informed(), names, options=ALL_MODELS).calibration.models
    assert {model.name: model.features for model in models} == {
        "all": ["cross_encoder", "retrieval"],
        "names": ["cross_encoder", "own_similarity"],
        "names, no type": ["cross_encoder", "own_similarity"],
    }


def test_a_model_without_type_has_weights_thresholds_and_a_certificate_of_its_own():
    """The cross-encoder sees types; without them its logits say less."""
    given, logits = lists(800, 200)
    noise = np.random.default_rng(3).normal(0, 4, len(logits))
    scored = {(): logits * 3, ("entity_type",): (logits + noise).astype(np.float32)}
    options = {
        "cross_encoder_inputs": ["entity_type"],
        "options": ALL_MODELS,
        "calibrator": "beta",
        "target_precision": 0.6,
    }
    calibration = fit((given, scored), **options).calibration
    models = {model.name: model for model in calibration.models}
    weights = [models[name].fusion.weights["cross_encoder"] for name in ("all", "no type")]
    assert weights[0] == pytest.approx(1 / 3, abs=0.06) and weights[1] < weights[0] / 2
    coverages = {name: model.thresholds.certificate.coverage for name, model in models.items()}
    assert coverages["all"] > 2 * coverages["no type"] and coverages["all"] == pytest.approx(
        coverages["names"], abs=0.05
    )
    assert {*models["all"].thresholds.rows} == {"default", "T047", "T121"}
    assert {*models["no type"].thresholds.rows} == {"default"}
    chosen = calibration.model_for(with_types(given, [None] * len(given)), ["entity_type"])
    assert chosen.complete.all() and {
        calibration.models[number].name for number in chosen.models
    } == {"no type"}


def test_the_number_of_cores_changes_nothing(monkeypatch):
    states = []
    for cores in (1, 4):
        monkeypatch.setattr(cores_module, "usable_cores", lambda cores=cores: cores)
        fitted = fit(informed(), calibrator="beta", options=ALL_MODELS)
        thresholds = [model.thresholds.to_dict() for model in fitted.calibration.models]
        states.append((fitted.calibration.to_dict(), thresholds, fitted.facts))
    assert states[0] == states[1]


def test_names_alone_is_fitted_as_if_the_lists_had_never_had_anything_else():
    given, logits = informed()
    poorest = fit((given, logits), options=ALL_MODELS).calibration.models[-1]
    bare = fit(
        (without_inputs(given, ("retrieval_score", "entity_type")), logits), ("cross_encoder",)
    ).calibration
    assert (
        poorest.name == "names, no type"
        and poorest.fusion.to_dict() == bare.models[0].fusion.to_dict()
    )
    assert poorest.calibrator.to_dict() == bare.models[0].calibrator.to_dict()
    assert poorest.thresholds.to_dict() == bare.thresholds.to_dict()


def test_the_model_of_names_alone_does_not_know_other_names_of_concepts():
    given, logits = lists()
    gold = given.annotations.gold
    # The concept C0 is the gold one more often than others, and the names of every third gold
    # concept are known.
    shift = np.repeat(np.where(np.arange(len(gold)) % 4, 0, gold), SIZE)
    cuis = [f"C{number}" for number in (np.tile(np.arange(SIZE), len(gold)) - shift) % SIZE]
    given = replace(given, cuis=RepeatedTexts(cuis, np.arange(len(cuis))))
    named = [row for row in range(0, len(gold), 3) if gold[row] >= 0]
    known = COUNTS.with_names(
        [cuis[SIZE * row + gold[row]] for row in named], [given.mentions[row] for row in named]
    )
    names = ["cross_encoder", "exact_name", "concept_count"]
    fitted = fit((given, logits), names, counts=known, options=ALL_MODELS)
    first, *_, poorest = fitted.calibration.models
    bare = fit(
        (without_inputs(given, ("cui", "entity_type")), logits), names[:2], counts=known
    ).calibration.models[0]
    assert poorest.name == "names, no type" and poorest.fusion.to_dict() == bare.fusion.to_dict()
    assert first.fusion.weights["exact_name"] > 0 == poorest.fusion.weights["exact_name"]


@pytest.mark.parametrize("name", ["luck", "lexical"])
def test_an_unknown_or_missing_feature_is_refused(name):
    with pytest.raises(UserError, match=name):
        fit(lists(), ("cross_encoder", name))


class CountingCrossEncoder:
    """Logits that tell what the cross-encoder saw; remembers what it was asked."""

    template = PairTemplate(candidate_fields=("preferred_name",), mention_types=True)
    encoder = ReadsEverything()

    def __init__(self):
        self.asked = []

    def score(self, mentions, names, lefts, rights, desc):
        self.asked.append(list(zip(mentions, names, strict=True)))
        return Scores(
            np.array([len(mention + name) for mention, name in zip(mentions, names, strict=True)]),
            1,
        )


def test_candidates_are_scored_once_for_each_input_of_the_cross_encoder():
    items = [[{"name": "a", "cui": "a", "preferred_name": "x"}]]
    cross_encoder = CountingCrossEncoder()
    logits = CrossEncoderLogits(cross_encoder, make_lists(["m"], items, ["Drug"], HIERARCHY))
    for _ in range(2):
        assert (
            logits().tolist()
            == logits(("cui", "retrieval_score")).tolist()
            == [len("m ; Drug" + "a ; x")]
        )
        assert logits(("cui", "entity_type")).tolist() == [len("m" + "a ; x")]
    assert cross_encoder.asked == [[("m ; Drug", "a ; x")], [("m", "a ; x")]]


def test_a_pair_that_reads_the_same_without_an_input_is_scored_once():
    named_twice = {"name": "a", "cui": "a", "preferred_name": "a"}
    items = [[named_twice, {"name": "b", "cui": "b", "preferred_name": "x"}]]
    cross_encoder = CountingCrossEncoder()
    logits = CrossEncoderLogits(cross_encoder, make_lists(["m"], items, ["Drug"], HIERARCHY))
    every = logits()
    without_preferred = logits(("preferred_name",))
    assert cross_encoder.asked == [[("m ; Drug", "a"), ("m ; Drug", "b ; x")], [("m ; Drug", "b")]]
    assert without_preferred[0] == every[0] and without_preferred[1] != every[1]


def test_mentions_without_types_have_no_say_in_a_model_that_never_decides_about_them():
    given, logits = lists(900, 45)
    # Of each document some mentions have types, so that the folds are the same with and without the
    # others.
    typed = np.arange(900) // 45 % 5 < 2
    given = with_types(
        given, [types if known else None for types, known in zip(given.types, typed, strict=True)]
    )
    names = ("cross_encoder", "type_lift")
    whole = fit((given, logits), names).calibration.models[0]
    part = fit((given.take(typed), logits[typed[given.owner]]), names).calibration.models[0]
    assert whole.fusion.weights == pytest.approx(part.fusion.weights)
    parameters = part.calibrator.to_dict()["parameters"]
    assert whole.calibrator.to_dict()["parameters"] == pytest.approx(parameters)


def test_models_that_weigh_the_same_share_their_fits(monkeypatch):
    names = []
    fit_folds = FoldedLists.fit

    def counted(self, features, score_candidates):
        names.append(tuple(features))
        return fit_folds(self, features, score_candidates)

    monkeypatch.setattr(FoldedLists, "fit", counted)
    models = fit(informed(), options=ALL_MODELS).calibration.models
    assert [model.name for model in models] == ["all", "names", "names, no type"]
    assert names == [("cross_encoder", "retrieval"), ("cross_encoder",)]


def test_a_fit_knows_the_fits_without_one_fold_more():
    left_out = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    models = {folds: CalibratedModel(name=str(folds)) for folds in left_out}
    served = NestedFit.of(models, 3)
    assert served.model is models[()] and [*served.without] == [0, 1, 2]
    innermost = served.without[2].without[0]
    assert innermost.model is models[0, 2] and not innermost.without
    # Too little data without two of the folds.
    del models[0, 2]
    served = NestedFit.of(models, 3)
    assert not served.without[0].without and not served.without[2].without
    assert [*served.without[1].without] == [0, 2]


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_sentinel_among_the_scores_changes_neither_weights_nor_range():
    given, logits = lists()
    scores = logits.astype(np.float64)
    names = ("retrieval", "mention_in_name")
    plain = fit((replace(given, scores={"retrieval": scores.copy()}), logits), names)
    weights = plain.calibration.models[0].fusion.weights
    scores[[0, 5]] = [-9999.0, 1e308]
    spoiled = fit((replace(given, scores={"retrieval": scores}), logits), names)
    score_range = spoiled.calibration.source.score_ranges["retrieval"]
    assert -10 < score_range.low < score_range.high < 10
    assert spoiled.calibration.models[0].fusion.weights == pytest.approx(weights, rel=0.2)
    # Served, such mentions lack the score; so they do here.
    assert (~spoiled.decisions.complete).nonzero()[0].tolist() == [0, 1]
    assert spoiled.decisions.missing["retrieval_score"].nonzero()[0].tolist() == [0, 1]
