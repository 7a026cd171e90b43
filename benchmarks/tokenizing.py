#!/usr/bin/env python
"""Measure how long it takes to tokenize mined pairs, and the memory it needs.

    python benchmarks/tokenizing.py --pairs runs/minilm-medmentions-cpu/pairs --rows 240000 2400000

Reads the train split of a run's pairs. Where more rows are wanted than it has, it is repeated with each name and
mention changed by a suffix, so that no text repeats across copies more than it does within one. Prints a Markdown
table; peak memory is that of the process and its workers together, sampled ten times a second, page cache of the
memory-mapped input and output left out.
"""

import argparse
import os
import platform
import tempfile
import threading
import time
from datetime import date
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="pairs folder of a run")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2", help="whose tokenizer is used")
    parser.add_argument("--rows", type=int, nargs="+", default=[240_000, 2_400_000], help="numbers of pairs")
    parser.add_argument("--context_tokens", type=int, nargs="+", default=[0], help="tokens of context on each side")
    arguments = parser.parse_args()

    from datasets import load_from_disk
    from transformers import AutoTokenizer

    from umls_reranker.core.cores import usable_cores
    from umls_reranker.core.fetch import resolve_model
    from umls_reranker.models.pretrained import load_pretrained
    from umls_reranker.models.template import PairTemplate
    from umls_reranker.models.tokens import PairEncoder
    from umls_reranker.training.dataset import tokenize_pairs

    tokenizer = load_pretrained(AutoTokenizer, resolve_model(arguments.model, None))
    mined = load_from_disk(str(arguments.pairs))["train"]
    print(f"{date.today()}, {platform.machine()}, {usable_cores()} cores, {arguments.model}\n")
    print("| pairs | context tokens | tokens | seconds | pairs/s | peak memory, MB | on disk, MB | start again, s |")
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory() as scratch:
            pairs = enlarge(mined, rows, Path(scratch) / "pairs")
            rows = len(pairs)
            for context in arguments.context_tokens:
                template = PairTemplate(max_length=64 + 2 * context, context_tokens=context)
                template.prepare_tokenizer(tokenizer)
                encoder, folder = (
                    PairEncoder(tokenizer.backend_tokenizer, template),
                    Path(scratch) / f"tokenized-{context}",
                )
                with PeakMemory() as memory:
                    start = time.perf_counter()
                    tokenized = tokenize_pairs(pairs, encoder, 1.0, folder)
                    seconds = time.perf_counter() - start
                start = time.perf_counter()
                tokenize_pairs(pairs, encoder, 1.0, folder)
                again = time.perf_counter() - start
                size = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
                print(
                    f"| {rows:,} | {context} | {tokenized.lengths.sum(dtype=int):,} | {seconds:.1f} "
                    f"| {rows / seconds:,.0f} | {memory.peak / 1e6:,.0f} | {size:,.0f} | {again:.2f} |",
                    flush=True,
                )


def enlarge(mined, rows: int, folder: Path):
    """The first rows of the pairs, repeated under changed texts until there are about enough of them."""
    import pyarrow.compute as pc
    from datasets import load_from_disk

    from umls_reranker.data.arrow import write_dataset

    def copies():
        whole = mined.with_format("arrow")
        for start in range(0, rows, 10_000):
            copy, place = divmod(start, len(mined))  # the last block of a copy may be short
            table = whole[place : place + min(10_000, rows - start)]
            for column in ("mention", "name"):
                texts = pc.binary_join_element_wise(table[column], f"{copy}" if copy else "", " ")
                table = table.set_column(table.column_names.index(column), column, texts)
            yield {name: table[name] for name in table.column_names}

    write_dataset(copies(), mined.features, folder, "benchmark")
    return load_from_disk(str(folder))


class PeakMemory:
    """Highest anonymous memory of this process and its children while the block runs, in bytes."""

    def __enter__(self) -> "PeakMemory":
        self.peak = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.1):
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            self.peak = max(self.peak, sum(map(_anonymous_memory, ["self", *children])))


def _anonymous_memory(process: str) -> int:
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)


if __name__ == "__main__":
    main()
