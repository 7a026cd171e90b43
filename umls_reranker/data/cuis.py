"""CUIs in one form, and as integers for looking up millions at once."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

CUI_BYTES = 8
UMLS_CUI = re.compile(r"[Cc]\d+")


def normalize_cui(text: str) -> str:
    """A concept id in the dictionary's form: without surrounding blanks, and with a capital C for UMLS CUIs.

    Ids of ontologies are case-sensitive and keep their case.

    >>> normalize_cui(" c0000039"), normalize_cui("Orphanet:586")
    ('C0000039', 'Orphanet:586')
    """
    stripped = text.strip()
    return stripped.upper() if UMLS_CUI.fullmatch(stripped) else stripped


def cui_number(cui: str) -> int:
    """The bytes of a CUI as one number with the same sort order; 0 for an id of more than 8 bytes.

    >>> cui_text(cui_number("C0000039"))
    'C0000039'
    """
    content = cui.encode()
    return int.from_bytes(content.ljust(CUI_BYTES, b"\0"), "big") if len(content) <= CUI_BYTES else 0


def cui_numbers(cuis: pa.Array) -> np.ndarray:
    """`cui_number` of n CUIs, (n,) uint64.

    Args:
        cuis: (n,) large_string without nulls.
    """
    lengths = pc.binary_length(cuis).to_numpy()
    if (lengths == CUI_BYTES).all():
        # Eight bytes each, contiguous: the Arrow buffer is the array of numbers.
        start = np.frombuffer(cuis.buffers()[1], np.int64, 1, cuis.offset * 8)[0] if len(cuis) else 0
        content = np.frombuffer(cuis.buffers()[2], ">u8", len(cuis), start) if len(cuis) else np.empty(0, ">u8")
        return content.astype(np.uint64)
    padded = np.array([cui.encode() for cui in cuis.to_pylist()], dtype=f"S{CUI_BYTES}")
    return np.where(lengths <= CUI_BYTES, padded.view(">u8"), 0).astype(np.uint64)


def cui_text(number: int) -> str:
    """Inverse of `cui_number`."""
    return int(number).to_bytes(CUI_BYTES, "big").rstrip(b"\0").decode()


def cui_strings(numbers: np.ndarray) -> pa.StringArray:
    """Inverse of `cui_numbers`, (n,)."""
    content = numbers.astype(">u8").view(f"S{CUI_BYTES}")
    return pc.cast(pa.array(content, pa.binary()), pa.string())


def rows_of(known: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions of the `wanted` numbers among the ascending `known` ones, (n,), int64; -1 if missing."""
    if not len(known):
        return np.full(len(wanted), -1, np.int64)
    positions = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[positions] == wanted, positions, -1)
