#!/usr/bin/env python
"""Check a finished run as a deployment would: load its model folder, rerank held-out mentions, compare with targets.

    python scripts/validate.py recipes/quickstart/config.yaml

Prints every target of the recipe with the measured value, its 95 % interval and PASS or FAIL, and writes
checklist.json into the run folder. Ends with exit code 1 when a check fails.
"""

import re
from dataclasses import asdict

from umls_reranker.arguments import EvaluationArguments, RunArguments
from umls_reranker.cli import run_script
from umls_reranker.errors import UserError
from umls_reranker.recipe import parse_recipe
from umls_reranker.stages import RunFolder, read_json, write_json

REPLAYED_MENTIONS = 200


def main() -> int:
    recipe = parse_recipe(__doc__, (RunArguments, EvaluationArguments))
    run = RunFolder(recipe.run.run_dir)
    run.key_of("report", "evaluate.py")
    targets = dict(parse_target(text) for text in recipe.evaluation.targets)
    from umls_reranker.evaluation.checklist import check_targets, format_table
    from umls_reranker.evaluation.report import measured_figures

    report = read_json(run.path / "report" / "metrics.json")
    checks = check_targets(targets, measured_figures(report))
    with run.locked():
        checks = integration_checks(recipe, run) + checks
        write_json(run.path / "checklist.json", {"schema_version": 1, "checks": [asdict(check) for check in checks]})
    print(format_table(checks))
    failed = [check.name for check in checks if not check.passed]
    print(f"\n{len(checks) - len(failed)} passed, {len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def parse_target(text: str) -> tuple[str, str]:
    match = re.fullmatch(r"\s*(\S+)\s+(\S.*?)\s*", text)
    if not match:
        raise UserError(f'targets: cannot read {text!r}; write e.g. "acc@1 >= 0.75"')
    return match.group(1), match.group(2)


def integration_checks(recipe, run) -> list:
    """Load the folder as a user does and replay test mentions one call at a time and in one batch."""
    from datasets import load_from_disk

    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.evaluation.candidate_lists import as_serving_input
    from umls_reranker.evaluation.checklist import Check
    from umls_reranker.reranker import UMLSReranker

    reranker = UMLSReranker.from_pretrained(
        run.path / "model", device=recipe.run.device, dtype=recipe.run.scoring_precision
    )
    mentions = load_from_disk(str(run.path / "mentions"))["test"].select_columns(
        ["mention", "left", "right", "semantic_types"]
    )
    candidates = load_from_disk(str(run.path / "candidates"))["test"]
    rows = range(0, len(mentions), max(1, len(mentions) // REPLAYED_MENTIONS))
    replayed = [mentions[row] for row in rows]
    concepts = ConceptTable.load(run.path / "concepts")
    lists = [as_serving_input(candidates[row], concepts) for row in rows]
    batch = reranker.rerank_batch(
        [m["mention"] for m in replayed],
        lists,
        [m["semantic_types"] for m in replayed],
        [m["left"] for m in replayed],
        [m["right"] for m in replayed],
        desc="replaying test mentions",
    )
    single = [
        reranker.rerank(m["mention"], items, m["semantic_types"], m["left"], m["right"])
        for m, items in zip(replayed[:20], lists, strict=False)
    ]
    gap = max(
        abs(a.cross_encoder_score - b.cross_encoder_score)
        for one, many in zip(single, batch, strict=False)
        for a, b in zip(
            sorted(one, key=lambda r: r.candidate["cui"]), sorted(many, key=lambda r: r.candidate["cui"]), strict=True
        )
    )
    whole = all(len(ranked) == len(items) for ranked, items in zip(batch, lists, strict=True))
    in_range = all(0.0 <= r.cross_encoder_score <= 1.0 for ranked in batch for r in ranked)
    ordered = all(
        a.cross_encoder_score >= b.cross_encoder_score
        for ranked in batch
        for a, b in zip(ranked, ranked[1:], strict=False)
    )
    population = f"{len(batch)} replayed test mentions"
    sound = float(whole and in_range and ordered)
    # Batches pad differently; bfloat16 then rounds differently, hence the two decimals.
    return [
        Check("every_candidate_ranked_with_probability", sound, None, None, ">= 1", population, sound == 1.0),
        Check("largest_score_gap_single_vs_batch", gap, None, None, "<= 0.02", "20 of them", gap <= 0.02),
    ]


if __name__ == "__main__":
    run_script(main)
