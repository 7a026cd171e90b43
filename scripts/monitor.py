#!/usr/bin/env python
"""Figures of logged predictions beside those of the model's own test split.

    python scripts/monitor.py MODEL predictions.jsonl

Reads the output of scripts/rerank.py line by line: shares of the confidence tiers, abstention, mean top score and
margin, and per semantic type. MODEL is the folder whose metrics.json gives the reference.
"""

import argparse
import json
from pathlib import Path

from umls_reranker.cli import run_script
from umls_reranker.errors import UserError
from umls_reranker.monitoring import UsageMonitor
from umls_reranker.stages import read_json

FIGURES = ("high_confidence_share", "accepted_share", "mean_top_score", "mean_margin")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="model folder with metrics.json")
    parser.add_argument("predictions", type=Path, help="JSON Lines file that scripts/rerank.py wrote")
    parser.add_argument("--json", action="store_true", help="print all figures as JSON, per semantic type too")
    options = parser.parse_args()
    reference = read_json(options.model / "metrics.json")["serving"]
    figures = read_predictions(options.predictions).to_dict()
    if options.json:
        print(json.dumps(figures, indent=2))
        return
    print(f"{figures['mentions']:,} mentions, {figures['without_candidates']:,} of them without candidates\n")
    print(f"{'figure':<24}{'here':>8}{'test':>8}{'95 % interval of test':>24}")
    for name in FIGURES:
        here, test = figures[name], reference[name]
        shown = "-" if here is None else f"{here:.3f}"
        print(f"{name:<24}{shown:>8}{test['value']:>8.3f}{test['low']:>16.3f} .. {test['high']:.3f}")


def read_predictions(path: Path) -> UsageMonitor:
    monitor = UsageMonitor()
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the output of scripts/rerank.py")
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                ranked, types = row["ranked"], row.get("entity_type") or []
                best = ranked[0] if ranked else None
                top = best and (best["score"], best["margin"], best["tier"], best["accepted"])
            except (json.JSONDecodeError, KeyError, TypeError):
                raise UserError(f"{path}:{number}: not a line that scripts/rerank.py wrote") from None
            monitor.record([types] if isinstance(types, str) else types, len(ranked), top)
    return monitor


if __name__ == "__main__":
    run_script(main)
