#!/usr/bin/env python
"""The terms of an ontology as a table to map: label, id, and its cross-references as gold concepts.

    python benchmarks/ontology_terms.py hp.obo UMLS MY_RELEASE/META terms.csv

Only terms with a cross-reference to a concept of the release count: about others, nobody knows
whether it has them. The order is random, so the first lines are a sample to review.
"""

import csv
import re
import sys
from pathlib import Path

import numpy as np


def main(ontology: Path, prefix: str, release: Path, output: Path) -> None:
    with (release / "MRCONSO.RRF").open(encoding="utf-8") as lines:
        known = {line.split("|", 1)[0] for line in lines}
    rows = []
    for block in ontology.read_text(encoding="utf-8").split("\n\n"):
        values = dict(re.findall(r"^(id|name|is_obsolete): (.*)", block, re.MULTILINE))
        ids = re.findall(rf"^xref: {prefix}:(\S+)", block, re.MULTILINE)
        gold = "|".join(known.intersection(ids))
        if gold and "is_obsolete" not in values:
            rows.append((values["id"], values["name"], gold))
    order = np.random.default_rng(13).permutation(len(rows))
    with output.open("w", encoding="utf-8", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(("source_code", "mention", "cui"))
        table.writerows(rows[number] for number in order)
    print(f"{len(rows):,} terms")


if __name__ == "__main__":
    source, prefix, release, output = sys.argv[1:]
    main(Path(source), prefix, Path(release), Path(output))
