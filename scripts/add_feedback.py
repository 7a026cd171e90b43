#!/usr/bin/env python
"""Add reviewed predictions to a dataset of corrections.

    umls-reranker add_feedback corrections reviewed.jsonl

A reviewed line is one of umls-reranker select_for_review with "chosen": the CUI of the right concept (the name of a
candidate that has none), or null where no concept is right, and "note" where there is something to say. Lines without
"chosen" are left out. A mention reviewed again replaces what was there.
"""

from pathlib import Path

from umls_reranker.core.script import CommandParser, run_script


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument("corrections", type=Path, help="folder of the dataset, made where there is none")
    parser.add_argument(
        "reviewed", type=Path, nargs="+", help="JSON Lines files of reviewed predictions, oldest first"
    )
    options = parser.parse_args()
    from umls_reranker.review.corrections import add_feedback

    counts = add_feedback(options.corrections, options.reviewed)
    print(
        f"{counts['added']:,} added, {counts['replaced']:,} replaced, {counts['changed']:,} of these with another "
        f"concept; {counts['unreviewed']:,} lines without a choice; now {counts['corrections']:,} corrections"
    )


if __name__ == "__main__":
    run_script(main)
