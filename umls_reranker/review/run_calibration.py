"""The stage ``model`` of a run: calibrator and thresholds, fitted with reviewers' corrections if there are any.

Libraries are imported only if the stage must be made, so one that is up to date is skipped at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.files import fingerprint_path, read_json, remembered
from ..core.script import should_run
from ..core.stage_keys import key_of_lists, model_stage
from ..core.stages import LINEAGE, RunFolder, Stage, read_manifest

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from ..calibration.certificate import CertificateHistory
    from ..core.recipe import Recipe
    from ..data.concepts import ConceptTable


def calibrate_run(recipe: Recipe) -> None:
    """Make the stage, unless it is up to date, and print what was fitted."""
    run = RunFolder(recipe.run.run_dir)
    corrections = recipe.calibration.calibration_feedback
    cache = Path(recipe.run.cache_dir)
    stage = model_stage(recipe, run, corrections and remembered(fingerprint_path, Path(corrections), cache))
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, recipe.run):
            _make(recipe, run, stage)


def _make(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    from ..calibration.certificate import note_on_certificate
    from ..calibration.fitting import fit_calibration
    from ..calibration.network_logits import NetworkLogits
    from ..calibration.string_counts import StringCounts
    from ..data.candidate_lists import CandidateLists
    from ..data.concepts import ConceptTable
    from ..data.sources import describe_dictionary
    from ..hub.model_folder import copy_network, write_model_files
    from ..models.cross_encoder import PairScorer
    from ..models.template import PairTemplate

    concepts = ConceptTable.load(run.path / "concepts")
    candidates = run.splits("candidates")["calibration"]
    mentions = run.splits("mentions")
    fitted_mentions = mentions["calibration"]
    corrections: dict[str, Any] = {}
    if recipe.calibration.calibration_feedback:
        candidates, fitted_mentions, corrections = _with_corrections(
            recipe, run, recipe.calibration.calibration_feedback, candidates, mentions, concepts
        )
    template = PairTemplate.from_recipe(recipe.model)
    key = key_of_lists(run.path)
    lists = CandidateLists.from_run(candidates, fitted_mentions, concepts, template.candidate_fields, key)
    dictionary = describe_dictionary(read_json(run.path / "concepts" / "read_report.json"))
    with stage.writing() as (folder, summary):
        copy_network(run.path / "checkpoints" / "checkpoint-best", folder)
        scorer = PairScorer.from_folder(folder, template, recipe.run.device, recipe.run.scoring_dtype)
        network = NetworkLogits(scorer, lists, "scoring calibration candidates")
        calibration, fitted = fit_calibration(
            lists,
            network,
            StringCounts.of_split(mentions["train"]),
            recipe.calibration,
            concepts.hierarchy,
            recipe.run.seed,
            template.reads,
            _former_certificates(run, stage),
        )
        fitted |= corrections
        write_model_files(folder, recipe, template, scorer.dtype, calibration, fitted, dictionary)
        summary |= fitted | {"truncated_pairs": network.truncated}
    thresholds, fusion = calibration.thresholds, calibration.models[0].fusion
    default = thresholds.for_type()
    if fusion:
        for strings, weights in (("seen in training", fusion.seen_weights), ("new", fusion.weights)):
            shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
            print(f"feature weights for strings {strings}: {shown}")
        print(f"bonus of the top candidate: {fusion.bonus:.3g}")
    print(
        f"{calibration.models[0].calibrator.name} calibrator on {fitted['pairs']:,} candidates of "
        f"{fitted['mentions']:,} mentions; default thresholds: accept {default.accept:.3f}, high "
        f"{thresholds.certificate}"
    )
    if cut := calibration.models[0].pruning_threshold:
        print(f"pruning threshold {cut:g}: candidates with a lower probability by the other features are not scored")
    for model in calibration.models[1:]:
        print(f"{model.name}: high {model.thresholds.certificate}")
    if contradicted := thresholds.contradicted:
        print(
            "types whose calibration mentions contradict the target precision of the high tier: "
            f"{', '.join(contradicted)}"
        )
    if note := note_on_certificate(fitted["certified_by"], is_certified=thresholds.is_certified):
        print(note)


def _former_certificates(run: RunFolder, stage: Stage) -> CertificateHistory:
    """Certificates of the run that was recalibrated, and of its recalibrations with other corrections."""
    from ..calibration.certificate import NO_CERTIFICATES, CertificateHistory
    from ..hub.model_folder import CALIBRATOR

    if not (run.path / LINEAGE).is_file():
        return NO_CERTIFICATES
    if (run.path / "model" / CALIBRATOR).is_file():
        former = CertificateHistory.from_list(read_json(run.path / "model" / CALIBRATOR)["certificates"])
        # Refitted from the same corrections, it is the same certificate.
        return former.before() if read_manifest(run.path / "model")["key"] == stage.key else former
    return CertificateHistory.from_list(read_json(run.path / LINEAGE)["former_certificates"])


def _with_corrections(
    recipe: Recipe,
    run: RunFolder,
    feedback_folder: str,
    candidates: Dataset,
    mentions: DatasetDict,
    concepts: ConceptTable,
) -> tuple[Dataset, Dataset, dict[str, Any]]:
    """Lists and mentions of the calibration split plus the corrections, and their entry in ``calibrator.json``."""
    from .corrections import calibration_rows, load_feedback

    feedback = load_feedback(Path(feedback_folder))
    documents = {split: list(mentions[split]["doc_id"]) for split in ("train", "test")}
    rows, row_mentions, lost = calibration_rows(
        feedback,
        candidates,
        mentions["calibration"],
        documents["test"],
        documents["train"],
        concepts,
        key_of_lists(run.path),
        reads_concepts=bool(recipe.model.candidate_fields),
    )
    used = len(feedback) - sum(lost.values())
    certifying = sum(row_mentions["certifies"][len(candidates) :])
    print(
        f"{used:,} corrections added to {len(candidates):,} mentions; {certifying:,} of them were drawn at random and "
        f"count for certificates; left out: {lost}"
    )
    facts = {"corrections": {"used": used, "certifying": certifying, "left_out": lost}}
    if (run.path / LINEAGE).is_file():
        facts["recalibrated_from"] = read_json(run.path / LINEAGE)["recalibrated_from"]
    return rows, row_mentions, facts
