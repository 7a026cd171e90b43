"""Abbreviations that texts define: the examples of Schwartz & Hearst, and known errors."""

import pytest

from umls_reranker.corpora.corpus import find_abbreviations
from umls_reranker.corpora.formats import read_corpus

TEN = "acute biologic care decision effort for good health in joint"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("heat shock protein (HSP) is", {"HSP": "heat shock protein"}),
        # Letters count as they are written: alpha spelled out holds no α.
        ("tumour necrosis factor alpha (TNF-α)", {}),
        ("HSP (heat shock protein) binds", {"HSP": "heat shock protein"}),
        (
            "the interferon regulatory factor 5 (IRF5; see text)",
            {"IRF5": "interferon regulatory factor 5"},
        ),
        ("first heart rate (HR), later human resources (HR)", {"HR": "heart rate"}),
        # No letter of the short form may be missing, and its first one starts a word.
        ("low back pain (XYZ)", {}),
        ("a superpath (UP)", {}),
        # The text in parentheses is not an abbreviation.
        ("in patients (n = 24) and mice (see Figure 3)", {}),
        ("(HSP) alone, and an open bracket (HSP", {}),
        # A long form may begin 2,000 characters before its parenthesis, and no earlier.
        (f"heart {'x' * 1988} rate (HR)", {"HR": f"heart {'x' * 1988} rate"}),
        (f"heart {'x' * 1989} rate (HR)", {}),
        # Every parenthesis ends a clause, also one that is never closed.
        ("heart (some rate (HR)", {}),
        ("heart rate (a) (HR)", {}),
        # Punctuation ends a clause only where a space follows.
        ("type 1.5 diabetes.(TD)", {"TD": "type 1.5 diabetes."}),
        ("type one. diabetes (TD)", {}),
        # Any white space parts words.
        (
            "patients with\nacute myocardial\ninfarction (AMI)",
            {"AMI": "acute myocardial\ninfarction"},
        ),
        ("low\u00a0heart\u2009rate (HR)", {"HR": "heart\u2009rate"}),
        (
            "MRI (magnetic resonance imaging) (MRI)(ECG) or (none)",
            {"MRI": "magnetic resonance imaging"},
        ),
        # A short form has 2 to 10 characters in one or two words, starts with a letter or digit
        # and has a letter.
        (f"{TEN} (ABCDEFGHIJ)", {"ABCDEFGHIJ": TEN}),
        (f"{TEN} keeping (ABCDEFGHIJK)", {}),
        ("vitamin (V)", {}),
        ("Crohn disease type one (CD I)", {"CD I": "Crohn disease type one"}),
        ("Crohn disease type one (C D T)", {}),
        ("heart rate (-HR)", {}),
        ("grades 1 to 2 (12)", {}),
        ("heart rate ( HR )", {"HR": "heart rate"}),
        ("heart rate (HR,2)", {}),
        # Before its long form it has a capital after the first letter, or a digit.
        ("Use (user service element)", {}),
        ("p53 (protein of 53 kilodaltons)", {"p53": "protein of 53 kilodaltons"}),
        # The parentheses hold the long form and nothing else, in no more words than it may have.
        ("MRI (the magnetic resonance imaging)", {}),
        ("HR (heart of a very big rate)", {}),
        # A long form is longer than the short one, and does not hold it.
        ("a b (A-B)", {}),
        # Signs of the short form count for nothing; a word with a hyphen is kept whole.
        ("tumor necrosis factor (TN-F)", {"TN-F": "tumor necrosis factor"}),
        ("non-small cell (SC)", {"SC": "non-small cell"}),
        ("heart; rate (HR), heart: rate (HR), heart? rate (HR), heart! rate (HR)", {}),
    ],
)
def test_definitions(text, found):
    assert find_abbreviations(text) == found


class CountedText(str):
    """Text that counts the characters that are cut out of it."""

    read = 0

    def __getitem__(self, key):
        found = super().__getitem__(key)
        self.read += len(found)
        return found


@pytest.mark.parametrize(
    "part",
    ["(a) ", "ab (cd) ", "heat shock protein (HSP) ", "a [(", "a. (bbbbb) ", "x" * 500 + " (xx)"],
)
def test_each_character_before_a_parenthesis_is_read_once(part):
    text = CountedText(part * (20_000 // len(part)))
    find_abbreviations(text)
    assert text.read <= len(text)


CORPUS = """1|t|Heat shock protein (HSP) in mice
1|a|The HSP binds.
1\t0\t18\tHeat shock protein\tT103\tUMLS:C0018850
1\t20\t23\tHSP\tT103\tUMLS:C0018850
1\t37\t40\tHSP\tT103\tUMLS:C0018850
"""


def test_mentions_take_the_long_form_where_it_is_asked_for(tmp_path):
    path = tmp_path / "corpus.txt"
    path.write_text(CORPUS)
    report = {}
    mentions = list(read_corpus([path], report, expand_abbreviations=True))
    assert [mention.text for mention in mentions] == ["Heat shock protein"] * 3
    assert [(mention.start, mention.end) for mention in mentions] == [(0, 18), (20, 23), (37, 40)]
    assert report["expanded_abbreviations"] == 2
    assert [mention.text for mention in read_corpus([path])] == ["Heat shock protein", "HSP", "HSP"]
