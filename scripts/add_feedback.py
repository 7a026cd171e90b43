#!/usr/bin/env python
"""Add reviewed predictions to a dataset of corrections.

    umls-reranker add_feedback corrections reviewed.jsonl

A reviewed line is a line of umls-reranker select_for_review with "chosen" added: the CUI of the gold concept (or the
name of a candidate without a CUI), or null if no concept is correct. "note" is optional. Lines without "chosen" are
skipped. A second review of a mention replaces the first.
"""

from pathlib import Path

from umls_reranker.core.script import CommandParser, run_script


def main() -> None:
    parser = CommandParser(__doc__)
    parser.add_argument("corrections", type=Path, help="folder of the corrections; created if missing")
    parser.add_argument(
        "reviewed", type=Path, nargs="+", help="JSON Lines files of reviewed predictions, oldest first"
    )
    options = parser.parse_args()
    from umls_reranker.review.corrections import add_feedback

    counts = add_feedback(options.corrections, options.reviewed)
    changed = f", {counts['changed']:,} of these with a different choice" if counts["changed"] else ""
    print(
        f"{counts['added']:,} added, {counts['replaced']:,} replaced{changed}; {counts['differing']:,} of "
        f"{counts['added'] + counts['replaced']:,} choices differ from the model's answer; {counts['unreviewed']:,} "
        f"lines without a choice; {counts['corrections']:,} corrections in total"
    )
    if counts["unreviewed_of_sample"]:
        print(
            f"{counts['unreviewed_of_sample']:,} of the lines without a choice were drawn at random; if these are the "
            "hard ones, the rest of the sample looks too good: review them too, or end the sample before the first "
            "of them"
        )


if __name__ == "__main__":
    run_script(main)
