"""One form of a concept id, so that what a person wrote matches the dictionary."""

import numpy as np
import pyarrow as pa
import pytest

from umls_reranker.data.cuis import cui_number, cui_numbers, cui_text, normalize_cui


@pytest.mark.parametrize(
    ("written", "form"),
    [
        ("C0009443", "C0009443"),
        (" c0009443\n", "C0009443"),
        # Ids of ontologies keep their case: Orphanet:586 is not ORPHANET:586.
        (" HP:0001250 ", "HP:0001250"),
        ("Orphanet:586", "Orphanet:586"),
        ("common cold", "common cold"),
    ],
)
def test_forms(written, form):
    assert normalize_cui(written) == form


@pytest.mark.parametrize("cuis", [["C0000010", "C0000011"], ["C1", "C12345678", "", "\u03b2", "C0000010"]])
def test_numbers_of_cuis_sort_as_they_do(cuis):
    numbers = cui_numbers(pa.array(["x", *cuis], pa.large_string())[1:])
    assert numbers.dtype == np.uint64
    assert numbers.tolist() == [cui_number(cui) for cui in cuis]
    assert [cui_text(number) for number in numbers] == [cui if len(cui.encode()) <= 8 else "" for cui in cuis]
    short = [cui for cui in cuis if len(cui.encode()) <= 8]
    assert sorted(short) == sorted(short, key=cui_number)
