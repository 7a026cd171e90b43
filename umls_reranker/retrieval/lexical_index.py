"""The lexical index of names: nearest concepts of a string, by shared character trigrams.

Vectors are TF-IDF, as those of scikit-learn (``char_wb``), made block by block.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_array, vstack

from ..core.arrays import number_distinct
from ..core.arrow_files import open_arrow
from ..core.parallel import map_in_order, openmp_threads, progress, usable_cores
from ..vocab.normal_form import normal_forms
from ..vocab.normalization import normalize_texts
from .candidates import Candidates
from .concept_index import ConceptIndex
from .inverted_lists import STRINGS_PER_BLOCK, InvertedLists
from .name_grouping import DictionaryNames, NameGrouping
from .sparse_files import open_sparse, write_sparse
from .stored_names import NAMES_FILE, write_names
from .trigram_weights import Trigrams, count_trigrams, weighted_trigrams

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..vocab.concept_table import ConceptTable

TRIGRAMS_FILE = "trigrams.arrow"
# The beginning of the files of vectors, (strings, trigrams).
VECTORS_STEM = "vectors"
# A trigram in more than this share of the strings carries little information and costs most of the
# time; small dictionaries keep all.
COMMON_SHARE = 0.05
COMMON_STRINGS = 5_000
# Strings per block of inverted lists in indexes whose description does not say it.
FORMER_BLOCK = 131_072
# Strings whose vectors are made at a time.
STRINGS_PER_BATCH = 131_072


class LexicalIndex(ConceptIndex):
    """TF-IDF vectors of character trigrams of the distinct normalized names, in inverted lists.

    The vectors are also stored, so given names are scored without tokenizing them again. A string
    takes 16 bytes per trigram, about 300 bytes in total.
    """

    title = "the lexical index"
    file = "lexical.json"
    schema_version = 3
    forms = staticmethod(normalize_texts)

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        super().__init__(path, description)
        self._trigrams = Trigrams.load(path / TRIGRAMS_FILE)
        self._vectors = open_sparse(path / VECTORS_STEM, len(self._trigrams))
        strings = self._vectors.shape[0]
        self._lists = InvertedLists(path, strings, description.get("block", FORMER_BLOCK))
        names = open_arrow(path / NAMES_FILE)
        self.grouping = NameGrouping.of_names(names, description["concepts"], strings)

    @classmethod
    def build(
        cls,
        concepts: ConceptTable,
        path: Path,
        mentions: pa.Table | None = None,
        common_strings: int = COMMON_STRINGS,
        block: int = STRINGS_PER_BLOCK,
    ) -> Self:
        """Count the trigrams of every distinct normalized name and write the index.

        Args:
            concepts: the dictionary.
            path: existing folder to write into.
            mentions: mentions that are further names of their concepts, as for `write_names`.
            common_strings: trigrams of more strings, and of more than `COMMON_SHARE`, are left out.
            block: strings per block of inverted lists; it changes no result.
        """
        strings = write_names(concepts, path / NAMES_FILE, cls.forms, mentions)
        firsts = range(0, len(strings), STRINGS_PER_BATCH)

        def count(first: int) -> tuple[np.ndarray, np.ndarray]:
            """Trigrams of a batch of strings, and the number of strings that have each."""
            codes, counts = count_trigrams(strings.slice(first, STRINGS_PER_BATCH).to_pylist())
            return codes, np.bincount(counts.indices, minlength=len(codes))

        def weigh(first: int) -> csr_array:
            return retained.weigh(strings.slice(first, STRINGS_PER_BATCH).to_pylist())

        counted = progress(map_in_order(count, firsts), total=len(firsts), desc="counting trigrams")
        common = max(COMMON_SHARE * len(strings), common_strings)
        most = min(1.0, common / len(strings)) * len(strings)
        retained = weighted_trigrams(counted, len(strings), most)
        retained.save(path / TRIGRAMS_FILE)
        weighed = progress(map_in_order(weigh, firsts), total=len(firsts), desc="indexing trigrams")
        vectors = vstack(list(weighed), format="csr")
        write_sparse(vectors, path / VECTORS_STEM)
        InvertedLists.write(vectors, path, block)
        cls.describe(path, len(concepts), block=block)
        return cls.load(path)

    def weigh(self, texts: Sequence[str]) -> csr_array:
        """Vectors of n texts, not yet normalized, for the other methods."""
        return self._trigrams.weigh(self.forms(texts))

    def search(
        self,
        vectors: csr_array,
        k: int,
        documents: Sequence[str] | None = None,
        block: int = 64,
    ) -> Candidates:
        """The k concepts nearest to each text by their best name; ties by row, then name id.

        A concept without a common trigram is not found, so the list may be shorter. The name ids
        are those of a `NameIndex` over the same concepts. Equal vectors are searched once.

        Args:
            vectors: those of n texts (`weigh`).
            k: number of concepts.
            documents: (n,) documents, whose own mentions are left out; None leaves out none.
            block: texts that a thread searches at a time.

        Returns:
            Candidates with TF-IDF cosines as scores, 1 if a name equals the normalized text.
        """
        # Equal keys are of equal vectors.
        keys: list = []
        for start, stop in pairwise(vectors.indptr):
            trigrams = vectors.indices[start:stop].tobytes()
            keys.append(trigrams + vectors.data[start:stop].tobytes())
        if documents is not None:
            keys = list(zip(keys, documents, strict=True))
            documents = [document for _, document in dict.fromkeys(keys)]
        _, number_of = number_distinct(keys)
        _, first_positions = np.unique(number_of, return_index=True)
        distinct = vectors[first_positions]

        def search(numbers: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
            return self._lists.nearest(distinct[numbers], width)

        with ThreadPoolExecutor(openmp_threads() or usable_cores()) as pool:
            nearest = self.grouping.collect(
                distinct.shape[0], k, search, pool.map, block, documents
            )
        return nearest.take(number_of)

    def best_names(
        self,
        vectors: csr_array,
        rows: np.ndarray,
        owners: np.ndarray,
        documents: Sequence[str] | None = None,
        dictionary: DictionaryNames | None = None,
        block: int = 65_536,
    ) -> tuple[np.ndarray, np.ndarray]:
        """The most similar name of given concepts for each text.

        Args:
            vectors: those of m texts (`weigh`).
            rows: (n, k) concept rows, padded with -1.
            owners: (n,) text of each list of rows.
            documents: as for `search`, of each list.
            dictionary: as for `NameGrouping.best`.
            block: approximate number of names that are scored at a time.

        Returns:
            (n, k) int64 name ids, the first among ties, padded with -1; (n, k) float32 TF-IDF
            cosines, 0 without a common trigram, padded with -inf.
        """

        def score(queries: np.ndarray, strings: np.ndarray) -> np.ndarray:
            return self._cosines(vectors[owners[queries]], strings)

        return self.grouping.best(rows, score, block, documents, dictionary)

    def name_cosines(self, vectors: csr_array, name_ids: np.ndarray) -> np.ndarray:
        """Cosines of n texts (`weigh`), each with one of the index's names, (n,) float32."""
        return self._cosines(vectors, self.grouping.strings[name_ids])

    def _cosines(self, vectors: csr_array, strings: np.ndarray) -> np.ndarray:
        """Cosines of m texts, (m, trigrams), with m strings by number, (m,) float32."""
        distinct, number_of = np.unique(strings, return_inverse=True)
        products = vectors.multiply(self._vectors[distinct][number_of])
        return np.asarray(products.sum(axis=1), np.float32)


class FormIndex(LexicalIndex):
    """The same of normal forms, in which mentions may be further names of their concepts."""

    title = "the index of normal forms"
    file = "forms.json"
    schema_version = 1
    forms = staticmethod(normal_forms)
