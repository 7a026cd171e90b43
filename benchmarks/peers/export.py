#!/usr/bin/env python
"""Write once what all systems read: the dictionary, and a run's mentions with their text, by split.

    python benchmarks/peers/export.py runs/minilm-medmentions-cpu runs/peers \
        --umls_dir ../shared/data/umls_open/META --corpus
        ../shared/data/medmentions_st21pv/corpus_pubtator.txt.gz

Reads concepts/ and mentions/ of a run, which `umls-reranker prepare_data` writes, and the folder
and corpus of its recipe. Writes JSON Lines: concepts, mentions by split, documents, and if the run
has them the pairs that its cross-encoder is trained on; `peer.py` says what is in a row. Names may
be licensed: keep the folder out of git.
"""

import argparse
import shutil
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="run folder")
    parser.add_argument("export", type=Path, help="folder to write")
    parser.add_argument(
        "--umls_dir",
        type=Path,
        help="folder with MRCONSO.RRF and MRSTY.RRF, which some systems read",
    )
    parser.add_argument("--corpus", type=Path, nargs="+", required=True, help="of the mentions")
    arguments = parser.parse_args()
    export(arguments.run, arguments.export, arguments.umls_dir, arguments.corpus)


def export(run: Path, folder: Path, umls_dir: Path | None, corpus: list[Path]) -> None:
    """Write the folder that `peer.Export` reads."""
    from peer import Concept, write_rows

    from umls_reranker.corpora.faults import Faults
    from umls_reranker.corpora.formats import reader_of
    from umls_reranker.lists.gold import trainable
    from umls_reranker.pipeline.run_folder import RunFolder
    from umls_reranker.vocab.concept_table import ConceptTable

    # What systems built, such as indexes and networks, was made of the former export.
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    concepts = ConceptTable.load(run / "concepts")
    splits = RunFolder(run).splits("mentions")
    cuis = concepts.cuis_of(range(len(concepts))).to_pylist()
    rows = (
        (cui, concepts.names(row), concepts.semantic_types(row)) for row, cui in enumerate(cuis)
    )
    dictionary = (Concept(cui, names[0], names, types) for cui, names, types in rows)
    write_rows(folder / "concepts.jsonl", (concept._asdict() for concept in dictionary))
    split_of = {
        doc_id: split for split, mentions in splits.items() for doc_id in mentions.unique("doc_id")
    }
    documents = (
        document for path in corpus for document in reader_of(corpus).documents(path, Faults())
    )
    texts = {
        document.doc_id: document.text for document in documents if document.doc_id in split_of
    }
    columns = (
        {"doc_id": doc_id, "split": split_of[doc_id], "text": text}
        for doc_id, text in texts.items()
    )
    write_rows(folder / "documents.jsonl", columns)
    known = {*cuis}
    for split, mentions in splits.items():
        # Mentions with several gold concepts or none are errors of all systems.
        located = (
            row
            | {
                "text": texts[row["doc_id"]][row["start"] : row["end"]],
                "cui": cui,
                "in_dictionary": cui in known,
            }
            for row, cui in zip(mentions, trainable(mentions["cui"][:]), strict=True)
        )
        write_rows(folder / f"{split}.jsonl", located)
    if (run / "pairs").is_dir():
        lists = enumerate(RunFolder(run).splits("pairs")["train"])
        pairs = (
            {"mention_id": number, "mention": row["entity"], "name": name, "label": label}
            for number, row in lists
            for name, label in zip(row["names"], row["labels"], strict=True)
        )
        write_rows(folder / "pairs.jsonl", pairs)
    link = folder / "META"
    link.unlink(missing_ok=True)
    if umls_dir is not None:
        link.symlink_to(umls_dir.resolve())


if __name__ == "__main__":
    main()
