#!/usr/bin/env python
"""Rerank mentions and their candidates from a JSON Lines file.

    python scripts/rerank.py MODEL input.jsonl output.jsonl

One line a mention: {"entity": "cold", "candidates": [{"name": "Common Cold", "cui": "C0009443"}, "Cold"],
"entity_type": "T047", "left": "", "right": ""}; the last three may be left out. MODEL is a folder or a Hub id. Each
output line repeats the input line and adds "ranked". The output appears only when it is complete.
"""

import argparse
import itertools
import json
from pathlib import Path

from umls_reranker.cli import run_script
from umls_reranker.errors import UserError


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of the reranker")
    parser.add_argument("input", type=Path, help="JSON Lines file of mentions")
    parser.add_argument("output", type=Path, help="JSON Lines file to write")
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU when there is one)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")
    parser.add_argument("--batch_mentions", type=int, default=256, help="mentions held in memory (default: 256)")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    if not options.input.is_file():
        raise UserError(f"{options.input} does not exist; give a JSON Lines file of mentions")
    from umls_reranker import UMLSReranker
    from umls_reranker.progress import progress

    reranker = UMLSReranker.from_pretrained(
        options.model, revision=options.revision, device=options.device, dtype=options.dtype
    )
    partial = options.output.with_name(f".{options.output.name}.partial")
    try:
        with (
            options.input.open(encoding="utf-8") as source,
            partial.open("w", encoding="utf-8") as target,
            progress(desc="reranking", unit=" mentions") as bar,
        ):
            lines = enumerate(source, start=1)
            while batch := list(itertools.islice(lines, options.batch_mentions)):
                for row in rerank_lines(reranker, batch, options.input):
                    target.write(json.dumps(row, ensure_ascii=False) + "\n")
                bar.update(len(batch))
        partial.replace(options.output)
    finally:
        partial.unlink(missing_ok=True)
    figures = reranker.get_statistics()
    figures.pop("per_type")
    print(json.dumps(figures, indent=2))


def rerank_lines(reranker, lines: list[tuple[int, str]], source: Path) -> list[dict]:
    rows = []
    for number, line in lines:
        try:
            row = json.loads(line)
            row["entity"], row["candidates"]
        except (json.JSONDecodeError, KeyError, TypeError):
            raise UserError(f'{source}:{number}: expected a JSON object with "entity" and "candidates"') from None
        rows.append(row)
    try:
        ranked = reranker.rerank_batch(
            [row["entity"] for row in rows],
            [row["candidates"] for row in rows],
            [row.get("entity_type") for row in rows],
            [row.get("left", "") for row in rows],
            [row.get("right", "") for row in rows],
        )
    except (TypeError, ValueError) as error:
        raise UserError(f"{source}, lines {lines[0][0]}-{lines[-1][0]}: {error}") from None
    for row, candidates in zip(rows, ranked, strict=True):
        row["ranked"] = [
            {
                "name": item.name,
                "cui": item.cui,
                "score": item.cross_encoder_score,
                "margin": item.margin,
                "logit": item.logit,
                "tier": item.tier,
                "accepted": item.accepted,
            }
            for item in candidates
        ]
    return rows


if __name__ == "__main__":
    run_script(main)
