"""Rerank concepts that a Haystack retriever found, and keep what its documents bring.

Needs `pip install haystack-ai`. A document's content is a name; its meta hold `cui` and scores,
such as `bm25_score`. The retriever's own score, `document.score`, is passed as `score_name`.

    python examples/haystack_ranker.py

prints

    0.824 medium True C0027051 Myocardial Infarction
    0.002 reject False C0018801 Heart Failure
"""

from dataclasses import replace

from haystack import Document, component

from umls_reranker import UMLSReranker


@component
class UMLSRanker:
    """Ranks documents by the probability that they are the concept of the query."""

    def __init__(self, model: str = "built-in-fast", score_name: str = "haystack_score"):
        self.reranker = UMLSReranker.from_pretrained(model)
        self.score_name = score_name

    @component.output_types(documents=list[Document])
    def run(self, query: str, documents: list[Document], entity_type: str | None = None):
        """The documents, top concept first, with the answer in their meta."""
        candidates = [
            {self.score_name: document.score, **document.meta}
            | {"name": document.content, "document": document}
            for document in documents
        ]
        answers = []
        for ranked in self.reranker.rerank(query, candidates, entity_type=entity_type):
            document = ranked.candidate["document"]
            meta = document.meta | ranked.as_row()
            answers.append(replace(document, score=ranked.score, meta=meta))
        return {"documents": answers}


if __name__ == "__main__":
    names = {"C0018801": "Heart Failure", "C0027051": "Myocardial Infarction"}
    documents = [Document(content=name, meta={"cui": cui}) for cui, name in names.items()]
    answer = UMLSRanker().run("heart attack", documents, entity_type="Disease or Syndrome")
    for document in answer["documents"]:
        meta = document.meta
        print(
            f"{document.score:.3f} {meta['tier']} {meta['accepted']} "
            f"{meta['cui']} {document.content}"
        )
