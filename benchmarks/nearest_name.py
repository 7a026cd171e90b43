#!/usr/bin/env python
"""How often the nearest name by trigrams is of the right concept, for strings that training lacks.

    umls-reranker index medic_06Jul2012.txt.gz medic --add_names medic_open_names.tsv.gz
    python benchmarks/nearest_name.py medic NCBItrainset_corpus.txt.gz NCBIdevelopset_corpus.txt.gz
    python benchmarks/nearest_name.py medic TRAIN DEV --types Disease

Nothing is trained. Strings are compared in lower case, and each mention counts.
"""

import argparse
from pathlib import Path

import numpy as np

from umls_reranker.corpora.concept_ids import map_ids
from umls_reranker.corpora.formats import read_corpus
from umls_reranker.retrieval.lexical_index import LexicalIndex
from umls_reranker.vocab.concept_table import ConceptTable


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("index", type=Path, help="folder that umls-reranker index wrote")
    parser.add_argument("train", type=Path, help="annotated text, whose strings do not count")
    parser.add_argument("dev", type=Path, help="annotated text")
    parser.add_argument("--types", nargs="*", default=[], help="types of annotations; default: all")
    options = parser.parse_args()
    concepts = ConceptTable.load(options.index / "concepts")
    index = LexicalIndex.load(options.index / "lexical")
    known = {
        mention.text.lower() for mention in read_corpus([options.train], {}, types=options.types)
    }
    mentions = [
        ("dev", mention)
        for mention in read_corpus([options.dev], {}, types=options.types)
        if mention.text.lower() not in known
    ]
    mentions = [mention for _, mention in map_ids(mentions, concepts)]
    nearest = index.search(index.weigh([mention.text for mention in mentions]), 1).rows[:, 0]
    answers = concepts.column("cui", nearest).to_pylist()
    is_correct = [
        any(answer in part for part in mention.cuis)
        for answer, mention in zip(answers, mentions, strict=True)
    ]
    print(f"{len(mentions):,} mentions: acc@1 {np.mean(is_correct):.3f}")


if __name__ == "__main__":
    main()
