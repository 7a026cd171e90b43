"""Abbreviations that texts define: the examples of Schwartz & Hearst, and known errors."""

import pytest

from umls_reranker.data.abbreviations import find_abbreviations
from umls_reranker.data.pubtator import read_pubtator


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("heat shock protein (HSP) is", {"HSP": "heat shock protein"}),
        ("We saw acute myocardial infarction (AMI).", {"AMI": "acute myocardial infarction"}),
        # Letters count as they are written: alpha spelled out holds no α.
        ("tumour necrosis factor alpha (TNF-α)", {}),
        ("HSP (heat shock protein) binds", {"HSP": "heat shock protein"}),
        ("the interferon regulatory factor 5 (IRF5; see text)", {"IRF5": "interferon regulatory factor 5"}),
        ("beta-2-microglobulin (B2M)", {"B2M": "beta-2-microglobulin"}),
        ("Left out. Only heart rate (HR) counts", {"HR": "heart rate"}),
        ("first heart rate (HR), later human resources (HR)", {"HR": "heart rate"}),
        # No letter of the short form may be missing, and its first one starts a word.
        ("low back pain (XYZ)", {}),
        ("a superpath (UP)", {}),
        # The text in parentheses is not an abbreviation.
        ("in patients (n = 24) and mice (see Figure 3)", {}),
        ("a value (12)", {}),
        ("(HSP) alone, and an open bracket (HSP", {}),
        ("", {}),
    ],
)
def test_definitions(text, found):
    assert find_abbreviations(text) == found


def test_a_long_form_has_at_most_as_many_words_as_the_short_one_allows():
    words = " ".join(["big"] * 12)
    assert find_abbreviations(f"alpha {words} (AB)") == {}


class CountedText(str):
    """Text that counts the characters that are cut out of it."""

    read = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.read += len(found)
        return found


@pytest.mark.parametrize(
    "part", ["(a) ", "ab (cd) ", "heat shock protein (HSP) ", "a [(", "a. (bbbbb) ", "x" * 500 + " (xx)"]
)
def test_each_character_before_a_parenthesis_is_read_once(part):
    text = CountedText(part * (20_000 // len(part)))
    find_abbreviations(text)
    assert text.read <= len(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # A long form may begin 2,000 characters before its parenthesis, and no earlier.
        (f"heart {'x' * 1988} rate (HR)", {"HR": f"heart {'x' * 1988} rate"}),
        (f"heart {'x' * 1989} rate (HR)", {}),
        # Every parenthesis ends a clause, also one that is never closed.
        ("heart (some rate (HR)", {}),
        ("heart rate (a) (HR)", {}),
        ("heart rate [HR] and (HR)", {"HR": "heart rate"}),
        # Punctuation ends a clause only where a space follows.
        ("type 1.5 diabetes.(TD)", {"TD": "type 1.5 diabetes."}),
        ("type one. diabetes (TD)", {}),
        # Any white space parts words.
        ("patients with\nacute myocardial\ninfarction (AMI)", {"AMI": "acute myocardial\ninfarction"}),
        ("low\u00a0heart\u2009rate (HR)", {"HR": "heart\u2009rate"}),
        ("MRI (magnetic resonance imaging) (MRI)(ECG) or (none)", {"MRI": "magnetic resonance imaging"}),
    ],
)
def test_where_a_long_form_may_begin(text, found):
    assert find_abbreviations(text) == found


CORPUS = """1|t|Heat shock protein (HSP) in mice
1|a|The HSP binds.
1\t0\t18\tHeat shock protein\tT103\tUMLS:C0018850
1\t20\t23\tHSP\tT103\tUMLS:C0018850
1\t37\t40\tHSP\tT103\tUMLS:C0018850
"""


def test_mentions_take_the_long_form_where_it_is_asked_for(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS)
    corpus = read_pubtator(path, expand_abbreviations=True)
    mentions = list(corpus)
    assert [mention.text for mention in mentions] == ["Heat shock protein"] * 3
    assert [(mention.start, mention.end) for mention in mentions] == [(0, 18), (20, 23), (37, 40)]
    assert corpus.report["expanded_abbreviations"] == 2
    assert [mention.text for mention in read_pubtator(path)] == ["Heat shock protein", "HSP", "HSP"]
