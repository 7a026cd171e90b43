#!/usr/bin/env python
"""Make the models in the package.

    python benchmarks/built_in.py runs/built-in-fast
    python benchmarks/built_in.py runs/built-in --names_encoder runs/names/base/encoder_0.5 --seen runs/names/data/documents.json

Its lists are of at most 15 mentions of each MedMentions training document. The documents are split
in halves. The dictionary for one half has the names of open vocabularies, and the mentions of the
other half as further names. Lists are the ten candidates that its index finds with an encoder that
is not fine-tuned.

Two kinds of models are fitted on them, each with the mention's type and without:

* for lists without scores, with ids and of names alone: whether their order means anything is not
  known, so that they do not read it; for three in four mentions concepts are shown by preferred
  names, as many pipelines do, else by the nearest name, as `link` does;
* for lists with scores of any retriever or index, with ids and of names alone: they read it.

With an encoder of names, all weigh its cosines, too. Then documents that it has seen are counted,
and the models fitted on the others. Indexes and lists are kept in --work, and not made again: the
vectors of 200,000 names take most of the time. The model also knows the names of four open
vocabularies, as hashes.
"""  # noqa: E501

import argparse
import csv
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

# Their licenses let anyone publish what is made from their names.
VOCABULARIES = ("DOID", "MONDO", "NCI", "UBERON")
# Shown in lists. MEDMENTIONS is not: many of its names are mentions that lists are measured on.
SOURCES = (*VOCABULARIES, "ORDO", "NIF", "ONCOTREE")
CARD_ROW = "| candidate lists used for calibration | set by their publishers |\n"
SOURCES_OF_CARD = "| source | license |\n| --- | --- |\n"
LICENSES = """\
| mentions: 1,078 MedMentions documents, at most 15 mentions of each | CC0 1.0 |
| names of concepts, as one-way hashes without acronyms: Disease Ontology (DOID) | CC0 1.0 |
| the same: Mondo Disease Ontology (MONDO), Monarch Initiative | CC BY 4.0 |
| the same: NCI Thesaurus, diseases, National Cancer Institute | CC BY 4.0 |
| the same: Uber-anatomy ontology (UBERON) | CC BY 3.0 |
| other names in the lists: ONCOTREE, ORDO and NIF, and mention strings of the same MedMentions documents | CC BY 4.0, \
CC0 1.0; the model contains nothing of them |
| order of the candidates: all-MiniLM-L6-v2, not fine-tuned | Apache-2.0; the model contains nothing of it |
"""  # noqa: E501
# What the encoder of names learned from.
NAMES = """\
| synonyms that the encoder learned: NCI Thesaurus (diseases), ORDO, Cell Ontology, MONDO, ONCOTREE | CC BY 4.0 |
| the same: MedQuAD, names of NIH pages by CUI (Ben Abacha and Demner-Fushman 2019) | CC BY 4.0 |
| the same: MeSH disease descriptors of 2025, U.S. National Library of Medicine | free use with attribution |
| the same: DOID; UBERON; mentions of 554 MedMentions documents | CC0; CC BY 3.0; CC0 |
"""  # noqa: E501
MADE_BY = """
The hashes are changed from the vocabularies' names: normalized, joined with the CUI, hashed. The model itself (feature
weights, thresholds, hashed counts and, where there is one, the encoder) has the license of the package, Apache-2.0.
[benchmarks/built_in.py](../../benchmarks/built_in.py) made it.
"""  # noqa: E501
# After the card's table of licenses.
NOTE = "\nUsing the model with UMLS content"
# After the card's table of certificates.
DATA = "\n## Calibration data\n"
KINDS = """
"all" and "names" decide about lists without a score of a retriever, with ids and without: the order of such a list does
not count. "scores" decides about lists with one, `NAME_score`, such as those of `umls-reranker link`. It reads their order, not
the scores, so it serves any retriever. Figures above are of lists without scores; those of indexes are in
[benchmarks](../../benchmarks/peers/README.md#without-labels).
"""  # noqa: E501

SEED = 13
# So nothing is certified: a certificate would hold for these lists, not for those of any user.
UNREACHED = 0.99
CANDIDATES = 10
MENTIONS_PER_DOCUMENT = 15
# Share of the mentions whose concepts are shown by preferred names.
PREFERRED = 0.75
# As many are retrieved, and the first `CANDIDATES` are fitted on.
RETRIEVED = 20
# Types of concepts weigh nothing in these lists.
FEATURES = (
    "exact_name",
    "same_words",
    "mention_in_name",
    "name_in_mention",
    "qualifier_agreement",
    "mention_concept_prior",
    "concept_count",
    "type_lift",
    "concept_age",
)
OWN = ("own_similarity", "own_form")
# Models that read the order, in the order of choice, and inputs that they do not read.
ORDERED = {
    "scores": (),
    "scores, no type": ("entity_type",),
    "scores, names": ("cui",),
    "scores, names, no type": ("cui", "entity_type"),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="model folder to write")
    parser.add_argument("--names_encoder", type=Path, help="folder; default: no network")
    parser.add_argument("--seen", type=Path, help="documents that it has seen, by gather.py")
    parser.add_argument("--encoder", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=Path("runs/built-in-lists"))
    options = parser.parse_args()
    lists = options.work / "lists.jsonl"
    if not lists.exists():
        options.work.mkdir(parents=True, exist_ok=True)
        write_lists(options.data, options.encoder, options.work, lists)
    known = known_names(options.data)
    if options.seen:
        counts, lists = without_seen(lists, options.seen)
        known = known.plus(counts)
    fit_model(known, lists, options.names_encoder, options.model)


def without_seen(lists: Path, seen: Path):
    """Count the mentions of the documents in `seen`, and write the lists of the others."""
    from umls_reranker.calibration.string_counts import StringCounts

    documents = {*json.loads(seen.read_text(encoding="utf-8"))}
    counted = []
    others = lists.with_name("unseen_lists.jsonl")
    with lists.open(encoding="utf-8") as lines, others.open("w", encoding="utf-8") as out:
        for line in lines:
            row = json.loads(line)
            if row["doc_id"] in documents:
                counted.append((row["entity"], row["cui"][0][0], row["entity_type"]))
            else:
                out.write(line)
    return StringCounts.fit(counted), others


def fit_model(known, path: Path, encoder: Path | None, folder: Path) -> None:
    """Fit all models, and write their folder with figures and card."""
    from umls_reranker.calibration.arguments import CalibrationArguments
    from umls_reranker.calibration.cross_encoder_logits import CrossEncoderLogits
    from umls_reranker.calibration.features import CROSS_ENCODER
    from umls_reranker.hub.card_facts import PLACEHOLDER_FOLDER
    from umls_reranker.hub.new_model import Origin
    from umls_reranker.lists.labels import read_labelled_lists
    from umls_reranker.models.arguments import BUILT_IN
    from umls_reranker.models.cross_encoder import PairScorer
    from umls_reranker.models.model_files import MINILM, MINILM_REVISION
    from umls_reranker.models.pair_template import PairTemplate
    from umls_reranker.serving.calibrate_lists import calibrate_lists
    from umls_reranker.serving.calibrated import save_calibrated
    from umls_reranker.serving.calibration_summary import calibration_summary
    from umls_reranker.serving.model_source import ModelSource

    source = ModelSource(counts=known)
    if encoder:
        scorer = PairScorer.from_folder(encoder, PairTemplate(), "cpu", "float32")
        origin = Origin("{}", MINILM, MINILM_REVISION)
        source = replace(source, folder=encoder, cross_encoder=scorer, origin=origin)
    lists = read_labelled_lists(path, source.hierarchy)
    shown = read_labelled_lists(with_preferred_names(path), source.hierarchy)
    of_network = (CROSS_ENCODER,) if encoder else ()
    features = [*of_network, *FEATURES, *OWN]
    settings = CalibrationArguments(features, "beta", target_precision=UNREACHED)
    new = calibrate_lists(source, without_scores(shown), settings, SEED)
    models = [*new.calibration.models]
    logits = CrossEncoderLogits(source.cross_encoder, lists)
    for name, missing in ORDERED.items():
        features = (*of_network, *FEATURES, "scored_position")
        models.append(ordered_model(source, logits, lists, name, features, missing))
    # It decides about lists of any source, and certifies nothing.
    calibration = replace(
        new.calibration,
        models=models,
        source=replace(new.calibration.source, list_scores=None),
    )
    new = replace(new, calibration=calibration)
    save_calibrated(source, new, folder)
    card = folder / "README.md"
    sources = SOURCES_OF_CARD + LICENSES + (NAMES if encoder else "")
    text = card.read_text(encoding="utf-8").replace(CARD_ROW, "").replace(SOURCES_OF_CARD, sources)
    text = text.replace(NOTE, MADE_BY + NOTE)
    text = text.replace(PLACEHOLDER_FOLDER, BUILT_IN if encoder else "built-in-fast")
    card.write_text(text.replace(DATA, KINDS + DATA), encoding="utf-8")
    print(calibration_summary(new))


def with_preferred_names(path: Path) -> Path:
    """Write the lists with preferred names for most mentions, beside the lists."""
    rng = random.Random(SEED)
    mixed = path.with_name(f"preferred_{path.name}")
    with path.open(encoding="utf-8") as lines, mixed.open("w", encoding="utf-8") as out:
        for row in map(json.loads, lines):
            if rng.random() < PREFERRED:
                for candidate in row["candidates"]:
                    candidate["name"] = candidate["preferred_name"]
            out.write(f"{json.dumps(row)}\n")
    return mixed


def without_scores(lists):
    """The same lists as a pipeline without scores has them."""
    return replace(
        lists, scores={}, index_keys=[""] * len(lists), are_scored=np.zeros(len(lists), bool)
    )


def ordered_model(source, logits, lists, name: str, features: tuple, missing: tuple):
    """A model that reads the order of lists; its accuracy on held-out documents is printed."""
    from umls_reranker.calibration.arguments import CalibrationArguments
    from umls_reranker.calibration.features import inputs_of
    from umls_reranker.calibration.fitting import FitOptions, fit_calibration
    from umls_reranker.calibration.missing_inputs import without_inputs

    read = [one for one in features if {*missing}.isdisjoint(inputs_of([one]))]
    known = without_inputs(lists, missing)
    fitted = fit_calibration(
        known,
        logits,
        source.counts,
        CalibrationArguments(features=read, calibrator="beta"),
        SEED,
        options=FitOptions(may_certify=False, has_fallbacks=False),
    )
    accuracy = known.is_gold(fitted.decisions.tops.positions).mean()
    print(f"{name}: acc@1 {accuracy:.4f}, held out", flush=True)
    return replace(fitted.calibration.models[0], name=name, missing=missing)


def known_names(data: Path):
    """Counts of no mentions, with the names of the vocabularies."""
    from umls_reranker.calibration.string_counts import StringCounts
    from umls_reranker.vocab.concepts import iter_concepts
    from umls_reranker.vocab.release import release_files
    from umls_reranker.vocab.rrf import read_rrf_concepts

    rows, _ = read_rrf_concepts(release_files(data / "umls_open" / "META"), sources=VOCABULARIES)
    named = [(one.cui, name) for one in iter_concepts(rows) for name in (one.name, *one.synonyms)]
    return StringCounts.fit([]).with_names(*zip(*named, strict=True))


def write_lists(data: Path, encoder: str, work: Path, path: Path) -> None:
    """Write the lists of both halves, each from an index that knows the mentions of the other."""
    from umls_reranker.corpora.document_ids import read_pmids

    corpus = data / "medmentions_st21pv"
    documents = list(read_pmids(corpus / "corpus_pubtator_pmids_trng.txt"))
    by_document = training_mentions(corpus, documents)
    rng = np.random.default_rng(SEED)
    drawn = {one: drawn_mentions(mentions, rng) for one, mentions in by_document.items()}
    rows = []
    for half in range(2):
        names = work / f"names_{half}.csv"
        write_names(by_document, documents[half::2], names)
        index = work / f"index_{half}"
        if not index.exists():
            words = [data / "umls_open" / "META", names, index, "--sources", *SOURCES]
            words += ["--encoder", encoder]
            command = [sys.executable, "-m", "umls_reranker", "index", *map(str, words)]
            subprocess.run(command, check=True)
        others = documents[1 - half :: 2]
        rows += index_rows(index, [one for document in others for one in drawn[document]])
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def training_mentions(corpus: Path, documents: list[str]) -> dict[str, list]:
    """All mentions of each training document, in the order of the corpus."""
    from umls_reranker.corpora.formats import read_corpus

    wanted = set(documents)
    by_document: dict[str, list] = {}
    for mention in read_corpus([corpus / "corpus_pubtator.txt.gz"]):
        if mention.doc_id in wanted:
            by_document.setdefault(mention.doc_id, []).append(mention)
    return by_document


def write_names(by_document: dict[str, list], documents: list[str], path: Path) -> None:
    """Write the mentions of some documents as a table of names."""
    wanted = set(documents)
    mentions = [
        one for document in by_document if document in wanted for one in by_document[document]
    ]
    names = dict.fromkeys((one.cuis[0][0], one.text) for one in mentions)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("id", "name"))
        writer.writerows(names)


def drawn_mentions(mentions: list, rng: np.random.Generator) -> list:
    """At most `MENTIONS_PER_DOCUMENT` mentions of a document, drawn at random."""
    drawn = rng.permutation(len(mentions))[:MENTIONS_PER_DOCUMENT]
    return [mentions[number] for number in sorted(drawn)]


def index_rows(index: Path, mentions: list) -> Iterator[dict]:
    """Rows with the candidates that an index finds, best first, and their scores."""
    from umls_reranker.retrieval.retriever import load_retriever
    from umls_reranker.vocab.concept_table import ConceptTable

    concepts = ConceptTable.load(index / "concepts")
    retriever = load_retriever(index, "auto")
    found = retriever.search([one.text for one in mentions], RETRIEVED)
    scores = retriever.scores_of(found)
    for row, mention in enumerate(mentions):
        is_listed = found.rows[row, :CANDIDATES] >= 0
        columns = {
            "cui": concepts.cuis_of(found.rows[row, :CANDIDATES][is_listed]).to_pylist(),
            "preferred_name": concepts.column(
                "name", found.rows[row, :CANDIDATES][is_listed]
            ).to_pylist(),
            "name": retriever.name_array(found.name_ids[row, :CANDIDATES][is_listed]).to_pylist(),
        }
        for name, values in scores.items():
            columns[f"{name}_score"] = values[row, :CANDIDATES][is_listed].tolist()
        yield {
            "doc_id": mention.doc_id,
            "entity": mention.text,
            "entity_type": list(mention.semantic_types),
            "cui": [*map(list, mention.cuis)],
            "candidates": [
                dict(zip(columns, one, strict=True)) for one in zip(*columns.values(), strict=True)
            ],
            "index_key": retriever.index_key,
        }


if __name__ == "__main__":
    main()
