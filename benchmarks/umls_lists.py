#!/usr/bin/env python
"""Write the lists that the model in the package is made of: training documents of MedMentions, and open names.

    python benchmarks/umls_lists.py open_lists.jsonl
    umls-reranker calibrate --lists open_lists.jsonl --output built_in

Candidates are ten, by an encoder that is not fine-tuned, as a pipeline without training has them. Their scores and the
texts of the mentions are left out.
"""

import argparse
import json
import tempfile
from pathlib import Path

SEED, CANDIDATES, MENTIONS_PER_DOCUMENT = 13, 10, 15


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="file to write, JSON Lines")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        write_lists(options.data, Path(cache), options.output)


def write_lists(data: Path, cache: Path, path: Path) -> None:
    """Write lists of MiniLM's nearest names for some mentions of each training document."""
    import numpy as np

    from umls_reranker.corpora.corpus import read_pmids
    from umls_reranker.corpora.formats import read_corpus
    from umls_reranker.models.bi_encoder import BiEncoder
    from umls_reranker.retrieval.index_folder import NameVectors
    from umls_reranker.retrieval.name_index import NameIndex
    from umls_reranker.vocab.concepts import ConceptTable, write_concepts
    from umls_reranker.vocab.rrf import read_rrf_concepts, release_files
    from umls_reranker.vocab.types import TypeHierarchy

    rows, _ = read_rrf_concepts(release_files(data / "umls_open" / "META"))
    write_concepts(rows, TypeHierarchy.built_in(), cache / "concepts")
    concepts = ConceptTable.load(cache / "concepts")
    encoder = BiEncoder.from_pretrained("sentence-transformers/all-MiniLM-L6-v2", max_length=32)
    vectors = NameVectors.prepare(concepts, encoder, cache / "vectors")
    vectors.encode_share(encoder, 0, 1)
    (cache / "index").mkdir(exist_ok=True)
    index = NameIndex.build(vectors, cache / "index")
    corpus = data / "medmentions_st21pv"
    wanted = set(read_pmids(corpus / "corpus_pubtator_pmids_trng.txt"))
    by_document: dict[str, list] = {}
    for mention in read_corpus([corpus / "corpus_pubtator.txt.gz"]):
        if mention.doc_id in wanted:
            by_document.setdefault(mention.doc_id, []).append(mention)
    rng = np.random.default_rng(SEED)
    mentions = [
        listed[number]
        for listed in by_document.values()
        for number in sorted(rng.permutation(len(listed))[:MENTIONS_PER_DOCUMENT])
    ]
    nearest = index.search(encoder.encode([mention.text for mention in mentions]), CANDIDATES)
    cuis, names = (
        iter(column)
        for column in (concepts.cuis_of(nearest.rows.ravel()).to_pylist(), index.names(nearest.name_ids.ravel()))
    )
    with path.open("w", encoding="utf-8") as stream:
        for mention in mentions:
            row = {
                "doc_id": mention.doc_id,
                "entity": mention.text,
                "entity_type": list(mention.semantic_types),
                "cui": [*map(list, mention.cuis)],
                "candidates": [{"cui": next(cuis), "name": next(names)} for _ in range(CANDIDATES)],
            }
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
