"""`ConceptLinker`: from mentions and their text to ranked concepts with decisions."""

from __future__ import annotations

from collections.abc import Sequence
from os.path import expanduser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..core.arrays import list_offsets
from ..core.arrow_files import one_chunk
from ..core.errors import UserError
from ..core.hashes import json_sha256
from ..lists.table import CANDIDATES
from ..retrieval.index_settings import IndexSettings
from ..retrieval.retriever import Retriever, load_retriever
from ..serving.ranked_candidate import RANKED_FIELDS, RankedCandidate, ranked_candidates
from ..serving.reranker import UMLSReranker
from ..vocab.concept_table import ConceptTable
from .index_candidates import IndexCandidates
from .linked_concept import LinkedConcept
from .mention_contexts import table_with_contexts


class ConceptLinker:
    """Finds and ranks the concepts that mentions may refer to.

    `ConceptLinker.from_run` or `ConceptLinker.from_pretrained` opens it. Mentions are read,
    retrieved and ranked as in the evaluation of the model's run, so its figures hold here. Safe to
    use from several threads.

    >>> linker = ConceptLinker.from_run("runs/quickstart")
    >>> linker.link("common cold", "She had a common cold in May.")[0].preferred_name
    'common cold'

    Attributes:
        reranker (UMLSReranker): ranks the candidates.
        concepts (ConceptTable): the concepts of the index.
    """

    def __init__(
        self,
        reranker: UMLSReranker,
        retriever: Retriever,
        concepts: ConceptTable,
        settings: IndexSettings,
    ) -> None:
        retriever.require(concepts)
        self.reranker = reranker
        self.retriever = retriever
        self.concepts = concepts
        self.candidates_per_mention = settings.candidates_per_mention
        self.expands_abbreviations = settings.expand_abbreviations
        self._files = json_sha256([settings.folders, settings.files])
        self._candidates = IndexCandidates(retriever, concepts, settings.candidates_per_mention)

    def __repr__(self) -> str:
        return f"ConceptLinker of {len(self.concepts):,} concepts with {self.reranker!r}"

    @classmethod
    def from_run(cls, run_folder: str | Path, **options: Any) -> ConceptLinker:
        """Open the model and the index of a run folder.

        Args:
            run_folder: folder that ``umls-reranker run`` wrote, such as ``runs/quickstart``; the
                Hub is never asked.
            options: as for `from_pretrained`.

        Raises:
            UserError: there is no such folder; and as for `from_pretrained`.
        """
        model = Path(expanduser(run_folder)) / "model"
        # Otherwise a path of two parts would be looked up on the Hub.
        if not model.is_dir():
            raise UserError(
                f"{run_folder} is not a run folder: it contains no model/; "
                "finish it, or give another"
            )
        return cls.from_pretrained(model, run_folder, **options)

    @classmethod
    def from_pretrained(
        cls,
        id_or_path: str | Path,
        index: str | Path,
        revision: str | None = None,
        *,
        verify: bool = False,
        **options: Any,
    ) -> ConceptLinker:
        """Open a model and an index folder.

        The index decides how mentions are read and candidates retrieved (its ``index.json``).
        A model that was not calibrated on lists of this index, such as ``built-in``, ranks without
        tiers, and says so: ``tier`` and ``accepted`` are None.

        Args:
            id_or_path: as for `UMLSReranker.from_pretrained`.
            index: folder that ``umls-reranker index`` or ``export_index`` wrote, or a run folder.
            revision: as for `UMLSReranker.from_pretrained`.
            verify: whether to compare the content of the index with its hashes, some seconds for
                each gigabyte; sizes are always compared.
            options: other arguments of `UMLSReranker.from_pretrained`; ``device`` also applies to
                the retriever.

        Raises:
            UserError: the index lacks a required file, or has files of different runs or of another
                encoder; and as for `UMLSReranker.from_pretrained`.

        >>> linker = ConceptLinker.from_pretrained("runs/quickstart/model", "runs/quickstart")
        >>> linker.is_calibrated
        True
        """
        reranker = UMLSReranker.from_pretrained(id_or_path, revision, **options)
        folder = Path(expanduser(index)).resolve()
        settings = IndexSettings.load(folder)
        concepts = ConceptTable.load(folder / "concepts")
        if verify:
            settings.verify(folder)
        retriever = load_retriever(folder, options.get("device") or "auto", concepts, settings)
        return cls(reranker, retriever, concepts, settings)

    def link(
        self,
        mention: str,
        document: str | None = None,
        start: int | None = None,
        entity_type: str | Sequence[str] | None = None,
        *,
        left: str = "",
        right: str = "",
    ) -> list[LinkedConcept]:
        """Rank the concepts that a mention may refer to, the top candidate first.

        Args:
            mention: the mention's text.
            document: text of its document, for context and for abbreviations defined there.
            start: the mention's offset in ``document``, in characters; None: the first occurrence.
            entity_type: as for `UMLSReranker.rerank`.
            left: text before the mention, if there is no ``document``; as of a document, only the
                128 characters next to the mention are read.
            right: text after the mention, if there is no ``document``.

        Returns:
            One `LinkedConcept` for each candidate; at most one is accepted.

        Raises:
            TypeError: the mention, its document, context or type is not text, or ``start`` is not
                an integer.
            ValueError: the mention is blank or too long, or is not in ``document`` at ``start``.

        >>> linker = ConceptLinker.from_run("runs/quickstart")
        >>> document = "A cold evening, and then a common cold."
        >>> best = linker.link("common cold", document)[0]
        >>> best.preferred_name, best.semantic_types, best.rank
        ('common cold', ('T047',), 1)
        """
        (linked,) = self.link_batch(
            [mention], [document], [start], [entity_type], lefts=[left], rights=[right]
        )
        return linked

    def link_batch(
        self,
        mentions: Sequence[str],
        documents: Sequence[str | None] | None = None,
        starts: Sequence[int | None] | None = None,
        entity_types: Sequence[str | Sequence[str] | None] | None = None,
        *,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> list[list[LinkedConcept]]:
        """Rank the concepts of n mentions; faster than n calls of `link`.

        Args:
            mentions: (n,) texts of the mentions.
            documents: (n,) texts of their documents, each as for `link`; None: none has one.
            starts: (n,) offsets in the documents, each as for `link`; None: the first occurrences.
            entity_types: (n,) semantic types, each as for `link`; None: no mention has a type.
            lefts: (n,) texts before mentions without a document.
            rights: (n,) texts after mentions without a document.

        Returns:
            (n,) lists, each as `link` returns it.

        Raises:
            TypeError: as for `link`.
            ValueError: as for `link`, or the arguments have different lengths.
        """
        queries = self.read(
            mentions, documents, starts, entity_types=entity_types, lefts=lefts, rights=rights
        )
        table = self.with_candidates(queries)
        lists = self.reranker.read_table(table)
        decisions = self.reranker.decide(lists)
        items = one_chunk(table[CANDIDATES]).flatten().to_pylist()
        return self.described(ranked_candidates(lists, decisions, items, self.reranker.model_names))

    def read(
        self,
        mentions: Sequence[str],
        documents: Sequence[str | None] | None = None,
        starts: Sequence[int | None] | None = None,
        *,
        entity_types: Sequence[str | Sequence[str] | None] | None = None,
        lefts: Sequence[str] | None = None,
        rights: Sequence[str] | None = None,
    ) -> pa.Table:
        """Find the context of n mentions and the long forms of abbreviations.

        The table has what retriever and cross-encoder read: ``entity``, in which an abbreviation is
        replaced by the long form that the document defines, ``left``, ``right`` and, if it is
        given, ``entity_type``.

        Args:
            mentions: as for `link_batch`.
            documents: as for `link_batch`.
            starts: as for `link_batch`.
            entity_types: as for `link_batch`.
            lefts: as for `link_batch`.
            rights: as for `link_batch`.

        Raises:
            TypeError: a mention, a document or a type is not text, or a start is not an integer.
            ValueError: a mention is blank, too long, or not in its document.
        """
        return table_with_contexts(
            mentions,
            documents,
            starts,
            entity_types=entity_types,
            lefts=lefts,
            rights=rights,
            expands_abbreviations=self.expands_abbreviations,
        )

    def candidates(self, table: pa.Table) -> pa.ListArray:
        """Retrieve the candidate concepts of n mentions, with the scores of all retrievers.

        The lists are as for `UMLSReranker.rerank_batch`. The scores count only with the
        ``index_key`` of the retriever. Mentions that are equal in everything that is read are
        searched once; where no context is read, also those of other calls.

        Args:
            table: what `read` returns.
        """
        return self._candidates.lists(table)

    def with_candidates(self, table: pa.Table) -> pa.Table:
        """The table with the `candidates` of its mentions, which `UMLSReranker.read_table` reads.

        Args:
            table: what `read` returns.
        """
        index_keys = pa.array([self.retriever.index_key] * len(table), pa.string())
        table = table.append_column("index_key", index_keys)
        return table.append_column(CANDIDATES, self.candidates(table))

    def advice(self, dtype: str | None, in_batches: bool) -> str | None:
        """That of its reranker."""
        return self.reranker.advice(dtype, in_batches)

    @property
    def identity(self) -> dict[str, Any]:
        """What decides its results: the content and settings of the index, and the model."""
        index = [
            self.retriever.index_key,
            self.expands_abbreviations,
            self.candidates_per_mention,
            self._files,
        ]
        return {"the index": index} | self.reranker.identity

    @property
    def is_calibrated(self) -> bool:
        """Whether the model was calibrated on lists of this index; otherwise no tier is given."""
        index_key = self.retriever.index_key
        return index_key != "" and self.reranker.calibration.source.index_key == index_key

    def described(self, ranked: Sequence[Sequence[RankedCandidate]]) -> list[list[LinkedConcept]]:
        """Convert ranked candidates of `candidates` to concepts."""
        return [[LinkedConcept(*item) for item in items] for items in ranked]

    def described_column(self, ranked: pa.ListArray, top: int) -> pa.ListArray:
        """The first `top` of each list of `ranked_column`, as `LinkedConcept.as_row`."""
        ranked = pc.list_slice(ranked, 0, top)
        items = ranked.flatten()
        fields = dict(zip(RANKED_FIELDS, items.flatten(), strict=True))
        rows = self.concepts.rows(fields["cui"])
        fields["preferred_name"] = self.concepts.column("name", rows)
        fields["semantic_types"] = self.concepts.column("semantic_types", rows)
        offsets = list_offsets(ranked.value_lengths().to_numpy())
        concepts = pa.StructArray.from_arrays(list(fields.values()), list(fields))
        return pa.ListArray.from_arrays(offsets.astype(np.int32), concepts)
