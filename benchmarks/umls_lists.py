#!/usr/bin/env python
"""Make the model in the package, and its lists: MedMentions training documents, open names.

    python benchmarks/umls_lists.py open_lists.jsonl runs/built-in

Candidates are the ten nearest preferred names by an encoder that is not fine-tuned, as a pipeline
without training and synonyms has them. Their scores and the texts of the mentions are left out. The
model also knows the names of four open vocabularies, as hashes.
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

# Their licenses let anyone publish what is made from their names.
VOCABULARIES = ("DOID", "MONDO", "NCI", "UBERON")
CARD_ROW = "| candidate lists used for calibration | set by their publishers |"
LICENSES = """\
| mentions: 1,078 MedMentions documents, at most 15 mentions of each | CC0 1.0 |
| names of concepts, as one-way hashes without acronyms: Disease Ontology (DOID) | CC0 1.0 |
| the same: Mondo Disease Ontology (MONDO), Monarch Initiative | CC BY 4.0 |
| the same: NCI Thesaurus, diseases, National Cancer Institute | CC BY 4.0 |
| the same: Uber-anatomy ontology (UBERON) | CC BY 3.0 |
| other names in the lists: ONCOTREE, ORDO and NIF, and mention strings of other MedMentions documents | CC BY 4.0, \
CC0 1.0; the model contains nothing of them |
| order of the candidates: all-MiniLM-L6-v2, not fine-tuned | Apache-2.0; the model contains nothing of it |

The hashes are changed from the vocabularies' names: normalized, joined with the CUI, hashed. The model itself (feature
weights, thresholds and hashed counts) has the license of the package, Apache-2.0. It was built with

```bash
python benchmarks/umls_lists.py open_lists.jsonl runs/built-in
```"""  # noqa: E501

SEED = 13
CANDIDATES = 10
MENTIONS_PER_DOCUMENT = 15


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path, help="file to write, JSON Lines")
    parser.add_argument("model", type=Path, help="model folder to write")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        write_lists(options.data, Path(cache), options.lists)
    fit_model(options.data, options.lists, options.model)


def fit_model(data: Path, lists: Path, folder: Path) -> None:
    """Calibrate lists alone, as ``umls-reranker calibrate --lists``, with vocabularies' names."""
    from umls_reranker.calibration.arguments import CalibrationArguments
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.serving.calibrate import calibrate_lists, save_calibrated
    from umls_reranker.serving.calibration_summary import calibration_summary
    from umls_reranker.serving.model_source import ModelSource
    from umls_reranker.vocab.concepts import iter_concepts
    from umls_reranker.vocab.rrf import read_rrf_concepts, release_files

    rows, _ = read_rrf_concepts(release_files(data / "umls_open" / "META"), sources=VOCABULARIES)
    named = [(one.cui, name) for one in iter_concepts(rows) for name in (one.name, *one.synonyms)]
    source = ModelSource()
    source = replace(source, counts=source.counts.with_names(*zip(*named, strict=True)))
    labelled = read_labelled_lists(lists, source.hierarchy)
    new = calibrate_lists(source, labelled, CalibrationArguments(), SEED)
    save_calibrated(source, new, folder)
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(CARD_ROW, LICENSES), encoding="utf-8")
    print(calibration_summary(new))


def write_lists(data: Path, cache: Path, path: Path) -> None:
    """Write lists of MiniLM's nearest preferred names for some mentions of each document."""
    import numpy as np

    from umls_reranker.corpora.corpus import read_pmids
    from umls_reranker.corpora.formats import read_corpus
    from umls_reranker.models.bi_encoder import BiEncoder
    from umls_reranker.retrieval.name_index import NameIndex
    from umls_reranker.retrieval.name_vectors import NameVectors
    from umls_reranker.vocab.concepts import (
        ConceptTable,
        concept_table,
        iter_concepts,
        write_concepts,
    )
    from umls_reranker.vocab.rrf import read_rrf_concepts, release_files
    from umls_reranker.vocab.types import TypeHierarchy

    rows, _ = read_rrf_concepts(release_files(data / "umls_open" / "META"))
    preferred = concept_table(replace(one, synonyms=()) for one in iter_concepts(rows))
    write_concepts(preferred, TypeHierarchy.built_in(), cache / "concepts")
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
    columns = (concepts.column(key, nearest.rows.ravel()).to_pylist() for key in ("cui", "name"))
    candidates = [{"cui": cui, "name": name} for cui, name in zip(*columns, strict=True)]
    with path.open("w", encoding="utf-8") as stream:
        for number, mention in enumerate(mentions):
            row = {
                "doc_id": mention.doc_id,
                "entity": mention.text,
                "entity_type": list(mention.semantic_types),
                "cui": [*map(list, mention.cuis)],
                "candidates": candidates[number * CANDIDATES : (number + 1) * CANDIDATES],
            }
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
