#!/usr/bin/env python
"""What `built-in` makes of an index without labels, and after calibration on some.

    umls-reranker prepare_data minilm-medmentions-cpu --train_calibration_share 0 --run_name unseen
    umls-reranker index META my_index
    python benchmarks/zero_shot.py runs/unseen my_index --labelled calibration 500 2000

Prints acc@1 on the run's test mentions: of each retriever by its score, of `built-in`, and of
models calibrated on lists of the first mentions of a split, by whole documents. `built-in` was
fitted on MedMentions training documents: measure it on others. Intervals are 95 %, bootstrap by
document.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from umls_reranker.vocab.type_sets import TypeSets, type_lists

CANDIDATES = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder with mentions")
    parser.add_argument("index", type=Path, help="index folder of its dictionary")
    parser.add_argument("--splits", nargs="+", default=["test"], help="splits to measure")
    parser.add_argument(
        "--labelled",
        nargs="+",
        default=[],
        metavar="SPLIT N",
        help="split that is calibrated on, and numbers of its mentions",
    )
    options = parser.parse_args()
    from umls_reranker import UMLSReranker

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        lists = labelled_lists(options.run, options.splits, options.index, folder)
        for name, scores in lists.scores.items():
            print_row(f"order by {name}_score", lists, scores)
        measure("built-in", UMLSReranker.from_pretrained("built-in"), lists)
        for number in options.labelled[1:]:
            model = folder / number
            file = folder / f"{number}.arrow"
            count = write_lists(options.run, options.labelled[:1], options.index, file, int(number))
            words = ["calibrate", "built-in", "--lists", file, "--output", model]
            command = [sys.executable, "-m", "umls_reranker", *map(str, words)]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            measure(f"{count} labelled", UMLSReranker.from_pretrained(model), lists)


def write_lists(run: Path, splits: list[str], index: Path, path: Path, most: int = 0) -> int:
    """Write lists of the mentions of some splits, all or at least `most`; returns their number."""
    from datasets import concatenate_datasets

    from umls_reranker.pipeline.run_folder import RunFolder
    from umls_reranker.retrieval import retriever as candidates
    from umls_reranker.vocab.concept_table import ConceptTable

    known = RunFolder(run).splits("mentions")
    mentions = concatenate_datasets([known[split] for split in splits])
    if most and most < len(mentions):
        document_ids = mentions["doc_id"][:]
        while document_ids[most] == document_ids[most - 1]:
            most += 1
        mentions = mentions.select(range(most))
    concepts = ConceptTable.load(index / "concepts")
    retriever = candidates.load_retriever(index, "auto")
    candidates.write_lists(mentions, retriever, concepts, CANDIDATES, path)
    return len(mentions)


def labelled_lists(run: Path, splits: list[str], index: Path, folder: Path):
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.vocab.types import TypeHierarchy

    path = folder / "lists.arrow"
    write_lists(run, splits, index, path)
    return read_labelled_lists(path, TypeHierarchy.built_in())


def measure(name: str, reranker, lists) -> None:
    """Print the rows of a model: with the mentions' types, if there are any, and without."""
    untyped = replace(lists, types=TypeSets.of_lists(type_lists([None] * len(lists))))
    for title, some in {f"{name}, with types": lists, name: untyped}.items():
        if some is untyped or lists.types.is_known.any():
            print_row(title, some, reranker.decide(some).scores.log_odds)


def print_row(title: str, lists, scores: np.ndarray) -> None:
    """Print acc@1 of an order: of equal scores the first counts; and if ties are errors."""
    from umls_reranker.core.arrays import firsts, ranking
    from umls_reranker.evaluation.intervals import Documents

    top = firsts(ranking(scores, lists.offsets), lists.offsets)
    correct = lists.is_gold(top)
    best = np.append(scores, np.nan)[top]
    tied = np.zeros(len(lists), int)
    np.add.at(tied, lists.owner, (scores == best[lists.owner]) & ~lists.correct)
    documents = Documents.of(lists.annotations.documents)
    share = documents.measure([correct, np.ones(len(lists))])
    untied = (correct & (tied == 0)).mean()
    print(
        f"{title:36} {share['value']:.3f} ({share['low']:.3f}-{share['high']:.3f}), "
        f"ties as errors {untied:.3f}, {len(lists)} mentions",
        flush=True,
    )


if __name__ == "__main__":
    main()
