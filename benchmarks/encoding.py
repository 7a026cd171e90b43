#!/usr/bin/env python
"""Measure the bi-encoder against sentence_transformers.SentenceTransformer: texts a second, whether vectors differ.

    python benchmarks/encoding.py RELEASE/META/MRCONSO.RRF corpus_pubtator.txt.gz

Texts are distinct English names of a release, and mentions of a PubTator corpus with the text around them; both sides
read the same strings, cut at the same length. sentence-transformers sorts by length itself. Runs of all take turns in
one process. Processor time is measured, which excludes the time of other programs. Prints Markdown.
"""

import argparse
import os
import platform
import random
import time
from datetime import date
from functools import partial
from pathlib import Path

import numpy as np
from scoring import interleaved

DTYPES = ("bfloat16", "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", type=Path, help="MRCONSO.RRF")
    parser.add_argument("corpus", type=Path, help="PubTator file, plain or gzip")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, default=2_000, help="distinct names (default: 2,000); a quarter mentions")
    parser.add_argument(
        "--context_chars", type=int, default=80, help="characters of context on each side of a mention (default: 80)"
    )
    parser.add_argument("--max_length", type=int, default=128, help="maximum tokens per text (default: 128)")
    parser.add_argument(
        "--batch_sizes",
        type=int,
        nargs="+",
        default=[16, 32, 64, 128],
        help="batch sizes to try for sentence-transformers",
    )
    parser.add_argument(
        "--budgets",
        type=int,
        nargs="+",
        default=[None],
        help="token budgets to try for umls_reranker (default: its own)",
    )
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of each (default: 5)")
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from sentence_transformers import SentenceTransformer

    from umls_reranker.core.fetch import resolve_model
    from umls_reranker.models.bi_encoder import BiEncoder

    print(
        f"{date.today()}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}; {options.model}, {options.rounds} rounds\n"
    )
    folder = resolve_model(options.model)
    ours, theirs = {}, {}
    for dtype in DTYPES:
        ours[dtype] = BiEncoder.from_pretrained(folder, max_length=options.max_length, device="cpu", dtype=dtype)
        theirs[dtype] = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
        theirs[dtype].max_seq_length = options.max_length
    columns = ("texts per CPU second, best (median)", "speedup", "1 - cosine to float32", "length - 1")
    print(f"| texts | dtype | encoder | {' | '.join(columns)} |\n|---|---|---|{'---:|' * len(columns)}")
    for title, texts in (("names", names(options)), ("mentions in context", mentions(options))):
        runs = {}
        for dtype in DTYPES:
            for budget in options.budgets:
                name = f"umls_reranker{f', {budget} tokens' if budget else ''}"
                runs[dtype, name] = partial(ours[dtype].encode, texts, token_budget=budget)
            settings = {"normalize_embeddings": True, "show_progress_bar": False}
            for size in options.batch_sizes:
                name = f"sentence-transformers, batch {size}"
                runs[dtype, name] = partial(theirs[dtype].encode, texts, batch_size=size, **settings)
        tokens = sum(map(len, ours["float32"].queries.plain(texts))) / len(texts)
        title = f"{len(texts):,} {title}, {tokens:.1f} tokens"
        report(title, len(texts), *interleaved(runs, options.rounds, time.process_time))


def report(title: str, count: int, times: dict, vectors: dict) -> None:
    """Rows of the table for one kind of texts."""
    exact = vectors["float32", next(name for dtype, name in times if dtype == "float32")].astype(np.float64)
    for (dtype, name), seconds in times.items():
        of_ours = next(seconds for (other, _), seconds in times.items() if other == dtype)
        ratio = f"{min(seconds) / min(of_ours):.2f} ({np.median(np.divide(seconds, of_ours)):.2f})"
        encoded = vectors[dtype, name].astype(np.float64)
        lengths = np.linalg.norm(encoded, axis=1)
        off = 1 - (encoded * exact).sum(axis=1) / (lengths * np.linalg.norm(exact, axis=1))
        speeds = f"{count / min(seconds):,.0f} ({count / np.median(seconds):,.0f})"
        exactness = f"{off.mean():.1e} | {np.abs(lengths - 1).max():.1e}"
        print(f"| {title} | {dtype} | {name} | {speeds} | {ratio} | {exactness} |", flush=True)


def names(options) -> list[str]:
    with options.names.open(encoding="utf-8") as lines:
        rows = (line.split("|") for line in lines)
        english = {row[14] for row in rows if row[1] == "ENG"}
    return random.Random(0).sample(sorted(english), options.texts)


def mentions(options) -> list[str]:
    from umls_reranker.data.corpus_formats import read_corpus

    mentions = read_corpus([options.corpus])
    texts = sorted({f"{mention.left} {mention.text} {mention.right}".strip() for mention in mentions})
    return random.Random(0).sample(texts, options.texts // 4)


if __name__ == "__main__":
    main()
