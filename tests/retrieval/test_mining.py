"""Pairs from candidate lists: order, filters, names, draws, and gold concepts that are not
listed.
"""

import tempfile
from collections import Counter
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from list_fixtures import ReadsEverything, make_lists
from trigram_encoder import HIERARCHY, make_concepts

from umls_reranker.core.arrow_files import open_arrow
from umls_reranker.models.cross_encoder import Scores
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.retrieval.arguments import MiningArguments
from umls_reranker.retrieval.chosen_pairs import PairSource, TypePools
from umls_reranker.retrieval.false_negatives import PASSES, ConceptFilters, Filter, SharedNames
from umls_reranker.retrieval.mining import (
    PairMiner,
)
from umls_reranker.vocab.normalization import normalize_name

# Names of the sources of pairs by number.
SOURCES = [source.name.lower() for source in PairSource]
NEAREST_ONLY = {"same_type_negatives": 0, "random_negatives": 0}


# Arguments of `PairMiner` besides the settings.
OPTIONS = {"relations", "template", "teachers"}
# Key of a pair -> column of training rows.
COLUMNS = {name: f"{name}s" for name in ("name", "cui", "label", "weight", "source")}
COLUMNS["teacher"] = "teacher"


class Setup:
    """Concepts (CUI -> types separated by blanks, names) in a folder."""

    def __init__(self, path: Path, concepts: dict[str, tuple[str, list[str]]]) -> None:
        self.path = path
        self.concepts = make_concepts(path / "concepts", concepts)
        self.runs = 0

    def mine(self, mentions, *, chunk=8_192, seed=13, scores=(), **settings):
        """Pairs as rows, and the report; a mention is (text, gold CUI, CUIs of its list),
        candidates are called so.
        """
        self.runs += 1
        texts, golds, cuis = zip(*mentions, strict=True)
        candidates = [[{"name": f"name of {cui}", "cui": cui} for cui in listed] for listed in cuis]
        lists = make_lists(
            texts,
            candidates,
            [["T3"]] * len(texts),
            HIERARCHY,
            [f"left of {text} " for text in texts],
            [f" right of {text}" for text in texts],
            [
                listed.index(gold) if gold in listed else -1
                for gold, listed in zip(golds, cuis, strict=True)
            ],
            golds,
        )
        out = self.path / f"pairs-{self.runs}.arrow"
        options = {key: settings.pop(key) for key in OPTIONS & settings.keys()}
        miner = PairMiner(self.concepts, MiningArguments(**settings), seed, **options)
        report = miner.mine(replace(lists, scores=dict(scores)), out, chunk)
        rows = open_arrow(out).to_pylist()
        # Without a limit, the mined mentions are those whose gold concept is in the dictionary.
        known = [number for number, gold in enumerate(golds) if len(self.names(gold))]
        numbers = known if len(known) == len(rows) else range(len(rows))
        return list(chain.from_iterable(map(pairs_of, numbers, rows))), report

    def names(self, cui: str) -> list[str]:
        return self.concepts.names(int(self.concepts.rows([cui])[0]))


def pairs_of(number, row):
    """The pairs of a training row."""
    columns = {name: row[column] for name, column in COLUMNS.items() if column in row}
    for values in zip(*columns.values(), strict=True):
        pair = dict(zip(columns, values, strict=True))
        pair["source"] = SOURCES[pair["source"]]
        yield row | {"mention_id": number, "mention": row["entity"]} | pair


class Relations:
    """A stand-in for `RelationTable`: the pairs of a gold row and the row of a synonym."""

    def __init__(self, pairs: set[tuple[int, int]]) -> None:
        self.pairs = pairs

    def related(self, gold: np.ndarray, rows: np.ndarray) -> np.ndarray:
        gold, rows = np.broadcast_arrays(gold, rows)
        flat = [pair in self.pairs for pair in zip(gold.flat, rows.flat, strict=True)]
        return np.array(flat, bool).reshape(rows.shape)


COLDS = {
    "C0000001": ("T3", ["common cold", "Cold", "head cold"]),
    "C0000002": ("T1", ["cold temperature", "cold!"]),
    "C0000003": ("T1", ["cold sensation", "COLD"]),
    "C0000004": ("T3", ["cold sore", "herpes of the lip"]),
    "C0000005": ("T4 T3", ["storage"]),
    "C0000006": ("T4", ["coldness"]),
    "C0000007": ("", ["old age"]),
    "HP:00018": ("", ["bold letters"]),
}
LISTED = ["C0000004", "C0000002", "C0000001", "C0000006", "C0000005", "C0000099"]


@pytest.fixture(scope="module")
def colds(tmp_path_factory):
    return Setup(tmp_path_factory.mktemp("colds"), COLDS)


def test_rows_of_a_mention(colds):
    mentions = [("x", "C0000099", LISTED), ("cold", "C0000001", LISTED)]
    pairs, report = colds.mine(mentions, nearest_negatives=2, **NEAREST_ONLY)
    # C0000002 is called cold, too; C0000099 is not in the dictionary.
    assert [(pair["cui"], pair["name"], pair["source"]) for pair in pairs] == [
        ("C0000001", "name of C0000001", "positive"),
        ("C0000004", "name of C0000004", "nearest"),
        ("C0000006", "name of C0000006", "nearest"),
    ]
    assert [(pair["label"], pair["weight"]) for pair in pairs] == [(1, 1.0), (0, 1.5), (0, 1.5)]
    texts = {
        tuple(pair[key] for key in ("mention_id", "mention", "left", "right")) for pair in pairs
    }
    assert texts == {(1, "cold", "left of cold ", " right of cold")}
    ones = (
        "mined_mentions",
        "positive_pairs",
        "dropped_gold_concept_nearest",
        "dropped_shared_name_nearest",
    )
    zeros = ("gold_concept_not_in_list", "type_pairs", "random_pairs", "missing_pairs")
    assert report == dict.fromkeys(ones, 1) | dict.fromkeys(zeros, 0) | {
        "mentions": 2,
        "nearest_pairs": 2,
    }


def test_nearest_negatives_have_the_least_cosine_and_what_falls_away_is_counted(colds):
    mentions = [("cold", "C0000001", LISTED), ("x", "C0000007", ["C0000006", "C0000004"])]
    cosines = np.array([0.97, 0.95, 0.9, 0.85, 0.84, 0.8, 0.83, 0.82], np.float32)
    options = {"nearest_negatives": 3, "scores": {"retrieval": cosines}} | NEAREST_ONLY
    without, report = colds.mine(mentions, **options)
    nearest = [pair["cui"] for pair in without if pair["source"] == "nearest"]
    assert nearest == ["C0000004", "C0000006", "C0000005", "C0000006", "C0000004"]
    assert "below_min_nearest_cosine" not in report

    pairs, counted = colds.mine(mentions, min_nearest_cosine=0.85, **options)
    nearest = [pair["cui"] for pair in pairs if pair["source"] == "nearest"]
    # C0000002 is called cold, too, and 0.85 is not below 0.85.
    assert nearest == ["C0000004", "C0000006"]
    lost = {"nearest_pairs": 2, "missing_pairs": 4, "below_min_nearest_cosine": 3}
    assert counted == report | lost


def test_the_least_cosine_is_of_nearest_negatives_alone(colds):
    options = {"scores": {"retrieval": np.full(6, 0.5, np.float32)}, "min_nearest_cosine": 0.85}
    pairs, report = colds.mine([("cold", "C0000001", LISTED)], **options)
    assert {pair["source"] for pair in pairs} == {"positive", "type", "random"}
    assert (report["type_pairs"], report["random_pairs"]) == (2, 2)


def test_a_gold_concept_that_is_not_listed_gets_its_name_most_similar_to_the_mention(colds):
    pairs, report = colds.mine(
        [("herpes lip", "C0000004", ["C0000006"])], nearest_negatives=3, **NEAREST_ONLY
    )
    assert {pair["cui"]: pair["name"] for pair in pairs} == {
        "C0000004": "herpes of the lip",
        "C0000006": "name of C0000006",
    }
    assert (report["gold_concept_not_in_list"], report["missing_pairs"]) == (1, 2)


def test_of_several_filters_the_last_is_the_reason(colds):
    filters = ConceptFilters(
        SharedNames(colds.concepts, np.array([0])), Relations({(0, 2), (0, 4)})
    )
    reasons = filters.reasons(np.array([[0]]), np.array([[0, 1, 2, 3, 4, -1]]))[0]
    expected = ["gold_concept", "shared_name", "synonym", None, "synonym", None]
    assert [
        None if reason == PASSES else Filter(reason).name.lower() for reason in reasons
    ] == expected


def test_same_type_negatives_share_a_type_and_random_ones_stand_in_where_there_is_none(colds):
    numbers = {"nearest_negatives": 0, "same_type_negatives": 1, "random_negatives": 1}
    pairs, report = colds.mine([("a", "C0000004", []), ("b", "C0000007", [])], **numbers)
    assert [pair["source"] for pair in pairs] == [
        "positive",
        "type",
        "random",
        "positive",
        "random",
        "random",
    ]
    drawn = pairs[1]
    assert drawn["cui"] in {"C0000001", "C0000005"}
    assert drawn["name"] in colds.names(drawn["cui"])
    assert (report["type_pairs"], report["random_pairs"], report["missing_pairs"]) == (1, 3, 0)


def test_type_pools_draw_a_type_first(colds):
    # C0000005 has the types T4, shared with one concept, and T3, shared with two.
    pools = TypePools(colds.concepts, np.full(4000, 4))
    rng = np.random.default_rng(0)
    assert pools.sizes(np.arange(3)).tolist() == [2] * 3
    counts = np.bincount(pools.draw(np.arange(4_000), rng), minlength=8) / 4_000
    assert counts == pytest.approx([1 / 6, 0, 0, 1 / 6, 1 / 4 + 1 / 6, 1 / 4, 0, 0], abs=0.03)


def test_random_negatives_reach_every_concept_under_its_name_most_like_the_mention(colds):
    numbers = {"nearest_negatives": 0, "same_type_negatives": 0, "random_negatives": 2}
    pairs, _ = colds.mine([("herpes", "C0000007", [])] * 500, **numbers)
    drawn = Counter(pair["cui"] for pair in pairs if not pair["label"])
    assert set(drawn) == set(COLDS) - {"C0000007"}
    # 1,000 draws over seven concepts: 143 each, give or take 11.
    assert max(abs(count - 1000 / 7) for count in drawn.values()) < 66
    names = {pair["name"] for pair in pairs if pair["cui"] == "C0000004"}
    assert names == {"herpes of the lip"}


def test_a_template_shows_types_and_leaves_them_out_for_some_mentions(colds):
    template = PairTemplate(mention_types=True)
    mentions = [("cold", "C0000001", LISTED)] * 400
    pairs, _ = colds.mine(mentions, template=template, nearest_negatives=1, **NEAREST_ONLY)
    name = colds.concepts.hierarchy.name("T3")
    shown = {pair["mention_id"]: pair["mention"] for pair in pairs}
    assert set(shown.values()) == {"cold", f"cold ; {name}"}
    assert all(shown[pair["mention_id"]] == pair["mention"] for pair in pairs)
    assert 40 < list(shown.values()).count("cold") < 120


def test_a_template_shows_what_the_dictionary_knows_of_a_candidate(colds):
    template = PairTemplate(candidate_fields=("preferred_name",))
    pairs, _ = colds.mine(
        [("x", "C0000004", LISTED)], template=template, nearest_negatives=1, **NEAREST_ONLY
    )
    names = {"C0000004": "cold sore", "C0000002": "cold temperature"}
    assert [pair["name"] for pair in pairs] == [
        f"name of {cui} ; {name}" for cui, name in names.items()
    ]


class Lengths:
    """A teacher whose logit is the length of a candidate's text, times a factor."""

    encoder = ReadsEverything()

    def __init__(self, template, factor):
        self.template = template
        self.factor = factor

    def score(self, mentions, names, *rest):
        return Scores(np.array([self.factor * len(name) for name in names], np.float32), 0)


def test_pairs_get_the_mean_of_their_teachers_each_by_its_template(colds):
    teachers = (
        Lengths(PairTemplate(), 1),
        Lengths(PairTemplate(candidate_fields=("preferred_name",)), 2),
    )
    mentions = [("x", "C0000004", LISTED)]
    pairs, _ = colds.mine(mentions, teachers=teachers, nearest_negatives=1, chunk=1, **NEAREST_ONLY)
    short = len("name of C0000004")
    long = len("name of C0000004 ; cold sore")
    assert pairs[0]["name"] == "name of C0000004" and pairs[0]["teacher"] == short / 2 + long


def test_without_teachers_pairs_get_the_teacher_score_of_their_candidates(colds):
    mentions = [("x", "C0000004", []), ("x", "C0000004", LISTED)]
    pairs, _ = colds.mine(
        mentions, scores={"teacher": np.arange(6.0)}, random_negatives=1, same_type_negatives=0
    )
    scores = {
        (pair["mention_id"], pair["cui"]): pair["teacher"]
        for pair in pairs
        if pair["source"] != "random"
    }
    given = {(1, cui): float(at) for at, cui in enumerate(LISTED[:5])}
    assert scores.pop((0, "C0000004")) is not None and scores == given
    assert all(
        np.isnan(pair["teacher"])
        for pair in pairs
        if pair["source"] == "random" or not pair["mention_id"]
    )


words = st.lists(
    st.sampled_from(["heart", "Heart", "liver", "pain", "acute", "x"]), min_size=1, max_size=3
)
names = words.flatmap(lambda parts: st.sampled_from([" ", "-"]).map(lambda sign: sign.join(parts)))
concepts = st.lists(
    st.tuples(
        st.sampled_from(["", "T2", "T3", "T4 T2"]),
        st.lists(names, min_size=1, max_size=3, unique=True),
    ),
    min_size=1,
    max_size=14,
)


@settings(max_examples=25, deadline=None)
@given(st.data(), concepts, st.integers(0, 4), st.integers(0, 2), st.integers(0, 2))
def test_no_false_negative_and_every_pair_accounted_for(data, rows, nearest, same_type, random):
    size = len(rows)
    cuis = st.integers(0, size).map(
        lambda row: f"C{row:07}"
    )  # the last one is not in the dictionary
    mentions = st.lists(
        st.tuples(names, cuis, st.lists(cuis, max_size=6, unique=True)), min_size=1, max_size=6
    )
    edges = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    relations = Relations(set(data.draw(st.lists(edges, max_size=30))))
    mentions = data.draw(mentions)
    chunk = data.draw(st.integers(1, 7))
    numbers = {
        "nearest_negatives": nearest,
        "same_type_negatives": same_type,
        "random_negatives": random,
    }
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder), {f"C{number:07}": row for number, row in enumerate(rows)})
        pairs, report = setup.mine(mentions, relations=relations, chunk=chunk, **numbers)
    forms = {f"C{number:07}": set(map(normalize_name, row[1])) for number, row in enumerate(rows)}
    for pair in pairs:
        _, gold, listed = mentions[pair["mention_id"]]
        assert pair["label"] == (pair["source"] == "positive") == (pair["cui"] == gold)
        assert pair["source"] != "nearest" or pair["cui"] in listed
        if not pair["label"]:
            assert not forms[pair["cui"]] & forms[gold]
            assert (int(gold[1:]), int(pair["cui"][1:])) not in relations.pairs
    assert (
        max(Counter((pair["mention_id"], pair["cui"]) for pair in pairs).values(), default=1) == 1
    )
    mined = sum(gold in forms for _, gold, _ in mentions)
    counts = Counter(pair["source"] for pair in pairs)
    assert {source: report[f"{source}_pairs"] for source in SOURCES} == {
        source: counts[source] for source in SOURCES
    }
    assert counts["positive"] == mined == report["mined_mentions"]
    assert len(pairs) + report["missing_pairs"] == mined * (1 + sum(numbers.values()))
