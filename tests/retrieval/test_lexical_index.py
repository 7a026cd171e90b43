import numpy as np
import pyarrow as pa
import pytest
from processes import absent, python
from sklearn.feature_extraction.text import TfidfVectorizer
from trigram_encoder import (
    TrigramEncoder,
    build_index,
    make_concepts,
    random_concepts,
    toy_concepts,
)

from umls_reranker.core.errors import UserError
from umls_reranker.retrieval import inverted_lists
from umls_reranker.retrieval.index_settings import IndexSettings
from umls_reranker.retrieval.lexical_index import FormIndex, LexicalIndex
from umls_reranker.retrieval.retriever import Retriever, load_retriever
from umls_reranker.retrieval.retrievers import Forms, Lexical
from umls_reranker.vocab.normalization import normalize_name

QUERIES = [
    "heart failure",
    "Cold",
    "acute pain (left)",
    "type II",
    "one upper lobe",
    "heart failure",
]
PARTS = ("data", "indices", "indptr")
FILES = (
    "trigrams.arrow",
    *(f"{matrix}_{part}.npy" for matrix in ("vectors", "lists_0") for part in PARTS),
)


def build(path, concepts, **settings) -> LexicalIndex:
    path.mkdir()
    return LexicalIndex.build(concepts, path, **settings)


def search(index, texts, k, **settings):
    return index.search(index.weigh(texts), k, **settings)


@pytest.fixture(scope="module")
def concepts(tmp_path_factory):
    return make_concepts(
        tmp_path_factory.mktemp("concepts") / "c", random_concepts(seed=3, count=60)
    )


@pytest.fixture(scope="module")
def index(concepts, tmp_path_factory):
    return build(tmp_path_factory.mktemp("index") / "lexical", concepts)


@pytest.fixture(scope="module")
def cosines(concepts):
    """(queries, names) by scikit-learn, without hashing and lists."""
    names = [name for row in range(len(concepts)) for name in concepts.names(row)]
    forms = [normalize_name(name) for name in names]
    vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), lowercase=False)
    vectorizer.fit(sorted(set(forms)))
    queries = vectorizer.transform([normalize_name(text) for text in QUERIES])
    return (queries @ vectorizer.transform(forms).T).toarray()


def rows_of_names(concepts):
    return np.repeat(
        np.arange(len(concepts)), [len(concepts.names(row)) for row in range(len(concepts))]
    )


@pytest.mark.parametrize(
    ("strings", "queries", "group"),
    [(131_072, 64, 128), (131_072, 64, 4), (7, 2, 2), (1, 1, 1)],
)
def test_search_finds_what_scikit_learn_finds(
    tmp_path, monkeypatch, concepts, cosines, strings, queries, group
):
    monkeypatch.setattr(inverted_lists, "GROUP", group)
    index = build(tmp_path / "index", concepts, block=strings)
    owners = rows_of_names(concepts)
    for k in (1, 5, 60):
        found = search(index, QUERIES, k, block=queries)
        for query, scores in enumerate(cosines):
            best = np.array([scores[owners == row].max() for row in range(len(concepts))])
            order = np.lexsort((np.arange(len(best)), -best.round(5)))[:k]
            order = order[best[order] > 1e-6]
            assert (found.rows[query] >= 0).sum() == len(order)
            np.testing.assert_allclose(found.scores[query, : len(order)], best[order], atol=1e-5)
            assert (found.rows[query, len(order) :] == -1).all()
            kept = found.rows[query, : len(order)]
            assert len(set(kept)) == len(kept)
            np.testing.assert_allclose(best[kept], best[order], atol=1e-5)
            np.testing.assert_array_equal(owners[found.name_ids[query, : len(order)]], kept)
            np.testing.assert_allclose(
                scores[found.name_ids[query, : len(order)]], best[kept], atol=1e-5
            )


def test_two_builds_are_the_same_bytes(tmp_path, concepts):
    contents = []
    for name in ("one", "two"):
        build(tmp_path / name, concepts)
        contents.append(
            {p.name: p.read_bytes() for p in sorted((tmp_path / name).rglob("*")) if p.is_file()}
        )
    assert contents[0] == contents[1] and set(FILES) < set(contents[0])


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy")
    concepts = toy_concepts(path / "concepts")
    return concepts, build(path / "index", concepts)


def test_equal_in_normalized_form_is_one_and_ties_come_by_row(toy):
    found = search(toy[1], ["COLD", "head cold"], 2)
    assert found.rows.tolist() == [[0, 1], [0, 1]]
    np.testing.assert_allclose(found.scores[0], [1, 1], atol=1e-6)
    assert found.scores[0, 0] == found.scores[0, 1]
    assert found.name_ids.tolist() == [[1, 4], [2, 4]]


def test_name_ids_are_those_of_the_dense_index(tmp_path, toy):
    concepts, index = toy
    dense = build_index(concepts, TrigramEncoder(), tmp_path / "dense")
    assert len(index) == len(dense)
    assert dense.names(search(index, ["head cold"], 2).name_ids[0]) == ["head-cold", "cold"]


@pytest.mark.parametrize("text", ["zzz", "", "-"])
def test_a_text_without_a_known_trigram_finds_nothing(toy, text):
    found = search(toy[1], [text, "heart"], 3)
    # "heart" shares two trigrams with "head-cold", and none with any name of the third concept.
    assert found.rows.tolist() == [[-1, -1, -1], [2, 0, -1]]
    assert np.isneginf(found.scores[0]).all()


def test_trigrams_of_too_many_names_are_left_out(tmp_path, toy):
    index = build(tmp_path / "index", toy[0], common_strings=1)
    # "cold" is in four of six distinct names, " co" in three, " te" in one.
    assert search(index, ["cold", "cold temperature"], 2).rows.tolist() == [[-1, -1], [1, -1]]


@pytest.mark.parametrize("names_at_once", [1, 3, 65_536])
def test_scores_of_given_concepts_are_those_of_the_search(index, names_at_once):
    vectors = index.weigh(QUERIES)
    found = index.search(vectors, 20)
    everyone = np.arange(len(QUERIES))
    _, scores = index.best_names(vectors, found.rows, everyone, block=names_at_once)
    np.testing.assert_allclose(scores, found.scores, atol=1e-6)


def test_scores_without_common_trigrams_are_zero_and_padding_is_not_scored(toy):
    vectors = toy[1].weigh(["heart", "cold"])
    _, scores = toy[1].best_names(vectors, np.array([[2, 1, -1], [2, 1, 0]]), np.arange(2))
    np.testing.assert_allclose(scores, [[1, 0, -np.inf], [0, 1, 1]], atol=1e-6)


@pytest.mark.parametrize("part", [*FILES, "lexical.json", "names.arrow"])
@pytest.mark.parametrize("damage", ["missing", "cut short"])
def test_incomplete_index_is_refused(tmp_path, toy, part, damage):
    build(tmp_path / "index", toy[0])
    file = tmp_path / "index" / part
    content = file.read_bytes()
    file.unlink()
    if damage == "cut short":
        file.write_bytes(content[: len(content) // 3])
    with pytest.raises(UserError):
        LexicalIndex.load(tmp_path / "index")


# Retrieval by text alone: without vectors, an encoder or the libraries of networks


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
    assert python("-c", code).stdout.split() == ["2"]


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
