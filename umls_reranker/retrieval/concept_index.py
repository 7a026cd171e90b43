"""What all indexes of concepts share: a description in JSON, and the file of their names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from ..core.arrays import arrow_writer
from ..core.errors import UserError
from ..core.files import read_json, require_format, write_json
from ..lists.columns import trainable
from .concept_search import NameGrouping, sole_documents

if TYPE_CHECKING:
    from typing_extensions import Self

    from ..models.bi_encoder import BiEncoder
    from ..vocab.concepts import ConceptTable

NAMES_FILE = "names.arrow"


class ConceptIndex:
    """An index in a folder, opened by `load`. Its files are memory-mapped.

    Args:
        path: the folder.
        description: the content of its JSON file: ``concepts``, the number of concepts, and
            ``encoder``, the `BiEncoder.identity`, if it holds vectors.

    Attributes:
        title: its name in messages.
        file: file of the description.
        schema_version: version of the description.
        grouping: its names (or mentions) and their concepts.
    """

    title: ClassVar[str]
    file: ClassVar[str]
    schema_version: ClassVar[int]
    grouping: NameGrouping

    def __init__(self, path: Path, description: dict[str, Any]) -> None:
        self.description = description

    def __len__(self) -> int:
        return len(self.grouping.rows)

    @property
    def has_mentions(self) -> bool:
        """Whether known mentions are among its names."""
        return self.grouping.documents is not None

    @classmethod
    def describe(cls, path: Path, concepts: int, **content: Any) -> None:
        """Write the description, the last file of an index."""
        write_json(
            path / cls.file, {"schema_version": cls.schema_version, "concepts": concepts} | content
        )

    @classmethod
    def load(cls, path: Path) -> Self:
        """Open an index.

        Raises:
            UserError: a file is missing or cannot be read, or the index is of another version.
        """
        description = read_json(path / cls.file)
        require_format(path / cls.file, description, cls.schema_version, "build_index")
        try:
            return cls(path, description)
        # FAISS raises a RuntimeError, Arrow a ValueError.
        except (RuntimeError, OSError, ValueError, KeyError) as error:
            reason = str(error).splitlines()[-1]
            raise UserError(
                f"{path} contains no readable index ({reason}); run umls-reranker build_index again"
            ) from None

    def require(self, concepts: ConceptTable, encoder: BiEncoder | None = None) -> None:
        """Refuse concepts or an encoder other than those of the index.

        Args:
            concepts: the dictionary.
            encoder: the encoder; not needed for an index without vectors.

        Raises:
            UserError: they differ; names them.
        """
        for key, value in self.description.get("encoder", {}).items():
            if encoder is not None and encoder.identity[key] != value:
                raise UserError(
                    f"{self.title} was built with the encoder {key} {value!r}, "
                    f"not {encoder.identity[key]!r}; run umls-reranker build_index again"
                )
        if len(concepts) != self.description["concepts"]:
            raise UserError(
                f"{self.title} was built over {self.description['concepts']:,} concepts, but "
                f"there are {len(concepts):,} now; run umls-reranker build_index again"
            )


def write_names(
    concepts: ConceptTable,
    path: Path,
    forms: Callable[[Sequence[str]], list[str]] | None = None,
    mentions: pa.Table | None = None,
) -> pa.Array:
    """Write every name's concept row and string number, and the name unless forms are taken.

    Args:
        concepts: the dictionary.
        path: Arrow file to make.
        forms: function that maps names that count as the same to one form; by default, equal names.
        mentions: columns ``mention``, ``cui`` and ``doc_id``, if mentions are further names of
            their concepts. The file has a column ``document`` then (`sole_documents`; 0 for names
            of the dictionary).

    Returns:
        The distinct strings (or forms) by number.
    """
    rows = []
    names = []
    for batch_rows, batch in concepts.iter_names():
        rows.append(np.asarray(batch_rows, dtype=np.int32))
        names.append(pa.array(forms(batch) if forms else batch, pa.string()))
    if forms and mentions is not None:
        gold = concepts.rows(trainable(mentions["cui"].to_pylist()))
        known = mentions.filter(pa.array(gold >= 0))
        rows.append(gold[gold >= 0].astype(np.int32))
        names.append(pa.array(forms(known["mention"].to_pylist()), pa.string()))
    # A chunked array is encoded against one dictionary.
    encoded = pa.chunked_array(names, pa.string()).dictionary_encode()
    columns = {} if forms else {"name": pa.chunked_array(names, pa.string())}
    columns["row"] = pa.chunked_array(rows, pa.int32())
    columns["string"] = pa.chunked_array([chunk.indices for chunk in encoded.chunks], pa.int32())
    table = pa.table(columns)
    if forms and mentions is not None:
        table = _with_documents(table, known["doc_id"].to_pylist())
    with arrow_writer(path, table.schema) as writer:
        writer.write(table)
    return encoded.chunks[-1].dictionary


def _with_documents(names: pa.Table, documents: list[str]) -> pa.Table:
    """The names of a dictionary and the mentions in its last rows, each once; by concept.

    `documents` are those of the mentions.
    """
    known = len(names) - len(documents)
    entries = np.stack([names["row"].to_numpy(), names["string"].to_numpy()])
    mentions, entry = np.unique(entries[:, known:], axis=1, return_inverse=True)
    sole = sole_documents(entry, documents, mentions.shape[1])
    entries = np.concatenate([entries[:, :known], mentions], axis=1)
    order = np.argsort(entries[0], kind="stable")
    columns = {"row": entries[0], "string": entries[1]}
    columns["document"] = np.append(np.zeros(known, np.uint64), sole)
    return pa.table({name: column[order] for name, column in columns.items()})
