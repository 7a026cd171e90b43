"""Cells a second of /reconcile, as OpenRefine asks for them, beside /link with equal batches.

    python benchmarks/reconcile_speed.py MODEL INDEX --cells 10000 --batch 64

Starts the service as users do. The cells are names of the index with one letter left out, each
asked for once, so that nothing that it remembers helps. Batches of both paths alternate, on one
connection.
"""

import argparse
import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np

from umls_reranker.vocab.concept_table import ConceptTable

ROOT = Path(__file__).resolve().parents[1]
FORM = "application/x-www-form-urlencoded"


def cells_of(concepts: ConceptTable, count: int, seed: int = 13) -> list[str]:
    """Distinct names, each without a letter."""
    rng = np.random.default_rng(seed)
    name_ids = rng.integers(concepts.name_offsets[-1], size=4 * count)
    cells: dict[str, None] = {}
    for name in concepts.names_by_id(name_ids).to_pylist():
        place = int(rng.integers(len(name)))
        cells[f"{name[:place]}{name[place + 1 :]}"] = None
    cells.pop("", None)
    if len(cells) < count:
        raise SystemExit("the index has too few names; ask for fewer cells")
    return list(cells)[:count]


def link_body(cells: list[str]) -> tuple[str, str]:
    mentions = [{"mention": cell} for cell in cells]
    return json.dumps({"mentions": mentions, "top": 5}), "application/json"


def reconcile_body(cells: list[str]) -> tuple[str, str]:
    queries = {f"q{number}": {"query": cell, "limit": 5} for number, cell in enumerate(cells)}
    return urlencode({"queries": json.dumps(queries)}), FORM


PATHS = {"/link": link_body, "/reconcile": reconcile_body}


def answered(connection: http.client.HTTPConnection, path: str, cells: list[str]) -> float:
    """The seconds until a batch is answered."""
    body, kind = PATHS[path](cells)
    began = time.perf_counter()
    connection.request("POST", path, body, {"Content-Type": kind})
    answer = connection.getresponse()
    content: Any = json.loads(answer.read())
    seconds = time.perf_counter() - began
    assert answer.status == 200 and len(content) == len(cells), content
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("index", type=Path)
    parser.add_argument("--cells", type=int, default=10_000, help="of each path")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests"))
    from processes import Service

    concepts = ConceptTable.load(options.index / "concepts")
    cells = cells_of(concepts, 2 * options.cells)
    batches = [
        cells[start : start + options.batch] for start in range(0, len(cells), options.batch)
    ]
    seconds: dict[str, list[float]] = {path: [] for path in PATHS}
    asked = dict.fromkeys(PATHS, 0)
    with Service(options.model, "--served_index", options.index) as service:
        connection = http.client.HTTPConnection(service.url.removeprefix("http://"))
        for path in PATHS:
            answered(connection, path, ["warm up"])
        for number, batch in enumerate(batches):
            path = [*PATHS][number % 2]
            seconds[path].append(answered(connection, path, batch))
            asked[path] += len(batch)
    print(f"{concepts.name_offsets[-1]:,} names, batches of {options.batch}")
    for path, times in seconds.items():
        typical = options.batch / float(np.median(times))
        print(
            f"{path}: {asked[path]:,} cells in {sum(times):.1f} s, {asked[path] / sum(times):.0f} "
            f"a second, {typical:.0f} in the median batch"
        )
    ratio = np.median(seconds["/link"]) / np.median(seconds["/reconcile"])
    print(f"/reconcile is {ratio:.2f} times as fast as /link, in the median batch")


if __name__ == "__main__":
    main()
