#!/usr/bin/env python
"""Rerank mentions and their candidates from a JSON Lines, Parquet or Arrow file of any size.

    python scripts/rerank.py MODEL input.jsonl output.jsonl
    accelerate launch --multi_gpu scripts/rerank.py MODEL input.parquet output.parquet

One line (or row) a mention: {"entity": "cold", "candidates": [{"name": "Common Cold", "cui": "C0009443"}, "Cold"],
"entity_type": "T047", "left": "", "right": ""}; the last three may be left out. MODEL is a folder or a Hub id; the
input may be a folder of files. Each output line repeats the input line and adds "ranked". The output appears only when
it is complete; run again after a kill, the script goes on with the shards that are not there yet.
"""

import argparse
import json
from pathlib import Path

from umls_reranker.cli import run_script


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder or Hub id of the reranker")
    parser.add_argument("input", type=Path, help="file or folder of mentions: .jsonl, .parquet, .arrow")
    parser.add_argument("output", type=Path, help="file to write, in the input's format or, by its ending, another")
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--device", default="auto", help="cpu, cuda, ... (default: a GPU when there is one)")
    parser.add_argument("--dtype", default="auto", help="auto, float32, bfloat16 or float16 (default: auto)")
    parser.add_argument("--backend", default="torch", help="torch, torch_compile, or one made by scripts/export.py")
    parser.add_argument("--token_budget", type=int, help="tokens of a forward pass (default: measured, remembered)")
    parser.add_argument("--batch_mentions", type=int, default=1024, help="mentions held in memory (default: 1024)")
    parser.add_argument("--shard_mentions", type=int, default=4096, help="mentions a shard (default: 4096)")
    return parser


def main() -> None:
    options = make_parser().parse_args()
    from umls_reranker import UMLSReranker
    from umls_reranker.bulk import BulkJob, Process

    process = Process.from_environment()
    job = BulkJob(options.input, options.output, options.batch_mentions, options.shard_mentions)
    reranker = UMLSReranker.from_pretrained(
        options.model,
        revision=options.revision,
        device=process.device(options.device),
        dtype=options.dtype,
        backend=options.backend,
        token_budget=options.token_budget,
    )
    job.run(reranker, process)
    if process.rank == 0:
        figures = reranker.get_statistics()
        figures.pop("per_type")
        print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    run_script(main)
