"""Retrieval by text alone: without vectors, an encoder or the libraries of networks."""

import subprocess
import sys

import pyarrow as pa
import pytest
from absent import absent
from trigram_encoder import make_concepts

from umls_reranker.core.errors import UserError
from umls_reranker.retrieval.deployment import IndexSettings
from umls_reranker.retrieval.lexical_index import FormIndex, LexicalIndex
from umls_reranker.retrieval.retriever import Retriever, load_retriever
from umls_reranker.retrieval.retrievers import Forms, Lexical

NAMES = {
    "C0000001": ("", ["kidney cancer", "kidney tumors"]),
    "C0000002": ("", ["renal tumor marker", "tumor of renal pelvis"]),
    "C0000003": ("", ["heart"]),
}
MENTIONS = pa.table(
    {
        "mention": ["grawitz", "pump", "pump"],
        "cui": [[["C0000001"]], [["C0000003"]], [["C0000003"]]],
        "doc_id": ["1", "2", "3"],
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An index folder whose normal forms include known mentions."""
    folder = tmp_path_factory.mktemp("text")
    concepts = make_concepts(folder / "concepts", NAMES)
    for name in ("lexical", "forms"):
        (folder / name).mkdir()
    LexicalIndex.build(concepts, folder / "lexical")
    FormIndex.build(concepts, folder / "forms", MENTIONS)
    IndexSettings(retrievers=["lexical", "forms"], encoder="", index_key="key").save(folder)
    return folder


def test_normal_forms_order_the_candidates_and_trigrams_choose_among_their_equals(folder):
    retriever = load_retriever(folder, "auto")
    hits = retriever.search(["renal tumor"], 3)
    lexical = Retriever(
        [Lexical(LexicalIndex.load(folder / "lexical"))], concepts=retriever._concepts
    )
    assert hits.rows.tolist() == [[0, 1, -1]]
    assert lexical.search(["renal tumor"], 3).rows.tolist() == [[1, 0, -1]]
    # Both names of the first have the normal form of the mention.
    assert retriever.name_array(hits.name_ids[0, :2]).to_pylist() == [
        "kidney tumors",
        "renal tumor marker",
    ]
    scores = retriever.scores_of(hits)
    assert [*scores] == ["forms", "lexical"] and scores["forms"][0, 0] == pytest.approx(1)
    assert scores["lexical"][0, 0] < scores["lexical"][0, 1]


def test_a_known_mention_finds_its_concept_but_is_no_name(folder):
    retriever = load_retriever(folder, "auto")
    hits = retriever.search(["grawitz", "pump"], 1)
    assert hits.rows.tolist() == [[0], [2]]
    assert retriever.name_array(hits.name_ids[:, 0]).to_pylist() == ["kidney cancer", "heart"]
    assert hits.scores[:, 0] == pytest.approx([1, 1])
    alone = Retriever([Forms(FormIndex.load(folder / "forms"))], concepts=retriever._concepts)
    own = alone.search(["grawitz", "pump"], 1, documents=["1", "2"])
    # Mentions of the same document do not count.
    assert own.rows.tolist() == [[-1], [2]]


def test_it_needs_no_network_libraries(folder):
    code = absent(["torch", "transformers", "accelerate", "faiss", "datasets"]) + (
        "import pathlib\n"
        "from umls_reranker.retrieval.retriever import load_retriever\n"
        f"hits = load_retriever(pathlib.Path({str(folder)!r}), 'auto').search(['hearts'], 1)\n"
        "print(hits.rows[0, 0])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert ended.stdout.split() == ["2"], ended.stderr


def test_of_concepts_with_equal_names_the_one_called_so_comes_first(tmp_path):
    names = {
        "C0000001": ("", ["dermatitis", "DM", "skin inflammation"]),
        "C0000002": ("", ["dm"]),
        "C0000003": ("", ["myopathy", "DM", "muscle disease", "muscular disorder"]),
    }
    concepts = make_concepts(tmp_path / "concepts", names)
    (tmp_path / "forms").mkdir()
    retriever = Retriever([Forms(FormIndex.build(concepts, tmp_path / "forms"))], concepts=concepts)
    # Then the one with more names.
    assert retriever.search(["DM"], 3).rows.tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("names", [["nearest_mentions"], ["lexical", "context"]])
def test_retrievers_that_cannot_order_are_refused(tmp_path, names):
    IndexSettings(retrievers=names).save(tmp_path)
    with pytest.raises(UserError, match="retrievers"):
        load_retriever(tmp_path, "auto")
