"""The examples for LangChain, Haystack and LlamaIndex, with these packages."""

import runpy

import pytest
from test_example_scripts import EXAMPLES, docstring, run  # noqa: F401
from tiny_reranker import tiny_reranker_without_cross_encoder

from umls_reranker import UMLSReranker

pytest_plugins = ["pipeline_fixtures"]
pytestmark = pytest.mark.extra
SCRIPTS = {
    "langchain_compressor.py": "langchain_core",
    "haystack_ranker.py": "haystack",
    "llama_index_postprocessor.py": "llama_index",
}
# The highest score is not that of the first name.
SCORES = {"C0009443": 0.3, "C0009264": 0.9}
NAMES = {"C0009443": "common cold", "C0009264": "cold temperature"}


@pytest.fixture
def model(tmp_path):
    """A model that needs `cui` and `sapbert_score`, or a fallback decides."""
    return tiny_reranker_without_cross_encoder(tmp_path / "model")


@pytest.fixture(autouse=True)
def no_telemetry(monkeypatch):
    monkeypatch.setenv("HAYSTACK_TELEMETRY_ENABLED", "False")


@pytest.mark.parametrize(("script", "package"), SCRIPTS.items())
def test_an_adapter_prints_what_it_says(run, script, package, tmp_path):  # noqa: F811
    pytest.importorskip(package)
    told = docstring(script).partition("prints\n\n")[2]
    lines = [line.strip() for line in told.splitlines()]
    assert lines and run(script, tmp_path) == lines


def check(answers, model):
    """The answers, (cui, score, metadata), are those of the reranker by all that it reads."""
    candidates = [{"cui": cui, "name": NAMES[cui], "sapbert_score": SCORES[cui]} for cui in NAMES]
    expected = UMLSReranker.from_pretrained(model).rerank("cold", candidates)
    assert [(cui, score) for cui, score, _ in answers] == [(c.cui, c.score) for c in expected]
    assert expected[0].model_name == "all" and expected[0].cui == "C0009264"
    assert [data["model_name"] for _, _, data in answers] == ["all", "all"]
    assert [data["page"] for _, _, data in answers] == [7, 7]


def test_langchain_passes_ids_and_scores(model):
    documents = pytest.importorskip("langchain_core.documents")
    compressor = runpy.run_path(str(EXAMPLES / "langchain_compressor.py"))["UMLSCompressor"]
    given = [
        documents.Document(
            NAMES[cui], metadata={"cui": cui, "sapbert_score": SCORES[cui], "page": 7}
        )
        for cui in NAMES
    ]
    reranker = UMLSReranker.from_pretrained(model)
    answers = compressor(reranker=reranker).compress_documents(given, "cold")
    data = [document.metadata for document in answers]
    check([(one["cui"], one["score"], one) for one in data], model)


def test_haystack_passes_ids_and_scores_in_a_pipeline(model):
    haystack = pytest.importorskip("haystack")
    ranker = runpy.run_path(str(EXAMPLES / "haystack_ranker.py"))["UMLSRanker"]
    given = [
        haystack.Document(content=NAMES[cui], score=SCORES[cui], meta={"cui": cui, "page": 7})
        for cui in NAMES
    ]
    pipeline = haystack.Pipeline()
    pipeline.add_component("ranker", ranker(str(model), score_name="sapbert_score"))
    answer = pipeline.run({"ranker": {"query": "cold", "documents": given}})
    answers = answer["ranker"]["documents"]
    check([(one.meta["cui"], one.score, one.meta) for one in answers], model)


def test_llama_index_passes_ids_and_scores(model):
    schema = pytest.importorskip("llama_index.core.schema")
    postprocessor = runpy.run_path(str(EXAMPLES / "llama_index_postprocessor.py"))
    given = [
        schema.NodeWithScore(
            node=schema.TextNode(text=NAMES[cui], metadata={"cui": cui, "page": 7}),
            score=SCORES[cui],
        )
        for cui in NAMES
    ]
    reranker = UMLSReranker.from_pretrained(model)
    adapter = postprocessor["UMLSPostprocessor"](reranker=reranker, score_name="sapbert_score")
    answers = adapter.postprocess_nodes(given, query_str="cold")
    check([(one.metadata["cui"], one.score, one.metadata) for one in answers], model)
