"""One form of a concept id, so that what a person wrote matches the dictionary."""

import pytest

from umls_reranker.vocab.text import CUI, normalize_cui


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("C0009443", "C0009443"),
        (" c0009443\n", "C0009443"),
        # Ids of ontologies keep their case: Orphanet:586 is not ORPHANET:586.
        (" HP:0001250 ", "HP:0001250"),
        ("Orphanet:586", "Orphanet:586"),
    ],
)
def test_forms(written, form):
    assert normalize_cui(written) == form


def test_digits_of_other_scripts_make_no_cui():
    arabic = "C\u0660\u0660\u0660\u0669\u0664\u0664\u0663"
    assert CUI.fullmatch("C0009443") and not CUI.fullmatch(arabic)
    assert normalize_cui(arabic.lower()) == arabic.lower()
