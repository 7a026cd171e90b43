"""Tables of Parquet and Arrow files, in batches."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

ARROW_ENDINGS = (".parquet", ".arrow", ".feather")


def arrow_tables(path: Path, batch_rows: int) -> Iterator[pa.Table]:
    """Tables of at most `batch_rows` rows; the first is empty: a file without rows has columns."""
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        batches = file.iter_batches(batch_rows)
    else:
        source = pa.memory_map(str(path))
        try:
            reader = pa.ipc.open_file(source)
            batches = map(reader.get_batch, range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            batches = reader
        schema = reader.schema
    yield _without_dictionaries(schema.empty_table())
    for batch in batches:
        # Texts that are not UTF-8 would fail later, without the name of the file.
        batch.validate(full=True)
        table = _without_dictionaries(pa.Table.from_batches([batch]))
        for start in range(0, len(table), batch_rows):
            yield table.slice(start, batch_rows)


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """The table without dictionaries: each file has its own, and one output cannot hold them."""
    kinds = map(_value_type, table.schema.types)
    return table.cast(pa.schema(zip(table.column_names, kinds, strict=True)))


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values of a dictionary; any other type as it is."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
