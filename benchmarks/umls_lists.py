#!/usr/bin/env python
"""Make the model in the package, and its lists: MedMentions training documents, open names.

    python benchmarks/umls_lists.py open_lists.jsonl runs/built-in
    python benchmarks/umls_lists.py index_lists.jsonl runs/built-in --indexes TEXT ENCODER

Candidates are the ten nearest preferred names by an encoder that is not fine-tuned, as a pipeline
without training and synonyms has them. Their scores and the texts of the mentions are left out. The
model also knows the names of four open vocabularies, as hashes.

The second command adds the models that decide about lists of an index. Its lists are the first ten
of twenty candidates of the same mentions: of every other document by an index without an encoder,
of the rest by one with it, both of the whole folder META (`umls-reranker index`).
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
python benchmarks/umls_lists.py index_lists.jsonl runs/built-in --indexes TEXT ENCODER
```"""  # noqa: E501

# Of the card's table of certificates.
LAST_ROW = "| names, no type | no        | –        | –         |\n"
INDEX_ROWS = """\
| index          | no        | –        | –         |
| index, no type | no        | –        | –         |

"index" decides about lists of an index of `umls-reranker index`: with `forms_score`, `lexical_score` and their `index_key`. It reads ranks by
these scores, not the scores, so it serves any dictionary. Its lists were of the same mentions, with all names of the open vocabularies and mention
strings of other documents. Figures above are of the other four models; those of indexes are in [benchmarks](../../benchmarks/peers/README.md#without-labels).
"""  # noqa: E501

SEED = 13
CANDIDATES = 10
MENTIONS_PER_DOCUMENT = 15
# Of lists of an index: as many are retrieved, and the first `CANDIDATES` are fitted on.
RETRIEVED = 20
# Without exact names and types of concepts, which weigh nothing in lists of an index.
INDEX_FEATURES = (
    "same_words",
    "mention_in_name",
    "name_in_mention",
    "qualifier_agreement",
    "mention_concept_prior",
    "concept_count",
    "type_lift",
    "list_position",
    "forms_rank",
    "lexical_rank",
    "concept_age",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path, help="file to write, JSON Lines")
    parser.add_argument("model", type=Path, help="model folder to write")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument(
        "--indexes", type=Path, nargs=2, help="index folders: add models of their lists to MODEL"
    )
    options = parser.parse_args()
    if options.indexes:
        write_index_lists(options.data, options.indexes, options.lists)
        add_index_models(options.data, options.lists, options.model)
        return
    with tempfile.TemporaryDirectory() as cache:
        write_lists(options.data, Path(cache), options.lists)
    fit_model(options.data, options.lists, options.model)


def fit_model(data: Path, lists: Path, folder: Path) -> None:
    """Calibrate lists alone, as ``umls-reranker calibrate --lists``, with vocabularies' names."""
    from umls_reranker.calibration.arguments import CalibrationArguments
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.serving.model_source import ModelSource
    from umls_reranker.serving.on_lists import calibrate_lists, calibration_summary, save_calibrated

    source = ModelSource()
    source = replace(source, counts=known_names(data))
    labelled = read_labelled_lists(lists, source.hierarchy)
    new = calibrate_lists(source, labelled, CalibrationArguments(), SEED)
    save_calibrated(source, new, folder)
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8").replace(CARD_ROW, LICENSES), encoding="utf-8")
    print(calibration_summary(new))


def known_names(data: Path):
    """Counts of no mentions, with the names of the vocabularies."""
    from umls_reranker.calibration.string_counts import StringCounts
    from umls_reranker.vocab.concepts import iter_concepts
    from umls_reranker.vocab.rrf import read_rrf_concepts, release_files

    rows, _ = read_rrf_concepts(release_files(data / "umls_open" / "META"), sources=VOCABULARIES)
    named = [(one.cui, name) for one in iter_concepts(rows) for name in (one.name, *one.synonyms)]
    return StringCounts.fit([]).with_names(*zip(*named, strict=True))


def add_index_models(data: Path, lists: Path, folder: Path) -> None:
    """Add two models of lists of an index, with the mention's type and without, to a model."""
    from umls_reranker.calibration.arguments import CalibrationArguments
    from umls_reranker.calibration.features import without_inputs
    from umls_reranker.calibration.fitting import CrossEncoderLogits, FitOptions, fit_calibration
    from umls_reranker.calibration.probabilities import COUNTS_FILE
    from umls_reranker.calibration.string_counts import StringCounts
    from umls_reranker.core.files import read_json
    from umls_reranker.hub.model_folder import CALIBRATOR, write_model_files
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.serving.model_source import ModelSource

    source = ModelSource.load(str(folder))
    labelled = read_labelled_lists(lists, source.hierarchy)
    names = known_names(data)
    options = FitOptions(may_certify=False, has_fallbacks=False)
    calibration = source.reranker.calibration
    calibration.training_counts = StringCounts.load(folder / COUNTS_FILE, is_training=True)
    models = [model for model in calibration.models if not model.reads_ranks]
    for name, missing in {"index": (), "index, no type": ("entity_type",)}.items():
        features = [one for one in INDEX_FEATURES if not missing or one != "type_lift"]
        settings = CalibrationArguments(features=features, calibrator="beta")
        known = without_inputs(labelled, missing)
        fitted = fit_calibration(
            known, CrossEncoderLogits(None, known), names, settings, SEED, options=options
        )
        models.append(replace(fitted.calibration.models[0], name=name, missing=missing))
        print(
            f"{name}: acc@1 {known.is_gold(fitted.decisions.tops.positions).mean():.4f}, held out"
        )
    calibration.models = models
    facts = read_json(folder / CALIBRATOR)["fitted_on"]
    write_model_files(folder, source.origin, None, None, calibration, facts)
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8")
    if INDEX_ROWS not in text:
        card.write_text(text.replace(LAST_ROW, LAST_ROW + INDEX_ROWS), encoding="utf-8")


def drawn_mentions(corpus: Path) -> list:
    """At most `MENTIONS_PER_DOCUMENT` mentions of each training document, drawn at random."""
    import numpy as np

    from umls_reranker.corpora.corpus import read_pmids
    from umls_reranker.corpora.formats import read_corpus

    wanted = set(read_pmids(corpus / "corpus_pubtator_pmids_trng.txt"))
    by_document: dict[str, list] = {}
    for mention in read_corpus([corpus / "corpus_pubtator.txt.gz"]):
        if mention.doc_id in wanted:
            by_document.setdefault(mention.doc_id, []).append(mention)
    rng = np.random.default_rng(SEED)
    return [
        listed[number]
        for listed in by_document.values()
        for number in sorted(rng.permutation(len(listed))[:MENTIONS_PER_DOCUMENT])
    ]


def write_index_lists(data: Path, indexes: list[Path], path: Path) -> None:
    """Write lists of the retrievers of two indexes, each for every other document."""
    from umls_reranker.retrieval.retriever import load_retriever
    from umls_reranker.vocab.concepts import ConceptTable

    mentions = drawn_mentions(data / "medmentions_st21pv")
    numbers = {one: number for number, one in enumerate(dict.fromkeys(m.doc_id for m in mentions))}
    with path.open("w", encoding="utf-8") as stream:
        for which, index in enumerate(indexes):
            concepts = ConceptTable.load(index / "concepts")
            retriever = load_retriever(index, "auto")
            some = [one for one in mentions if numbers[one.doc_id] % len(indexes) == which]
            found = retriever.search([one.text for one in some], RETRIEVED)
            scores = retriever.scores_of(found)
            for row, mention in enumerate(some):
                is_listed = found.rows[row, :CANDIDATES] >= 0
                listed = found.rows[row, :CANDIDATES][is_listed]
                ids = found.name_ids[row, :CANDIDATES][is_listed]
                columns = {
                    "cui": concepts.cuis_of(listed).to_pylist(),
                    "name": retriever.name_array(ids).to_pylist(),
                }
                for name, values in scores.items():
                    columns[f"{name}_score"] = values[row, :CANDIDATES][is_listed].tolist()
                items = [
                    dict(zip(columns, one, strict=True))
                    for one in zip(*columns.values(), strict=True)
                ]
                key = {"index_key": retriever.index_key}
                stream.write(json.dumps(labelled_row(mention, items) | key) + "\n")


def labelled_row(mention, candidates: list[dict]) -> dict:
    return {
        "doc_id": mention.doc_id,
        "entity": mention.text,
        "entity_type": list(mention.semantic_types),
        "cui": [*map(list, mention.cuis)],
        "candidates": candidates,
    }


def write_lists(data: Path, cache: Path, path: Path) -> None:
    """Write lists of MiniLM's nearest preferred names for some mentions of each document."""

    from umls_reranker.models.bi_encoder import BiEncoder
    from umls_reranker.retrieval.name_index import NameIndex, NameVectors
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
    mentions = drawn_mentions(data / "medmentions_st21pv")
    nearest = index.search(encoder.encode([mention.text for mention in mentions]), CANDIDATES)
    columns = (concepts.column(key, nearest.rows.ravel()).to_pylist() for key in ("cui", "name"))
    candidates = [{"cui": cui, "name": name} for cui, name in zip(*columns, strict=True)]
    with path.open("w", encoding="utf-8") as stream:
        for number, mention in enumerate(mentions):
            items = candidates[number * CANDIDATES : (number + 1) * CANDIDATES]
            stream.write(json.dumps(labelled_row(mention, items)) + "\n")


if __name__ == "__main__":
    main()
