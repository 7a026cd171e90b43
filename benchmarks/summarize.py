"""A finished run on one screen, for the page of its recipe: examples, results and targets.

    python benchmarks/summarize.py runs/quickstart

Reads what `umls-reranker run` has made, and changes nothing.
"""

import argparse
from pathlib import Path

import numpy as np

from umls_reranker import UMLSReranker
from umls_reranker.core.json_files import read_json
from umls_reranker.evaluation.metrics import read_metrics
from umls_reranker.evaluation.tables import as_text, report_tables
from umls_reranker.evaluation.targets import verdict_on_targets
from umls_reranker.hub.file_names import METRICS_FILE
from umls_reranker.pipeline.run_folder import RunFolder
from umls_reranker.serving.ranked_candidate import ranked_column

# Number of test mentions shown, and of their candidates.
EXAMPLES = 3
# Number of tables of the report that are shown: comparison, ranking and tiers.
TABLES = 3


def print_examples(run: RunFolder) -> None:
    """Print test mentions with their top candidates; gold concepts are marked."""
    reranker = UMLSReranker.from_pretrained(run.path / "model")
    lists = run.lists("test")
    lists = lists.take(np.linspace(0, len(lists) - 1, min(EXAMPLES, len(lists))).astype(int))
    ranked = ranked_column(lists, reranker.decide(lists), reranker.model_names).to_pylist()
    golds = lists.annotations.alternatives
    for mention, gold, candidates in zip(lists.mentions, golds, ranked, strict=True):
        print(f"{mention!r}, gold {'|'.join(gold)}:")
        for item in candidates[:EXAMPLES]:
            mark = "*" if item["cui"] in gold else " "
            print(f"  {mark} {item['score']:.3f}  {item['tier']:6}  {item['cui']}  {item['name']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    run = RunFolder(parser.parse_args().run)
    print_examples(run)
    for table in report_tables(read_metrics(run.path / "report" / METRICS_FILE))[:TABLES]:
        print(f"\n{table.title}\n\n{as_text(table)}")
    print(f"\nTargets: {verdict_on_targets(read_json(run.path / 'checklist.json')['checks'])}")


if __name__ == "__main__":
    main()
