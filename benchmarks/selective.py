#!/usr/bin/env python
"""`high` beside LEC on the same lists: what either answers, and how often it misses its target.

    python benchmarks/selective.py calibration_lists.jsonl --model built-in

The lists are calibrated, cross-fitted by document. Then the scores stay as they are, and in each
draw half of the documents, at random, set a threshold, by `certify` and by LEC (Wang et al. 2026,
arXiv 2512.01556); its precision is measured on the other half. LEC is built here from its abstract
alone: the lowest threshold at which the errors stay within the target after one more is assumed. It
takes mentions as exchangeable, and keeps the target in expectation.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np

from umls_reranker.calibration.arguments import CalibrationArguments
from umls_reranker.calibration.certificate import find_certificate
from umls_reranker.calibration.precision_test import PrecisionTest
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.lists.labels import read_labelled_lists
from umls_reranker.serving.calibrate_lists import calibrate_lists
from umls_reranker.serving.model_source import ModelSource

CONFIDENCE = 0.95
SEED = 13
# Outcomes and a target -> the lowest score that is answered, infinite for none.
Rule: TypeAlias = Callable[[Outcomes, float], float]


def by_certificate(outcomes: Outcomes, target: float) -> float:
    test = PrecisionTest(target, CONFIDENCE, is_one_look=True)
    certificate = find_certificate(outcomes.score, outcomes.correct, outcomes.document, test)
    return np.inf if certificate.threshold is None else certificate.threshold


def by_lec(outcomes: Outcomes, target: float) -> float:
    order = np.argsort(-outcomes.score_or_0, kind="stable")
    answers = np.arange(1, len(order) + 1)
    errors = np.cumsum(~outcomes.correct[order])
    is_within = errors + target <= (1.0 - target) * answers
    return (
        float(outcomes.score[order[np.flatnonzero(is_within)[-1]]]) if is_within.any() else np.inf
    )


RULES: dict[str, Rule] = {"`high`": by_certificate, "LEC": by_lec}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("lists", type=Path)
    parser.add_argument("--model", help="as for umls-reranker calibrate")
    parser.add_argument("--target", type=float, default=0.95)
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    source = ModelSource.load(options.model)
    lists = read_labelled_lists(options.lists, source.hierarchy)
    outcomes = calibrate_lists(source, lists, CalibrationArguments(), SEED).outcomes
    outcomes = outcomes.select(outcomes.accepted)
    documents, index = np.unique(outcomes.document, return_inverse=True)
    print(f"{len(outcomes):,} accepted answers of {len(documents):,} documents\n")
    print("| | granted | coverage, mean | precision, mean | below the target |")
    print("|---|--:|--:|--:|--:|")
    for name, rule in RULES.items():
        rng = np.random.default_rng(SEED)
        rows = []
        for _ in range(options.draws):
            is_half = (rng.permutation(len(documents)) < len(documents) // 2)[index]
            threshold = rule(outcomes.select(is_half), options.target)
            rest = outcomes.select(~is_half)
            answered = rest.score >= threshold
            precision = rest.correct[answered].mean() if answered.any() else np.nan
            rows.append((answered.any(), answered.mean(), precision, precision < options.target))
        granted, coverage, precision, is_below = np.transpose(rows).astype(float)
        figures = (granted.mean(), coverage.mean(), np.nanmean(precision), is_below.mean())
        print(f"| {name} | {' | '.join(f'{figure:.1%}' for figure in figures)} |", flush=True)


if __name__ == "__main__":
    main()
