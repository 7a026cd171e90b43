#!/usr/bin/env python
"""Judge encoders by names alone: is the top candidate of lists from dev documents correct?

    python benchmarks/names/judge.py runs/names/data runs/names/base/encoder_0.5

Lists are of 100 dev documents each of NCBI Disease, BC5CDR (diseases) and MedMentions, a string
once a document: the ten nearest concepts by trigrams, and ten by the base encoder, each with its
nearest name, shuffled. They are made once, in ``lists.json``; indexes lie beside it. All with a
correct candidate count; equal candidates at the top share it.

Columns are of each corpus, and of strings that training for the corpus has ("recipe"), only the
clusters have ("names"), or neither. Points are over the base encoder, with 95 % intervals by
document. The pairs are those that `gather.py` set aside.
"""

import argparse
import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from gather import MEDMENTIONS, SEED, UMLS_OPEN, medmentions
from pairs import MAX_TOKENS

from umls_reranker.core.json_files import write_json
from umls_reranker.corpora.annotated_text import Mention
from umls_reranker.corpora.formats import read_corpus
from umls_reranker.evaluation.formatting import markdown_table
from umls_reranker.evaluation.intervals import Documents
from umls_reranker.models.bi_encoder import BiEncoder
from umls_reranker.models.model_files import MINILM
from umls_reranker.retrieval.queries import Queries
from umls_reranker.retrieval.retriever import load_retriever
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.normalization import normalize_texts
from umls_reranker.vocab.trigrams import shared_trigrams

WIDTH = 10
# The first of each corpus.
DOCUMENTS = 100
RETRIEVERS = ("lexical", "dense")
# Corpora on MEDIC -> files of train and dev, and the types that count.
CORPORA = {
    "NCBI Disease": ("NCBItrainset_corpus.txt.gz", "NCBIdevelopset_corpus.txt.gz", ()),
    "BC5CDR": (
        "CDR_TrainingSet.PubTator.txt.gz",
        "CDR_DevelopmentSet.PubTator.txt.gz",
        ("Disease",),
    ),
}
Scorer = Callable[[Sequence[str], Sequence[str]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", type=Path, help="folder that gather.py wrote")
    parser.add_argument("encoders", nargs="*", help="folders or Hub ids")
    parser.add_argument("--base", default=MINILM)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    file = options.names / "lists.json"
    if not file.exists():
        write_json(file, [*make_lists(options.data, options.names, options.base)])
    rows = json.loads(file.read_text(encoding="utf-8"))
    lists = [row for row in rows if any(row["gold"])]
    print(f"{len(rows):,} lists, {len(lists):,} with a correct candidate\n")
    pairs = [
        {"mention": pair["mention"], "names": [pair["gold"], pair["other"]], "gold": [True, False]}
        for pair in json.loads((options.names / "held_out.json").read_text(encoding="utf-8"))
    ]
    groups = {"all": np.ones(len(lists))}
    for key in ("set", "seen"):
        for value in dict.fromkeys(row[key] for row in lists):
            groups[value] = np.array([float(row[key] == value) for row in lists])
    documents = Documents.of([f"{row['set']} {row['doc_id']}" for row in lists])
    scorers = {"trigrams": trigram_cosines}
    scorers |= {name: partial(cosines, name) for name in (options.base, *options.encoders)}
    correct_of = {name: correctness(scorer, lists) for name, scorer in scorers.items()}
    table = []
    for name, scorer in scorers.items():
        correct = correct_of[name]
        columns = [correct - correct_of[options.base], groups["all"]]
        gain = documents.measure(columns, percent, is_share=False)
        points = "{value:+.1f} ({low:+.1f} to {high:+.1f})".format(**gain)
        shares = [f"{np.average(correct, weights=of):.3f}" for of in groups.values()]
        table.append([name, *shares, points, f"{correctness(scorer, pairs).mean():.2f}"])
    sizes = [f"{title} ({of.sum():,.0f})" for title, of in groups.items()]
    print(markdown_table(["", *sizes, "points", f"{len(pairs)} pairs"], table))


def make_lists(data: Path, names: Path, base: str) -> Iterator[dict]:
    """Lists of the dev splits by both retrievers, those without a correct candidate included."""
    clusters = json.loads((names / "concepts.json").read_text(encoding="utf-8"))
    learned = {*normalize_texts([name for one in clusters for name, _ in one["names"]])}
    medic = data / "medic" / "medic_06Jul2012.txt.gz"
    index_unless_there(medic, names / "index_medic", base)
    index_unless_there(data / "umls_open" / "META", names / "index_umls", base, sources=UMLS_OPEN)
    splits = {MEDMENTIONS: medmentions(data)}
    for corpus, (train, dev, types) in CORPORA.items():
        splits[corpus] = {
            split: [
                *read_corpus(
                    [data / "medic" / file],
                    expand_abbreviations=True,
                    split_composites=True,
                    types=types,
                )
            ]
            for split, file in (("train", train), ("dev", dev))
        }
    for corpus, mentions in splits.items():
        trained = {*normalize_texts([one.text for one in mentions["train"]])}
        index = names / ("index_medic" if corpus in CORPORA else "index_umls")
        for row in index_lists(index, mentions["dev"]):
            (form,) = normalize_texts([row["mention"]])
            seen = "recipe" if form in trained else "names" if form in learned else "neither"
            yield {"set": corpus, **row, "seen": seen}


def index_unless_there(
    dictionary: Path, folder: Path, encoder: str, sources: Sequence[str] = ()
) -> None:
    """Index a dictionary, unless the folder exists."""
    if not folder.exists():
        words = [str(dictionary), str(folder), "--encoder", encoder, "--sources", *sources]
        words += ["--encoder_max_length", str(MAX_TOKENS)]
        subprocess.run([sys.executable, "-m", "umls_reranker", "index", *words], check=True)


def index_lists(folder: Path, mentions: list[Mention]) -> Iterator[dict]:
    """Lists of the mentions of one concept from an index, in an order by chance."""
    documents = [*dict.fromkeys(one.doc_id for one in mentions)][:DOCUMENTS]
    distinct = {
        (one.doc_id, one.text.lower()): one
        for one in reversed(mentions)
        if len(one.cuis) == 1 and one.doc_id in documents
    }
    concepts = ConceptTable.load(folder / "concepts")
    retriever = load_retriever(folder, "auto")
    texts = [one.text for one in distinct.values()]
    queries = Queries(texts, vectors=retriever.encoder.encode(texts))
    rng = random.Random(SEED)
    for method in retriever.methods:
        if method.name in RETRIEVERS:
            found = method.index.search(method.vectors_of(queries), WIDTH)
            for number, mention in enumerate(distinct.values()):
                order = rng.sample(range(WIDTH), WIDTH)
                order = [place for place in order if found.rows[number, place] >= 0]
                gold = concepts.rows(mention.cuis[0])
                yield {
                    "retriever": method.name,
                    "doc_id": mention.doc_id,
                    "mention": mention.text,
                    "names": retriever.name_array(found.name_ids[number, order]).to_pylist(),
                    "gold": np.isin(found.rows[number, order], gold).tolist(),
                }


def trigram_cosines(mentions: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Squared cosines of the sets of trigrams of n mentions and n names, (n,)."""
    texts, codes = np.unique(names, return_inverse=True)
    forms = normalize_texts(texts.tolist())
    own = normalize_texts(mentions)
    return np.prod(shared_trigrams(own, forms, np.arange(len(own)), codes), axis=0)


def cosines(encoder: str, mentions: Sequence[str], names: Sequence[str]) -> np.ndarray:
    """Cosines of an encoder's vectors of n mentions and n names, (n,)."""
    texts, codes = np.unique([*mentions, *names], return_inverse=True)
    vectors = BiEncoder.from_pretrained(encoder, max_length=MAX_TOKENS).encode(texts.tolist())
    first, second = vectors[codes].reshape(2, len(mentions), -1)
    return (first * second).sum(axis=1)


def percent(sums: np.ndarray) -> np.ndarray:
    """The first of (..., 2) sums in per cent of the second."""
    return 100 * sums[..., 0] / sums[..., 1]


def correctness(scorer: Scorer, rows: list[dict]) -> np.ndarray:
    """Of n lists, the share of the candidates with the best score that are correct, (n,)."""
    mentions = [row["mention"] for row in rows for _ in row["names"]]
    names = [name for row in rows for name in row["names"]]
    ends = np.cumsum([len(row["names"]) for row in rows])
    parts = np.split(scorer(mentions, names), ends[:-1])
    return np.array(
        [
            np.mean(np.array(row["gold"])[scores >= scores.max() - 1e-6])
            for row, scores in zip(rows, parts, strict=True)
        ]
    )


if __name__ == "__main__":
    main()
