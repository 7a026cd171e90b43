"""The dev pairs that checkpoints are compared on."""

from collections import Counter

import numpy as np
import pytest
from datasets import Dataset
from trigram_encoder import HIERARCHY, make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.models.template import PairTemplate
from umls_reranker.training.dev_lists import dev_pairs, sample_by_document

# 40 mentions in the first document, 3 in each of the other 20.
DOCUMENTS = ["a"] * 40 + [f"b{number:02}" for number in range(20) for _ in range(3)]


def test_every_document_gives_a_mention_before_any_gives_two():
    sizes = np.full(100, 4)
    rows = sample_by_document(DOCUMENTS, sizes, 21 * 4, seed=5)
    assert rows.tolist() == sorted(set(rows.tolist()))
    assert Counter(DOCUMENTS[row] for row in rows) == dict.fromkeys(DOCUMENTS, 1)
    counts = Counter(DOCUMENTS[row] for row in sample_by_document(DOCUMENTS, sizes, 30 * 4 + 3, seed=5))
    assert sum(counts.values()) == 30 and set(counts.values()) == {1, 2}
    assert len(sample_by_document(DOCUMENTS, sizes, 400, seed=5)) == 100


def test_the_seed_decides_the_sample():
    sizes = np.arange(100) % 5 + 1
    first, again, other = (sample_by_document(DOCUMENTS, sizes, 60, seed).tolist() for seed in (1, 1, 2))
    assert first == again != other
    assert 55 < sizes[first].sum() <= 60 and 55 < sizes[other].sum() <= 60


@pytest.mark.parametrize("documents", [DOCUMENTS, []])
def test_a_limit_below_the_first_list_is_refused(documents):
    with pytest.raises(UserError, match="max_dev_pairs: 3 is smaller than one candidate list"):
        sample_by_document(documents, np.full(len(documents), 4), 3, seed=1)


def test_pairs_are_the_lists_as_they_were_retrieved(tmp_path):
    names = {f"C000000{n}": ("T3" if n == 1 else "T4", [name]) for n, name in enumerate(("cold", "heart", "liver"), 1)}
    concepts = make_concepts(tmp_path / "concepts", names)
    mentions = Dataset.from_dict(
        {
            "mention_id": [4, 5],
            "doc_id": ["a", "b"],
            "mention": ["colds", "hearts"],
            "left": ["x ", "y "],
            "right": [" z", " w"],
            "cui": ["C0000001", "C0000002"],
            "semantic_types": [["T3"], []],
            "start": [0, 0],
            "end": [5, 6],
        }
    )
    candidates = Dataset.from_dict(
        {
            "mention_id": [4, 5],
            "cuis": [["C0000002", "C0000001"], ["C0000003", "C0000001"]],
            "names": [["heart", "cold"], ["liver", "cold"]],
            "retrieval_scores": [[0.9, 0.8], [0.7, 0.6]],
            "gold": [1, -1],
        }
    )
    template = PairTemplate(32, 4, mention_types=True)
    pairs = dev_pairs(candidates, mentions, concepts, template, 4, seed=1)
    assert pairs.column_names == ["mention_id", "mention", "left", "right", "name", "label", "weight"]
    shown = template.mention_text("colds", ["T3"], HIERARCHY)
    assert "Infection" in shown
    assert pairs["mention"][:] == [shown, shown, "hearts", "hearts"]
    assert pairs["name"][:] == ["heart", "cold", "liver", "cold"]
    assert (pairs["left"][:], pairs["right"][:]) == (["x ", "x ", "y ", "y "], [" z", " z", " w", " w"])
    # The gold concept of the second mention was not retrieved, and is not put in.
    assert (pairs["mention_id"][:], pairs["label"][:]) == ([4, 4, 5, 5], [0, 1, 0, 0])
    assert set(pairs["weight"]) == {1.0}
