"""Figures of ranked rows beside those that the model was delivered with, and a test for drift.

    umls-reranker monitor MODEL predictions.jsonl

Reads JSON Lines of umls-reranker rerank or link. MODEL is a folder or Hub repo with reference.json,
or a recipe that names one (umls-reranker recipes copy production). Rows of documents that MODEL was
calibrated on are left out and counted: their scores are fitted. The exit code is 1 if scores or
inputs have moved: if nothing has, with probability --alpha at most.
"""

import json
from pathlib import Path

from umls_reranker.pipeline.command import CommandParser, number_in


def main() -> int:
    parser = CommandParser(__doc__)
    parser.add_argument("model", help="folder or Hub id of the model, or a recipe that names it")
    parser.add_argument(
        "predictions", type=Path, help="JSON Lines that umls-reranker rerank or link wrote"
    )
    parser.add_argument(
        "--alpha",
        type=number_in(float, 0, 1),
        default=0.05,
        help="probability of a false alarm (default: 0.05)",
    )
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    options = parser.parse_args()
    from umls_reranker.pipeline.monitor import monitor, monitor_table

    state, figures = monitor(options.model, options.predictions, options.alpha)
    if options.json:
        print(json.dumps(state, indent=2))
    else:
        print(monitor_table(state, figures))
    return 1 if state["alarm"] else 0
