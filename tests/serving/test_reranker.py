"""`UMLSReranker`: decisions on given scores, and a real model folder from loading to saving."""

import gc
import random
import re
import sys
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pytest
from list_fixtures import ReadsEverything, assert_alike
from tiny_models import tiny_encoder
from tiny_reranker import HIERARCHY, fit_thresholds, tiny_reranker, with_cut

from umls_reranker import UMLSReranker, UserError
from umls_reranker.calibration.calibrated_model import CalibratedModel
from umls_reranker.calibration.calibration import Calibration
from umls_reranker.calibration.calibrators import IdentityCalibrator
from umls_reranker.calibration.candidate_scores import CandidateScores
from umls_reranker.calibration.decisions import Decisions
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.list_source import ListSource
from umls_reranker.calibration.score_range import ScoreRange
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.calibration.thresholds import ThresholdTable, TypeThreshold
from umls_reranker.calibration.type_lineage import DEFAULT
from umls_reranker.core.json_files import read_json
from umls_reranker.hub.file_names import MANIFEST
from umls_reranker.hub.manifest import model_files
from umls_reranker.linking.linked_concept import LinkedConcept
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.table import mention_table
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.serving.cluster_batches import RANKED_SCHEMA
from umls_reranker.serving.ranked_candidate import (
    RANKED_TYPE,
    RankedCandidate,
    ranked_candidates,
    ranked_column,
)

DISEASE = "T047"
DRUG = "T121"


@dataclass
class Term:
    """A candidate as a user's own class."""

    name: str
    cui: str


class DataFrame(list):
    """As those of pandas, a list of its columns."""

    columns = ("name",)


class GivenScores:
    """A cross-encoder whose logits are looked up by name; 'long' texts count as cut."""

    encoder = ReadsEverything()

    def __init__(self, logits, template=None):
        self.logits = logits
        self.template = template or PairTemplate()
        self.calls = []

    def score(self, mentions, names, lefts=None, rights=None, desc=None):
        self.calls.append(list(zip(mentions, names, lefts, rights, strict=True)))
        truncated = sum(
            "long" in mention or "long" in name
            for mention, name in zip(mentions, names, strict=True)
        )
        return Scores(np.array([self.logits[name] for name in names], np.float32), truncated)


def given(calibrator=None, **logits):
    """A reranker with these logits by name, and the identity of log-odds as calibrator."""
    model = CalibratedModel(calibrator or IdentityCalibrator(), thresholds=fit_thresholds())
    return UMLSReranker(GivenScores(logits), Calibration([model]), None, {})


def logit(p):
    return float(np.log(p / (1 - p)))


def probabilities(**values):
    """A reranker that gives these probabilities by name."""
    return given(**{name: logit(p) for name, p in values.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_reranker(tmp_path_factory.mktemp("reranker") / "model")


@pytest.fixture
def reranker(folder):
    return UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")


def random_lists(count, seed=0):
    """Mentions, candidate lists, types and contexts."""
    choose = random.Random(seed)

    def text():
        return "".join(choose.choices("abcdefghi ", k=choose.randrange(2, 15))) + "x"

    lists = [
        [{"name": text(), "cui": f"C{i}"} for i in range(choose.randrange(8))] for _ in range(count)
    ]
    types = [
        choose.choice([None, DISEASE, [DRUG, DISEASE], "pathologic function"]) for _ in range(count)
    ]
    return (
        [text() for _ in range(count)],
        lists,
        types,
        [text() for _ in range(count)],
        [text() for _ in range(count)],
    )


# Ranks, margins and decisions


def test_candidates_are_ranked_by_logit_and_tied_ones_stay_in_order():
    names = ["low", "tied", "best", "also tied", "least"]
    reranker = given(low=-1.0, tied=0.5, best=2.0, least=-3.0, **{"also tied": 0.5})
    ranked = reranker.rerank("mention", names)
    assert [item.name for item in ranked] == ["best", "tied", "also tied", "low", "least"]
    assert [item.rank for item in ranked] == [1, 2, 3, 4, 5]
    assert [item.logit for item in ranked] == [2.0, 0.5, 0.5, -1.0, -3.0]
    expected = 1 / (1 + np.exp([-2.0, -0.5, -0.5, 1.0, 3.0]))
    np.testing.assert_allclose([item.score for item in ranked], expected, rtol=1e-12)


def test_a_candidate_that_cannot_win_has_no_logit_and_each_result_says_how_many_were_scored():
    def answers(ranked):
        return [(item.name, item.logit, item.scored) for item in ranked]

    cross_encoder = GivenScores({"cold": 1.0, "flu": 2.0})
    names = ["flu", "cold"]
    reranker = UMLSReranker(cross_encoder, with_cut(), None, {})
    ranked = reranker.rerank("cold", names)
    assert (
        answers(ranked) == [("cold", 1.0, 1), ("flu", None, 1)] and len(cross_encoder.calls[0]) == 1
    )
    assert ranked[1].score == pytest.approx(1 / (2 + np.exp(10.0)))
    whole = UMLSReranker(cross_encoder, with_cut(), None, {}, exhaustive=True)
    assert answers(whole.rerank("cold", names)) == [("cold", 1.0, 2), ("flu", 2.0, 2)]


def test_a_deployment_may_accept_the_high_tier_alone(folder):
    row = fit_thresholds().for_type()
    for score, tier in (((row.accept + row.high) / 2, "medium"), (row.high + 1e-6, "high")):
        reranker = probabilities(a=score)
        reranker.accept_tier = "high"
        best = reranker.rerank("mention", ["a"])[0]
        assert (best.tier, best.accepted) == (tier, tier == "high")
    with pytest.raises(UserError, match="accept_tier: 'low'"):
        UMLSReranker.from_pretrained(folder, accept_tier="low")


@pytest.mark.parametrize("entity_type", [None, DISEASE, DRUG])
def test_tiers_follow_the_thresholds_of_the_type(entity_type):
    row = fit_thresholds().for_type(entity_type)
    assert 0.1 < row.low < row.accept < row.high < 0.9
    edges = {"high": row.high, "medium": row.accept, "low": row.low}
    for tier, edge in edges.items():
        below = {"high": "medium", "medium": "low", "low": "reject"}[tier]
        reranker = probabilities(a=edge + 1e-6, b=edge - 1e-6)
        ranked = reranker.rerank("mention", ["a", "b"], entity_type)
        assert [item.tier for item in ranked] == [tier, below]
        assert ranked[0].accepted == (tier != "low")
        assert reranker.get_confidence_tier(edge, entity_type, model_name="all") == tier
        assert reranker.get_confidence_tier(edge - 1e-9, entity_type, model_name="all") == below


def test_the_tier_of_a_row_is_its_own():
    reranker = probabilities(a=0.999, b=0.6, c=0.001)
    ranked = reranker.rerank("mention", ["a", "b", "c"])
    assert ranked[0].tier == "high"
    assert [reranker.get_confidence_tier(row) for row in ranked] == [row.tier for row in ranked]
    of_another_source = ranked[0]._replace(tier=None, accepted=None)
    assert reranker.get_confidence_tier(of_another_source) is None


def test_a_score_alone_has_no_tier_and_with_its_model_that_of_its_row():
    ranked = probabilities(a=0.999, b=0.6, c=0.001).rerank("mention", ["a", "b", "c"])
    reranker = probabilities()
    for row in ranked:
        with pytest.raises(ValueError, match="^model_name: "):
            reranker.get_confidence_tier(row.score)
        assert reranker.get_confidence_tier(row.score, model_name=row.model_name) == row.tier


def test_each_model_has_tiers_of_its_own():
    strict = ThresholdTable({DEFAULT: TypeThreshold(low=0.5, accept=0.8)}, HIERARCHY)
    lenient = ThresholdTable({DEFAULT: TypeThreshold(low=0.1, accept=0.2)}, HIERARCHY)
    models = [
        CalibratedModel(IdentityCalibrator(), thresholds=lenient),
        CalibratedModel(IdentityCalibrator(), thresholds=strict, name="no type"),
    ]
    reranker = UMLSReranker(GivenScores({}), Calibration(models), None, {})
    scores = (0.9, 0.6, 0.3)
    assert [reranker.get_confidence_tier(score, model_name="no type") for score in scores] == [
        "medium",
        "low",
        "reject",
    ]
    # Not certified.
    assert reranker.get_confidence_tier(0.999, model_name="all") == "medium"


def test_of_a_checkpoint_the_model_of_its_run_is_named(tmp_path):
    checkpoint = tiny_encoder(tmp_path / "run" / "checkpoints" / "checkpoint-best")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "run" / "model"))):
        UMLSReranker.from_pretrained(checkpoint)


def test_a_tier_is_asked_of_a_model_that_there_is(reranker):
    with pytest.raises(ValueError, match="nosuch"):
        reranker.get_confidence_tier(0.5, model_name="nosuch")


def test_the_statistics_summarize_the_thresholds_of_types():
    rows = {
        DEFAULT: TypeThreshold(low=0.0, accept=0.1),
        DISEASE: TypeThreshold(low=0.0, accept=0.2),
        DRUG: TypeThreshold(low=0.0, accept=0.7),
        "T046": TypeThreshold(low=0.0, accept=0.3),
    }
    model = CalibratedModel(IdentityCalibrator(), thresholds=ThresholdTable(rows, HIERARCHY))
    reranker = UMLSReranker(GivenScores({}), Calibration([model]), None, {})
    summary = {"types": 3, "lowest": 0.2, "median": 0.3, "highest": 0.7}
    assert reranker.get_statistics()["thresholds"] == summary
    table = ThresholdTable({DEFAULT: rows[DEFAULT]}, HIERARCHY)
    only_default = {"types": 0, "lowest": 0.1, "median": 0.1, "highest": 0.1}
    assert table.summary() == only_default


@pytest.mark.parametrize(
    ("entity_type", "accepted"),
    [
        ("disease OR syndrome", True),
        (DRUG, False),
        ([DRUG, DISEASE], False),
        (("Disease or Syndrome", DRUG), True),
        ([], True),
    ],
)
def test_a_type_is_given_by_id_or_name_and_the_first_one_decides(recwarn, entity_type, accepted):
    table = fit_thresholds()
    between = (
        max(table.for_type(DISEASE).accept, table.for_type().accept) + table.for_type(DRUG).accept
    ) / 2
    assert probabilities(a=between).rerank("mention", ["a"], entity_type)[0].accepted is accepted
    assert not recwarn.list


def test_another_dtype_than_the_calibrated_one_is_said(tmp_path, recwarn, monkeypatch):
    folder = tiny_reranker(tmp_path / "model")
    monkeypatch.setattr("umls_reranker.core.devices.has_fast_bfloat16", lambda device: True)
    assert UMLSReranker.from_pretrained(folder, device="cpu").cross_encoder.dtype == "float32"
    assert not recwarn.list
    with pytest.warns(UserWarning, match="calibrated in float32 .* bfloat16"):
        UMLSReranker.from_pretrained(folder, device="cpu", dtype="bfloat16")
    info = read_json(folder / MANIFEST) | {"dtype": "bfloat16"}
    monkeypatch.setattr("umls_reranker.serving.reranker.verify_model", lambda *_: info)
    with pytest.warns(UserWarning, match="calibrated in bfloat16 .* float32"):
        UMLSReranker.from_pretrained(folder, device="cpu")


def test_an_unknown_type_warns_and_takes_the_default():
    row = fit_thresholds().for_type()
    reranker = probabilities(a=row.accept + 1e-6)
    types = [
        "T999",
        ["nonsense", DRUG],
        "x" * 100_000,
        "T999",
        *(f"T{number}" for number in range(900, 950)),
    ]
    with pytest.warns(UserWarning, match="'T999', 'nonsense', .* and 50 more") as caught:
        ((best,), (known,), *_) = reranker.rerank_batch(
            ["mention"] * len(types), [["a"]] * len(types), types
        )
    assert len(caught) == 1 and caught[0].filename == __file__ and len(str(caught[0].message)) < 400
    assert best.accepted and best.tier == "medium"
    assert not known.accepted and known.tier == "low"


def test_warnings_of_unknown_types_do_not_pile_up():
    reranker = probabilities(a=0.5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(300):
            reranker.rerank("mention", ["a"], f"T{number} {'x' * 1_000}")
    texts = [str(warning.message) for warning in caught]
    assert len(texts) == 300 and len(set(texts)) == 101 and max(map(len, texts)) < 300


# What goes in


def test_names_mappings_and_objects_give_the_same_scores(reranker):
    names = ["cold", "heart attack", "cold temperature"]
    forms = {
        "name": names,
        "mapping": [{"name": name, "cui": f"C{i}", "extra": i} for i, name in enumerate(names)],
        "object": [Term(name, f"C{i}") for i, name in enumerate(names)],
    }
    results = {form: reranker.rerank("a cold", candidates) for form, candidates in forms.items()}
    for form, ranked in results.items():
        assert [item.name for item in ranked] == [item.name for item in results["name"]]
        assert [item.logit for item in ranked] == pytest.approx(
            [item.logit for item in results["name"]]
        )
        for item in ranked:
            position = names.index(item.name)
            assert item.candidate is forms[form][position]
            assert item.cui == (None if form == "name" else f"C{position}")
    assert len({item.logit for item in results["name"]}) == 3


def test_no_candidates_give_an_empty_list_and_are_counted():
    reranker = probabilities(a=0.9)
    assert reranker.rerank("mention", []) == []
    assert reranker.rerank_batch([], []) == []
    assert [len(r) for r in reranker.rerank_batch(["m", "n", "o"], [[], ["a"], []])] == [0, 1, 0]
    figures = reranker.get_statistics()
    assert (figures["mentions"], figures["without_candidates"]) == (4, 3)
    assert figures["accepted_coverage"] == pytest.approx(0.25)


@pytest.mark.parametrize("position", range(5))
@pytest.mark.parametrize("column", ["m", iter("m")])
def test_a_column_that_is_no_list_is_refused(reranker, position, column):
    columns = [["m"], [["a"]], ["T047"], [""], [""]]
    columns[position] = column
    name = ("entities", "candidates", "entity_types", "lefts", "rights")[position]
    if name == "candidates":
        name = "candidates are a"
        column = "m"
    with pytest.raises(TypeError, match=f"^{name}.* {type(column).__name__}"):
        reranker.rerank_batch(*columns)
    columns[position] = []
    with pytest.raises(ValueError, match="the same number"):
        reranker.rerank_batch(*columns)


@pytest.mark.parametrize(("setting", "value"), [("backend", "onnx"), ("dtype", "bfloat16")])
def test_results_of_another_backend_or_dtype_are_other_results(reranker, setting, value):
    before = reranker.identity
    setattr(reranker.cross_encoder, setting, value)
    assert reranker.identity != before


@pytest.mark.parametrize("value", ["no", None, 1, ["no"]])
def test_exhaustive_is_true_or_false(folder, value):
    with pytest.raises(UserError, match="^exhaustive: "):
        UMLSReranker.from_pretrained(folder, exhaustive=value)


@pytest.mark.parametrize("score", [float("nan"), -0.1, 1.1])
def test_only_a_probability_has_a_tier(reranker, score):
    with pytest.raises(ValueError, match=f"^score must be .* {score}$"):
        reranker.get_confidence_tier(score)


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ((b"cold", ["a"], None, "", ""), TypeError, "entity"),
        (("\n\t", ["a"], None, "", ""), ValueError, "entity"),
        (("m", "Common Cold", None, "", ""), TypeError, "candidates"),
        (("m", {"name": "cold"}, None, "", ""), TypeError, "candidates"),
        (("m", DataFrame(["name"]), None, "", ""), TypeError, "candidates"),
        (("m", ["a", {"cui": "C1"}], None, "", ""), TypeError, "candidate 1: name"),
        (("m", ["a", Term(3, "C1")], None, "", ""), TypeError, "candidate 1: name"),
        (("m", ["a", " "], None, "", ""), ValueError, "candidate 1: name"),
        (("m", ["a", {"name": "a", "cui": b"C1"}], None, "", ""), TypeError, "candidate 1: cui"),
        (("m", ["a"], ["T047", 7], "", ""), TypeError, "entity_type"),
        (("m", ["a"], None, "", b""), TypeError, "right"),
    ],
)
def test_in_a_batch_the_mention_that_will_not_do_is_named(reranker, row, error, message):
    good = ("m", ["a", "b"], "T047", "left", "right")
    with pytest.raises(error, match=f"^mention 2: {message}"):
        reranker.rerank_batch(*map(list, zip(good, good, row, good, strict=True)))
    with pytest.raises(error, match=f"^{message}"):
        reranker.rerank(*row)
    assert reranker.get_statistics()["mentions"] == 0


def test_texts_over_the_limit_are_counted(reranker):
    reranker.rerank("cold", ["common cold", "cold " * 20, "cold"])
    assert reranker.get_statistics()["truncated_pairs"] == 1
    reranker.rerank("cold " * 20, ["common cold", "cold"])
    assert reranker.get_statistics()["truncated_pairs"] == 3


def test_context_reaches_the_scorer():
    reranker = probabilities(a=0.5, b=0.6)
    reranker.rerank("m", ["a", "b"], left="before", right="after")
    reranker.rerank_batch(["m", "n"], [["a"], ["b"]], lefts=["1", "2"], rights=["3", "4"])
    assert reranker.cross_encoder.calls == [
        [("m", "a", "before", "after"), ("m", "b", "before", "after")],
        [("m", "a", "1", "3"), ("n", "b", "2", "4")],
    ]


# What the model reads and who came without


FULL = {
    "name": "cold",
    "cui": "C1",
    "preferred_name": "Common Cold",
    "definition": "",
    "retrieval_score": 0.5,
}
ALL_BUT_CUIS = ("preferred_name", "definition", "context", "entity_type", "retrieval_score")
READ_ALL = PairTemplate(
    candidate_fields=("preferred_name", "definition"), context_tokens=8, mention_types=True
)


def reading_everything(index_key: str = "") -> UMLSReranker:
    """Sure of every candidate, of which it reads all there is."""
    fusion = FeatureFusion(
        {"cross_encoder": 1.0, "retrieval": 1.0, "mention_concept_prior": 1.0}, {}, -20.0
    )
    fallback = FeatureFusion({"cross_encoder": 1.0, "mention_concept_prior": 1.0}, {}, -20.0)
    counts = StringCounts.fit([("cold", "C1", [DISEASE])])
    nothing = uncertified(fit_thresholds())
    bare = FeatureFusion({"cross_encoder": 1.0, "exact_name": 1.0}, {}, -20.0)
    models = [
        CalibratedModel(fusion=fusion, thresholds=fit_thresholds()),
        CalibratedModel(
            fusion=fallback, thresholds=nothing, missing=("retrieval_score",), name="names and CUIs"
        ),
        CalibratedModel(
            fusion=fallback,
            thresholds=fit_thresholds(),
            missing=ALL_BUT_CUIS,
            name="names and CUIs, no type",
        ),
        CalibratedModel(fusion=bare, missing=(*ALL_BUT_CUIS, "cui"), name="names, no type"),
    ]
    cross_encoder = GivenScores(defaultdict(float), READ_ALL)
    calibration = Calibration(
        models, counts, ListSource(index_key, {"retrieval": ScoreRange(0.0, 1.0)})
    )
    return UMLSReranker(cross_encoder, calibration, None, {})


def uncertified(table: ThresholdTable) -> ThresholdTable:
    return ThresholdTable(
        {node: replace(row, high=None) for node, row in table.rows.items()}, table.hierarchy
    )


def test_a_mention_that_comes_with_everything_is_high_without_a_word(recwarn):
    # The dictionary has no definition of the first; that is known, and nothing is missing.
    candidates = [
        FULL,
        FULL | {"name": "flu", "cui": "C2", "definition": "a virus", "retrieval_score": 0.0},
    ]
    best = reading_everything().rerank("cold", candidates, DISEASE, "a ", "")[0]
    assert best.tier == "high" and not recwarn.list


DECIDES = {
    "retrieval_score": "names and CUIs",
    "definition": "names and CUIs, no type",
    "cui": "names, no type",
}


@pytest.mark.parametrize("key", DECIDES)
@pytest.mark.parametrize("position", [0, 1])
def test_a_mention_is_high_only_by_the_certificate_of_what_decided_it(key, position):
    candidates = [FULL, FULL | {"cui": "C2", "retrieval_score": 0.0}]
    lacking = [0, 1] if key == "retrieval_score" else [position]
    candidates = [
        {name: value for name, value in item.items() if name != key or number not in lacking}
        for number, item in enumerate(candidates)
    ]
    reranker = reading_everything()
    named_input = "retrieval_score (from -0.1 to 1.1)" if key == "retrieval_score" else key
    with pytest.warns(UserWarning, match=f"missing inputs: {re.escape(named_input)}; ") as caught:
        best = reranker.rerank("cold", candidates, DISEASE, "a ", "")[0]
    assert best.model_name == DECIDES[key] and best.model_name in str(caught[0].message)
    assert best.tier == ("high" if key == "definition" else "medium") and best.accepted
    assert len(caught) == 1 and caught[0].filename == __file__


def test_a_score_of_another_name_is_named_where_one_is_missing():
    renamed = {("score" if key == "retrieval_score" else key): FULL[key] for key in FULL}
    with pytest.warns(
        UserWarning, match="1.1\\); other scores of the candidates: 'list_score'; using"
    ):
        reading_everything().rerank("cold", [renamed], DISEASE, "a ", "")


def test_the_cross_encoder_sees_nothing_that_the_model_which_decides_was_fitted_without():
    reranker = reading_everything()
    reranker.rerank("cold", [FULL], DISEASE, "a ", "")
    with pytest.warns(UserWarning, match="definition"):
        ranked = reranker.rerank("cold", [FULL, FULL | {"definition": None}], DISEASE, "a ", "")
    whole, fallback = reranker.cross_encoder.calls
    assert whole == [("cold ; Disease or Syndrome", "cold ; Common Cold", "a ", "")]
    assert fallback == [("cold", "cold", "", "")] * 2
    assert {item.model_name for item in ranked} == {"names and CUIs, no type"} and ranked[
        0
    ].cui == "C1"


def test_mentions_with_different_inputs_in_one_call_are_decided_as_alone():
    rows = [
        ("cold", [FULL], DISEASE, "a ", ""),
        ("cold", [FULL | {"retrieval_score": None}], DISEASE, "a ", ""),
        ("cold", ["cold", "flu"], None, "", ""),
        ("cold", [], None, "", ""),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        together = reading_everything().rerank_batch(*zip(*rows, strict=True))
        alone = [reading_everything().rerank(*row) for row in rows]
    assert_alike(together, alone)
    decided_by = [{(item.model_name, item.tier) for item in ranked[:1]} for ranked in alone]
    assert decided_by == [
        {("all", "high")},
        {("names and CUIs", "medium")},
        {("names, no type", "medium")},
        set(),
    ]


# Batches, figures, threads


def test_rank_is_that_of_a_cross_encoder_with_probabilities(reranker):
    names = ["Cold Temperature", "Common Cold", "Fever"]
    ranked = reranker.rerank("cold", names)
    found = reranker.rank("cold", names, return_documents=True)
    assert [(names[item["corpus_id"]], item["text"]) for item in found] == [
        (item.name, item.name) for item in ranked
    ]
    assert_alike([item["score"] for item in found], [item.score for item in ranked])
    first = {key: found[0][key] for key in ("corpus_id", "score")}
    only = reranker.rank("cold", names, top_k=1)
    assert only[0].keys() == first.keys()
    assert_alike(only, [first])


def test_a_batch_gives_what_single_calls_give(tmp_path):
    folder = tiny_reranker(tmp_path / "model", PairTemplate(32, context_tokens=6))
    reranker = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")
    columns = random_lists(40)
    batch = reranker.rerank_batch(*columns)
    in_batch = reranker.get_statistics()
    reranker.reset_statistics()
    single = [reranker.rerank(*row) for row in zip(*columns, strict=True)]
    assert_alike(batch, single)
    assert all(
        one.candidate in items
        for items, ranked in zip(columns[1], batch, strict=True)
        for one in ranked
    )
    alone = reranker.get_statistics()
    assert in_batch["tiers"] == alone["tiers"] and in_batch["candidates"] == alone["candidates"]


@pytest.mark.parametrize("token_budget", [1, 100, 10_000])
def test_a_result_depends_on_earlier_calls_and_batches_by_rounding_alone(folder, token_budget):
    columns = random_lists(40)
    rows = list(zip(*columns, strict=True))
    options = {"device": "cpu", "dtype": "float32"}
    alone = UMLSReranker.from_pretrained(folder, remembered_pairs=0, **options)
    expected = [alone.rerank(*row) for row in rows]
    reranker = UMLSReranker.from_pretrained(folder, token_budget=token_budget, **options)
    in_batch = reranker.rerank_batch(*columns)
    # Some of the pairs, in batches of other shapes.
    reranker = UMLSReranker.from_pretrained(folder, token_budget=token_budget, **options)
    for count in (1, 3):
        reranker.rerank_batch(columns[0], [items[:count] for items in columns[1]], *columns[2:])
    remembered = len(reranker.cross_encoder.remembered)
    after_others = [reranker.rerank(*row) for row in rows]
    assert remembered > 60
    for found in (in_batch, after_others):
        for items, others in zip(found, expected, strict=True):
            # By rank: another order only where scores are nearly equal.
            assert_alike([item.score for item in items], [item.score for item in others])
            assert [item.tier for item in items] == [item.tier for item in others]
            of_concept = {item.cui: (item.logit, item.score) for item in items}
            assert_alike(of_concept, {item.cui: (item.logit, item.score) for item in others})


def reachable(*roots):
    """All that the roots and the modules of the package hold, other modules left out."""
    ours = [name for name in sys.modules if name.startswith("umls_reranker")]
    others = [module for name, module in sys.modules.items() if name not in ours]
    seen = {*map(id, others), *(id(vars(module)) for module in others)}
    waiting = [*roots, *(vars(sys.modules[name]) for name in ours)]
    while waiting:
        item = waiting.pop()
        if id(item) not in seen:
            seen.add(id(item))
            yield item
            waiting += gc.get_referents(item)


def test_no_text_of_a_call_outlives_it(reranker):
    models = (reranker, UMLSReranker.from_pretrained("built-in-fast"))
    text = uuid4().hex
    candidates = [{"name": f"{text} {name}", "cui": "C0000001"} for name in ("cold", "flu")]
    for model in models:
        model.rerank(f"left {text} of", candidates, DISEASE)
    del candidates
    gc.collect()
    assert not any(type(value) is str and text in value for value in reachable(*models))


def test_many_threads_get_the_results_of_one(folder, reranker):
    rows = list(zip(*random_lists(20, seed=1), strict=True))
    expected = [reranker.rerank(*row) for row in rows]
    reranker.reset_statistics()

    def work(seed):
        order = random.Random(seed).sample(range(len(rows)), k=len(rows))
        assert_alike([reranker.rerank(*rows[i]) for i in order], [expected[i] for i in order])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(8)))
    assert reranker.get_statistics()["mentions"] == 8 * len(rows)


# Loading and saving


def test_a_saved_reranker_gives_equal_results(folder, reranker, tmp_path):
    columns = random_lists(20)
    (folder / "manifest.json").write_text("{}")
    saved = reranker.save_pretrained(tmp_path / "deep" / "saved")
    (folder / "manifest.json").unlink()
    assert [path.name for path in sorted(saved.iterdir())] == [
        path.name for path in model_files(folder)
    ]
    again = UMLSReranker.from_pretrained(saved, device="cpu", dtype="float32")
    assert_alike(again.rerank_batch(*columns), reranker.rerank_batch(*columns))
    assert again.thresholds.to_dict() == reranker.thresholds.to_dict()


def test_a_folder_that_holds_no_model_itself_is_told_apart(tmp_path, monkeypatch):
    tiny_reranker(tmp_path / "model")
    with pytest.raises(
        UserError, match=re.escape(f"is a run folder; use its model, {tmp_path / 'model'}")
    ):
        UMLSReranker.from_pretrained(tmp_path)
    # Not the working directory, which may hold a model.
    monkeypatch.chdir(tmp_path / "model")
    with pytest.raises(UserError, match="no name"):
        UMLSReranker.from_pretrained("")
    with pytest.raises(UserError, match="no name"):
        UMLSReranker.from_pretrained(".").save_pretrained("")
    loaded = repr(UMLSReranker.from_pretrained(tmp_path / "model", accept_tier="high"))
    assert loaded.startswith(f"UMLSReranker('{tmp_path / 'model'}', accept_tier='high') for ")
    assert re.search(r"precision 0\.95, is certified from a score of 0\.\d+ on$", loaded)


# The ranked row: the same values as Python objects, as rows and in Arrow


CANDIDATES = [[{"name": "cold", "cui": "C1"}, {"name": "flu", "cui": None}], [], ["ague"]]
ROWS = [
    [
        ("flu", None, 1, -2.0, 0.75, 0.5, "medium", False),
        ("cold", "C1", 2, None, 0.25, -0.5, "reject", False),
    ],
    [],
    [("ague", None, 1, 3.5, 1.0, 1.0, "high", True)],
]
FALLBACKS = [("names", 1), (None, 0), ("all", 1)]


@pytest.fixture
def decided():
    lists = CandidateLists.from_table(HIERARCHY, mention_table(["a", "b", "c"], CANDIDATES))
    decisions = Decisions(
        offsets=lists.offsets,
        concepts=lists.concepts,
        models=np.array([1, 1, 0]),
        complete=np.ones(3, bool),
        missing={},
        scores=CandidateScores(
            np.array([np.nan, -2.0, 3.5], np.float32),
            np.array([-1.0, 1.0, 9.0]),
            np.array([0.25, 0.75, 1.0]),
            np.full(3, np.nan),
        ),
        edges=np.array([[0.5, 0.6, 0.9]] * 3),
        has_tiers=np.ones(3, bool),
        accept_tier="high",
    )
    return lists, decisions, ["all", "names"]


def expected_rows():
    keys = (
        "name",
        "cui",
        "rank",
        "logit",
        "score",
        "margin",
        "tier",
        "accepted",
        "model_name",
        "scored",
    )
    return [
        [dict(zip(keys, (*row, *ending), strict=True)) for row in rows]
        for rows, ending in zip(ROWS, FALLBACKS, strict=True)
    ]


def test_objects_rows_and_arrow_hold_the_same(decided):
    lists, decisions, names = decided
    ranked = ranked_candidates(
        lists, decisions, [item for items in CANDIDATES for item in items], names
    )
    assert [[item.as_row() for item in items] for items in ranked] == expected_rows()
    assert [[item.candidate for item in items] for items in ranked] == [
        CANDIDATES[0][::-1],
        [],
        ["ague"],
    ]
    column = ranked_column(lists, decisions, names)
    column.validate(full=True)
    assert column.type == pa.list_(RANKED_TYPE) and column.to_pylist() == expected_rows()


def test_a_linked_concept_tells_what_its_candidate_says():
    about = {"name": "flu", "cui": "C2", "preferred_name": "Influenza", "semantic_types": ("T047",)}
    concept = LinkedConcept(about, "flu", "C2", 1, 0.5, 0.75, 0.5, "medium", True)
    assert (concept.preferred_name, concept.semantic_types) == ("Influenza", ("T047",))
    row = RankedCandidate(*concept).as_row()
    assert concept.as_row() == row | {"preferred_name": "Influenza", "semantic_types": ["T047"]}


def test_spark_reads_the_same_types():
    assert RANKED_SCHEMA == (
        "array<struct<name: string, cui: string, rank: long, logit: double, score: double, "
        "margin: double, "
        "tier: string, accepted: boolean, model_name: string, scored: long>>"
    )
