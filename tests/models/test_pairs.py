"""Pairs as ids: equal to the tokenizer's own, and with context cut so that mention and name
survive.
"""

import json
import random
from dataclasses import asdict

import numpy as np
import pytest
from tiny_models import tiny_encoder
from transformers import AutoTokenizer
from trigram_encoder import make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.lists.candidate_lists import CandidateLists
from umls_reranker.lists.table import mention_table
from umls_reranker.models.arguments import BUILT_IN, BUILT_IN_FOLDERS
from umls_reranker.models.batches import divide_by_length
from umls_reranker.models.pair_template import MARKERS, PairTemplate
from umls_reranker.models.pairs import PairEncoder

SYLLABLES = ("a", "neuro", "itis", "X", "-", "12", " ", " ", "β", "é", "(", "osis", ",")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_encoder(tmp_path_factory.mktemp("template") / "model")


@pytest.fixture
def tokenizer(model):
    return AutoTokenizer.from_pretrained(model)


def listed(pairs):
    """Ids and token types, a list for each pair."""
    ids = [part.tolist() for part in np.split(pairs.ids, pairs.offsets[1:-1])] if len(pairs) else []
    firsts = pairs.first_lengths.tolist()
    return ids, [
        [0] * first + [1] * (len(row) - first) for row, first in zip(ids, firsts, strict=True)
    ]


def make_encoder(tokenizer, *settings):
    template = PairTemplate(*settings)
    assert template.prepare_tokenizer(tokenizer) == 0
    return PairEncoder(tokenizer.backend_tokenizer, template)


def random_texts(count, longest, seed):
    choose = random.Random(seed)
    texts = [
        "".join(choose.choices(SYLLABLES, k=choose.randrange(longest))) for _ in range(count - 2)
    ]
    return choose.sample(["", " ", *texts], k=count)


@pytest.mark.parametrize("max_length", [16, 17, 31, 64])
def test_without_context_pairs_are_those_of_the_tokenizer(tokenizer, max_length):
    # Up to three times the limit, so that all cases of the longest-first rule come up.
    mentions = random_texts(400, max_length, max_length)
    names = random_texts(400, max_length, max_length + 1)
    pairs, truncated = make_encoder(tokenizer, max_length).encode(mentions, names)
    whole = tokenizer(mentions, names)
    expected = tokenizer(mentions, names, truncation="longest_first", max_length=max_length)
    assert listed(pairs) == (expected["input_ids"], expected["token_type_ids"])
    cut = sum(len(ids) > max_length for ids in whole["input_ids"])
    assert 50 < cut < 350 and truncated.sum() == cut


@pytest.mark.parametrize(
    ("mention", "name"), [("", ""), ("", "cold"), ("cold", ""), ("a" * 90, "b" * 90)]
)
def test_empty_and_endless_texts(tokenizer, mention, name):
    pairs, _ = make_encoder(tokenizer, 64).encode([mention], [name])
    # In a batch: a call with one pair takes an empty second text for none.
    expected = tokenizer([mention], [name], truncation="longest_first", max_length=64)
    assert listed(pairs) == (expected["input_ids"], expected["token_type_ids"])


def shown(tokenizer, pairs):
    """First and second segment of each pair as text, without the special tokens at their ends."""
    texts = []
    for ids, first in zip(listed(pairs)[0], pairs.first_lengths, strict=True):
        tokens = tokenizer.convert_ids_to_tokens(ids)
        assert tokens[0] == "[CLS]" and tokens[first - 1] == tokens[-1] == "[SEP]"
        texts.append((" ".join(tokens[1 : first - 1]), " ".join(tokens[first:-1])))
    return texts


def test_context_stands_around_the_marked_mention(tokenizer):
    encoder = make_encoder(tokenizer, 32, 4)
    pairs, truncated = encoder.encode(["m n"], ["x y"], ["a b c d e f"], ["1 2 3 4 5 6"])
    assert shown(tokenizer, pairs) == [("c d e f [unused1] m n [unused2] 1 2 3 4", "x y")]
    assert not truncated.any()
    assert listed(pairs)[1] == [[0] * 14 + [1] * 3]


@pytest.mark.parametrize(
    ("left", "right", "first"),
    [
        # 16 tokens less 3 special ones, 2 markers, 2 of the mention and 3 of the name: 6 of
        # context.
        ("a b c d e", "1 2 3 4 5", "c d e [unused1] m n [unused2] 1 2 3"),
        ("a b c d e f g", "1 2", "d e f g [unused1] m n [unused2] 1 2"),
        ("a", "1 2 3 4 5 6 7", "a [unused1] m n [unused2] 1 2 3 4 5"),
        ("", "1 2 3 4 5 6 7", "[unused1] m n [unused2] 1 2 3 4 5 6"),
    ],
)
def test_context_is_cut_first_and_its_far_ends(tokenizer, left, right, first):
    pairs, truncated = make_encoder(tokenizer, 16, 8).encode(["m n"], ["x y z"], [left], [right])
    assert shown(tokenizer, pairs) == [(first, "x y z")]
    words_of_context = len((left + " " + right).split())
    assert pairs.lengths.tolist()[0] == 16 - max(0, 6 - words_of_context)
    assert not truncated.any()


def test_the_nearest_context_of_an_endless_text_is_kept(tokenizer):
    encoder = make_encoder(tokenizer, 16, 2)
    pairs, _ = encoder.encode(["m"], ["x"], ["far " * 5_000 + "a b"], ["1 2" + " far" * 5_000])
    assert shown(tokenizer, pairs) == [("a b [unused1] m [unused2] 1 2", "x")]


def test_every_pair_with_context_fits_and_shows_its_mention(tokenizer):
    encoder = make_encoder(tokenizer, 24, 8)
    columns = [random_texts(300, 30, seed) for seed in range(4)]
    pairs, is_truncated = encoder.encode(*columns)
    start, end = tokenizer.convert_tokens_to_ids(["[unused1]", "[unused2]"])
    texts = [tokenizer(column, add_special_tokens=False)["input_ids"] for column in columns[:2]]
    truncated = 0
    for ids, mention, name in zip(listed(pairs)[0], *texts, strict=True):
        assert len(ids) <= 24 and ids.count(start) == ids.count(end) == 1
        kept = ids[ids.index(start) + 1 : ids.index(end)]
        whole = len(mention) + len(name) <= 24 - 5
        assert (
            kept == mention
            if whole
            else kept == mention[: len(kept)] and bool(kept) == bool(mention)
        )
        truncated += not whole
    assert is_truncated.sum() == truncated > 0


def test_markers_become_single_tokens_that_are_saved(tokenizer, tmp_path):
    template = PairTemplate(32, 4)
    assert template.prepare_tokenizer(tokenizer) == 0
    assert all(
        len(tokenizer(marker, add_special_tokens=False)["input_ids"]) == 1 for marker in MARKERS
    )
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    columns = (["m"], ["x"], ["a"], ["1"])
    saved = PairEncoder(tokenizer.backend_tokenizer, template).encode(*columns)[0]
    again = PairEncoder(loaded.backend_tokenizer, template).encode(*columns)[0]
    assert saved.ids.tolist() == again.ids.tolist()


@pytest.mark.parametrize(
    "content", [{}, {"max_length": 64}, {"candidate_fields": [], "markers": "ab"}]
)
def test_a_template_survives_json_but_for_a_damaged_one(content):
    template = PairTemplate(48, 16, ("preferred_name",), True)
    assert PairTemplate.from_dict(json.loads(json.dumps(asdict(template)))) == template
    with pytest.raises(UserError, match="template is damaged"):
        PairTemplate.from_dict(content)
    with pytest.raises(UserError, match="max_length"):
        PairTemplate(8)


def test_candidate_texts_come_from_the_dictionary(tmp_path):
    concepts = make_concepts(
        tmp_path, {"C0000001": ("", ["Common Cold", "cold"]), "C0000002": ("", ["Cold"])}
    )
    names = ["cold", "Cold", "common cold"]
    cuis = ["C0000001", "C0000002", "C0000001"]
    candidates = [{"name": name, "cui": cui} for name, cui in zip(names, cuis, strict=True)]
    lists = CandidateLists.from_table(
        concepts.hierarchy, mention_table(["a cold"], [candidates])
    ).completed(concepts)
    shown = PairTemplate(candidate_fields=("preferred_name",)).candidate_texts(lists)
    assert shown == ["cold ; Common Cold", "Cold", "common cold"]
    assert PairTemplate().candidate_texts(lists) == names


@pytest.mark.parametrize("context_tokens", [0, 4])
def test_distinct_pairs_are_those_of_all_pairs(tokenizer, context_tokens):
    encoder = make_encoder(tokenizer, 24, context_tokens)
    columns = [random_texts(20, 12, seed) for seed in range(4)]
    order = np.random.default_rng(0).integers(0, 20, 300)
    columns = [[column[i] for i in order] for column in columns]
    every, _ = encoder.encode(*columns)
    pairs, rows, _ = every.distinct()
    ids, types = listed(pairs)
    everything = listed(every)
    assert ([ids[row] for row in rows], [types[row] for row in rows]) == everything
    assert (
        len(pairs)
        == len(set(zip(map(tuple, everything[0]), map(tuple, everything[1]), strict=True)))
        < 21
    )


def test_pairs_that_the_limit_makes_equal_are_one(tokenizer):
    encoded, is_truncated = make_encoder(tokenizer, 16).encode(
        ["m", "m", "m"], ["x " * 20, "x " * 30, "x"]
    )
    pairs, rows, _ = encoded.distinct()
    assert (len(pairs), rows.tolist(), is_truncated.tolist()) == (2, [0, 0, 1], [True, True, False])
    assert pairs.take(rows).ids.tolist() == encoded.ids.tolist()


def divided(lengths, budget: int, is_padded: bool) -> list[list[int]]:
    return [
        batch.tolist()
        for batch in divide_by_length(np.array(lengths, dtype=int), budget, is_padded)
    ]


@pytest.mark.parametrize("is_padded", [True, False])
def test_batches_hold_each_row_once_within_the_budget_from_long_to_short(is_padded):
    lengths = np.random.default_rng(0).integers(1, 40, 500)
    batches = divide_by_length(lengths, 100, is_padded)
    assert sorted(np.concatenate(batches)) == list(range(500))
    sizes = [
        lengths[batch].max() * len(batch) if is_padded else lengths[batch].sum()
        for batch in batches
    ]
    assert max(sizes) <= 100 and min(sizes[:-1]) > 60
    assert (np.diff(lengths[np.concatenate(batches)]) <= 0).all()


def test_batches_are_as_large_as_they_can_be():
    assert divided([3, 9, 4, 3, 3], 9, True) == [[1], [2, 0], [3, 4]]
    assert divided([3, 9, 4, 3, 3], 10, False) == [[1], [2, 0, 3], [4]]


@pytest.mark.parametrize("is_padded", [True, False])
def test_row_over_the_budget_is_alone(is_padded):
    assert divided([50, 5, 60], 20, is_padded) == [[2], [0], [1]]


@pytest.mark.parametrize("is_padded", [True, False])
def test_rows_of_equal_length_keep_their_order(is_padded):
    order = np.concatenate(divide_by_length(np.tile([2, 3], 500), 10, is_padded))
    assert order.tolist() == [*range(1, 1000, 2), *range(0, 1000, 2)]


def test_empty_rows_count_as_one_token_where_they_are_padded():
    assert divided([0, 0, 0], 2, True) == [[0, 1], [2]]


ILLEGIBLE = [
    ("发热", "骨折"),
    ("左", "右"),
    ("糖尿病", "高血压"),
    ("发热", "fever"),
    ("fever", "\U0001f912"),
    ("\0", "\u200b"),
    # The mark that tells them apart is taken for an accent.
    ("か", "が"),
    ("दुर", "दर"),
]
LEGIBLE = [
    ("heart attack", "Myocardial infarction"),
    ("лихорадка", "перелом"),
    ("cold", "Cold"),
    ("Sjögren syndrome", "sjogren syndrome"),
    ("head\u200bache", "headache"),
    ("head\tache", "head ache"),
    ("α-thalassemia", "β-thalassemia"),
    # One of three tokens is unknown.
    ("fever of \U0001f912", "fever"),
]


@pytest.mark.parametrize(("pairs", "expected"), [(ILLEGIBLE, False), (LEGIBLE, True)])
def test_pairs_that_their_tokens_do_not_tell_apart(pairs, expected):
    tokenizer = AutoTokenizer.from_pretrained(BUILT_IN_FOLDERS[BUILT_IN])
    encoder = PairEncoder(tokenizer.backend_tokenizer, PairTemplate())
    found = encoder.are_legible(*zip(*pairs, strict=True)).tolist()
    assert dict(zip(pairs, found, strict=True)) == dict.fromkeys(pairs, expected)
    assert encoder.are_legible([], []).tolist() == []
