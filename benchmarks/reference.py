#!/usr/bin/env python
"""The reference's settings beside ours, with MiniLM on the same mentions, by the same figures.

    python benchmarks/reference.py runs/reference                    # quickstart's data: minutes
    python benchmarks/reference.py runs/reference --on minilm-medmentions-cpu    # an hour or two

Data, dictionary and encoder are those of the recipe. All else, from the retriever to the
calibrator, is of the recipe itself ("ours") or of `recipes/sapbert-medmentions` ("reference"), once
with its learning rate, which is for 110 million parameters, and once with the recipe's. A killed
command goes on where it was; what is finished is read.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from transformers import TrainingArguments

from umls_reranker.calibration.reliability import document_index, document_sums
from umls_reranker.calibration.thresholds_file import load_thresholds
from umls_reranker.core.arrow_files import open_arrow
from umls_reranker.core.json_files import read_json
from umls_reranker.evaluation.comparison import figure_difference
from umls_reranker.evaluation.formatting import interval, markdown_table, number, with_ends
from umls_reranker.evaluation.metrics import FIGURES
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.models.pair_template import PairTemplate
from umls_reranker.pipeline.options import load_recipe
from umls_reranker.pipeline.recipe import Recipe
from umls_reranker.pipeline.run_folder import RunFolder
from umls_reranker.retrieval.mining import PairMiner
from umls_reranker.training.dev_sample import dev_rows
from umls_reranker.training.trainer import RerankerTrainer
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.relations import RelationTable

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
REFERENCE = "sapbert-medmentions"
# Keys that belong to the data, and so are the same for both.
OF_THE_DATA = (
    "seed",
    "concept_source",
    "umls_dir",
    "languages",
    "obo",
    "obo_type_roots",
    "obo_synonym_scopes",
    "mention_source",
    "corpus",
    "train_documents",
    "dev_documents",
    "test_documents",
    "expected_mentions",
    "train_share",
    "dev_share",
    "calibration_share",
    "train_calibration_share",
    "encoder",
    "encoder_revision",
    "encoder_pooling",
    "encoder_max_length",
    "candidates_per_mention",
    "max_train_mentions",
    "max_dev_pairs",
    "target_precision",
)
# An index of fewer than a million names needs no clusters.
OF_A_LARGE_INDEX = ("index_factory", "index_parameters")
LEARNING_RATES = ("learning_rate", "head_learning_rate")
DESIGNS = ("reference", "reference, our learning rate", "ours")
# Mentions whose pairs are scored once as mined, once as served.
MENTIONS_OF_PAIRS = 1_000
# Before the cross-encoder, and after it.
SHOWN = (
    "recall",
    "systems/lists_order/acc@1",
    "systems/calibrated_scores/top1_ece",
    "systems/calibrated_scores/coverage_at_0.95",
    "acc@1",
    "ece",
    "top1_ece",
    "ece_raw",
    "high_confidence_coverage",
    "high_confidence_precision",
    "accepted_coverage",
    "accepted_precision",
    "mean_top_score",
    "mean_margin",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of the runs")
    parser.add_argument("--on", default="quickstart", help="recipe whose data are used")
    parser.add_argument(
        "--designs", nargs="+", default=DESIGNS, choices=DESIGNS, metavar="DESIGN", help="which"
    )
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    runs = {}
    for design in options.designs:
        recipe = RECIPES / options.on
        if design != "ours":
            recipe = write_recipe(design, options.on, options.folder)
        command = [sys.executable, "-m", "umls_reranker", "run", str(recipe)]
        outcome = subprocess.run([*command, "--output_dir", str(options.folder)])
        # 1: a target was missed.
        if outcome.returncode not in (0, 1):
            sys.exit(outcome.returncode)
        runs[design] = RunFolder(options.folder / recipe.stem)
    print_figures(runs)
    print_differences(runs)
    print_thresholds(runs)
    print_pairs(runs)


def write_recipe(design: str, data: str, folder: Path) -> Path:
    """Write the recipe of the reference on the data of another recipe; returns the file."""
    ours = read_recipe(data)
    values = {key: ours[key] for key in OF_THE_DATA if key in ours}
    for key, value in read_recipe(REFERENCE).items():
        if key not in (*OF_THE_DATA, *OF_A_LARGE_INDEX, "run_name", "targets"):
            values[key] = value
    values["model"] = ours["encoder"]
    values["model_revision"] = ours.get("encoder_revision")
    name = f"{data}-reference"
    if design == "reference, our learning rate":
        for key in LEARNING_RATES:
            values[key] = ours[key]
        name += "-rate"
    file = folder / f"{name}.yaml"
    text = yaml.safe_dump(values | {"run_name": name}, sort_keys=False)
    file.write_text(text, encoding="utf-8")
    return file


def read_recipe(name: str) -> dict[str, Any]:
    """The keys that a recipe of this repository sets."""
    return yaml.safe_load((RECIPES / name / "config.yaml").read_text(encoding="utf-8"))


def print_figures(runs: Mapping[str, RunFolder]) -> None:
    """Print the figures of the test lists with 95 % intervals, those of the retriever first."""
    figures = {
        design: read_json(run.path / "report" / "metrics.json")["figures"]
        for design, run in runs.items()
    }
    rows = []
    for name in SHOWN:
        of_designs = [figures[design].get(name) for design in runs]
        cells = [with_ends(number(each), interval(each, 3, 1.0)) for each in of_designs]
        rows.append((name, *cells))
    print(markdown_table(("figure", *runs), rows))


def print_differences(runs: Mapping[str, RunFolder]) -> None:
    """Print ours minus each other design, mention by mention, with 95 % intervals by document."""
    outcomes = {
        design: Outcomes.load(run.path / "report" / "outcomes.parquet")
        for design, run in runs.items()
    }
    ours = outcomes.pop("ours")
    index, documents = document_index(ours.document)
    compared = [figure for figure in FIGURES if figure.name in SHOWN]
    rows = {figure.name: [figure.name] for figure in compared}
    for design, other in outcomes.items():
        are_same = (ours.document == other.document).all() and (ours.start == other.start).all()
        if not are_same:
            sys.exit(f"{design}: the test mentions differ")
        for figure in compared:
            present = document_sums(index, documents, figure.columns(ours))
            former = document_sums(index, documents, figure.columns(other))
            found = figure_difference(figure, present, former, margin=0.0, confidence=0.95)
            value = found.present - found.former
            is_known = np.isfinite(value)
            told_value = f"{value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
            rows[figure.name].append(told_value if is_known else "-")
    print(f"\nours minus the others, {len(ours):,} test mentions of {documents:,} documents:\n")
    print(markdown_table(("figure", *outcomes), rows.values()))


def print_thresholds(runs: Mapping[str, RunFolder]) -> None:
    """Print how many types have a threshold of their own, and how these differ."""
    rows = []
    for design, run in runs.items():
        tables = load_thresholds(read_json(run.path / "model" / "thresholds.json"))
        summary = tables["all"].summary()
        ends = [f"{summary[name]:.3f}" for name in ("lowest", "median", "highest")]
        rows.append((design, str(summary["types"]), *ends))
    print("\nthresholds of types:\n")
    print(markdown_table(("design", "number", "lowest", "median", "highest"), rows))


def print_pairs(runs: Mapping[str, RunFolder]) -> None:
    """Print F1 at 0.5 and ROC-AUC of the cross-encoder by itself."""
    rows = []
    for design, run in runs.items():
        for kind, found in pair_figures(run).items():
            rows.append((design, kind, f"{found['eval_f1']:.3f}", f"{found['eval_roc_auc']:.3f}"))
    print(f"\nthe cross-encoder by itself, pairs of {MENTIONS_OF_PAIRS:,} test mentions:\n")
    print(markdown_table(("design", "pairs", "F1", "ROC-AUC"), rows))


def pair_figures(run: RunFolder) -> dict[str, dict[str, float]]:
    """Metrics of the cross-encoder on test pairs: mined like the training's, and as served."""
    recipe = load_recipe(run.path / "model" / "recipe.yaml")
    template = PairTemplate.from_recipe(recipe.model)
    lists = run.lists("test")
    most = MENTIONS_OF_PAIRS * recipe.index.candidates_per_mention
    rows = {
        "as mined": mined_rows(run, recipe, template),
        "as served": dev_rows(lists, template, most, recipe.run.seed),
    }
    trainer = RerankerTrainer(
        str(run.path / "checkpoints" / "checkpoint-best"),
        TrainingArguments(
            str(run.path),
            per_device_eval_batch_size=256,
            use_cpu=True,
            report_to=[],
            disable_tqdm=True,
        ),
        rows["as mined"],
        template=template,
    )
    return {kind: trainer.evaluate(table) for kind, table in rows.items()}


def mined_rows(run: RunFolder, recipe: Recipe, template: PairTemplate) -> Any:
    """Pairs of test mentions, mined by the recipe's settings."""
    miner = PairMiner(
        ConceptTable.load(run.path / "concepts"),
        replace(recipe.mining, max_train_mentions=MENTIONS_OF_PAIRS),
        recipe.run.seed,
        relations=RelationTable.load(run.path / "concepts"),
        template=template,
    )
    with TemporaryDirectory() as folder:
        path = Path(folder, "pairs.arrow")
        miner.mine(run.lists("test"), path)
        return open_arrow(path)


if __name__ == "__main__":
    main()
