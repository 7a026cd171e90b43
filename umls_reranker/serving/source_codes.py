"""The codes that the source of a term gives it, by the UMLS's names of their vocabularies."""

from ..lists.answers import Term
from ..vocab.code_systems import SYSTEMS, Code, code_of

# Name of a vocabulary in OMOP -> its name in the UMLS.
SOURCE_OF_VOCABULARY = {system.omop: source for source, system in SYSTEMS.items() if system.omop}


def source_codes_of(term: Term) -> list[Code]:
    """The source's code of a term, if it has one; without a vocabulary, its prefix tells that."""
    if term.code and term.vocabulary:
        return [Code(SOURCE_OF_VOCABULARY.get(term.vocabulary, term.vocabulary), term.code)]
    return [code_of(term.code)] if term.code else []
