import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from mining_fixtures import Setup, make_mentions
from trigram_encoder import TrigramEncoder

from umls_reranker.core.errors import UserError
from umls_reranker.models.pairs import PairTemplate
from umls_reranker.retrieval.false_negatives import SharedNames
from umls_reranker.retrieval.mining import PAIR_FEATURES, mine_pairs
from umls_reranker.retrieval.mining_report import SOURCES
from umls_reranker.retrieval.negatives import MiningConfig, TypePools, random_below, random_bits
from umls_reranker.retrieval.retriever import Retriever
from umls_reranker.retrieval.retrievers import Dense

WORDS = ["heart", "liver", "skin", "acute", "chronic", "pain", "failure", "cold", "left", "upper", "one", "two"]
HOMONYMS = {
    "C0000001": ("T3", ["common cold", "Cold", "head cold"]),
    "C0000002": ("T1", ["cold temperature", "cold!"]),
    "C0000003": ("T1", ["cold sensation", "COLD"]),
    "C0000004": ("T3", ["cold sore", "herpes of the lip"]),
    "C0000005": ("T4", ["cold storage", "cold"]),
    "C0000006": ("T4", ["coldness"]),
    "C0000007": ("T3", ["old age"]),
    "C0000008": ("", ["bold letters"]),
}


def random_concepts(count: int) -> dict[str, tuple[str, list[str]]]:
    """Every fourth concept has no type; many names are shared, some up to case and punctuation."""
    draw = np.random.default_rng(5)
    concepts = {}
    for number in range(count):
        names = {" ".join(draw.choice(WORDS, draw.integers(1, 4))) for _ in range(draw.integers(1, 5))}
        names = {name.upper().replace(" ", "-") if draw.random() < 0.3 else name for name in names}
        concepts[f"C{number:07}"] = (("", "T2", "T3", "T4 T2")[number % 4], sorted(names))
    return concepts


@pytest.fixture(scope="module")
def homonyms(tmp_path_factory):
    return Setup(tmp_path_factory.mktemp("homonyms"), HOMONYMS)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    return Setup(tmp_path_factory.mktemp("many"), random_concepts(200))


@pytest.fixture(scope="module")
def many_mentions(many):
    draw = np.random.default_rng(1)
    rows = []
    for _ in range(150):
        row = int(draw.integers(200))
        name = draw.choice(many.concepts.names(row))
        text = name if draw.random() < 0.5 else f"{name} {draw.choice(WORDS)}"
        cui = "C0999999" if draw.random() < 0.1 else f"C{row:07}"
        rows.append((text, cui, [["T2"], ["T4"], []][int(draw.integers(3))]))
    return make_mentions(rows)


def by_mention(pairs):
    groups = {}
    for pair in pairs:
        groups.setdefault(pair["mention_id"], []).append(pair)
    return groups


@pytest.mark.parametrize("chunk", [1, 7, 8_192])
def test_files_do_not_depend_on_the_chunk(many, many_mentions, chunk):
    _, expected_report, expected = many.mine(many_mentions, chunk=64)
    _, report, files = many.mine(many_mentions, chunk=chunk)
    assert files == expected
    assert report == expected_report


def test_another_seed_changes_the_random_negatives_only(many, many_mentions):
    first = many.mine(many_mentions, MiningConfig(seed=1))[0].to_list()
    second = many.mine(many_mentions, MiningConfig(seed=2))[0].to_list()
    for source, name in enumerate(SOURCES):
        own, other = ([pair for pair in pairs if pair["source"] == source] for pairs in (first, second))
        assert (own == other) == (name in ("positive", "nearest"))


def test_draws_of_a_mention_do_not_depend_on_the_others(many, many_mentions):
    config = MiningConfig(nearest_negatives=0)
    whole = by_mention(many.mine(many_mentions, config)[0])
    part = by_mention(many.mine(many_mentions.select(range(50, 90)), config)[0])
    assert len(part) > 30
    assert all(whole[mention_id] == pairs for mention_id, pairs in part.items())


def test_no_negative_is_the_gold_concept_or_shares_a_name_with_it(many, many_mentions):
    pairs, report, _ = many.mine(many_mentions)
    gold = dict(zip(many_mentions["mention_id"], many_mentions["cui"], strict=True))
    for pair in pairs:
        if pair["label"]:
            assert pair["cui"] == gold[pair["mention_id"]]
        else:
            assert not many.forms(pair["cui"]) & many.forms(gold[pair["mention_id"]])
    # The filters had work to do.
    assert min(report["dropped"]["gold_concept"][kind] for kind in ("nearest", "type", "random")) > 0
    assert min(report["dropped"]["shared_name"][kind] for kind in ("nearest", "type", "random")) > 0


def test_rows_of_a_mention(many, many_mentions):
    pairs, report, _ = many.mine(many_mentions)
    assert pairs.features == PAIR_FEATURES
    groups = by_mention(pairs)
    known = [mention for mention in many_mentions if mention["cui"] != "C0999999"]
    assert list(groups) == [mention["mention_id"] for mention in known]
    for mention in known:
        rows = groups[mention["mention_id"]]
        assert len(rows) == 10
        assert len({row["cui"] for row in rows}) == 10
        sources = [row["source"] for row in rows]
        assert sources == sorted(sources)
        assert sources[:6] == [0, 1, 1, 1, 1, 1]
        assert [row["label"] for row in rows] == [1] + [0] * 9
        assert [row["weight"] for row in rows] == [1.0] + [1.5] * 5 + [1.0] * 4
        for row in rows:
            assert [row[key] for key in ("mention", "left", "right")] == [
                mention[key] for key in ("mention", "left", "right")
            ]
            assert row["name"] in many.concepts.names(int(many.concepts.rows([row["cui"]])[0]))
    counts = Counter(SOURCES[source] for source in pairs["source"])
    assert report["pairs"] == counts
    assert report["mentions"] == 150
    assert report["gold_concept_unknown"] == 150 - len(known) > 0


def test_homonyms_are_counted_and_left_out(homonyms):
    pairs, report, _ = homonyms.mine(
        make_mentions([("cold", "C0000001", [])]), MiningConfig(same_type_negatives=0, random_negatives=0)
    )
    # C0000002, C0000003 and C0000005 are called "cold", too.
    assert set(pairs["cui"]) == {"C0000001", "C0000004", "C0000006", "C0000007", "C0000008"}
    assert report["dropped"]["shared_name"]["nearest"] == 3
    assert report["dropped"]["gold_concept"]["nearest"] == 1
    assert report["nearest_missing"] == 1


def test_what_stands_behind_the_last_negative_is_not_counted_as_dropped(homonyms):
    config = MiningConfig(nearest_negatives=1, same_type_negatives=0, random_negatives=0)
    # "coldness" is nearest, then the four concepts called "cold"; none of them is in the way.
    pairs, report, _ = homonyms.mine(make_mentions([("coldness x", "C0000001", [])]), config)
    assert pairs["name"][1] == "coldness"
    assert report["dropped"]["shared_name"]["nearest"] == 0


def test_nearest_negatives_are_the_nearest_and_those_below_the_floor_are_counted(homonyms):
    config = MiningConfig(nearest_negatives=3, same_type_negatives=0, random_negatives=0, cosine_floor=0.6)
    pairs, report, _ = homonyms.mine(make_mentions([("cold sores", "C0000007", [])]), config)
    query = homonyms.encoder.encode(["cold sores"])[0]
    best = {}
    for row in range(8):
        names = homonyms.concepts.names(row)
        scores = homonyms.encoder.encode(names) @ query
        best[f"C{row + 1:07}"] = (scores.max(), names[scores.argmax()])
    del best["C0000007"]
    nearest = sorted(best.items(), key=lambda item: -item[1][0])[:3]
    assert pairs["name"][1:] == [name for _, (_, name) in nearest]
    below = sum(score < 0.6 for _, (score, _) in nearest)
    assert 0 < below < 3
    assert report["nearest_below_floor"] == below


@pytest.mark.parametrize("neighbors", [1, 64])
def test_positive_carries_the_name_nearest_to_the_mention(homonyms, neighbors):
    # With one neighbor two gold concepts are not retrieved and their names are compared on their own.
    mentions = make_mentions([("head colds", "C0000001", []), ("cold sore", "C0000001", []), ("lip", "C0000004", [])])
    pairs, report, _ = homonyms.mine(
        mentions, MiningConfig(nearest_negatives=0, same_type_negatives=0, random_negatives=0, neighbors=neighbors)
    )
    assert pairs["name"][:] == ["head cold", "Cold", "herpes of the lip"]
    assert report["gold_concept_not_retrieved"] == (2 if neighbors == 1 else 0)


def test_same_type_negatives_share_a_type_with_the_gold_concept(many):
    mentions = make_mentions([("pain", f"C{number:07}", ["T4"]) for number in range(1, 200, 4)])  # all of type T2
    pairs, report, _ = many.mine(mentions, MiningConfig(nearest_negatives=0, random_negatives=0))
    drawn = [pair["cui"] for pair in pairs if pair["source"] == SOURCES.index("type")]
    assert len(drawn) == 100
    kinds = [many.concepts.semantic_types(int(row)) for row in many.concepts.rows(drawn)]
    assert all("T2" in types for types in kinds)
    assert report["types_from_mention"] == report["type_replaced_by_random"] == 0


def test_without_types_the_mentions_own_types_and_their_kinds_are_taken(many):
    mentions = make_mentions([("pain", f"C{number:07}", ["T2"]) for number in range(0, 200, 4)])  # all untyped
    pairs, report, _ = many.mine(
        mentions, MiningConfig(nearest_negatives=0, same_type_negatives=4, random_negatives=0)
    )
    drawn = [pair["cui"] for pair in pairs if pair["source"] == SOURCES.index("type")]
    kinds = Counter(str(many.concepts.semantic_types(int(row))) for row in many.concepts.rows(drawn))
    # T3 is a kind of T2.
    assert set(kinds) == {"['T2']", "['T3']", "['T4', 'T2']"}
    assert report["types_from_mention"] == 50


def test_random_negatives_stand_in_where_no_type_is_known(many):
    mentions = make_mentions([("pain", "C0000000", []), ("pain", "C0000004", ["unknown"])])
    pairs, report, _ = many.mine(mentions, MiningConfig(nearest_negatives=0))
    assert Counter(pairs["source"]) == {SOURCES.index("positive"): 2, SOURCES.index("random"): 8}
    assert report["type_replaced_by_random"] == 4
    assert report["random_missing"] == 0


def test_random_negatives_reach_every_concept(many):
    mentions = make_mentions([("pain", "C0000000", [])] * 500)
    drawn = many.mine(mentions, MiningConfig(nearest_negatives=0, same_type_negatives=0, random_negatives=4))[
        0
    ].filter(lambda pair: not pair["label"])
    counts = Counter(drawn["cui"])
    allowed = [f"C{row:07}" for row in range(200) if not many.forms(f"C{row:07}") & many.forms("C0000000")]
    assert set(counts) == set(allowed)
    # 2,000 draws over some 190 concepts: 10.5 each, give or take 3.3.
    assert max(counts.values()) < 10.5 + 6 * 3.3


def test_names_of_random_negatives_are_drawn_independently(tmp_path):
    names = {f"C{number:07}": ("", [f"first {number}", f"second {number}"]) for number in range(50)}
    pairs, _, _ = Setup(tmp_path, names).mine(
        make_mentions([("first 0", "C0000000", [])] * 400), MiningConfig(nearest_negatives=0, same_type_negatives=0)
    )
    is_first = np.array([name.startswith("first") for name in pairs["name"]]).reshape(400, 3)[:, 1:]
    # Of 400 fair coins, 200 give or take 10.
    assert abs(is_first.sum(axis=0) - 200).max() < 50
    assert abs((is_first[:, 0] == is_first[:, 1]).sum() - 200) < 50


def test_dictionary_too_small_for_the_negatives_is_reported(tmp_path):
    tiny = Setup(tmp_path, {"C0000001": ("T2", ["cold"]), "C0000002": ("T2", ["heat"])})
    pairs, report, _ = tiny.mine(make_mentions([("cold", "C0000001", [])]))
    assert pairs["cui"][:] == ["C0000001", "C0000002"]
    assert (report["nearest_missing"], report["type_replaced_by_random"], report["random_missing"]) == (4, 2, 4)
    assert report["dropped"]["chosen"]["random"] > 0


def test_a_limit_draws_among_the_mentions_that_can_be_mined(many, many_mentions):
    whole, report, _ = many.mine(many_mentions)
    usable = sorted(set(whole["mention_id"]))
    lost = report["gold_concept_unknown"]
    assert lost > 10 and len(usable) == 150 - lost and report["mentions_not_drawn"] == 0
    drawn = {}
    for seed in (1, 1, 2):
        config = MiningConfig(max_train_mentions=100, seed=seed)
        pairs, report, _ = many.mine(many_mentions, config)
        ids = pairs.unique("mention_id")
        assert len(ids) == 100 and ids == sorted(ids) and set(ids) < set(usable)
        assert drawn.setdefault(seed, ids) == ids
        assert report["mentions"] == 150 and report["mentions_not_drawn"] == len(usable) - 100
    assert drawn[1] != drawn[2]
    assert many.mine(many_mentions, MiningConfig(max_train_mentions=150))[0].to_list() == whole.to_list()


def test_no_mention_with_a_known_gold_concept(homonyms):
    pairs, report, _ = homonyms.mine(make_mentions([("cold", "C0999999", ["T2"])]))
    assert len(pairs) == 0
    assert report["gold_concept_unknown"] == 1


def test_report_is_json_with_examples_of_each_kind(many, many_mentions):
    pairs, report, _ = many.mine(many_mentions)
    assert json.loads(json.dumps(report)) == report
    assert list(report["examples"]) == list(SOURCES)
    shown = {(pair["mention"], pair["name"], pair["cui"], SOURCES[pair["source"]]) for pair in pairs}
    for source, examples in report["examples"].items():
        assert len(examples) == 3
        assert all((e["mention"], e["name"], e["cui"], source) in shown for e in examples)
        for example in examples:
            gold = dict(zip(many_mentions["mention"], many_mentions["cui"], strict=True))[example["mention"]]
            assert example["gold_name"] in many.concepts.names(int(many.concepts.rows([gold])[0]))
            mention, name = many.encoder.encode([example["mention"], example["name"]])
            assert example["cosine"] == pytest.approx(mention @ name, abs=1e-4)
    assert report["nearest_named_as_mention"] == sum(
        pair["source"] == 1 and pair["mention"].lower() == pair["name"].lower() for pair in pairs
    )
    cosines = list(report["nearest_cosine"].values())
    assert cosines == sorted(cosines)


def test_a_template_shows_types_and_leaves_them_out_for_some_mentions(tmp_path):
    setup = Setup(tmp_path, {"C0000001": ("T3", ["cold"]), "C0000002": ("T1", ["flu"])})
    mentions = make_mentions([("cold", "C0000001", ["T3"])] * 400)
    template = PairTemplate(mention_types=True)
    config = MiningConfig(nearest_negatives=1, same_type_negatives=0, random_negatives=0, typeless_share=0.25)
    pairs, _, _ = setup.mine(mentions, config, template=template)
    name = setup.concepts.hierarchy.name("T3")
    assert set(pairs["mention"]) == {"cold", f"cold ; {name}"}
    shown = {pair["mention_id"]: pair["mention"] for pair in pairs}
    assert all(shown[pair["mention_id"]] == pair["mention"] for pair in pairs)
    assert 60 < list(shown.values()).count("cold") < 140
    every, _, _ = setup.mine(mentions, replace(config, typeless_share=0.0), template=template)
    assert set(every["mention"]) == {f"cold ; {name}"}


def test_another_encoder_is_refused(homonyms, tmp_path):
    with pytest.raises(UserError, match="'trigrams', not 'other'"):
        mine_pairs(
            make_mentions([("cold", "C0000001", [])]),
            Retriever([Dense(homonyms.index)], TrigramEncoder(name="other")),
            homonyms.concepts,
            MiningConfig(),
            tmp_path,
        )


def test_shared_names(homonyms):
    shared_names = SharedNames(homonyms.concepts, np.array([0, 3]))
    shared = shared_names.between(np.array([[0], [3]]), np.arange(-1, 8)[None])
    assert np.flatnonzero(shared[0]).tolist() == [1, 2, 3, 5]
    assert np.flatnonzero(shared[1]).tolist() == [4]


def test_type_pools_pick_a_type_first(many):
    # C0000003 has the types T4 and T2; T4 has a third of the concepts of T2.
    pools = TypePools(many.concepts, np.full(4_000, 3), pa.chunked_array([[[]] * 4_000]))
    mentions = np.arange(4_000)
    assert pools.sizes(mentions).tolist() == [2] * 4_000
    rows = pools.pick(mentions, random_bits(mentions, 1), random_bits(mentions, 2))
    with_t4 = np.isin(rows, many.concepts.type_rows("T4")).mean()
    assert set(rows) == set(many.concepts.type_rows("T4")) | set(many.concepts.type_rows("T2"))
    assert with_t4 == pytest.approx(0.5 + 0.5 * 0.5, abs=0.03)


def reference_bits(number: int, *counters: int) -> int:
    def mix(state):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        state = (state ^ (state >> 27)) * 0x94D049BB133111EB % 2**64
        return state ^ (state >> 31)

    state = 0
    for counter in counters:
        state = mix(state ^ counter)
    return mix(state ^ number)


def test_random_bits_are_those_of_splitmix():
    assert reference_bits(0) == 0xE220A8397B1DCDAF  # first output of SplitMix64 for seed 0
    bits = random_bits(np.array([0, 1, 352_496]), 13, 2, 0)
    assert bits.tolist() == [reference_bits(number, 13, 2, 0) for number in (0, 1, 352_496)]


def test_random_numbers_are_even():
    numbers = random_below(random_bits(np.arange(60_000), 1), 6)
    counts = np.bincount(numbers, minlength=6)
    assert len(counts) == 6
    assert np.abs(counts - 10_000).max() < 5 * np.sqrt(10_000)
    assert random_below(np.array([2**64 - 1], np.uint64), 2**31).tolist() == [2**31 - 1]
