#!/usr/bin/env python
"""Measure the bi-encoder beside sentence_transformers.SentenceTransformer: texts a second, and how far vectors differ.

    python benchmarks/encoding.py RELEASE/META/MRCONSO.RRF corpus_pubtator.txt.gz

Texts are distinct English names of a release, and mentions of a PubTator corpus with the text around them; both sides
read the same strings, cut at the same length. sentence-transformers sorts by length itself. Runs of all take turns in
one process, so that what else the machine does meets all alike. Prints Markdown.
"""

import argparse
import os
import platform
import random
from datetime import date
from pathlib import Path

import numpy as np
from scoring import interleaved

PRECISIONS = ("bfloat16", "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", type=Path, help="MRCONSO.RRF")
    parser.add_argument("corpus", type=Path, help="PubTator file, plain or gzip")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--texts", type=int, default=2_000, help="distinct names (default: 2,000); a quarter mentions")
    parser.add_argument("--context_chars", type=int, default=80, help="text on each side of a mention (default: 80)")
    parser.add_argument("--max_length", type=int, default=128, help="tokens of a text (default: 128)")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[16, 32, 64, 128], help="tried of theirs")
    parser.add_argument("--budgets", type=int, nargs="+", default=[None], help="our token budgets (default: its own)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved runs of each (default: 5)")
    options = parser.parse_args()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    import torch
    from sentence_transformers import SentenceTransformer

    from umls_reranker.resources import resolve_model
    from umls_reranker.retrieval.encoder import BiEncoder

    print(
        f"{date.today()}, {platform.machine()} {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} "
        f"threads, torch {torch.__version__}; {options.model}, {options.rounds} rounds\n"
    )
    folder = resolve_model(options.model)
    ours, theirs = {}, {}
    for dtype in PRECISIONS:
        ours[dtype] = BiEncoder.from_pretrained(folder, max_length=options.max_length, device="cpu", dtype=dtype)
        theirs[dtype] = SentenceTransformer(folder, device="cpu", model_kwargs={"dtype": dtype})
        theirs[dtype].max_seq_length = options.max_length
    columns = ("texts/s, best (median)", "theirs / ours in time, best (median of rounds)", "1 - cosine to float32")
    print(f"| texts | precision | encoder | {' | '.join(columns)} |\n|---|---|---|{'---:|' * len(columns)}")
    for title, texts in (("names", names(options)), ("mentions in context", mentions(options))):
        runs = {}
        for dtype in PRECISIONS:
            for budget in options.budgets:
                runs[dtype, f"umls_reranker, {budget or 'default'} tokens"] = lambda dtype=dtype, budget=budget: ours[
                    dtype
                ].encode(texts, token_budget=budget)
            for size in options.batch_sizes:
                runs[dtype, f"sentence-transformers, batch {size}"] = lambda dtype=dtype, size=size: theirs[
                    dtype
                ].encode(texts, batch_size=size, normalize_embeddings=True, show_progress_bar=False)
        report(title, texts, ours["float32"], *interleaved(runs, options.rounds))


def report(title: str, texts: list[str], encoder, times: dict, vectors: dict) -> None:
    """Rows of the table for one kind of texts."""
    tokens = sum(map(len, encoder.queries.plain(texts))) / len(texts)
    exact = vectors["float32", next(name for dtype, name in times if dtype == "float32")]
    for (dtype, name), seconds in times.items():
        own = next(taken for (kind, _), taken in times.items() if kind == dtype)
        ratio = f"{min(seconds) / min(own):.2f} ({np.median(np.divide(seconds, own)):.2f})"
        off = 1 - (vectors[dtype, name].astype(np.float64) * exact).sum(axis=1)
        speeds = f"{len(texts) / min(seconds):,.0f} ({len(texts) / np.median(seconds):,.0f})"
        print(
            f"| {len(texts):,} {title}, {tokens:.1f} tokens | {dtype} | {name} | {speeds} | {ratio} | {off.mean():.1e} |"
        )


def names(options) -> list[str]:
    with options.names.open(encoding="utf-8") as lines:
        found = {fields[14] for fields in (line.split("|") for line in lines) if fields[1] == "ENG"}
    return random.Random(0).sample(sorted(found), options.texts)


def mentions(options) -> list[str]:
    from umls_reranker.data.pubtator import read_pubtator

    found = read_pubtator(options.corpus, context_chars=options.context_chars)
    texts = sorted({f"{mention.left} {mention.text} {mention.right}".strip() for mention in found})
    return random.Random(0).sample(texts, options.texts // 4)


if __name__ == "__main__":
    main()
