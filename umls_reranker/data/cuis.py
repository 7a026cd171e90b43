"""UMLS CUIs: their pattern, and the form in which concept ids are compared."""

from __future__ import annotations

import re

CUI = re.compile(r"C[0-9]{7}", re.IGNORECASE)


def normalize_cui(text: str) -> str:
    """A concept id in the dictionary's form: without surrounding blanks, and with a capital C for UMLS CUIs.

    Ids of ontologies are case-sensitive and keep their case.

    >>> normalize_cui(" c0000039"), normalize_cui("Orphanet:586")
    ('C0000039', 'Orphanet:586')
    """
    stripped = text.strip()
    return stripped.upper() if CUI.fullmatch(stripped) else stripped
