"""Rerank concepts that a LlamaIndex retriever found, and keep what its nodes bring.

Needs `pip install llama-index-core`. A node's text is a name; its metadata hold `cui` and scores,
such as `bm25_score`. The retriever's own score is passed as `score_name`.

    python examples/llama_index_postprocessor.py

prints

    0.824 medium True C0027051 Myocardial Infarction
    0.002 reject False C0018801 Heart Failure
"""

from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import NodeWithScore, TextNode

from umls_reranker import UMLSReranker


class UMLSPostprocessor(BaseNodePostprocessor):
    """Ranks nodes by the probability that they are the concept of the query."""

    reranker: UMLSReranker
    entity_type: str | None = None
    score_name: str = "llama_index_score"

    def _postprocess_nodes(self, nodes, query_bundle=None):
        """The nodes, top concept first, with the answer in their metadata."""
        candidates = [
            {self.score_name: node.score, **node.metadata} | {"name": node.text, "node": node.node}
            for node in nodes
        ]
        answers = []
        query = query_bundle.query_str
        for ranked in self.reranker.rerank(query, candidates, entity_type=self.entity_type):
            node = ranked.candidate["node"]
            metadata = node.metadata | ranked.as_row()
            node = node.model_copy(update={"metadata": metadata})
            answers.append(NodeWithScore(node=node, score=ranked.score))
        return answers


if __name__ == "__main__":
    names = {"C0018801": "Heart Failure", "C0027051": "Myocardial Infarction"}
    nodes = [
        NodeWithScore(node=TextNode(text=name, metadata={"cui": cui}))
        for cui, name in names.items()
    ]
    postprocessor = UMLSPostprocessor(
        reranker=UMLSReranker.from_pretrained("built-in-fast"), entity_type="Disease or Syndrome"
    )
    for node in postprocessor.postprocess_nodes(nodes, query_str="heart attack"):
        answer = node.metadata
        print(f"{node.score:.3f} {answer['tier']} {answer['accepted']} {answer['cui']} {node.text}")
