"""Counts of the training split, the features made of them, and the calibration that weighs it."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from list_fixtures import make_lists, with_types
from safetensors.numpy import load_file, save_file

from umls_reranker.calibration import calibrated_model
from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.calibration import Calibration
from umls_reranker.calibration.calibrators import IdentityCalibrator, PlattCalibrator
from umls_reranker.calibration.feature_table import feature_table
from umls_reranker.calibration.features import default_features, inputs_of
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.list_source import ListSource
from umls_reranker.calibration.logistic import conditional_log_odds
from umls_reranker.calibration.missing_inputs import is_missing, without_inputs
from umls_reranker.calibration.qualifiers import qualifier_agreement
from umls_reranker.calibration.ranking import rank_scored
from umls_reranker.calibration.score_range import ScoreRange
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.thresholds_file import thresholds_content
from umls_reranker.core.errors import UserError
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.vocab.trigrams import PAIRS_AT_ONCE, TEXTS_AT_ONCE, shared_trigrams
from umls_reranker.vocab.type_sets import TypeSets, type_lists
from umls_reranker.vocab.types import SemanticType, TypeHierarchy

TRAINING = [
    ("cold", "C1", ["T1"]),
    ("Cold", "C1", ["T1"]),
    ("cold", "C2", ["T2"]),
    ("heat-stroke", "C3", ["T1", "T3"]),
    ("flu", "C1", ["UnknownType"]),
]


@pytest.fixture
def counts() -> StringCounts:
    return StringCounts.fit(TRAINING)


LOGITS = np.array([1.0, 0.5, 0.0])
KINDS = TypeHierarchy([SemanticType(name, name.lower()) for name in ("T1", "T2", "T3", "T9")])


def lists(
    retrieval=None, cuis=("C1", "C2", None), types=None, kinds=(None, None, None), **sides
) -> CandidateLists:
    """Two mentions with two candidates and one; types of candidates as `kinds`."""
    columns = zip(("Common Cold", "cold", "anything"), cuis, kinds, strict=True)
    items = [{"name": name, "cui": cui, "semantic_types": kind} for name, cui, kind in columns]
    found = make_lists(["COLD", "never seen"], [items[:2], items[2:]], types, KINDS, **sides)
    return replace(
        found, scores={name: np.array(column, float) for name, column in (retrieval or {}).items()}
    )


def of(*fusions, counts=None, calibrator=None, **options) -> Calibration:
    """A model for each fusion, the later ones without what the first reads more."""
    models = []
    for fusion in fusions:
        gone = sorted({*inputs_of(fusions[0].weights)} - {*inputs_of(fusion.weights)})
        models.append(
            CalibratedModel(calibrator or IdentityCalibrator(), fusion, missing=tuple(gone))
        )
    return Calibration(models, counts or StringCounts.fit([]), **options)


def decide(calibration, lists, logits=LOGITS, cross_encoder_inputs=()):
    scores = Scores(np.array(logits, np.float32), 0)
    return rank_scored(lists, scores, calibration, cross_encoder_inputs=cross_encoder_inputs)


def calibration(counts, calibrator=None, bonus=0.0, index_key="") -> Calibration:
    poor = FeatureFusion({"cross_encoder": 1.0}, {"string_count": 0.0}, 0.0)
    rich = FeatureFusion(
        {"cross_encoder": 1.0, "retrieval": 5.0}, {"string_count": 0.0}, 0.0, bonus=bonus
    )
    bare = FeatureFusion({"retrieval": 5.0}, {"string_count": 0.0}, 0.0)
    calibrator = calibrator or PlattCalibrator(slope=2.0, intercept=0.0)
    models = [
        CalibratedModel(calibrator, rich, list_fusion=bare),
        CalibratedModel(
            PlattCalibrator(slope=3.0, intercept=0.0),
            poor,
            missing=("retrieval_score",),
            name="names",
        ),
    ]
    return Calibration(models, counts, ListSource(index_key, {"retrieval": ScoreRange(0.0, 1.0)}))


def test_counts_by_hand(counts):
    assert len(counts) == 3
    forms = ["cold", "heat stroke", "unseen", "flu"]
    rows = np.array([0, 0, 3, 3, 2])
    concepts = np.array([0, 3, 0, 2, 0])
    cuis = ["C1", "C9", "", "C2"]
    found = counts.pair_counts(forms, TypeSets([], np.full(4, -1)), cuis, rows, concepts)
    assert counts.string_counts(forms).tolist() == [3, 1, 0, 1]
    assert found.of_concepts.tolist() == [3, 0, 0, 1]
    assert found.uses.tolist() == [2, 1, 1, 0, 0]


def test_saved_counts_hold_no_text_and_do_not_depend_on_the_order_of_the_training_split(
    counts, tmp_path
):
    counts.save(tmp_path / "a")
    again = StringCounts.load(tmp_path / "a")
    assert again.string_counts(["cold"]).tolist() == [3] and len(again) == 3
    StringCounts.fit(reversed(TRAINING)).save(tmp_path / "b")
    saved = (tmp_path / "a").read_bytes()
    assert b"cold" not in saved and saved == (tmp_path / "b").read_bytes()


def test_damaged_counts_are_refused(tmp_path):
    (tmp_path / "counts").write_bytes(b"nothing")
    for name in ("counts", "missing"):
        with pytest.raises(UserError, match="missing or damaged"):
            StringCounts.load(tmp_path / name)


def test_features_by_hand(counts):
    table = feature_table(lists(), counts)
    candidates = table.candidates
    assert candidates["exact_name"].tolist() == [0, 1, 0]
    np.testing.assert_allclose(
        candidates["mention_concept_prior"], np.log([2.1 / 4, 1.1 / 4, 0.1 / 1])
    )
    np.testing.assert_allclose(candidates["concept_count"], np.log1p([3, 1, 0]))
    np.testing.assert_allclose(table.lists["string_count"], np.log1p([3, 0]))
    assert list(table.lists) == ["string_count", "seen_string"]


def test_type_lifts_by_hand(counts):
    # Of five typed uses in training three are of T1; C1 had it two of two times, C2 never.
    found = feature_table(lists(types=["T1", ["T9"]]), counts).candidates["type_lift"]
    lift_of_c1 = (2 + 2 * 0.6) / ((2 + 2) * 0.6)
    lift_of_c2 = 2 * 0.6 / ((1 + 2) * 0.6)
    np.testing.assert_allclose(found, [np.log(lift_of_c1), np.log(lift_of_c2), 0])
    types = TypeSets.of_lists(type_lists([["T1", "T3"], ["T1"]]))
    both = counts.pair_counts(
        ["a", "b"], types, ["C3"], np.array([0, 1]), np.array([0, 0])
    ).type_lifts
    lift_of_two_types = (2 + 2 * 0.8) / ((2 + 2) * 0.8)
    lift_of_one_type = (1 + 2 * 0.6) / ((2 + 2) * 0.6)
    np.testing.assert_allclose(both, [np.log(lift_of_two_types), np.log(lift_of_one_type)])


def test_mentions_without_types_have_no_type_lift(counts):
    for types in (None, [None, []], [["UnknownType"], []]):
        assert np.isnan(feature_table(lists(types=types), counts).candidates["type_lift"]).all()


def test_type_compatibility_by_hand():
    # A disease is a kind of biologic function, a drug is not; one agreeing pair is enough, no type
    # contradicts none.
    types = [["T038"], ["UnknownType"], "Disease or Syndrome", None]
    candidates = [
        [["T047"], ["T121"], ["T121", "T047"], [], None, ["T999"], ["T999", "T121"]],
        [["T047"]],
        [["T121"], "T038"],
        [["T047"]],
    ]
    items = [[{"name": "a", "semantic_types": kinds} for kinds in own] for own in candidates]
    given = make_lists(["m"] * 4, items, types)
    found = feature_table(given, StringCounts.fit([]), ["type_compatibility"]).candidates[
        "type_compatibility"
    ]
    # Types that the model does not know say nothing.
    np.testing.assert_array_equal(found, [1, 0, 1, 1, np.nan, 1, 0, np.nan, 0, 1, np.nan])


def test_lists_without_retrieval_scores_are_scored_without_them(counts):
    scored = lists({"retrieval": [0.1, 0.9, np.nan]})
    found = decide(calibration(counts), scored)
    assert found.models.tolist() == [0, 1] and found.complete.all()
    # The calibrator's slope of 2 works on utilities, inside the list.
    utility = np.array([2 * (1.0 + 0.5), 2 * (0.5 + 4.5)])
    expected = np.exp(utility) / (1 + np.exp(utility).sum())
    np.testing.assert_allclose(found.probabilities[:2], expected)
    np.testing.assert_allclose(found.probabilities[2], 0.5)
    none = decide(calibration(counts), lists())
    assert none.scores.log_odds.tolist() == [1.0, 0.5, 0.0]
    # With the fallback's own slope.
    np.testing.assert_allclose(none.probabilities[0], np.exp(3.0) / (1 + np.exp(3.0) + np.exp(1.5)))


# Candidates with too low a probability by the other features are pruned


def test_pruned_are_those_of_low_probability_by_the_other_features_but_never_the_best_of_a_list(
    counts, monkeypatch
):
    scored = lists({"retrieval": [0.9, 0.1, 0.0]})
    # By the list fusion 0.972 and 0.018 of the first mention, 0.5 of the second's only candidate.
    for threshold, expected in ((0.01, [1, 1, 1]), (0.1, [1, 0, 1]), (0.999, [1, 0, 1])):
        monkeypatch.setattr(calibrated_model, "PRUNING_THRESHOLD", threshold)
        decided = decide(calibration(counts), scored)
        assert np.isfinite(decided.scores.logits).tolist() == expected
    # The model that decides without the scores has nothing to prune by.
    decided = decide(calibration(counts), lists())
    assert (
        np.isfinite(decided.scores.logits).all() and np.isnan(decided.scores.list_utilities).all()
    )


def test_a_pruned_candidate_has_its_odds_against_none_by_the_other_features(counts, monkeypatch):
    monkeypatch.setattr(calibrated_model, "PRUNING_THRESHOLD", 0.5)
    asked = calibration(counts, IdentityCalibrator(), bonus=1.0)
    found = decide(asked, lists({"retrieval": [0.9, 0.8, 0.1]}), [-1.0, 0.0, 2.0])
    # The bonus goes to the best of those scored: a logit of 0 for the other would have been more.
    utility = np.array([-1.0 + 4.5 + 1.0, 4.0])
    np.testing.assert_allclose(found.scores.log_odds, [*utility, 2.0 + 0.5 + 1.0])
    np.testing.assert_allclose(
        found.probabilities[:2], np.exp(utility) / (1 + np.exp(utility).sum())
    )
    np.testing.assert_allclose(found.scores.list_utilities, [4.5, 4.0, 0.5])
    # It never comes first.
    found = decide(asked, lists({"retrieval": [0.9, 0.8, 0.1]}), [-9.0, 0.0, 2.0])
    assert found.scores.log_odds[0] == -3.5 > found.scores.log_odds[1] > -3.6


# What a model reads, and who came without


READ = ("preferred_name", "definition")


def reading(lacking=(), **columns) -> CandidateLists:
    """Two whole lists, of which the second lacks some of what a template reads."""
    texts = {
        name: [None if name in lacking and place == 2 else "x" for place in range(3)]
        for name in READ
    }
    sides = {"lefts": ["before", "" if "context" in lacking else "before"]}
    found = lists(types=[["T1"], ["T1"]], **columns, **sides)
    return replace(found, **{f"{name}s": pa.array(column) for name, column in texts.items()})


@pytest.mark.parametrize("name", ["preferred_name", "definition", "context"])
def test_an_input_that_the_template_reads_and_that_is_missing_counts(name):
    for fusion in (None, FeatureFusion({"cross_encoder": 1.0}, {}, 0.0)):
        fused = Calibration([CalibratedModel(fusion=fusion)], StringCounts.fit(TRAINING))
        given = reading([name])
        found = fused.model_for(given, [name])
        assert found.complete.tolist() == [True, False]
        assert {key: missing.tolist() for key, missing in found.missing.items()} == {
            name: [False, True]
        }
        assert fused.model_for(given).complete.all()


@pytest.mark.parametrize(
    ("feature", "missing"),
    [
        ("mention_concept_prior", ["cui"]),
        ("type_lift", ["entity_type", "cui"]),
        ("type_compatibility", ["entity_type", "semantic_types"]),
        ("retrieval", ["retrieval_score"]),
        ("context", ["context", "context_score"]),
        ("exact_name", []),
    ],
)
def test_what_each_feature_reads(counts, feature, missing):
    fused = of(FeatureFusion({feature: 1.0}, {}, 0.0), counts=counts)
    scored = reading(["context"], cuis=["C1", "C2", " "])
    found = fused.model_for(scored).missing
    assert list(found) == missing
    expected = {"cui": [False, True], "context": [False, True], "entity_type": [False, False]}
    for name, column in found.items():
        assert column.tolist() == expected.get(name, [True, True])
    untyped = fused.model_for(with_types(scored, [None, None])).missing
    assert (
        untyped.get("entity_type", np.ones(2)).all()
        and not untyped.get("semantic_types", np.zeros(2)).any()
    )


def test_a_feature_without_weight_is_not_read(counts):
    seen = FeatureFusion({"retrieval": 0.0}, {}, 0.0, seen_weights={"retrieval": 1.0})
    assert list(of(seen, counts=counts).model_for(lists()).missing) == ["retrieval_score"]
    unread = FeatureFusion({"retrieval": 0.0, "mention_concept_prior": 0.0}, {}, 0.0)
    assert of(unread, counts=counts).model_for(lists()).missing == {}


def test_an_empty_definition_is_given_and_text_on_one_side_is_context():
    items = [
        [
            {"name": "a", "preferred_name": "A", "definition": ""},
            {"name": "b", "preferred_name": " "},
        ],
        [{"name": "c", "definition": "C"}],
        [],
    ]
    given = make_lists(["m"] * 3, items, lefts=["a ", " ", ""], rights=[" ", "b", "\n"])
    assert {name: is_missing(given, name).tolist() for name in (*READ, "context")} == {
        "preferred_name": [True, True, False],
        "definition": [True, False, False],
        "context": [False, False, True],
    }


def test_a_range_is_that_of_the_finite_scores_and_holds_its_ends():
    assert ScoreRange.of(np.array([0.9, np.inf, np.nan, 0.1, -np.inf])) == (0.1, 0.9)
    # A long tail is no sentinel.
    tail = np.concatenate([np.linspace(0, 1, 100), np.geomspace(2, 1e6, 40)])
    assert ScoreRange.of(tail) == (0, 1e6) and ScoreRange.of(np.append(tail, -9999)) == (0, 1e6)
    # Nor does it matter in how many candidates one is, or whether most have the same score.
    for scores in (np.linspace(0, 1, 60), np.append(np.zeros(100), np.linspace(0, 1, 9))):
        assert ScoreRange.of(np.append(scores, np.full(40, -9999.0))) == (0, 1)
    assert ScoreRange.of(np.array([0.0, 1.0, 0.0, 100.0])) == (0, 100)
    # A retriever may give all candidates the same score.
    np.testing.assert_array_equal(
        ScoreRange(0.5, 0.5).inside(np.array([0.5, 0.4, 0.6])), [0.5, np.nan, np.nan]
    )


def content(calibration):
    """Of calibrator.json and thresholds.json."""
    return calibration.to_dict(), thresholds_content(
        {model.name: model.thresholds for model in calibration.models}
    )


def test_scores_of_our_retrievers_count_only_from_the_calibrated_index(counts):
    # All are cosines within the range: only the key tells them apart.
    scored = lists({"retrieval": [0.1, 0.9, 0.5], "lexical": [0.1, 0.9, 0.5]})
    known = calibration(counts, index_key="here")
    for keys, models in (
        (["here", "here"], [0, 0]),
        (["here", "there"], [0, 1]),
        (["", "here"], [1, 0]),
    ):
        given = replace(scored, index_keys=keys)
        found = decide(known, given)
        assert found.models.tolist() == models
        by_model = [
            decide(known, each).probabilities
            for each in (replace(scored, index_keys=["here"] * 2), lists({}))
        ]
        expected = [*by_model[models[0]][:2], by_model[models[1]][2]]
        assert found.probabilities == pytest.approx(expected)


def test_models_of_the_order_decide_about_lists_with_scores():
    bare = FeatureFusion({"own_similarity": 1.0}, {"string_count": 0.0}, 0.0)
    ordered = FeatureFusion({"scored_position": 1.0}, {"string_count": 0.0}, 0.0)
    calibration = of(bare, ordered)
    decisions = decide(calibration, replace(lists({}), are_scored=np.array([True, False])))
    assert decisions.models.tolist() == [1, 0] and decisions.complete.all()
    # Lists without scores lack nothing that the first model reads.
    assert decisions.missing == {}


def test_ids_of_a_vocabulary_that_was_not_counted_are_missing(tmp_path):
    fusions = [
        FeatureFusion({name: 1.0}, {"string_count": 0.0}, 0.0)
        for name in ("concept_count", "own_similarity")
    ]
    counted = StringCounts.fit([("m", "C0000001", [])])
    for cuis, model in (
        (["C0000002", "C0000003"], 0),
        (["LOCAL:1", "LOCAL:2"], 1),
        # Two vocabularies in a list.
        (["LOCAL:1", "C0000003"], 0),
    ):
        candidates = [{"name": "a", "cui": cui} for cui in cuis]
        decisions = decide(
            replace(of(*fusions), counts=counted), make_lists(["m"], [candidates]), [0, 0]
        )
        assert decisions.models.tolist() == [model]
        assert decisions.missing["cui"].tolist() == [model == 1]
    # Files of earlier versions do not say what was counted.
    counted.save(tmp_path / "counts")
    arrays = load_file(tmp_path / "counts")
    save_file({k: v for k, v in arrays.items() if "vocab" not in k}, tmp_path / "counts")
    assert StringCounts.load(tmp_path / "counts").have_counted_vocabularies(["LOCAL:1"]).all()


def test_the_log_odds_of_what_is_sure_are_finite():
    alone = [
        conditional_log_odds(np.array([utility]), np.array([0, 1]), np.zeros(1))
        for utility in (20.0, -800.0)
    ]
    assert np.concatenate(alone).tolist() == pytest.approx([20.0, -800.0])
    assert 20 < conditional_log_odds(np.array([800.0]), np.array([0, 1]), np.zeros(1))[0] < np.inf


def test_scores_that_calibration_never_saw_count_as_missing(counts):
    for score in (25.1, np.inf, np.nan, 1.11, -0.11):
        scored = lists({"retrieval": [0.1, 0.9, score]})
        found = decide(calibration(counts), scored)
        assert found.models.tolist() == [0, 1] and found.missing["retrieval_score"].tolist() == [
            False,
            True,
        ]
        assert found.probabilities[2] == pytest.approx(0.5)
    within = decide(calibration(counts), lists({"retrieval": [0.1, 0.9, 1.1]}))
    assert within.models.tolist() == [0, 0]


def test_lists_without_inputs_are_as_if_these_had_not_been_given():
    whole = reading(
        retrieval={"retrieval": [0.1, 0.2, 0.3]}, cuis=("C1", "C2", "C3"), kinds=["T1", "T2", "T1"]
    )
    inputs = ("cui", *READ, "context", "entity_type", "semantic_types", "retrieval_score")
    for name in inputs:
        bare = without_inputs(whole, [name])
        assert is_missing(bare, name).all()
        assert not any(is_missing(bare, other).any() for other in inputs if other != name)
    assert without_inputs(whole, []) is whole


def test_the_first_model_of_which_all_inputs_are_there_decides(counts):
    rich = FeatureFusion({"cross_encoder": 1.0, "retrieval": 1.0, "type_lift": 1.0}, {}, 0.0)
    poor = FeatureFusion({"cross_encoder": 4.0}, {}, 0.0)
    beyond = ("retrieval_score", "cui", "entity_type")
    fused = Calibration(
        [CalibratedModel(fusion=rich), CalibratedModel(fusion=poor, missing=beyond, name="names")],
        counts,
    )
    scored = {"retrieval": [0.1, 0.9, 0.5]}
    types = [["T1"], ["T1"]]
    # A score that one candidate lacks is one that the list lacks; so is a CUI.
    cases = [
        (lists(scored, cuis=("C1", "C2", "C3"), types=types), [0, 0]),
        (lists({"retrieval": [0.1, np.nan, 0.5]}, cuis=("C1", "C2", "C3"), types=types), [1, 0]),
        (lists(scored, cuis=("C1", None, "C3"), types=types), [1, 0]),
        (lists(scored, cuis=("C1", "C2", "C3"), types=[["T1"], None]), [0, 1]),
        (lists(), [1, 1]),
    ]
    for given, models in cases:
        chosen = fused.model_for(given)
        assert chosen.models.tolist() == models and chosen.complete.all()
    assert decide(fused, given).scores.log_odds.tolist() == [4.0, 2.0, 0.0]


def test_calibration_round_trip(counts, tmp_path):
    counts.save(tmp_path / "string_counts.safetensors")
    again = Calibration.load(*content(calibration(counts, index_key="here")), tmp_path)
    scored = replace(lists({"retrieval": [0.1, 0.9, np.nan]}), index_keys=["here"] * 2)
    found = decide(again, scored)
    before = decide(calibration(counts, index_key="here"), scored)
    np.testing.assert_array_equal(found.probabilities, before.probabilities)
    assert found.models.tolist() == before.models.tolist() == [0, 1]
    assert [model.name for model in again.models] == ["all", "names"]
    assert again.models[1].list_fusion is None
    assert again.models[0].list_fusion.weights == {"retrieval": 5.0}
    assert again.source.score_ranges == {"retrieval": (0.0, 1.0)}
    assert again.source.index_key == "here"


@pytest.mark.parametrize(
    ("change", "named"),
    [
        *(({"index_key": key}, "index_key") for key in (None, "", 7)),
        *(
            ({"score_ranges": ranges}, "score_ranges")
            for ranges in ({}, {"retrieval": {"low": 1, "high": 0}}, [1])
        ),
        *(({"models": models}, "models") for models in ([], [{"fusion": None}], 1)),
    ],
)
def test_a_damaged_calibration_is_refused(counts, tmp_path, change, named):
    counts.save(tmp_path / "string_counts.safetensors")
    state, thresholds = content(calibration(counts))
    with pytest.raises(UserError, match=named):
        Calibration.load(state | change, thresholds, tmp_path)


def test_a_calibration_with_other_models_chooses_among_these(counts):
    one = calibration(counts)
    assert one.model_for(lists()).models.tolist() == [1, 1]
    assert replace(one, models=one.models[:1]).model_for(lists()).models.tolist() == [0, 0]


# Features that need neither training mentions nor an index: positions in a list, words, and


def column(
    name: str, mentions: list[str], candidates: list[list[tuple[str, str | None]]]
) -> np.ndarray:
    items = [[{"name": text, "cui": cui} for text, cui in listed] for listed in candidates]
    return feature_table(make_lists(mentions, items), StringCounts.fit([]), [name]).candidates[name]


def positions(*candidates: list[tuple[str, str | None]]) -> list[int]:
    values = column("list_position", ["m"] * len(candidates), list(candidates))
    return np.rint(np.exp(-values)).astype(int).tolist()


def test_positions_are_those_of_concepts_and_names():
    assert positions([("a", "C1"), ("b", "C2"), ("c", "C3")], [], [("c", "C3")]) == [1, 2, 3, 1]
    # Whether a concept comes with further names changes nothing for the others.
    assert positions([("a", "C1"), ("b", "C2"), ("a2", "C1"), ("c", "C3")]) == [1, 2, 1, 3]
    # The order of candidates that are called the same is chance.
    assert positions([("Cold", "C2"), ("cold", "C1"), ("flu", "C3")]) == [1, 1, 2]
    # Without CUIs the concept is the name.
    assert positions([("a", None), ("b", None), ("a", None)]) == [1, 2, 1]
    assert positions([]) == []


@pytest.mark.parametrize(
    ("mention", "name", "same"),
    [
        ("carcinomas", "Carcinoma", 1),
        ("antibodies", "antibody", 1),
        ("biological processes", "Process, Biological", 1),
        ("cell carcinoma", "Renal cell carcinoma", 0),
        ("gas", "ga", 0),
    ],
)
def test_same_words(mention, name, same):
    assert column("same_words", [mention], [[(name, "C1")]]).tolist() == [same]


def test_other_names_of_a_concept_count(tmp_path):
    names = ["heart attack", "COLD", "Gallstones"]
    counts = (
        StringCounts.fit([])
        .with_names(["C1", "C1", "C2"], names)
        .plus(StringCounts.fit([("m", "C1", [])]))
    )
    counts.save(tmp_path / "counts")
    # The third is a name of one word, in the plural; "COLD" is an acronym, not a name.
    mentions = ["Heart-attack", "attacks, heart", "gallstone", "heart", "cold"]
    lists = make_lists(mentions, [[{"name": "a", "cui": "C1"}, {"name": "b", "cui": "C2"}]] * 5)
    found = feature_table(
        lists, StringCounts.load(tmp_path / "counts"), ["exact_name", "same_words"]
    ).candidates
    assert np.flatnonzero(found["exact_name"]).tolist() == [0]
    assert np.flatnonzero(found["same_words"]).tolist() == [0, 2, 5]


def test_concepts_with_low_numbers_are_old():
    found = column(
        "concept_age",
        ["m"],
        [[("a", "c0004093"), ("b", "C5000000"), ("c", "HP:0000001"), ("d", None)]],
    )
    np.testing.assert_allclose(found, [-0.004093, -5, -1, -1])


def test_only_lists_of_users_count_by_position():
    lists = make_lists(["m"], [[{"name": "a", "cui": "C0000001", "letters_score": 1.0}]])
    assert {"list_position", "same_words", "concept_age"} < {*default_features(lists)}
    from_index = replace(lists, index_keys=["key"])
    assert {*default_features(lists)} - {*default_features(from_index)} == {"list_position"}


@pytest.mark.parametrize(
    ("mention", "name", "form", "similarity"),
    [
        ("renal tumours", "Carcinoma of the Kidney", 1, 1),
        ("Diabetes, type II", "diabetes type 2", 1, 1),
        ("heart attack", "heart", 0, np.sqrt(5 / 11)),
        ("heart attack", "Kidney", 0, 0),
    ],
)
def test_own_similarities_are_of_normal_forms(mention, name, form, similarity):
    assert column("own_form", [mention], [[(name, None)]]).tolist() == [form]
    np.testing.assert_allclose(column("own_similarity", [mention], [[(name, None)]]), [similarity])


def test_lists_have_a_score_where_a_retriever_gave_one():
    items = [[{"name": "a", "my_score": score}] for score in (0.5, None)]
    lists = make_lists(["m"] * 3, [*items, [{"name": "a", "synonym_score": 1.0}]])
    assert lists.are_scored.tolist() == [True, False, False]
    assert is_missing(lists.take([0, 2]), "scores").tolist() == [False, True]
    # The order counts by itself where a model was calibrated on it.
    assert "scored_position" not in default_features(lists)


# How much mention and name have in common, letter by letter


PAIR = np.array([0])


@pytest.mark.parametrize(
    ("mention", "name", "of_mention", "of_name"),
    [
        # " he", "hea", "ear", "art", "rt " of both; " at", "att", "tta", "tac", "ack", "ck " of
        # one.
        ("heart", "heart attack", 1, 5 / 11),
        # The order of words does not matter, nor how often one comes.
        ("attack heart", "heart heart attack", 1, 1),
        # " fe", "fev", "eve", "ver" of both; "er " ends the first alone.
        ("fever", "feverish", 4 / 5, 4 / 8),
        ("日本", "日本語", 1 / 2, 1 / 3),
        ("heart", "", 0, 0),
        ("", "", 0, 0),
    ],
)
def test_shares_by_hand(mention, name, of_mention, of_name):
    found = shared_trigrams([mention], [name], PAIR, PAIR)
    assert [share.tolist() for share in found] == [
        [pytest.approx(of_mention)],
        [pytest.approx(of_name)],
    ]


def test_shares_are_of_a_candidate_and_its_own_mention():
    found = shared_trigrams(
        ["arm", "leg"], ["arm", "leg"], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    )
    assert [share.tolist() for share in found] == [[1, 0, 1, 0]] * 2
    none = np.empty(0, np.int64)
    assert [len(share) for share in shared_trigrams([], [], none, none)] == [0, 0]


def test_more_pairs_and_texts_than_fit_at_once():
    letters = np.random.default_rng(0).integers(97, 123, (TEXTS_AT_ONCE + 3, 8))
    names = ["".join(map(chr, row)) for row in letters]
    codes = np.arange(PAIRS_AT_ONCE + 5) % len(names)
    found = shared_trigrams(names[-1:], names, np.zeros(len(codes), np.int64), codes)[0]
    assert np.array_equal(found == 1, codes == len(names) - 1)
    assert np.array_equal(found[: len(names)], found[len(names) : 2 * len(names)])


def test_shares_of_trigrams_are_features_of_bare_lists():
    lists = make_lists(["Heart"], [[{"name": "HEART attack"}, {"name": "Arm"}]])
    columns = feature_table(lists, StringCounts.fit([])).candidates
    assert columns["mention_in_name"].tolist() == [1, 0]
    assert columns["name_in_mention"] == pytest.approx([5 / 11, 0])


# What contradicts a mention, and what only says more or less


@pytest.mark.parametrize(
    ("mention", "name", "fits"),
    [
        ("High serum calcitriol", "Low serum calcitriol", 0),
        ("hypertension", "Hypotension", 0),
        ("VSD with pulmonary stenosis", "VSD without pulmonary stenosis", 0),
        ("wedging of T11", "Wedging of T12", 0),
        ("type II diabetes", "Diabetes type 1", 0),
        ("Left arm", "RIGHT ARM", 0),
        # One of them says more than the other, the same, or both sides.
        ("Diabetes type II", "diabetes type 2", 1),
        ("spastic quadriplegia", "Progressive spastic quadriplegia", 1),
        ("arm", "Left arm", 1),
        ("left and right arm", "Left arm", 1),
        ("raised sodium", "Increased sodium", 1),
        (f"case {'1' * 5000}", "case 2", 0),
    ],
)
def test_contradictions(mention, name, fits):
    assert qualifier_agreement([mention], [name], PAIR, PAIR).tolist() == [fits]
    assert qualifier_agreement([name], [mention], PAIR, PAIR).tolist() == [fits]


def test_contradictions_are_of_a_candidate_and_its_own_mention():
    found = qualifier_agreement(
        ["left", "right"], ["left", "right"], np.array([0, 0, 1, 1]), np.array([0, 1, 1, 0])
    )
    assert found.tolist() == [1, 0, 1, 0] and found.dtype == np.float64
    none = np.empty(0, np.int64)
    assert len(qualifier_agreement([], [], none, none)) == 0


def test_contradiction_is_a_feature_of_candidates():
    lists = make_lists(["acute pain"], [[{"name": "Chronic pain"}, {"name": "Pain"}]])
    assert feature_table(lists, StringCounts.fit([])).candidates[
        "qualifier_agreement"
    ].tolist() == [0, 1]


def test_words_that_only_begin_like_a_prefix_say_nothing():
    pairs = {
        "low blood pressure on standing": "postural hypotension",
        "prenatal onset": "postnatal onset",
    }
    place = np.arange(2)
    assert qualifier_agreement([*pairs], [*pairs.values()], place, place).tolist() == [1, 0]
