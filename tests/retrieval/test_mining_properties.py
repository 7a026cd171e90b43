"""What holds for any dictionary, relations and mentions."""

import tempfile
from collections import Counter
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from mining_fixtures import Relations, Setup, make_mentions

from umls_reranker.data.normalization import normalize_name
from umls_reranker.retrieval.mining_report import SOURCES
from umls_reranker.retrieval.negatives import MiningConfig

KINDS = ("PAR", "CHD", "RB", "RN", "SY", "SIB")
words = st.lists(st.sampled_from(["heart", "Heart", "liver", "pain", "acute", "x"]), min_size=1, max_size=3)
names = words.flatmap(lambda parts: st.sampled_from([" ", "-"]).map(lambda sign: sign.join(parts)))
concepts = st.lists(
    st.tuples(st.sampled_from(["", "T2", "T3", "T4 T2"]), st.lists(names, min_size=1, max_size=3, unique=True)),
    min_size=1,
    max_size=14,
)
configs = st.builds(
    MiningConfig,
    nearest_negatives=st.integers(0, 4),
    same_type_negatives=st.integers(0, 2),
    random_negatives=st.integers(0, 2),
    neighbors=st.integers(1, 6),
    seed=st.integers(0, 3),
)


@settings(max_examples=25, deadline=None)
@given(st.data(), concepts, configs)
def test_no_false_negative_and_every_pair_accounted_for(data, rows, config):
    size = len(rows)
    cuis = st.integers(0, size).map(lambda row: f"C{row:07}")  # the last one is not in the dictionary
    kinds = st.sampled_from([[], ["T2"], ["T4"]])
    mentions = make_mentions(data.draw(st.lists(st.tuples(names, cuis, kinds), min_size=1, max_size=6)))
    edges = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    relations = Relations(data.draw(st.dictionaries(edges, st.sampled_from(KINDS), max_size=30)))
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(Path(folder), {f"C{number:07}": row for number, row in enumerate(rows)})
        pairs, report, _ = setup.mine(mentions, config, relations=relations, chunk=data.draw(st.integers(1, 7)))
        pairs = pairs.to_list()

    gold = {mention["mention_id"]: mention["cui"] for mention in mentions}
    forms = {f"C{number:07}": set(map(normalize_name, row[1])) for number, row in enumerate(rows)}
    for pair in pairs:
        own = gold[pair["mention_id"]]
        if pair["label"]:
            assert pair["cui"] == own
            continue
        assert pair["cui"] != own
        assert not forms[pair["cui"]] & forms[own]
        assert (int(own[1:]), int(pair["cui"][1:])) not in relations.pairs
    assert max(Counter((pair["mention_id"], pair["cui"]) for pair in pairs).values(), default=1) == 1

    known = [(normalize_name(m["mention"]), m["cui"]) for m in mentions if m["cui"] in forms]
    mined = len(known)
    assert report["gold_concept_unknown"] == len(mentions) - len(known)
    counts = Counter(SOURCES[pair["source"]] for pair in pairs)
    assert report["pairs"] == {source: counts[source] for source in SOURCES}
    assert counts["positive"] == mined
    assert counts["nearest"] + report["nearest_missing"] == config.nearest_negatives * mined
    assert counts["type"] + report["type_replaced_by_random"] == config.same_type_negatives * mined
    wanted = config.random_negatives * mined + report["type_replaced_by_random"]
    assert counts["random"] + report["random_missing"] == wanted
    # Where nothing is missing from the nearest, no filter left too few.
    assert all(number <= len(known) for number in report["searched_deeper"].values())
