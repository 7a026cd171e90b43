#!/usr/bin/env python
"""Measure systems on the complete dataset by one function, and print the table.

    python benchmarks/concept_reranking/score.py COMPLETE RESULTS --systems bm25 my_system.py
    python benchmarks/concept_reranking/score.py COMPLETE RESULTS \\
        --systems built-in runs/{configuration}/model

A system is a module of systems/ or a file that has

    scorer   folder of a configuration -> a function that takes rows without their gold concepts,
             and gives each the scores of its candidates, higher for better

or a model, a folder or `built-in`, in which {configuration} is replaced. Scores become
probabilities and a tier on the calibration split, with no other feature. A model that was
calibrated there is measured as it is; another is calibrated there with all its features. RESULTS
gets CONFIGURATION/SYSTEM.json; what is there is read.
"""

import argparse
import importlib.util
import json
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq

from umls_reranker import UMLSReranker
from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.core.errors import UserError
from umls_reranker.evaluation.formatting import markdown_table
from umls_reranker.lists.annotated_lists import AnnotatedLists
from umls_reranker.lists.labels import read_labelled_lists, usable_lists
from umls_reranker.lists.rows import Rows
from umls_reranker.serving.calibrate_lists import calibrate_lists
from umls_reranker.serving.calibrated import save_calibrated
from umls_reranker.serving.evaluate import evaluate_lists
from umls_reranker.serving.model_source import ModelSource
from umls_reranker.vocab.types import TypeHierarchy

SYSTEMS = Path(__file__).resolve().parent / "systems"
CALIBRATION = "calibration"
TEST = "test"
SEED = 13
# The one score of a system, and so the one feature.
SCORE = "system"
GOLD = "cui"
# Figure of metrics.json -> its column.
COLUMNS = {
    "acc@1": "acc@1",
    "top1_debiased_ece": "debiased ECE",
    "high_confidence_coverage": "`high`: coverage",
    "high_confidence_precision": "precision",
}
Row = dict[str, Any]
Scorer = Callable[[list[Row]], list[list[float]]]
Figures = dict[str, dict[str, float]]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("complete", type=Path, help="folder that complete.py wrote")
    parser.add_argument("results", type=Path, help="folder for the figures")
    parser.add_argument("--systems", nargs="+", required=True, metavar="SYSTEM")
    parser.add_argument("--configurations", nargs="+", help="only these (default: all)")
    options = parser.parse_args()
    configurations = options.configurations or configurations_of(options.complete)
    try:
        if not configurations:
            raise UserError(f"{options.complete} has no CONFIGURATION/{TEST}.parquet")
        for configuration in configurations:
            folder = options.complete / configuration
            rows = {
                title_of(system): figures_of(folder, system, options.results / configuration)
                for system in options.systems
            }
            print(f"\n{configuration}\n\n{table_of(rows)}", flush=True)
    except UserError as error:
        parser.error(str(error))


def configurations_of(complete: Path) -> list[str]:
    """Names of the configurations in a folder."""
    return sorted(path.parent.name for path in complete.glob(f"*/{TEST}.parquet"))


def title_of(system: str) -> str:
    """Name of a system, and of its file of figures."""
    if "{configuration}" in system:
        return "recipe"
    return Path(system).stem


def figures_of(folder: Path, system: str, results: Path) -> Figures:
    """The figures of a system on one configuration, measured or read."""
    file = results / f"{title_of(system)}.json"
    if not file.is_file():
        figures = measure(folder, system)
        results.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return json.loads(file.read_text(encoding="utf-8"))


def measure(folder: Path, system: str) -> Figures:
    """Calibrate a system where it needs it, and evaluate it on test.

    Raises:
        UserError: the system cannot be found or read, or does not give each candidate a number.
    """
    module = module_of(system)
    if module is None:
        return measure_model(folder, system.format(configuration=folder.name))
    scorer = module.scorer(folder)
    lists = {
        split: scored_lists(folder / f"{split}.parquet", scorer) for split in (CALIBRATION, TEST)
    }
    settings = CalibrationArguments(features=[SCORE])
    return calibrated_figures(ModelSource.load(None), settings, lists)


def module_of(system: str) -> Any:
    """The module of a system; None: it is a model."""
    path = Path(system) if system.endswith(".py") else SYSTEMS / f"{system}.py"
    if not path.is_file():
        if system.endswith(".py"):
            raise UserError(f"{system} is no file")
        return None
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a path with the suffix .py has both
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "scorer"):
        raise UserError(f"{path} has no function scorer")
    return module


def scored_lists(path: Path, scorer: Scorer) -> AnnotatedLists:
    """The lists of a split with the score of a system alone, best first."""
    rows = pq.read_table(path).to_pylist()
    hidden = [{key: value for key, value in row.items() if key != GOLD} for row in rows]
    scores = scorer(hidden)
    if len(scores) != len(rows):
        raise UserError(f"the system gave {len(scores)} rows of scores for {len(rows)} mentions")
    scored = [with_scores(row, of_row) for row, of_row in zip(rows, scores, strict=True)]
    return usable_lists(Rows.of(scored), path, TypeHierarchy.built_in())


def with_scores(row: Row, scores: list[float]) -> Row:
    """A row whose candidates have an id, a name and the score, best first.

    Candidates of equal score are in order of their ids, so that no other order decides.
    """
    if len(scores) != len(row["candidates"]):
        raise UserError(
            f"document {row['doc_id']}, mention {row['mention_id']}: {len(scores)} scores for "
            f"{len(row['candidates'])} candidates"
        )
    if not all(map(math.isfinite, scores)):
        raise UserError(
            f"document {row['doc_id']}, mention {row['mention_id']}: a score is no finite number"
        )
    candidates = [
        {"cui": candidate["cui"], "name": candidate["name"], f"{SCORE}_score": float(score)}
        for candidate, score in zip(row["candidates"], scores, strict=True)
    ]
    candidates.sort(key=lambda one: (-one[f"{SCORE}_score"], one["cui"]))
    kept = {key: row[key] for key in ("doc_id", "mention_id", "start", "end", "entity", GOLD)}
    return kept | {"candidates": candidates}


def measure_model(folder: Path, name: str) -> Figures:
    """The figures of a model, calibrated on the calibration split unless it has been."""
    source = ModelSource.load(name)
    lists = {
        split: read_labelled_lists(folder / f"{split}.parquet", source.hierarchy, fitted_on=False)
        for split in (CALIBRATION, TEST)
    }
    is_new = source.documents.are_of_new_documents(lists[CALIBRATION].annotations)
    if source.reranker is not None and not is_new.any():
        return evaluated(source.reranker, lists[TEST])
    return calibrated_figures(source, CalibrationArguments(), lists)


def calibrated_figures(
    source: ModelSource, settings: CalibrationArguments, lists: dict[str, AnnotatedLists]
) -> Figures:
    """Calibrate on the calibration split, and evaluate on test."""
    # A document of one mention is one here, too: a concept of HPO.
    # The splits are fixed, so each system is tested once.
    new = calibrate_lists(
        source, lists[CALIBRATION], settings, SEED, each_row_is_a_document=True, one_look=True
    )
    with TemporaryDirectory() as temporary:
        model = Path(temporary) / "model"
        save_calibrated(source, new, model)
        return evaluated(UMLSReranker.from_pretrained(model), lists[TEST])


def evaluated(reranker: UMLSReranker, lists: AnnotatedLists) -> Figures:
    """What `umls-reranker evaluate --lists` gives, of which the table has columns."""
    metrics, _ = evaluate_lists(reranker, lists, TEST, seed=SEED)
    return {name: metrics["figures"][name] for name in COLUMNS}


def table_of(rows: dict[str, Figures]) -> str:
    """The table of a configuration, a row for each system."""
    header = ["system", *COLUMNS.values()]
    body = [
        [system, *(in_words(figures[name]) for name in COLUMNS)] for system, figures in rows.items()
    ]
    return markdown_table(header, body)


def in_words(figure: dict[str, float]) -> str:
    """A figure with its 95 % interval; empty where there is none."""
    value = figure["value"]
    if value is None or value != value:
        return ""
    return f"{value:.3f} ({figure['low']:.3f}-{figure['high']:.3f})"


if __name__ == "__main__":
    main()
