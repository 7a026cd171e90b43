"""Documents of nearly equal content count as one."""

import numpy as np
import pytest

from umls_reranker.lists.labels import usable_lists
from umls_reranker.lists.read import Rows
from umls_reranker.vocab.types import TypeHierarchy


def notes(copies, changed=0.0, mentions=3, seed=0, has_text=True):
    """Rows of 20 notes of 120 words with some mentions, in copies of which some words change."""
    rng = np.random.default_rng(seed)
    boilerplate = [f"dictated{position}" for position in range(30)]
    rows = []
    for note in range(20):
        text = np.array([*boilerplate, *(f"w{rng.integers(3000)}" for _ in range(90))], object)
        entities = [f"m{rng.integers(3000)}" for _ in range(mentions)]
        for copy in range(copies):
            words = text.copy()
            words[rng.random(120) < changed] = f"x{note}.{copy}"
            for entity, part in zip(entities, np.array_split(words, mentions), strict=True):
                candidates = [{"name": entity, "cui": f"C{entity}"}, {"name": "b", "cui": "C0"}]
                row = {"doc_id": f"d{note}.{copy}", "entity": entity, "cui": f"C{entity}"}
                if has_text:
                    row["left"] = " ".join(part)
                rows.append(row | {"candidates": candidates})
    return rows


def documents(rows):
    lists = usable_lists(Rows.of_mappings(rows), "rows", TypeHierarchy([]))
    assert lists.annotations.doc_ids.tolist() == [row["doc_id"] for row in rows]
    return lists.annotations.documents


@pytest.mark.parametrize("changed", [0.0, 0.05])
@pytest.mark.parametrize("copies", [1, 2, 5, 40])
def test_notes_under_several_ids_are_one_document(copies, changed):
    rows = notes(copies, changed)
    expected = [row["doc_id"].split(".")[0] + ".0" for row in rows]
    assert documents(rows).tolist() == expected


def test_notes_without_text_are_alike_by_several_mentions_and_their_candidates():
    for mentions, expected in ((3, 20), (2, 60)):
        assert len({*documents(notes(3, mentions=mentions, has_text=False))}) == expected
    rows = notes(3, has_text=False)
    for number, row in enumerate(rows):
        row["candidates"][1]["cui"] = f"C{number}"
    assert len({*documents(rows)}) == 60
