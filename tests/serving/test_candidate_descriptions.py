"""What tells candidates of a sheet apart whose names are equal."""

import pytest

from umls_reranker.serving.candidate_descriptions import describe_candidates
from umls_reranker.vocab.code_systems import Code
from umls_reranker.vocab.concept_codes import ConceptCodes
from umls_reranker.vocab.concept_columns import ConceptColumns
from umls_reranker.vocab.concepts import Concept, concept_table


class Codes(ConceptCodes):
    """Codes that are given."""

    def __init__(self, codes):
        super().__init__(["OMIM"])
        self.codes = codes

    def of(self, concept_id):
        return self.codes.get(concept_id, ())


def candidates(*ids, **same):
    return [{"cui": cui, "name": "3-M syndrome", "semantic_types": ["T047"]} | same for cui in ids]


def names(**synonyms):
    concepts = [Concept(cui, "3-M syndrome", tuple(names)) for cui, names in synonyms.items()]
    return ConceptColumns(concept_table(concepts))


def test_equal_names_are_told_apart_by_a_name_that_only_one_has():
    known = names(C1=["3M", "Yakut dwarfism"], C2=["3m", "Le Merrer syndrome"], C3=["3M"])
    codes = Codes({"C3": [Code("OMIM", "273750")]})
    expected = ["also Yakut dwarfism", "also Le Merrer syndrome", "OMIM 273750"]
    texts = describe_candidates(candidates("C1", "C2", "C3"), known, codes)
    assert texts == [f"Disease or Syndrome; {text}" for text in expected]


@pytest.mark.parametrize("known", [None, names(C1=["3M"], C2=["3M"]), names(C9=["3M"])])
def test_the_id_is_what_is_left(known):
    texts = describe_candidates(candidates("C1", "C2"), known, Codes({"C1": [Code("UMLS", "C1")]}))
    assert texts == ["Disease or Syndrome; C1", "Disease or Syndrome; C2"]


def test_what_differs_already_is_enough():
    known = names(C1=["Yakut dwarfism"], C2=["Le Merrer syndrome"])
    first, second = candidates("C1", "C2")
    second["definition"] = "A disease."
    assert describe_candidates([first, second], known)[0] == "Disease or Syndrome"
    first["definition"] = "x" * 90 + " first"
    second["definition"] = "x" * 90 + " second, of which the beginning is that of the first"
    assert "Yakut" not in describe_candidates([first, second], known)[0]
    first["definition"], second["definition"] = ("word " * 30 + end for end in ("one", "two"))
    assert describe_candidates([first, second], known)[0].endswith("...; also Yakut dwarfism")
    # Another name is another candidate.
    assert describe_candidates([first, second | {"preferred_name": "x"}], known)[0].endswith("...")
