#!/usr/bin/env python
"""Put the names of MEDIC back into the lists, which the dataset must not carry.

    python complete.py DATASET medic_06Jul2012.txt COMPLETE

In DATASET a candidate of MEDIC has the number of its name among those of its concept; COMPLETE has
the names. Needs only pyarrow.
"""

import argparse
import gzip
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

MEDIC = (
    "https://raw.githubusercontent.com/dmis-lab/BioSyn/master/preprocess/resources/"
    "medic_06Jul2012.txt"
)
# Of the file, not compressed.
MEDIC_SHA256 = "4cee49829be79b7b71492ad275ea9373250446f15bbf485d728bde39dbffa156"
# Number of a withheld name among those of its concept; 0 is the preferred name.
NUMBER = "name_number"
Candidate = dict[str, Any]
Names = Mapping[str, Sequence[str]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", type=Path, help="folder of the dataset")
    parser.add_argument("medic", type=Path, help=f"{MEDIC}, plain or gzip")
    parser.add_argument("complete", type=Path, help="folder to write; must not exist")
    options = parser.parse_args()
    try:
        complete(options.dataset, options.medic, options.complete)
    except ValueError as error:
        parser.error(str(error))


def complete(dataset: Path, medic: Path, target: Path) -> None:
    """Write the lists with all their names.

    Raises:
        ValueError: a folder or file is not what it should be.
    """
    files = sorted(dataset.glob("*/*.parquet"))
    if not files:
        raise ValueError(f"{dataset} has no CONFIGURATION/SPLIT.parquet")
    if target.exists():
        raise ValueError(f"{target} exists; choose another folder")
    if not medic.is_file():
        raise ValueError(f"{medic} is no file; download {MEDIC}")
    content = file_content(medic)
    if hashlib.sha256(content).hexdigest() != MEDIC_SHA256:
        raise ValueError(f"{medic} is another edition; download {MEDIC}")
    names = names_of(content.decode("utf-8"))
    for path in files:
        table = pq.read_table(path)
        if is_withheld(table):
            table = with_candidates(table, lambda one: named(one, names), has_numbers=False)
        written = target / path.relative_to(dataset)
        written.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, written)
        print(f"{written}: {len(table):,} lists")


def file_content(path: Path) -> bytes:
    """The content of a file, plain or gzip."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    return content


def names_of(text: str) -> dict[str, list[str]]:
    """Names by concept id, of lines ``id|id||name|name``."""
    names: dict[str, list[str]] = {}
    for line in text.splitlines():
        ids, _, line_names = line.partition("||")
        first_id = ids.split("|")[0]
        names[first_id] = line_names.split("|")
    return names


def is_withheld(table: pa.Table) -> bool:
    """Whether names of candidates are left out."""
    return table.schema.field("candidates").type.value_type.get_field_index(NUMBER) >= 0


def withheld(candidate: Candidate, names: Names) -> Candidate:
    """A candidate without its names, if its dictionary has them.

    Concepts and names that training mentions brought are of the corpus, and stay.
    """
    of_concept = list(names.get(candidate["cui"], ()))
    if candidate["name"] not in of_concept:
        return candidate | {NUMBER: None}
    number = of_concept.index(candidate["name"])
    return candidate | {"name": None, "preferred_name": None, NUMBER: number}


def named(candidate: Candidate, names: Names) -> Candidate:
    """The reverse of `withheld`."""
    whole = {key: value for key, value in candidate.items() if key != NUMBER}
    number = candidate[NUMBER]
    if number is None:
        return whole
    of_concept = names[candidate["cui"]]
    return whole | {"name": of_concept[number], "preferred_name": of_concept[0]}


def with_candidates(
    table: pa.Table, change: Callable[[Candidate], Candidate], has_numbers: bool
) -> pa.Table:
    """The lists with each candidate changed; `has_numbers` says whether it then has `NUMBER`."""
    place = table.schema.get_field_index("candidates")
    # Told, not inferred: where all names are left out, a column of nulls would have no type.
    fields = [one for one in table.schema.field(place).type.value_type if one.name != NUMBER]
    if has_numbers:
        fields.append(pa.field(NUMBER, pa.int64()))
    lists = table["candidates"].to_pylist()
    changed = [[change(candidate) for candidate in candidates] for candidates in lists]
    column = pa.array(changed, pa.list_(pa.struct(fields)))
    return table.set_column(place, "candidates", column)


if __name__ == "__main__":
    main()
