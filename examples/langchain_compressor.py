"""Rerank concepts that a LangChain retriever found, and keep what its documents bring.

Needs `pip install langchain-core`. A document's text is a name; its metadata hold `cui` and scores,
such as `bm25_score`. Behind a retriever, a ContextualCompressionRetriever calls the compressor.

    python examples/langchain_compressor.py

prints

    0.824 medium True C0027051 Myocardial Infarction
    0.002 reject False C0018801 Heart Failure
"""

from langchain_core.documents import BaseDocumentCompressor, Document

from umls_reranker import UMLSReranker


class UMLSCompressor(BaseDocumentCompressor, arbitrary_types_allowed=True):
    """Ranks documents by the probability that they are the concept of the query."""

    reranker: UMLSReranker
    entity_type: str | None = None

    def compress_documents(self, documents, query, callbacks=None):
        """The documents, top concept first, with the answer in their metadata."""
        candidates = [
            {**document.metadata, "name": document.page_content, "document": document}
            for document in documents
        ]
        compressed = []
        for ranked in self.reranker.rerank(query, candidates, entity_type=self.entity_type):
            document = ranked.candidate["document"]
            metadata = document.metadata | ranked.as_row()
            compressed.append(document.model_copy(update={"metadata": metadata}))
        return compressed


if __name__ == "__main__":
    names = {"C0018801": "Heart Failure", "C0027051": "Myocardial Infarction"}
    documents = [Document(name, metadata={"cui": cui}) for cui, name in names.items()]
    compressor = UMLSCompressor(
        reranker=UMLSReranker.from_pretrained("built-in-fast"), entity_type="Disease or Syndrome"
    )
    for document in compressor.compress_documents(documents, "heart attack"):
        answer = document.metadata
        print(
            f"{answer['score']:.3f} {answer['tier']} {answer['accepted']} "
            f"{answer['cui']} {document.page_content}"
        )
