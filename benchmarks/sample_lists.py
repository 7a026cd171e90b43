#!/usr/bin/env python
"""Write the candidates in examples/ again, as a plain BM25 search over open names finds them.

    python benchmarks/sample_lists.py examples/my_lists.jsonl

The mentions and their gold concepts were written by hand, and stay. A concept is one text of all
its names, as in a search engine. Of concepts with the same preferred name, that with the lowest CUI
is in the index.
"""

import argparse
import json
from pathlib import Path

from built_in import VOCABULARIES

CANDIDATES = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path, help="file to read and write, JSON Lines")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    import bm25s

    from umls_reranker.vocab.concepts import iter_concepts
    from umls_reranker.vocab.normal_form import singular_words
    from umls_reranker.vocab.normalization import normalize_name, normalize_texts
    from umls_reranker.vocab.release import release_files
    from umls_reranker.vocab.rrf import read_rrf_concepts

    table, _ = read_rrf_concepts(
        release_files(options.data / "umls_open" / "META"), sources=VOCABULARIES
    )
    by_name = {normalize_name(one.name): one for one in reversed(list(iter_concepts(table)))}
    concepts = sorted(by_name.values(), key=lambda one: one.cui)

    def words(texts: list[str]) -> object:
        return bm25s.tokenize(singular_words(normalize_texts(texts)), show_progress=False)

    search = bm25s.BM25()
    search.index(
        words([" ".join((one.name, *one.synonyms)) for one in concepts]), show_progress=False
    )
    rows = [json.loads(line) for line in options.lists.read_text(encoding="utf-8").splitlines()]
    numbers, scores = search.retrieve(
        words([row["entity"] for row in rows]), k=CANDIDATES, show_progress=False
    )
    with options.lists.open("w", encoding="utf-8") as stream:
        for row, *hits in zip(rows, numbers.tolist(), scores.tolist(), strict=True):
            row["candidates"] = [
                {
                    "cui": concepts[number].cui,
                    "name": concepts[number].name,
                    "bm25_score": round(score, 2),
                }
                for number, score in zip(*hits, strict=True)
                if score > 0
            ]
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
