"""The names of an index: the concept and the string of each, in a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from ..core.arrays import hash_texts
from ..core.arrow_files import arrow_writer
from ..lists.gold import trainable

if TYPE_CHECKING:
    from ..vocab.concept_table import ConceptTable

# In the folder of an index.
NAMES_FILE = "names.arrow"


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
        texts = forms(batch) if forms else batch
        names.append(pa.array(texts, pa.string()))
    if forms and mentions is not None:
        gold = concepts.rows(trainable(mentions["cui"].to_pylist()))
        is_in_dictionary = gold >= 0
        mentions = mentions.filter(pa.array(is_in_dictionary))
        rows.append(gold[is_in_dictionary].astype(np.int32))
        names.append(pa.array(forms(mentions["mention"].to_pylist()), pa.string()))
    # A chunked array is encoded against one dictionary.
    encoded = pa.chunked_array(names, pa.string()).dictionary_encode()
    columns = {} if forms else {"name": pa.chunked_array(names, pa.string())}
    columns["row"] = pa.chunked_array(rows, pa.int32())
    columns["string"] = pa.chunked_array([chunk.indices for chunk in encoded.chunks], pa.int32())
    table = pa.table(columns)
    if forms and mentions is not None:
        table = _with_documents(table, mentions["doc_id"].to_pylist())
    with arrow_writer(path, table.schema) as writer:
        writer.write(table)
    return encoded.chunks[-1].dictionary


def _with_documents(names: pa.Table, documents: list[str]) -> pa.Table:
    """The names of a dictionary, then each distinct mention once; in the order of concepts.

    Args:
        names: rows of the names, and in the last n rows those of n mentions.
        documents: n documents of the mentions.
    """
    n_names = len(names) - len(documents)
    # (2, names and mentions): the concept row and the string of each.
    entries = np.stack([names["row"].to_numpy(), names["string"].to_numpy()])
    mentions, entry_of_mention = np.unique(entries[:, n_names:], axis=1, return_inverse=True)
    documents_of_mentions = sole_documents(entry_of_mention, documents, mentions.shape[1])
    entries = np.concatenate([entries[:, :n_names], mentions], axis=1)
    no_documents = np.zeros(n_names, np.uint64)
    columns = {
        "row": entries[0],
        "string": entries[1],
        "document": np.append(no_documents, documents_of_mentions),
    }
    order = np.argsort(entries[0], kind="stable")
    return pa.table({name: column[order] for name, column in columns.items()})


def sole_documents(entries: np.ndarray, documents: Sequence[str], size: int) -> np.ndarray:
    """Hash of the document that alone has each entry, (size,) uint64; 0 where several have it.

    Args:
        entries: (n,) entry of each mention.
        documents: n documents of the mentions.
        size: number of entries.
    """
    hashes = hash_texts(documents)
    sole = np.zeros(size, np.uint64)
    # The last document of each entry; where that is not the document of all, it is none.
    sole[entries] = hashes
    has_another = hashes != sole[entries]
    sole[entries[has_another]] = 0
    return sole
