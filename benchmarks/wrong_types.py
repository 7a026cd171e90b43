#!/usr/bin/env python
"""What wrong semantic types cost: a run's test mentions with the types of some replaced.

    python benchmarks/wrong_types.py runs/quickstart

A wrong type contradicts the mention's. It is drawn from the types of its candidates as annotators
would name them (the nearest broader type that any mention has), or if there is none by frequency. A
mention whose type is wrong at one share has the same one at the next.
"""

import argparse
from collections import Counter
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from umls_reranker import UMLSReranker
from umls_reranker.evaluation.outcomes import Outcomes
from umls_reranker.lists.annotated_lists import AnnotatedLists
from umls_reranker.lists.run_lists import read_run_lists
from umls_reranker.vocab.concept_table import ConceptTable
from umls_reranker.vocab.type_sets import TypeSets, type_lists

SHARES = (0.0, 0.05, 0.1, 0.2)
SEED = 13


def wrong_types(lists: AnnotatedLists, rng: np.random.Generator) -> dict[int, str]:
    """A wrong type for each mention that has a type and may have a wrong one."""
    hierarchy = lists.hierarchy
    annotated = list(lists.types)
    frequency = Counter(node for nodes in annotated for node in nodes)

    @cache
    def as_annotated(type_id: str) -> str | None:
        return next((broader for broader in hierarchy.chain(type_id) if broader in frequency), None)

    @cache
    def contradicts(type_id: str, nodes: tuple[str, ...]) -> bool:
        return not hierarchy.agree([type_id], nodes)

    wrong = {}
    for row, nodes in enumerate(annotated):
        items = range(lists.offsets[row], lists.offsets[row + 1])
        kinds = (as_annotated(kind) for item in items for kind in lists.candidate_types[item])
        for counts in (Counter(filter(None, kinds)), frequency):
            chances = {kind: n for kind, n in counts.items() if contradicts(kind, nodes)}
            if nodes and chances:
                p = np.array(list(chances.values())) / sum(chances.values())
                wrong[row] = list(chances)[rng.choice(len(chances), p=p)]
                break
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a finished run")
    run = parser.parse_args().run
    reranker = UMLSReranker.from_pretrained(run / "model")
    lists = read_run_lists(run, "test", ConceptTable.load(run / "concepts"))
    rng = np.random.default_rng(SEED)
    wrong = wrong_types(lists, rng)
    order = rng.permutation(list(wrong)).tolist()
    print("| wrong types | acc@1 | `high` | precision |\n|---|--:|--:|--:|")
    for share in SHARES:
        types = list(lists.types)
        for row in order[: round(share * len(order))]:
            types[row] = (wrong[row],)
        retyped = replace(lists, types=TypeSets.of_lists(type_lists(types)))
        outcomes = Outcomes.of(retyped, reranker.decide(retyped))
        precision = outcomes.correct[outcomes.high].mean() if outcomes.high.any() else np.nan
        figures = (outcomes.correct.mean(), outcomes.high.mean(), precision)
        print(f"| {share:.0%} | {' | '.join(f'{figure:.3f}' for figure in figures)} |")


if __name__ == "__main__":
    main()
