#!/usr/bin/env python
"""Rows of ours for the table: a run's model on its own candidates, and on those of a peer.

    python benchmarks/peers/ours.py runs/minilm-medmentions-cpu runs/peers
    python benchmarks/peers/ours.py runs/minilm-medmentions-cpu runs/peers --lists gilda bm25 fuzzy

The first form ranks the run's lists by all that they hold, without the mentions' types, and by
names alone. The run's model was fitted on the calibration documents and counts those of dev, so
its own threshold stands: make the run with `--accept_precision 0.9`.

The second writes a peer's rows as labelled lists, EXPORT/lists/SYSTEM+WAY/SPLIT.jsonl, and ranks
them in three ways: +lists, by a model without a cross-encoder that
`umls-reranker calibrate --lists` makes of the first `--most` calibration lists, which accepts at a
precision of 0.90; +lists_no_types, the same without the mentions' types; and +model, by the run's
model as it is.

With --turns, the run's `ConceptLinker` links test mentions when `speed.py` asks, and nothing is
written.
"""

import argparse
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from peer import ACCEPTED, Concept, Export, Link, Mention, read_rows, take_turns, write_rows

WAYS = ("lists", "lists_no_types", "model")
OWN_INPUTS = ("types", "context", "training mentions")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder with a model")
    parser.add_argument("export", type=Path, help="folder that export.py wrote from it")
    parser.add_argument(
        "--lists", nargs="+", metavar="SYSTEM", help="systems whose candidates are ranked"
    )
    parser.add_argument(
        "--ways", nargs="+", choices=WAYS, default=WAYS, help="ways of ranking them (default: all)"
    )
    parser.add_argument(
        "--most",
        type=int,
        default=5_000,
        help="number of calibration lists to fit on, or mentions to time",
    )
    parser.add_argument("--turns", action="store_true", help="time the run's linker when asked to")
    arguments = parser.parse_args()
    if arguments.turns:
        take_turns(
            linker_of(arguments.run), Export(arguments.export).mentions("test"), arguments.most
        )
    elif not arguments.lists:
        rank_own(arguments.run, Export(arguments.export))
    for system in arguments.lists or ():
        for way in arguments.ways:
            rank_lists(
                system, way, arguments.run / "model", Export(arguments.export), arguments.most
            )


def linker_of(run: Path) -> Link:
    """The run's linker as users call it."""
    from umls_reranker.linking.linker import ConceptLinker

    linker = ConceptLinker.from_run(run)

    def link(mentions: Sequence[Mention]) -> list:
        return linker.link_batch(
            [mention.mention for mention in mentions],
            entity_types=[mention.semantic_types for mention in mentions],
            lefts=[mention.left for mention in mentions],
            rights=[mention.right for mention in mentions],
        )

    return link


def rank_own(run: Path, export: Export) -> None:
    """Write rows of the run's model on the run's lists."""
    from umls_reranker.core.arrow_files import open_arrow

    concepts = {concept.cui: concept for concept in export.concepts()}
    rows = open_arrow(run / "lists" / "test.arrow").to_pylist()
    # The lists of a run lack what its dictionary knows.
    for row in rows:
        for candidate in row["candidates"]:
            candidate |= described(concepts[candidate["cui"]])
    no_types = [row | {"entity_type": None} for row in rows]
    names = [
        row | {"candidates": [{"name": c["name"], "cui": c["cui"]} for c in row["candidates"]]}
        for row in rows
    ]
    for name, changed in {"ours": rows, "ours_no_type": no_types, "ours_names": names}.items():
        folder = export.folder / "rows" / name
        write_rows(folder / "test.jsonl", ranked(run / "model", changed, export))
        write_facts(folder, OWN_INPUTS[1:] if name == "ours_no_type" else OWN_INPUTS)


def rank_lists(system: str, way: str, model: Path, export: Export, most: int) -> None:
    """Write rows of a peer's candidates, ranked by ours."""
    has_types = way != "lists_no_types"
    lists = export.folder / "lists" / f"{system}+{way}"
    folder = export.folder / "rows" / f"{system}+{way}"
    for split, number in (("calibration", most), ("test", None)):
        if (export.folder / "rows" / system / f"{split}.jsonl").exists():
            rows = labelled_lists(system, split, export, has_types)
            write_rows(lists / f"{split}.jsonl", islice(rows, number))
    inputs = next(read_rows(export.folder / "rows" / system / "facts.json"))["inputs"]
    if way == "model":
        inputs = [*inputs, *OWN_INPUTS]
    else:
        model = export.scratch("calibrated") / "model"
        shutil.rmtree(model, ignore_errors=True)
        words = ("--lists", lists / "calibration.jsonl", "--accept_precision", ACCEPTED)
        words += ("--one_look",)
        umls_reranker("calibrate", *words, "--output", model)
        inputs = [*inputs, *(["types"] if has_types else []), "calibration mentions"]
    write_rows(folder / "test.jsonl", ranked(model, read_rows(lists / "test.jsonl"), export))
    write_facts(folder, dict.fromkeys(inputs))


def umls_reranker(*words: Any) -> None:
    subprocess.run(
        [sys.executable, "-m", "umls_reranker", *map(str, words)], check=True, stdout=sys.stderr
    )


def ranked(model: Path, rows: Iterable[dict[str, Any]], export: Export) -> Iterator[dict[str, Any]]:
    """What a model decides about each row, best candidate first."""
    folder = export.scratch("ranked")
    write_rows(folder / "rows.jsonl", rows)
    umls_reranker("rerank", model, folder / "rows.jsonl", folder / "ranked.jsonl", "--overwrite")
    for row in read_rows(folder / "ranked.jsonl"):
        yield {
            "mention_id": row["mention_id"],
            "cuis": [candidate["cui"] for candidate in row["ranked"]],
            "scores": [candidate["score"] for candidate in row["ranked"]],
            "accepted": any(candidate["accepted"] for candidate in row["ranked"][:1]),
        }


def labelled_lists(
    system: str, split: str, export: Export, with_types: bool
) -> Iterator[dict[str, Any]]:
    """A peer's rows for `umls-reranker calibrate --lists`, with the mentions' types or without."""
    concepts = {concept.cui: concept for concept in export.concepts()}
    mentions = {mention.mention_id: mention for mention in export.mentions(split)}
    for row in read_rows(export.folder / "rows" / system / f"{split}.jsonl"):
        mention = mentions[row["mention_id"]]
        yield {
            "doc_id": mention.doc_id,
            "mention_id": mention.mention_id,
            "entity": mention.mention,
            "entity_type": mention.semantic_types if with_types else None,
            "left": mention.left,
            "right": mention.right,
            "cui": mention.cui or [],
            "candidates": [
                {"name": name or concepts[cui].name, "cui": cui, "linker_score": score}
                | described(concepts[cui])
                for cui, score, name in zip(row["cuis"], row["scores"], row["names"], strict=True)
            ],
        }


def described(concept: Concept) -> dict[str, Any]:
    """What the dictionary knows of a candidate besides its name."""
    return {"preferred_name": concept.name, "semantic_types": concept.semantic_types}


def write_facts(folder: Path, inputs: Iterable[str]) -> None:
    write_rows(folder / "facts.json", [{"inputs": [*inputs]}])


if __name__ == "__main__":
    main()
