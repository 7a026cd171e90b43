#!/usr/bin/env python
"""What fewer training documents cost in counts and nearest training mentions: more of them could calibrate instead.

    umls-reranker build_index RECIPE
    python benchmarks/training_documents.py RECIPE --documents 135 270 539 1078

Reads the run's encoder, indexes and mentions. The documents are those of the run's training split, then those that
`train_calibration_share` moved to calibration; the encoder is that of the run. For each number of documents, dev
mentions are searched with the nearest mentions of these documents alone, and decided by all features but the
cross-encoder, whose weights are fitted on dev, each fold of documents by those of the others. "Counts of all" are of
the mentions of all documents, as where calibration mentions are counted too. Prints Markdown.
"""

import argparse
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output_dir", default=None, help="folder of the runs (default: the recipe's)")
    parser.add_argument("--documents", type=int, nargs="+", required=True, help="numbers of training documents")
    arguments = parser.parse_args()

    import numpy as np
    from datasets import Dataset, concatenate_datasets

    from umls_reranker.calibration.string_counts import StringCounts
    from umls_reranker.core.recipe import load_recipe
    from umls_reranker.core.stages import RunFolder
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.data.corpus import read_pmids
    from umls_reranker.retrieval.candidates import write_candidates
    from umls_reranker.retrieval.mention_index import MentionIndex
    from umls_reranker.retrieval.retriever import Retriever, load_retriever
    from umls_reranker.retrieval.retrievers import NearestMentions

    recipe = load_recipe(arguments.recipe)
    recipe.run.output_dir = arguments.output_dir or recipe.run.output_dir
    run = recipe.run.run_dir
    concepts, mentions = ConceptTable.load(run / "concepts"), RunFolder(run).splits("mentions")
    retriever = load_retriever(recipe.run, recipe.encoder, recipe.index)
    others = [method for method in retriever.methods if method.name != NearestMentions.name]
    moved = np.isin(mentions["calibration"]["doc_id"][:], [*read_pmids(Path(recipe.mentions.train_documents))])
    pool = concatenate_datasets([mentions["train"], mentions["calibration"].select(np.flatnonzero(moved))])
    ids = np.array(pool["doc_id"][:])
    order = [*dict.fromkeys(ids.tolist())]

    counts_of_all = StringCounts.of_split(pool)
    header = ["documents", "mentions", "recall@32", "counts of", "acc@1", "unseen strings", "list log loss", "at 0.95"]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    for number in arguments.documents:
        rows = pool.select(np.flatnonzero(np.isin(ids, order[:number])))
        with tempfile.TemporaryDirectory() as folder:
            table = rows.select_columns(["mention", "left", "right", "cui"]).with_format("arrow")[:]
            nearest = NearestMentions(MentionIndex.build(table, concepts, retriever.encoder, Path(folder)))
            retriever = Retriever([*others, nearest], retriever.encoder)
            path = Path(folder) / "dev.arrow"
            depth = recipe.index.candidates_per_mention
            report = write_candidates(mentions["dev"], retriever, concepts, depth, path)
            lists = CandidateLists.from_run(Dataset.from_file(str(path)), mentions["dev"], concepts, [])
        new = ~np.isin(np.array(lists.mentions, str), np.array(rows["mention"][:], str))
        for name, counts in (("these", StringCounts.of_split(rows)), ("all", counts_of_all)):
            figures = measured(lists, counts, recipe, new)
            recall = report["retrieved"] / report["in_dictionary"]
            cells = [f"{len(order[:number]):,}", f"{len(rows):,}", f"{recall:.3f}", name]
            print(f"| {' | '.join(cells + [f'{figure:.3f}' for figure in figures])} |", flush=True)


def measured(lists, counts, recipe, new) -> list[float]:
    """acc@1 in the dictionary, of strings that these documents lack, mean loss, and coverage at 0.95 in hindsight."""
    import numpy as np

    from umls_reranker.calibration.cross_validation import document_folds
    from umls_reranker.calibration.fitting import fit_fusion
    from umls_reranker.calibration.logistic import log_sums
    from umls_reranker.core.arrays import best_candidates
    from umls_reranker.evaluation.linking import coverage_at_precision

    names = [name for name in recipe.calibration.features if name != "cross_encoder"]
    fold = document_folds(lists.annotations.documents, recipe.run.seed)
    utility, probability = np.empty(len(lists.names)), np.empty(len(lists.names))
    for number in range(fold.max() + 1):
        inside = fold == number
        rest, part = lists.take(~inside), lists.take(inside)
        nothing = np.zeros(len(rest.names), np.float32), np.zeros(len(part.names), np.float32)
        fitted = fit_fusion(names, rest, nothing[0], rest.annotations.gold, counts)
        scores = fitted.plan(part).scores(nothing[1])
        utility[inside[lists.owner]], probability[inside[lists.owner]] = scores
    top = best_candidates(utility, lists.offsets)
    correct, known = lists.is_gold(top), lists.annotations.in_dictionary
    loss = (log_sums(utility, lists.offsets).sum() - lists.labels @ utility) / len(lists)
    covered = coverage_at_precision(np.where(top >= 0, probability[top], np.nan), correct, 0.95)
    return [correct[known].mean(), correct[known & new].mean(), loss, covered["value"]]


if __name__ == "__main__":
    main()
