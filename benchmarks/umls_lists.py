#!/usr/bin/env python
"""Lists of another pipeline: what calibration makes of them, next to what other systems answer.

    python benchmarks/umls_lists.py --models runs/quickstart/model runs/minilm-medmentions-cpu/model
    python benchmarks/umls_lists.py --curve
    python benchmarks/umls_lists.py --curve --medmentions --mentions_per_document 2

The first form compares systems on the mentions of `umls_lists`, as `umls-reranker calibrate --lists` does: SapBERT's
order and scores, the answers in the file, lists alone, and each of the models, cross-fitted by document. Documents
that are in `medmentions_st21pv` are apart: models may have seen them. They are decided by the calibrations of the
others. The second form shows what lists alone come to by the number of labelled documents, measured on the rest: the
median of several draws. With --medmentions the lists are made of training documents of `medmentions_st21pv` and names
of `umls_open`: ten candidates each, by an encoder that is not fine-tuned. Prints Markdown. The model that comes with
the package is made of such lists, without their scores and texts:

    python benchmarks/umls_lists.py --medmentions --mentions_per_document 15 --write open_lists.jsonl
    umls-reranker calibrate --lists open_lists.jsonl --output built_in
"""

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

SIZES = (25, 50, 100, 150, 300, 600)
# Minimum and maximum documents left to measure on.
FEWEST_LEFT, MOST_LEFT = 40, 300
RESAMPLES, SEED = 1000, 13
CANDIDATES = 10
COLUMNS = (
    "documents",
    "mentions",
    "acc@1",
    "gain (points)",
    "ECE of top candidates",
    "accepted",
    "high",
    "correct",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path, default=Path("../shared/data"))
    parser.add_argument("--models", nargs="*", default=[], help="folders or Hub ids of rerankers or cross-encoders")
    parser.add_argument("--curve", action="store_true", help="learning curve over labelled documents")
    parser.add_argument("--medmentions", action="store_true", help="learning curve on lists built from MedMentions")
    parser.add_argument(
        "--mentions_per_document", type=int, default=2, help="mentions per document of these lists (default: 2)"
    )
    parser.add_argument("--cache", type=Path, help="folder for the index (default: not kept)")
    parser.add_argument("--write", type=Path, help="only write these lists, with names and CUIs alone, to this file")
    parser.add_argument("--draws", type=int, default=20, help="draws of documents per size (default: 20)")
    options = parser.parse_args()
    from umls_reranker.calibration.inputs import without
    from umls_reranker.data.labelled_lists import read_labelled_lists
    from umls_reranker.data.semantic_types import TypeHierarchy

    with tempfile.TemporaryDirectory() as folder:
        if options.write:
            write_lists(
                options.data,
                options.mentions_per_document,
                options.cache or Path(folder),
                Path(folder) / "lists.jsonl",
            )
            write_bare_lists(Path(folder) / "lists.jsonl", options.write)
            return
        path = options.data / "umls_lists" / "sapbert_top10.jsonl"
        if options.medmentions:
            path = Path(folder) / "lists.jsonl"
            write_lists(options.data, options.mentions_per_document, options.cache or Path(folder), path)
        labelled = read_labelled_lists(path, TypeHierarchy.built_in())
        if options.curve:
            learning_curve(labelled, options.draws)
            return
        rows = [json.loads(line) for line in path.open(encoding="utf-8")]
        for removed in ((), ("entity_type",)):
            print(f"\n## {'Without' if removed else 'With'} types of the mentions")
            lists = replace(labelled, lists=without(labelled.lists, removed))
            compare(lists, rows, medmentions_documents(options.data), options.models)


def medmentions_documents(data: Path) -> set[str]:
    """The documents that models of `medmentions_st21pv` may have seen."""
    from umls_reranker.data.corpus import read_pmids

    folder = data / "medmentions_st21pv"
    return {pmid for name in ("trng", "dev") for pmid in read_pmids(folder / f"corpus_pubtator_pmids_{name}.txt")}


def compare(labelled, rows: list, known_documents: set[str], models: list[str]) -> None:
    """Print the table of the mentions of other documents, a verdict for each system, and the table of the rest."""
    import numpy as np

    from umls_reranker.core.settings import CalibrationArguments
    from umls_reranker.evaluation.linking import Documents
    from umls_reranker.evaluation.outcomes import Outcomes
    from umls_reranker.evaluation.render import as_markdown, systems_table
    from umls_reranker.evaluation.systems import System, compare_systems, verdict
    from umls_reranker.serving.cross_fits import systems_of_lists
    from umls_reranker.serving.recalibration import recalibrate
    from umls_reranker.serving.source_model import SourceModel

    settings = CalibrationArguments()
    documents = labelled.lists.annotations.documents
    is_known = np.isin(documents.astype(str), list(known_documents))
    unseen, known = labelled_subset(labelled, ~is_known), labelled_subset(labelled, is_known)
    systems = systems_of_lists(unseen.lists, None, settings, SEED)
    known_rows = [row for row, is_seen in zip(rows, is_known, strict=True) if is_seen]
    systems_of_known = {"lists_order": System(known.lists.annotations.gold)}
    for name in rows[0]["answers"]:
        is_correct = np.array([row["answers"][name] == row["cui"] for row in rows])
        is_answered = np.array([row["answers"][name] is not None for row in rows])
        answers = System(np.where(is_correct, 0, -1), accepted=is_answered, is_ranking=False)
        systems[name], systems_of_known[name] = answers.take(~is_known), answers.take(is_known)
    notes = []
    for name in (None, *models):
        source = SourceModel.load(name)
        new = recalibrate(source, unseen, settings, SEED)
        title = "lists alone" if name is None else f"lists and {model_name(name)}"
        systems[title] = System.of(Outcomes.of(new.lists, new.after))
        systems_of_known[title], milliseconds = served(source, new, known_rows)
        kept = "" if name is None else f", the cross-encoder {'stays' if new.uses_network else 'is left out'}"
        notes.append(f"{title}: {milliseconds:.1f} ms per mention{kept}")
    print(f"\n{len(unseen.lists)} mentions of {len(set(documents[~is_known]))} documents that no model has seen:\n")
    of_unseen = Documents.of(unseen.lists.annotations.documents, RESAMPLES, SEED)
    figures = compare_systems(systems, of_unseen)
    print(as_markdown(systems_table(figures)), "\n")
    for name in [*systems][1:]:
        print(f"- {name}: {verdict(figures[f'systems/{name}/gain'], len(unseen.lists), of_unseen.count)}")
    print("", *(f"- {note}" for note in notes), sep="\n")
    print(f"\n{len(known.lists)} mentions of documents that are in `medmentions_st21pv`:\n")
    of_known = Documents.of(known.lists.annotations.documents, RESAMPLES, SEED)
    print(as_markdown(systems_table(compare_systems(systems_of_known, of_known))), flush=True)


def labelled_subset(labelled, rows):
    """Some of the labelled lists, (n,) bool."""
    lists = labelled.lists.take(rows)
    kept = [position for position, is_kept in zip(labelled.positions, rows, strict=True) if is_kept]
    not_in_list = int((lists.annotations.gold < 0).sum())
    return replace(labelled, lists=lists, positions=kept, not_in_list=not_in_list)


def model_name(folder: str) -> str:
    """A model in a run is called as the run."""
    path = Path(folder)
    return path.parent.name if path.name == "model" else path.name


def served(source, new, rows: list):
    """What the saved model answers, as a `System`, and milliseconds a mention, one request each."""
    import numpy as np

    from umls_reranker.evaluation.systems import System
    from umls_reranker.serving.recalibration import save_recalibrated
    from umls_reranker.serving.reranker import UMLSReranker

    has_types = new.lists.types.is_known.any()
    with tempfile.TemporaryDirectory() as folder:
        save_recalibrated(source, new, Path(folder) / "model")
        reranker = UMLSReranker.from_pretrained(Path(folder) / "model")
        began = perf_counter()
        best = [
            reranker.rerank(
                row["entity"], row["candidates"], row["entity_type"] if has_types else None, row["left"], row["right"]
            )[0]
            for row in rows
        ]
        milliseconds = 1000 * (perf_counter() - began) / len(rows)
    ranks = np.array([0 if top.cui == row["cui"] else -1 for top, row in zip(best, rows, strict=True)])
    score, accepted = np.array([top.score for top in best]), np.array([top.accepted for top in best])
    return System(ranks, score, accepted=accepted), milliseconds


def learning_curve(labelled, draws: int) -> None:
    """Print what lists alone come to by the number of labelled documents, measured on other documents."""
    import numpy as np

    from umls_reranker.core.settings import CalibrationArguments
    from umls_reranker.data.labelled_lists import best_of_each_concept
    from umls_reranker.evaluation.linking import Documents
    from umls_reranker.evaluation.outcomes import Outcomes
    from umls_reranker.evaluation.render import markdown_table
    from umls_reranker.evaluation.systems import System, compare_systems
    from umls_reranker.serving.cross_fits import CrossFits
    from umls_reranker.serving.recalibration import usable_features
    from umls_reranker.serving.source_model import SourceModel

    lists = labelled.lists.with_candidates(best_of_each_concept(labelled.lists))
    no_logits = np.full(len(lists.owner), np.nan, np.float32)
    source = SourceModel.load(None)
    fits = CrossFits.of(source, lists, lambda unseen, wanted: no_logits, CalibrationArguments(), SEED)
    names = usable_features(lists, has_network=False)
    all_documents = lists.annotations.documents.astype(str)
    distinct = np.unique(all_documents)
    table = []
    for size in (size for size in SIZES if len(distinct) - size >= FEWEST_LEFT):
        figures = []
        for draw in range(draws):
            order = np.random.default_rng([SEED, draw]).permutation(distinct)
            inside, rest = np.isin(all_documents, order[:size]), np.isin(all_documents, order[size:][:MOST_LEFT])
            calibration, _ = fits.fit(inside, names, has_fallbacks=False, has_outlook=False)
            outcomes = Outcomes.of(lists.take(rest), fits.decide(calibration, rest))
            systems = {"lists_order": System(lists.take(rest).annotations.gold), "new": System.of(outcomes)}
            compared = compare_systems(systems, Documents.of(outcomes.document, 2, SEED))
            is_high = (outcomes.tier == "high") & calibration.thresholds.is_certified
            precision = outcomes.correct[is_high].mean() if is_high.any() else np.nan
            values = [
                compared[f"systems/new/{name}"]["value"] for name in ("acc@1", "gain", "top1_ece", "accepted_share")
            ]
            figures.append([inside.sum(), *values, is_high.mean(), precision])
        mentions, accuracy, gain, ece, accepted, high, _ = np.median(figures, axis=0)
        precisions = np.array(figures)[:, -1]
        correct = f"{np.nanmedian(precisions):.3f}" if np.isfinite(precisions).any() else ""
        shares = [f"{accuracy:.3f}", f"{100 * gain:+.1f}", f"{ece:.3f}", f"{accepted:.3f}", f"{high:.3f}", correct]
        table.append([f"{size}", f"{mentions:.0f}", *shares])
    print(f"{len(lists)} mentions of {len(distinct)} documents, {draws} draws:\n")
    print(markdown_table(COLUMNS, table))


def write_lists(data: Path, mentions_per_document: int, cache: Path, path: Path) -> None:
    """Write lists of training documents as a pipeline without training has them: MiniLM's nearest names."""
    import numpy as np

    from umls_reranker.data.concepts import ConceptTable, write_concepts
    from umls_reranker.data.corpus import read_pmids
    from umls_reranker.data.corpus_formats import read_corpus
    from umls_reranker.data.release import release_files
    from umls_reranker.data.rrf import read_rrf_concepts
    from umls_reranker.data.semantic_types import TypeHierarchy
    from umls_reranker.models.bi_encoder import BiEncoder
    from umls_reranker.retrieval.index_folder import NameVectors
    from umls_reranker.retrieval.name_index import NameIndex

    if not (cache / "concepts").exists():
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
        for number in sorted(rng.permutation(len(listed))[:mentions_per_document])
    ]
    nearest = index.search(encoder.encode([mention.text for mention in mentions]), CANDIDATES)
    cuis, names = (
        iter(column)
        for column in (concepts.cuis_of(nearest.rows.ravel()).to_pylist(), index.names(nearest.name_ids.ravel()))
    )
    with path.open("w", encoding="utf-8") as stream:
        for mention, scores in zip(mentions, nearest.scores.tolist(), strict=True):
            candidates = [{"cui": next(cuis), "name": next(names), "minilm_score": score} for score in scores]
            row = {
                "doc_id": mention.doc_id,
                "entity": mention.text,
                "left": mention.left,
                "right": mention.right,
                "entity_type": list(mention.semantic_types),
                "cui": mention.cui,
                "candidates": candidates,
            }
            stream.write(json.dumps(row) + "\n")


def write_bare_lists(path: Path, target: Path) -> None:
    """Write lists without their texts and scores."""
    with path.open(encoding="utf-8") as rows, target.open("w", encoding="utf-8") as stream:
        for row in map(json.loads, rows):
            candidates = [{name: candidate[name] for name in ("cui", "name")} for candidate in row["candidates"]]
            bare = {name: row[name] for name in ("doc_id", "entity", "entity_type", "cui")}
            stream.write(json.dumps(bare | {"candidates": candidates}) + "\n")


if __name__ == "__main__":
    main()
