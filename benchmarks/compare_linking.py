#!/usr/bin/env python
"""Compare linking on the same candidate lists: ours, its parts, and sentence-transformers' CrossEncoder.

    python benchmarks/compare_linking.py recipes/minilm-medmentions-cpu/config.yaml --split dev

Reads a finished run. sentence-transformers' CrossEncoder is trained here on the pairs of the run, with the text around
the mention where the run shows it, from the same start, with the same batch size, rate, warm-up, precision and number
of steps: by its BinaryCrossEntropyLoss with positives weighed by the number of negatives, as its documentation has it,
and by its LambdaLoss, which its documentation calls the best for lists. All else is left at its defaults. All models
are scored by the same engine, which gives the logits of `CrossEncoder.predict` (tests/hub/test_interop.py) in a
fraction of its time. Every fusion is fitted on the calibration split; what is measured is `--split`: dev by default,
on which choices are made. Prints Markdown.
"""

import argparse
import os
import platform
from datetime import date
from pathlib import Path

from learning_curve import drawn_lists

LOSSES = ("bce", "lambda")
GROUPS = ("seen string", "unseen string", "unseen concept")
# Of biomedical text in BERT's word pieces, roughly; the tokenizer cuts what is too long.
CHARACTERS_A_TOKEN = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output_dir", default=None, help="folder that holds the runs (default: the recipe's)")
    parser.add_argument("--split", default="dev", choices=["dev", "test"])
    parser.add_argument("--most", type=int, default=None, help="use so many mentions of each split (default: all)")
    parser.add_argument(
        "--pairs", type=int, default=None, help="train sentence-transformers on so many (default: all)"
    )
    parser.add_argument("--losses", nargs="+", default=LOSSES, choices=LOSSES, help="losses of sentence-transformers")
    parser.add_argument("--learning_rate", type=float, default=None, help="its rate (default: the recipe's)")
    parser.add_argument("--without_training", action="store_true", help="leave sentence-transformers out")
    parser.add_argument(
        "--keep",
        type=Path,
        default=None,
        help="folder that its trained models are kept in, and read from when they are there",
    )
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    from datasets import load_from_disk

    from umls_reranker.core.recipe import load_recipe
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.models.cross_encoder import PairScorer, score_lists
    from umls_reranker.serving.reranker import UMLSReranker

    recipe = load_recipe(arguments.recipe)
    run = Path(arguments.output_dir or recipe.run.output_dir) / recipe.run.run_name
    concepts, mentions = ConceptTable.load(run / "concepts"), load_from_disk(str(run / "mentions"))
    candidates = load_from_disk(str(run / "candidates"))
    lists = {
        split: drawn_lists(split, arguments.most, recipe, candidates, mentions, concepts)
        for split in ("calibration", arguments.split)
    }
    theirs = {}
    if not arguments.without_training:
        kept = arguments.keep or run / "sentence_transformers"
        theirs = {loss: kept / loss for loss in arguments.losses}
        for loss, folder in theirs.items():
            if not folder.is_dir():
                train_cross_encoder(load_from_disk(str(run / "pairs"))["train"], loss, recipe, run, arguments, folder)
    reranker = UMLSReranker.from_pretrained(run / "model")
    logits = {
        "ours": {name: score_lists(reranker.scorer, part, f"ours, {name}").logits for name, part in lists.items()}
    }
    for loss, folder in theirs.items():
        scorer = PairScorer.from_folder(folder, reranker.template, recipe.run.device)
        scores = {name: score_lists(scorer, part, f"theirs, {loss}, {name}") for name, part in lists.items()}
        logits[f"sentence-transformers, {loss}"] = {name: part.logits for name, part in scores.items()}
    report(systems(reranker, lists, logits, mentions["train"], concepts, arguments.split), lists[arguments.split])
    print(
        f"\n{platform.processor() or platform.machine()}, {os.cpu_count()} cores, {date.today()}; "
        f"{arguments.split} split of {recipe.run.run_name}; 95 % intervals by document."
    )


def train_cross_encoder(pairs, loss, recipe, run, arguments, folder) -> None:
    """Train sentence-transformers' CrossEncoder on the run's pairs by one of `LOSSES` and write it to `folder`."""
    import tempfile

    import torch
    from datasets import Dataset
    from sentence_transformers.cross_encoder import (
        CrossEncoder,
        CrossEncoderTrainer,
        CrossEncoderTrainingArguments,
        losses,
    )

    from umls_reranker.core.devices import resolve_device
    from umls_reranker.core.fetch import resolve_model
    from umls_reranker.core.files import written
    from umls_reranker.models.template import PairTemplate
    from umls_reranker.training.fine_tuning import mixed_precision

    device = resolve_device(recipe.run.device)
    if arguments.pairs:
        pairs = pairs.select(range(min(arguments.pairs, len(pairs))))
    texts = {"query": queries(list(pairs["mention"]), pairs, recipe), "name": list(pairs["name"])}
    texts["label"], per_step = [float(label) for label in pairs["label"]], recipe.training.pairs_per_step(1)
    if loss == "lambda":
        texts = as_lists(list(pairs["mention_id"]), texts)
        per_step = round(per_step * len(texts["query"]) / len(pairs))
    start = resolve_model(recipe.model.model, recipe.model.model_revision)
    model = CrossEncoder(
        str(run / "encoder") if recipe.model.start_from_encoder else start,
        num_labels=1,
        max_length=recipe.model.max_length,
        device=device.type,
    )
    if PairTemplate.from_recipe(recipe.model).prepare_tokenizer(model.tokenizer):
        model.model.resize_token_embeddings(len(model.tokenizer))
    with tempfile.TemporaryDirectory() as scratch:
        settings = CrossEncoderTrainingArguments(
            output_dir=scratch,
            seed=recipe.run.seed,
            use_cpu=device.type == "cpu",
            **mixed_precision(recipe.training, device),
            per_device_train_batch_size=per_step,
            num_train_epochs=recipe.training.num_train_epochs,
            max_steps=recipe.training.max_steps,
            learning_rate=arguments.learning_rate or recipe.training.learning_rate,
            warmup_steps=recipe.training.warmup_steps,
            save_strategy="no",
            report_to="none",
        )
        if loss == "lambda":
            computed = losses.LambdaLoss(model)
        else:
            computed = losses.BinaryCrossEntropyLoss(model, pos_weight=torch.tensor(negatives_a_positive(pairs)))
        CrossEncoderTrainer(model, settings, train_dataset=Dataset.from_dict(texts), loss=computed).train()
    with written(folder) as partial:
        model.save_pretrained(str(partial))


def as_lists(mention_ids, texts):
    """One row for each mention, whose pairs follow each other."""
    from itertools import groupby

    lists = [[row for row, _ in group] for _, group in groupby(enumerate(mention_ids), key=lambda pair: pair[1])]
    return {
        "query": [texts["query"][rows[0]] for rows in lists],
        **{name: [[texts[name][row] for row in rows] for rows in lists] for name in ("name", "label")},
    }


def negatives_a_positive(pairs) -> float:
    import numpy as np

    labels = np.asarray(pairs["label"])
    return float((labels == 0).sum() / (labels == 1).sum())


def queries(texts, rows, recipe) -> list[str]:
    """What is shown of each mention, with the text around it between markers where the run shows that."""
    from umls_reranker.models.template import MARKERS

    shown = recipe.model.context_tokens * CHARACTERS_A_TOKEN
    if not shown:
        return texts
    start, end = MARKERS
    columns = zip(texts, rows["left"], rows["right"], strict=True)
    return [f"{left[-shown:]} {start} {mention} {end} {right[:shown]}" for mention, left, right in columns]


def systems(reranker, lists, logits, train_mentions, concepts, split):
    """Name -> (gold ranks, score of the top candidate or None)."""
    import numpy as np

    from umls_reranker.calibration.fitting import fit_fusion
    from umls_reranker.calibration.string_counts import StringCounts
    from umls_reranker.core.arrays import best_candidates
    from umls_reranker.data.normalization import normalize_name
    from umls_reranker.evaluation.baselines import answer_ranks, baseline_answers
    from umls_reranker.evaluation.linking import gold_ranks

    part, counts = lists[split], StringCounts.of_split(train_mentions)
    pairs = zip(train_mentions["mention"], train_mentions["cui"], strict=True)
    gold = part.annotations.gold
    answers = baseline_answers(part, lambda cui: concepts.names(int(concepts.rows([cui])[0])), pairs)

    def measured(log_odds):
        first = best_candidates(log_odds, part.offsets)
        return gold_ranks(log_odds, part.offsets, gold), np.where(first >= 0, log_odds[first], np.nan)

    first = np.where(np.diff(part.offsets) > 0, part.offsets[:-1], -1)
    found = {"retriever": (gold, np.where(first >= 0, part.scores["retrieval"][first], np.nan))}
    for name in ("exact_match", "most_frequent_cui_else_retriever"):
        found[name.replace("_", " ")] = (answer_ranks(answers[name], part.annotations.cuis)[0], None)
    fusion = reranker.calibration.models[0].fusion
    names = list(fusion.weights) if fusion else ["cross_encoder"]
    plain = [name for name in names if name != "cross_encoder"]

    def fused(names, scores):
        fit = lists["calibration"]
        calibration = fit_fusion(names, fit, scores["calibration"], fit.annotations.gold, counts)
        return measured(calibration.plan(part).scores(scores[split]).log_odds)

    if plain:
        nothing = {name: np.zeros(len(lists[name].names)) for name in lists}
        found["features without a cross-encoder"] = fused(plain, nothing)
    for name, scores in logits.items():
        found[f"cross-encoder alone, {name}"] = measured(scores[split])
        if plain:
            found[f"all features, {name}"] = fused(names, scores)
    forms = [normalize_name(text) for text in part.mentions]
    counted = counts.of_pairs(forms, part.types, part.annotations.cuis, *np.empty((2, 0), int))
    seen, known = counted.strings > 0, counted.concepts > 0
    return found, dict(zip(GROUPS, (seen, ~seen, ~known), strict=True))


def report(measured, lists) -> None:
    import numpy as np

    from umls_reranker.evaluation.linking import Documents, coverage_at_precision, linking_metrics

    found, groups = measured
    documents, known = Documents.of(lists.annotations.documents), lists.annotations.in_dictionary
    longest = int(np.diff(lists.offsets).max())
    print(f"\n{len(known):,} mentions, gold in the dictionary for {known.sum():,}; acc@1 over the latter:\n")
    print(
        "| system | acc@1 | " + " | ".join([*groups, f"recall@{longest}"]) + " | coverage at precision 0.95 / 0.90 |"
    )
    print("|---|" + "---|" * (len(groups) + 3))
    for name, (ranks, score) in found.items():
        metrics = linking_metrics(ranks, known, documents, ks=(longest,))["in_dictionary"]
        accuracy = metrics["acc@1"]
        parts = [f"{(ranks[part & known] == 0).mean():.3f}" for part in groups.values()]
        coverage = (
            ""
            if score is None
            else " / ".join(
                f"{coverage_at_precision(score[known], ranks[known] == 0, precision)['value']:.3f}"
                for precision in (0.95, 0.90)
            )
        )
        recall = "" if score is None else f"{metrics[f'recall@{longest}']['value']:.3f}"
        interval = f"{accuracy['value']:.3f} ({accuracy['low']:.3f}-{accuracy['high']:.3f})"
        print(f"| {name} | {interval} | {' | '.join(parts)} | {recall} | {coverage} |")


if __name__ == "__main__":
    main()
