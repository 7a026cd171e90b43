#!/usr/bin/env python
"""Run the recipe of NCBI Disease or BC5CDR on local files, and print its row of published systems.

    python benchmarks/published.py ncbi-disease ../shared/data/medic --dev    # measured on dev
    python benchmarks/published.py ncbi-disease ../shared/data/medic          # measured on test

The folder has the corpora's PubTator files and MEDIC. With --dev, every eighth training document is
for early stopping and calibration. All further arguments go to the recipe; a finished run is read.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from umls_reranker.calibration.reliability import ece
from umls_reranker.corpora.formats import read_document_ids
from umls_reranker.pipeline.run_folder import RunFolder
from umls_reranker.vocab.name_files import read_name_lists

FILES = {
    "ncbi-disease": [f"NCBI{split}set_corpus.txt.gz" for split in ("train", "develop", "test")],
    "bc5cdr-disease": [
        f"CDR_{split}Set.PubTator.txt.gz" for split in ("Training", "Development", "Test")
    ],
}
MEDIC = "medic_06Jul2012.txt.gz"


def arguments(recipe: str, medic: Path, dev_folder: Path | None = None) -> list[str]:
    """The recipe with its files in a folder.

    Args:
        recipe: a key of `FILES`.
        medic: the folder.
        dev_folder: folder for lists of documents, if dev is to be measured in place of test.
    """
    corpus = [str(medic / name) for name in FILES[recipe]]
    documents = dict(zip(("train", "dev", "test"), corpus, strict=True))
    if dev_folder is not None:
        corpus = corpus[:2]
        documents["test"] = documents["dev"]
        dev_folder.mkdir(parents=True, exist_ok=True)
        ids = read_document_ids(Path(corpus[0]))
        subsets = {
            "train": [document for row, document in enumerate(ids) if row % 8],
            "dev": ids[::8],
        }
        for split, subset in subsets.items():
            file = dev_folder / f"{split}.txt"
            file.write_text("".join(f"{document}\n" for document in subset), encoding="utf-8")
            documents[split] = str(file)
    options = [word for split, file in documents.items() for word in (f"--{split}_documents", file)]
    return [recipe, "--names", str(medic / MEDIC), "--corpus", *corpus, *options]


def figures(run: Path, medic: Path) -> dict[str, float]:
    """Figures of a run's test split: of all mentions, and of those that count in published tables.

    A composite mention counts once, as correct if all its concepts are. BioSyn and all after it
    leave out mentions of which MEDIC lacks an id (``query_preprocess.py --remove_cuiless``).

    Args:
        run: the run folder.
        medic: the file of MEDIC.

    Returns:
        Name -> figure, of all and with ", as published" of those that count there: the number of
        ``mentions``; ``acc@1``, where any id of a composite mention is correct; ``strict``, where
        composite mentions are errors; ``acc@5``; share and precision of the tier ``high``; and
        ``ECE`` of top candidates. Of all, ``refined``: the share of correct new strings, each
        counted once, as in Tutubalina et al. 2020, and their number.
    """
    table = pq.read_table(next(run.rglob("outcomes.parquet")))
    is_published = in_medic(run, medic, table["mention_id"].to_pylist())
    rank = table["rank"].to_numpy()
    is_new = new_strings(run, table["mention_id"].to_pylist())
    of_published = figures_of(table.filter(is_published))
    return {
        **figures_of(table),
        **{f"{name}, as published": figure for name, figure in of_published.items()},
        "refined": float((rank[is_new] == 0).mean()),
        "new strings": int(is_new.sum()),
    }


def figures_of(outcomes: pa.Table) -> dict[str, float]:
    """The figures of some mentions."""
    table = outcomes.to_pydict()
    spans = list(zip(table["document"], table["start"], table["end"], strict=True))
    number = {span: index for index, span in enumerate(dict.fromkeys(spans))}
    mention = np.array([number[span] for span in spans])
    rank = np.array(table["rank"])
    is_high = np.array(table["tier"]) == "high"

    def share(correct: np.ndarray) -> float:
        is_correct = np.ones(len(number), bool)
        np.logical_and.at(is_correct, mention, correct)
        return float(is_correct.mean())

    correct = rank == 0
    return {
        "mentions": len(number),
        "acc@1": share(correct),
        "strict": share(correct & ~np.array(table["composite"])),
        "acc@5": share((rank >= 0) & (rank < 5)),
        "high": float(is_high.mean()),
        "precision of high": float(correct[is_high].mean()) if is_high.any() else 1.0,
        "ECE": ece(np.array(table["score"]), correct),
    }


def in_medic(run: Path, medic: Path, mention_ids: list[str]) -> np.ndarray:
    """Of which of n test mentions MEDIC has every id, (n,) bool.

    The dictionary of the run may have more: `concepts_of_mentions`.
    """
    lists = read_name_lists(medic)
    known = {*lists.ids.to_pylist(), *lists.alternates.values.to_pylist()}
    test = RunFolder(run).splits("mentions")["test"]
    is_known = {
        str(mention_id): bool(cuis) and all(part and known.issuperset(part) for part in cuis)
        for mention_id, cuis in zip(test["mention_id"], test["cui"], strict=True)
    }
    return np.array([is_known[mention_id] for mention_id in mention_ids])


def new_strings(run: Path, mention_ids: list[str]) -> np.ndarray:
    """Which mentions are the first with their string, and have one that no other split has.

    Args:
        run: a finished run.
        mention_ids: the n mentions of its test split.

    Returns:
        (n,) bool.
    """
    splits = RunFolder(run).splits("mentions")
    test = splits.pop("test")
    texts = dict(zip(map(str, test["mention_id"]), test["mention"], strict=True))
    known = {text.lower() for split in splits.values() for text in split["mention"]}
    is_new = []
    for mention_id in mention_ids:
        text = texts[mention_id].lower()
        is_new.append(text not in known)
        known.add(text)
    return np.array(is_new)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipe", choices=FILES)
    parser.add_argument("medic", type=Path, help="folder of the corpora and MEDIC")
    parser.add_argument("--dev", action="store_true", help="measure dev, and leave test alone")
    parser.add_argument("--output_dir", type=Path, default=Path("runs"))
    options, further = parser.parse_known_args()
    name = f"{options.recipe}-dev" if options.dev else options.recipe
    dev_folder = options.output_dir / f"{name}-documents" if options.dev else None
    words = arguments(options.recipe, options.medic, dev_folder)
    command = [sys.executable, "-m", "umls_reranker", "run", *words, "--run_name", name]
    subprocess.run([*command, "--output_dir", str(options.output_dir), *further], check=True)
    for title, figure in figures(options.output_dir / name, options.medic / MEDIC).items():
        print(f"{title}: {figure:.4g}")


if __name__ == "__main__":
    main()
