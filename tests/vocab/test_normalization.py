import unicodedata
from types import SimpleNamespace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from umls_reranker.vocab import text as normalization
from umls_reranker.vocab.text import normalize_name, normalize_names

PIECES = st.sampled_from(
    [
        "a",
        "B",
        "7",
        " ",
        "-",
        "_",
        "(",
        "\t",
        "\0",
        "\u00e9",
        "e\u0301",
        "\u00b5",
        "\uff24",
        "\u00df",
    ]
)
NAMES = st.lists(
    st.one_of(st.lists(PIECES, max_size=20).map("".join), st.text(max_size=8)), max_size=30
)


@settings(deadline=None)
@given(names=NAMES, start=st.integers(0, 5))
def test_names_at_once_are_as_names_one_by_one(names, start):
    column = pa.array(names, pa.string())
    forms = normalize_names(column)
    assert forms.type == pa.string()
    assert forms.to_pylist() == [normalize_name(name) for name in names]
    assert normalize_names(column.slice(start)).to_pylist() == forms.to_pylist()[start:]


def test_no_run_of_combining_marks_is_sorted_whole(monkeypatch):
    sizes = []

    def normalize(form, text):
        sizes.append(len(text))
        return unicodedata.normalize(form, text)

    monkeypatch.setattr(normalization, "unicodedata", SimpleNamespace(normalize=normalize))
    assert normalize_name("e" + "\u0301" * 5_000 + "\u0316" * 5_000) == "\u00e9"
    assert max(sizes) <= normalization.PIECE


def test_a_long_name_is_normalized_as_its_words_are():
    words = ["e\u0301", "\uff24B", "\u00df-7", "x" * 200, "\u00a8a"] * 50
    expected = " ".join(normalize_name(word) for word in words)
    for space in (" ", "\t\u00a0", "\x1c"):
        assert normalize_name(space.join(words)) == expected


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("Diabetes-Mellitus,  type II", "diabetes mellitus type ii"),
        ("  (diabetes) mellitus_type\tII ", "diabetes mellitus type ii"),
        ("\uff24iabetes", "diabetes"),  # full-width D
        ("Stra\u00dfe", "strasse"),
        ("Me\u0301nie\u0300re", "m\u00e9ni\u00e8re"),  # combining accents
        ("\u00b5g/\u03bcL", "\u03bcg \u03bcl"),  # micro sign and Greek mu
        ("++ ", "++"),
        (" A_b--C.7 ", "a b c 7"),
        # Of one sign, and of one whose folded form has to be composed again.
        ("\u2103", "c"),
        ("\u0390", "\u0390"),
        (" + \t -", "+ -"),
    ],
)
def test_normalized_names(text, form):
    assert normalize_name(text) == form


@given(st.text())
def test_normalizing_twice_changes_nothing_and_only_blank_text_is_empty(text):
    form = normalize_name(text)
    assert normalize_name(form) == form
    assert bool(form) == bool(text.strip())
