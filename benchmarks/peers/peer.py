#!/usr/bin/env python
"""Link the mentions of an export with one system, in its own environment, and write its answers.

    .venv-peers/gilda/bin/python benchmarks/peers/peer.py gilda runs/peers

`export.py` made the folder. Reads only it, needs only the standard library and the system's own
packages, and writes EXPORT/rows/SYSTEM/SPLIT.jsonl, a row a mention with its ranked CUIs, and
facts.json with what that took. Thresholds are chosen on the calibration split, so a system may be
trained on the split train alone. With --turns it writes nothing and links when `speed.py` asks.

A system is a module of systems/ with

    ENVIRONMENT  name of its environment and of its requirements, systems/ENVIRONMENT.txt
    PACKAGES     distributions whose versions are reported
    INPUTS       which of "types", "context" and "training mentions" it uses
    DEVIATIONS   sentences, one for each thing that is not as its documentation says
    setup        Export -> link, which takes a batch of mentions and gives the candidates of each

and imports the system itself inside `setup` only, so that it can be listed without its environment.
"""

import argparse
import importlib
import json
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

MOST_CANDIDATES = 32
# The precision at which models accept that are made of a system's lists.
ACCEPTED = 0.90
# Mentions a call.
BATCH = 256


class Concept(NamedTuple):
    """A concept of the dictionary; `names` has the preferred one, `name`, first."""

    cui: str
    name: str
    names: list[str]
    semantic_types: list[str]


class Mention(NamedTuple):
    """A mention of a split.

    Attributes:
        mention_id: number in its split.
        start, end: of `text` in the document.
        text: as written. mention: with abbreviations that the document defines replaced by their
            long form, which is what ours reads.
        left, right: about 125 characters of the text around it.
        semantic_types: that the annotators gave, such as T047.
        cui: gold concept; None where it is to be answered.
        in_dictionary: whether the dictionary has it; None where it is to be answered.
    """

    mention_id: int
    doc_id: str
    start: int
    end: int
    text: str
    mention: str
    left: str
    right: str
    semantic_types: list[str]
    cui: str | None
    in_dictionary: bool | None


class Candidate(NamedTuple):
    """A concept, the system's own score (higher is better), and the name that matched, if any."""

    cui: str
    score: float
    name: str | None = None


Link = Callable[[Sequence[Mention]], Iterable[Iterable[Candidate]]]


@dataclass(frozen=True)
class Export:
    """The folder that `export.py` wrote."""

    folder: Path

    @property
    def umls_dir(self) -> Path:
        """The dictionary as MRCONSO.RRF and MRSTY.RRF, with the same names as `concepts`."""
        return self.folder / "META"

    def concepts(self) -> Iterator[Concept]:
        """The dictionary."""
        return (Concept(**row) for row in read_rows(self.folder / "concepts.jsonl"))

    def mentions(self, split: str) -> Iterator[Mention]:
        """With gold concepts: of train, dev, calibration or test."""
        return (Mention(**row) for row in read_rows(self.folder / f"{split}.jsonl"))

    def documents(self, *splits: str) -> dict[str, str]:
        """Texts of some splits' documents, or of all, by id; `Mention.start` counts characters."""
        rows = read_rows(self.folder / "documents.jsonl")
        return {row["doc_id"]: row["text"] for row in rows if not splits or row["split"] in splits}

    def pairs(self) -> Iterator[dict[str, Any]]:
        """Rows of ``mention_id``, ``mention``, ``name`` and ``label``, mention after mention.

        ``label`` is 1 for the gold concept.
        """
        return read_rows(self.folder / "pairs.jsonl")

    def scratch(self, name: str) -> Path:
        """A folder of this name for what a system builds."""
        path = self.folder / "scratch" / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    with path.open(encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write a JSON Lines file beside, then rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as lines:
        lines.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    partial.replace(path)


def answers(link: Link, mentions: Iterable[Mention], batch: int) -> Iterator[dict[str, Any]]:
    """The rows of a split: candidates best first, each concept once, and seconds per mention.

    The seconds are the mean of a batch.
    """
    iterator = iter(mentions)
    while hidden := [
        mention._replace(cui=None, in_dictionary=None) for mention in islice(iterator, batch)
    ]:
        began = time.perf_counter()
        linked = [list(candidates) for candidates in link(hidden)]
        seconds = (time.perf_counter() - began) / len(hidden)
        for mention, candidates in zip(hidden, linked, strict=True):
            best: dict[str, Candidate] = {}
            for candidate in sorted(candidates, key=lambda candidate: -candidate.score):
                best.setdefault(candidate.cui, candidate)
            top = [*best.values()][:MOST_CANDIDATES]
            yield {
                "mention_id": mention.mention_id,
                "cuis": [candidate.cui for candidate in top],
                "scores": [float(candidate.score) for candidate in top],
                "names": [candidate.name for candidate in top],
                "seconds": seconds,
            }


def take_turns(link: Link, mentions: Iterable[Mention], most: int) -> None:
    """For each batch size read from standard input, print what linking the next mentions took.

    Never the same ones again, which some systems remember.
    """
    iterator = iter(mentions)
    for line in sys.stdin:
        seconds = sum(row["seconds"] for row in answers(link, islice(iterator, most), int(line)))
        print(json.dumps({"seconds": seconds, "peak_memory_mb": peak_memory_mb()}), flush=True)


def peak_memory_mb() -> float:
    # In KiB on Linux, in bytes on macOS.
    return (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024)
        / 1e6
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("system", help="a module of systems/")
    parser.add_argument("export", type=Path, help="folder that export.py wrote")
    parser.add_argument("--splits", nargs="+", default=["calibration", "test"])
    parser.add_argument("--most", type=int, help="mentions to link per split (default: all)")
    parser.add_argument(
        "--most_calibration", type=int, help="mentions to link of the calibration split"
    )
    parser.add_argument(
        "--turns", action="store_true", help="time test mentions when asked to, and write nothing"
    )
    arguments = parser.parse_args()
    system = importlib.import_module(f"systems.{arguments.system}")
    export = Export(arguments.export)
    folder = export.folder / "rows" / arguments.system
    began = time.perf_counter()
    link = system.setup(export)
    if arguments.turns:
        take_turns(link, export.mentions("test"), arguments.most)
        return
    facts = {
        "inputs": list(system.INPUTS),
        "deviations": list(system.DEVIATIONS),
        "versions": {name: version(name) for name in system.PACKAGES}
        | {"python": platform.python_version()},
        "setup_seconds": time.perf_counter() - began,
    } | json.loads((Path(sys.prefix) / "installed.json").read_text(encoding="utf-8"))
    for split in arguments.splits:
        most = arguments.most_calibration if split == "calibration" else None
        mentions = islice(export.mentions(split), most or arguments.most)
        write_rows(folder / f"{split}.jsonl", answers(link, mentions, BATCH))
        print(f"{arguments.system}: {split} linked", flush=True)
    facts["peak_memory_mb"] = peak_memory_mb()
    write_rows(folder / "facts.json", [facts])


if __name__ == "__main__":
    main()
