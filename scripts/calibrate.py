#!/usr/bin/env python
"""Fit calibrator and thresholds on the calibration split's real candidate lists, and assemble the model folder.

    umls-reranker calibrate quickstart

Writes model/ into the run folder: weights, tokenizer, reranker.json, calibrator.json with the weights of all evidence,
the counts of the training split's strings, thresholds.json, recipe.yaml.
"""

from pathlib import Path

from umls_reranker.core.arguments import CalibrationArguments, RunArguments
from umls_reranker.core.files import fingerprint_path, read_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, should_run
from umls_reranker.core.stage_keys import model_stage
from umls_reranker.core.stages import LINEAGE, RunFolder


def main() -> None:
    calibrate(parse_recipe(__doc__, (RunArguments, CalibrationArguments)))


def calibrate(recipe) -> None:
    """The whole stage; recalibrate.py calls it for a new run."""
    run = RunFolder(recipe.run.run_dir)
    corrections = recipe.calibration.calibration_feedback
    stage = model_stage(recipe, run, fingerprint_path(Path(corrections)) if corrections else None)
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, overwrite=recipe.run.overwrite, dry_run=recipe.run.dry_run):
            make(recipe, run, stage)


def make(recipe, run, stage) -> None:
    from datasets import load_from_disk

    from umls_reranker.calibration.fitting import fit_parts
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.data.sources import describe_dictionary
    from umls_reranker.hub.model_folder import copy_network, write_parts
    from umls_reranker.models.cross_encoder import PairScorer, score_lists
    from umls_reranker.models.template import PairTemplate

    concepts = ConceptTable.load(run.path / "concepts")
    candidates = load_from_disk(str(run.path / "candidates"))["calibration"]
    mentions = load_from_disk(str(run.path / "mentions"))
    fitted_mentions, corrections = mentions["calibration"], {}
    if recipe.calibration.calibration_feedback:
        candidates, fitted_mentions, corrections = with_corrections(recipe, run, candidates, mentions, concepts)
    template = PairTemplate.from_recipe(recipe.model)
    lists = CandidateLists.from_run(candidates, fitted_mentions, concepts, template.candidate_fields)
    dictionary = describe_dictionary(read_json(run.path / "concepts" / "read_report.json"))
    with stage.writing() as (folder, summary):
        copy_network(run.path / "checkpoints" / "checkpoint-best", folder)
        scorer = PairScorer.from_folder(folder, template, recipe.run.device, recipe.run.scoring_precision)
        scores = score_lists(scorer, lists, "scoring calibration candidates")
        calibration, thresholds, fitted = fit_parts(
            lists,
            scores.logits,
            mentions["train"],
            recipe.calibration,
            concepts.hierarchy,
            recipe.run.seed,
            template.reads,
        )
        fitted |= corrections | {"index": run.key_of("index", "build_index")}
        write_parts(folder, recipe, template, scorer.precision, calibration, thresholds, fitted, dictionary)
        summary |= fitted | {"truncated_pairs": scores.truncated}
    default = thresholds.for_type()
    if calibration.fusions:
        fusion = calibration.fusions[0]
        for strings, weights in (("seen in training", fusion.seen_weights), ("new", fusion.weights)):
            shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
            print(f"evidence weighed for strings {strings}: {shown}")
        print(f"lead of the first candidate: {fusion.lead:.3g}")
    print(
        f"{calibration.calibrator.method} calibrator on {fitted['pairs']:,} candidates of "
        f"{fitted['mentions']:,} mentions; "
        f"default thresholds: accept {default.accept:.3f}, high confidence {thresholds.certificate}"
    )


def with_corrections(recipe, run, candidates, mentions, concepts) -> tuple:
    """Lists and mentions of the calibration split with the corrections, and what calibrator.json says about them."""
    from umls_reranker.review.corrections import calibration_rows, load_feedback

    feedback = load_feedback(Path(recipe.calibration.calibration_feedback))
    documents = {split: list(mentions[split]["doc_id"]) for split in ("train", "test")}
    rows, row_mentions, lost = calibration_rows(
        feedback,
        candidates,
        mentions["calibration"],
        documents["test"],
        documents["train"],
        concepts,
        reads_concepts=bool(recipe.model.candidate_fields),
    )
    used = len(feedback) - sum(lost.values())
    print(f"{used:,} corrections join {len(candidates):,} mentions; left out: {lost}")
    facts = {"corrections": {"used": used, "left_out": lost}}
    if (run.path / LINEAGE).is_file():
        facts |= read_json(run.path / LINEAGE)
    return rows, row_mentions, facts


if __name__ == "__main__":
    run_script(main)
