#!/usr/bin/env python
"""How a cross-encoder gets better with the pairs it has seen: each kept checkpoint of a run, on its dev split.

    umls-reranker run RECIPE --eval_steps 625 --save_total_limit 100
    python benchmarks/learning_curve.py RECIPE --keep FOLDER

Reads the run's checkpoints, candidate lists and mentions. For each checkpoint, among dev mentions with their concept
in the dictionary: acc@1 of the cross-encoder alone, for all of them and for those with a string or a concept that
training lacked, and of all features of the recipe. The last row averages the logits of all checkpoints. The weights of
the features are fitted on dev as well, each fold of documents by those of the others, so that the calibration split
need not be scored for every checkpoint. Logits are kept in `--keep`. Prints Markdown.
"""

import argparse
import platform
from datetime import date
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output_dir", default=None, help="folder of the runs (default: the recipe's)")
    parser.add_argument("--keep", type=Path, required=True, help="folder for the logits of each checkpoint")
    parser.add_argument("--most", type=int, default=None, help="number of dev mentions to score (default: all)")
    arguments = parser.parse_args()

    import numpy as np

    from umls_reranker.calibration.string_counts import StringCounts
    from umls_reranker.core.files import read_json
    from umls_reranker.core.recipe import load_recipe
    from umls_reranker.core.stages import RunFolder
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.models.cross_encoder import PairScorer, score_lists
    from umls_reranker.models.pairs import PairTemplate

    recipe = load_recipe(arguments.recipe)
    run = Path(arguments.output_dir or recipe.run.output_dir) / recipe.run.run_name
    concepts, mentions = ConceptTable.load(run / "concepts"), RunFolder(run).splits("mentions")
    pairs = len(RunFolder(run).splits("pairs")["train"])
    template = PairTemplate.from_recipe(recipe.model)
    candidates = RunFolder(run).splits("candidates")
    lists = drawn_lists("dev", arguments.most, recipe, candidates, mentions, concepts)
    counts = StringCounts.of_split(mentions["train"])
    features = recipe.calibration.features or ["cross_encoder"]
    without = accuracy(lists, np.zeros(len(lists.names), np.float32), counts, features, recipe.run.seed, drop=True)
    seen = mentions["train"]["mention"], mentions["train"]["cui"]
    columns = zip((lists.mentions, lists.annotations.cuis), seen, strict=True)
    new = [~np.isin(np.array(texts, str), np.array(known, str)) for texts, known in columns]

    def alone(first) -> str:
        return " | ".join(f"{in_dictionary(lists, first, among):.3f}" for among in (True, *new))

    def show(title, logits) -> None:
        fused = accuracy(lists, logits, counts, features, recipe.run.seed)
        print(
            f"| {title} | {alone(first_places(logits, lists))} | {fused:.3f} | {100 * (fused - without):+.1f} |",
            flush=True,
        )

    print("| pairs seen | step | alone | unseen strings | unseen concepts | all features | gain |")
    print(f"|{'---|' * 7}\n| retriever | | {alone(lists.offsets[:-1])} | | |")
    print(f"| all except the cross-encoder | | | | | {without:.3f} | |")
    arguments.keep.mkdir(parents=True, exist_ok=True)
    states = {path.parent: read_json(path) for path in (run / "checkpoints").glob("checkpoint-*/trainer_state.json")}
    found = []
    for checkpoint, state in sorted(states.items(), key=lambda item: item[1]["global_step"]):
        kept = arguments.keep / f"{checkpoint.name}.npy"
        if not kept.exists():
            scorer = PairScorer.from_folder(checkpoint, template, recipe.run.device)
            np.save(kept, score_lists(scorer, lists, checkpoint.name).logits)
        found.append(np.load(kept))
        show(f"{round(state['epoch'] * pairs):,} | {state['global_step']:,}", found[-1])
    if found:
        show("mean logits |", np.mean(found, axis=0))
    print(f"\n{platform.processor() or platform.machine()}, {date.today()}; {len(lists):,} dev mentions.")


def drawn_lists(split, most, recipe, candidates, mentions, concepts):
    """Candidate lists of a split of a run, or of `most` of its mentions, drawn by the recipe's seed."""
    import numpy as np

    from umls_reranker.data.candidate_lists import CandidateLists

    parts = [candidates[split], mentions[split]]
    if most:
        drawn = np.sort(np.random.default_rng(recipe.run.seed).permutation(len(parts[0]))[:most])
        parts = [part.select(drawn) for part in parts]
    return CandidateLists.from_run(*parts, concepts, recipe.model.candidate_fields)


def first_places(log_odds, lists):
    from umls_reranker.core.arrays import best_candidates

    return best_candidates(log_odds, lists.offsets)


def in_dictionary(lists, first, among=True) -> float:
    """acc@1 among mentions with their concept in the dictionary, (n,) bool `among` all."""
    return float(lists.is_gold(first)[lists.annotations.in_dictionary & among].mean())


def accuracy(lists, logits, counts, features, seed, drop=False) -> float:
    """acc@1 of a fusion of features, every mention by weights that were fitted on other documents."""
    import numpy as np

    from umls_reranker.calibration.cross_validation import document_folds
    from umls_reranker.calibration.fitting import fit_fusion

    names = [name for name in features if not (drop and name == "cross_encoder")]
    fold = document_folds(lists.annotations.documents, seed)
    log_odds = np.empty(len(logits))
    for number in range(fold.max() + 1):
        inside = fold == number
        rows, part = inside[lists.owner], lists.take(inside)
        rest = lists.take(~inside)
        fitted = fit_fusion(names, rest, logits[~rows], rest.annotations.gold, counts)
        log_odds[rows] = fitted.plan(part).scores(logits[rows]).log_odds
    return in_dictionary(lists, first_places(log_odds, lists))


if __name__ == "__main__":
    main()
