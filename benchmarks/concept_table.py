#!/usr/bin/env python
"""Measure the way from a release to the concept table, compared with the bare reading and filtering of other engines.

    python benchmarks/rrf_release.py rrf1m --rows 1700000
    python benchmarks/rrf_release.py rrf17m --rows 17000000
    python benchmarks/concept_table.py rrf1m rrf17m

What the others do is the least that any reader must: read MRCONSO and MRSTY, keep English names that are not
suppressible, and hold five columns of the names and two of the types in memory. Ours groups, ranks and deduplicates
the names, and writes the concept folder with its look-up files. Each measurement is a process of its own; engines take
turns, and the fastest of the rounds counts. Times are without imports. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FIELDS = {
    "MRCONSO": [
        *("CUI", "LAT", "TS", "LUI", "STT", "SUI", "ISPREF", "AUI", "SAUI", "SCUI", "SDUI", "SAB", "TTY", "CODE"),
        *("STR", "SRL", "SUPPRESS", "CVF"),
    ],
    "MRSTY": ["CUI", "TUI", "STN", "STY", "ATUI", "CVF"],
}
NAME_COLUMNS = ["CUI", "TS", "STT", "ISPREF", "STR"]
TYPE_COLUMNS = ["CUI", "TUI"]
LOOK_UPS = 100_000
OURS = "umls_reranker"


def with_polars(folder: Path, threads: int) -> Callable[[], int]:
    os.environ["POLARS_MAX_THREADS"] = str(threads)
    import polars as pl

    def scan(name: str) -> pl.LazyFrame:
        schema = dict.fromkeys([*FIELDS[name], "closing"], pl.String)
        return pl.scan_csv(folder / f"{name}.RRF", separator="|", has_header=False, quote_char=None, schema=schema)

    def run() -> int:
        wanted = (pl.col("LAT") == "ENG") & (pl.col("SUPPRESS") == "N")
        names = scan("MRCONSO").filter(wanted).select(NAME_COLUMNS).collect(engine="streaming")
        types = scan("MRSTY").select(TYPE_COLUMNS).collect(engine="streaming")
        return len(names) + len(types)

    return run


def with_duckdb(folder: Path, threads: int) -> Callable[[], int]:
    import duckdb

    connection = duckdb.connect()
    connection.execute(f"set threads to {threads}")

    def table(name: str, columns: Sequence[str], where: str = "true") -> int:
        types = dict.fromkeys([*FIELDS[name], "closing"], "VARCHAR")
        source = f"read_csv('{folder / name}.RRF', delim='|', header=false, quote='', escape='', columns={types})"
        connection.execute(f"create temp table {name} as select {','.join(columns)} from {source} where {where}")
        return connection.execute(f"select count(*) from {name}").fetchone()[0]

    return lambda: table("MRCONSO", NAME_COLUMNS, "LAT = 'ENG' and SUPPRESS = 'N'") + table("MRSTY", TYPE_COLUMNS)


def with_pyarrow(folder: Path, threads: int) -> Callable[[], int]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.dataset as ds

    pa.set_cpu_count(threads)

    def table(name: str, columns: Sequence[str], where: ds.Expression | None = None) -> int:
        fields = [*FIELDS[name], "closing"]
        form = ds.CsvFileFormat(
            read_options=pa.csv.ReadOptions(column_names=fields),
            parse_options=pa.csv.ParseOptions(delimiter="|", quote_char=False, escape_char=False),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(fields, pa.string()), strings_can_be_null=False
            ),
        )
        return ds.dataset(folder / f"{name}.RRF", format=form).to_table(columns=list(columns), filter=where).num_rows

    wanted = (ds.field("LAT") == "ENG") & (ds.field("SUPPRESS") == "N")
    return lambda: table("MRCONSO", NAME_COLUMNS, wanted) + table("MRSTY", TYPE_COLUMNS)


def with_ours(folder: Path, out: Path) -> Callable[[], int]:
    from datasets import Features  # noqa: F401, imported here so that it is not in the time

    from umls_reranker.data.concepts import write_concepts
    from umls_reranker.data.release import release_files
    from umls_reranker.data.rrf import read_rrf_concepts
    from umls_reranker.data.semantic_types import TypeHierarchy

    def run() -> int:
        concepts, _ = read_rrf_concepts(release_files(folder, None))
        return write_concepts(concepts, TypeHierarchy([]), out, "benchmark")

    return run


ENGINES = {"polars": with_polars, "duckdb": with_duckdb, "pyarrow": with_pyarrow}


def resident() -> dict[str, float]:
    """Memory of this process in MB: now, the part of it that is not pages of mapped files, and at the peak."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    keys = {"resident": "VmRSS", "anonymous": "RssAnon", "peak": "VmHWM"}
    return {name: int(status[key].split()[0]) / 1024 for name, key in keys.items()}


def timed(function: Callable[[], Any]) -> dict[str, float]:
    used, started = os.times(), time.perf_counter()
    function()
    seconds, now = time.perf_counter() - started, os.times()
    return {"seconds": seconds, "cpu": now.user - used.user + now.system - used.system}


def measure_look_ups(folder: Path, kind: str) -> dict[str, float]:
    """Open the table and look up CUIs or names, drawn by a seed; one of each concept's names."""
    import numpy as np
    import pandas  # noqa: F401, pyarrow imports it when it first converts; not in the time

    from umls_reranker.data.concepts import ConceptTable

    wanted = json.loads((folder / f"{kind}.json").read_text())
    before = resident()["resident"]
    table: list[ConceptTable] = []
    opening = timed(lambda: table.append(ConceptTable.load(folder)))
    found: list[np.ndarray] = []
    look_up = table[0].rows if kind == "cuis" else lambda names: table[0].rows_named(names)[1]
    figures = timed(lambda: found.append(look_up(wanted)))
    known = (found[0] >= 0).all() if kind == "cuis" else (np.diff(found[0]) > 0).all()
    assert known, f"some of the {kind} were not found"
    return figures | resident() | {"before": before, "opening": opening["seconds"]}


def draw_look_ups(folder: Path) -> None:
    import numpy as np

    from umls_reranker.data.concepts import ConceptTable

    table = ConceptTable.load(folder)
    random = np.random.default_rng(13)
    rows = random.integers(0, len(table), LOOK_UPS)
    names, offsets = table.names_of(rows)
    chosen = offsets[:-1] + random.integers(0, 1 << 30, LOOK_UPS) % np.diff(offsets)
    (folder / "cuis.json").write_text(json.dumps(table.cuis_of(rows).to_pylist()))
    (folder / "names.json").write_text(json.dumps([names[place].as_py() for place in chosen.tolist()]))


def measure(what: str, folder: Path, out: Path, threads: int) -> dict[str, float]:
    if what in ("cuis", "names"):
        return measure_look_ups(out, what)
    run = with_ours(folder, out) if what == OURS else ENGINES[what](folder, threads)
    return timed(run) | resident()


def in_process(what: str, folder: Path, out: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder), "--measure", what, "--out", str(out), "--threads", str(threads)]
    environment = os.environ | {"UMLS_RERANKER_PROGRESS": "0"}
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


def best(rounds: Sequence[dict[str, float]], key: str = "seconds") -> dict[str, float]:
    return min(rounds, key=lambda figures: figures[key])


def compare(folder: Path, out: Path, engines: Sequence[str], rounds: int, threads: int) -> dict[str, float]:
    """Print the tables of one release; returns our figures."""
    for name in FIELDS:
        with (folder / f"{name}.RRF").open("rb") as stream:  # into the page cache
            while stream.read(1 << 24):
                pass
    taken: dict[str, list[dict[str, float]]] = {engine: [] for engine in (*engines, OURS)}
    for _ in range(rounds):
        for engine, figures in taken.items():
            figures.append(in_process(engine, folder, out, threads))
    size = (folder / "MRCONSO.RRF").stat().st_size
    print(f"\n### {folder.name}: MRCONSO of {size / 1e9:.2f} GB\n")
    print("| | best wall, s | its processor time, s | least processor time, s | peak memory, MB |")
    print("|---|---|---|---|---|")
    for engine, figures in taken.items():
        label = f"**{engine}**: concept folder" if engine == OURS else f"{engine}: read and filter"
        fastest, least = best(figures), best(figures, "cpu")
        print(
            f"| {label} | {fastest['seconds']:.2f} | {fastest['cpu']:.2f} | {least['cpu']:.2f} "
            f"| {max(round['peak'] for round in figures):,.0f} |"
        )
    ours = best(taken[OURS])
    if engines:
        nearest = min(engines, key=lambda engine: best(taken[engine])["seconds"])
        wall = ours["seconds"] / best(taken[nearest])["seconds"]
        cpu = best(taken[OURS], "cpu")["cpu"] / min(best(taken[engine], "cpu")["cpu"] for engine in engines)
        print(f"\nOurs to the fastest ({nearest}): {wall:.2f} x the wall time; {cpu:.2f} x the least processor time.")
    draw_look_ups(out)
    print(f"\n| {LOOK_UPS:,} look-ups of | opening, s | best wall, s | least processor time, s | ", end="")
    print("memory before, MB | after | of it not mapped | peak |\n|---|---|---|---|---|---|---|---|")
    for kind in ("cuis", "names"):
        figures = [in_process(kind, folder, out, threads) for _ in range(rounds)]
        memory = [max(round[key] for round in figures) for key in ("before", "resident", "anonymous", "peak")]
        opening, cpu = best(figures, "opening")["opening"], best(figures, "cpu")["cpu"]
        times = [opening, best(figures)["seconds"], cpu]
        print(f"| {kind} | {' | '.join(f'{t:.3f}' for t in times)} | {' | '.join(f'{m:.0f}' for m in memory)} |")
    return ours | {"rows": size}


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("releases", type=Path, nargs="+", help="folders that rrf_release.py wrote, the smallest first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of the other engines")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        figures = measure(arguments.measure, arguments.releases[0], arguments.out, arguments.threads)
        print(json.dumps(figures))
        return
    versions = {name: installed(name) for name in ("numpy", "pyarrow", *ENGINES) if installed(name)}
    print(
        f"{time.strftime('%Y-%m-%d')}, {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
    )
    print(f"Python {platform.python_version()}, " + ", ".join(f"{name} {of}" for name, of in versions.items()))
    figures = []
    for folder in arguments.releases:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            engines = [engine for engine in ENGINES if installed(engine)]
            figures.append(compare(folder, Path(out), engines, arguments.rounds, arguments.threads))
    if len(figures) > 1:
        first, last = figures[0], figures[-1]
        size, wall, cpu, peak = (last[key] / first[key] for key in ("rows", "seconds", "cpu", "peak"))
        print(
            f"\nGrowth from the first to the last: bytes {size:.1f} x, wall {wall:.1f} x, processor {cpu:.1f} x, ",
            end="",
        )
        print(f"peak memory {peak:.1f} x.")


if __name__ == "__main__":
    main()
