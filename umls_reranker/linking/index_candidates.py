"""The candidates of mentions from an index, as lists that a reranker reads."""

import threading

import numpy as np
import pyarrow as pa

from ..core.arrays import list_offsets, number_distinct
from ..retrieval.candidates import Candidates
from ..retrieval.retriever import Retriever
from ..vocab.concept_table import ConceptTable
from .remembered_search import RememberedSearch


class IndexCandidates:
    """Retrieves the candidates of mentions. Safe to use from several threads.

    Args:
        retriever: finds the concepts.
        concepts: the concepts of its index.
        candidates_per_mention: number of concepts to find for each mention.
    """

    def __init__(
        self, retriever: Retriever, concepts: ConceptTable, candidates_per_mention: int
    ) -> None:
        self._retriever = retriever
        self._concepts = concepts
        self._k = candidates_per_mention
        # The encoder's tokenizer serves one thread at a time, and so do the remembered strings.
        self._lock = threading.Lock()
        self._strings = RememberedSearch(retriever, candidates_per_mention)

    def lists(self, table: pa.Table) -> pa.ListArray:
        """The candidates of n mentions, each a struct, as `ConceptLinker.candidates`.

        Args:
            table: n rows with ``entity``, ``left`` and ``right``.
        """
        hits = self._search(table)
        is_candidate = hits.rows >= 0
        fields = self._described(hits.rows[is_candidate])
        fields["name"] = self._retriever.name_array(hits.name_ids[is_candidate])
        for name, scores in self._retriever.scores_of(hits).items():
            fields[f"{name}_score"] = pa.array(scores[is_candidate])
        candidates = pa.StructArray.from_arrays(list(fields.values()), list(fields))
        offsets = list_offsets(is_candidate.sum(axis=1))
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), candidates)

    def _search(self, table: pa.Table) -> Candidates:
        """The nearest concepts of n mentions, of which equal ones are searched once."""
        texts = table["entity"].to_pylist()
        if self._retriever.reads_context:
            in_context = zip(
                texts, table["left"].to_pylist(), table["right"].to_pylist(), strict=True
            )
            distinct, query_of_mention = number_distinct(list(in_context))
            distinct_texts = [text for text, _, _ in distinct]
            lefts = [left for _, left, _ in distinct]
            rights = [right for _, _, right in distinct]
            with self._lock:
                hits = self._retriever.search(distinct_texts, self._k, (lefts, rights))
        else:
            distinct, query_of_mention = number_distinct(texts)
            with self._lock:
                hits = self._strings.search(distinct)
        return hits.take(query_of_mention)

    def _described(self, rows: np.ndarray) -> dict[str, pa.Array]:
        """What the dictionary says of m candidates, given as rows of its concepts (m,)."""
        distinct_rows, concept_of_candidate = np.unique(rows, return_inverse=True)
        of_concepts = {
            "cui": self._concepts.cuis_of(distinct_rows),
            "preferred_name": self._concepts.column("name", distinct_rows),
            "definition": self._concepts.column("definition", distinct_rows),
            "semantic_types": self._concepts.column("semantic_types", distinct_rows),
        }
        numbers = pa.array(concept_of_candidate)
        return {key: column.take(numbers) for key, column in of_concepts.items()}
