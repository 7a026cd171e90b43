#!/usr/bin/env python
"""Fit calibrator and thresholds on the candidate lists of the calibration split, and write the model folder.

    umls-reranker calibrate quickstart
    umls-reranker calibrate MODEL --lists my_lists.parquet --output NEW_MODEL

The first form writes model/ into the run folder: weights, tokenizer, reranker.json, calibrator.json with the feature
weights, the counts of the training split's strings, thresholds.json, and recipe.yaml.

The second form needs no run. MODEL is a reranker or any sequence classifier with one logit, a folder or a Hub id. The
lists are a few hundred mentions of your own pipeline, in the format of umls-reranker rerank (JSON Lines, Parquet,
Arrow), each with doc_id and cui, its right concept. Scores of your retrievers are features too; name them NAME_score
in the candidates. The command compares the model before, and after on documents that it was not fitted on.
umls-reranker calibrate MODEL --lists FILE --help lists the options of this form.
"""

import sys
from pathlib import Path

from umls_reranker.core.arguments import CalibrationArguments, RunArguments
from umls_reranker.core.files import fingerprint_path, read_json, remembered
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import CommandParser, run_script, should_run, would_make
from umls_reranker.core.stage_keys import key_of_lists, model_stage
from umls_reranker.core.stages import LINEAGE, RunFolder


def main() -> None:
    if any(word.split("=")[0] in ("--lists", "--output") for word in sys.argv[1:]):
        calibrate_on_lists(lists_parser().parse_args())
    else:
        calibrate(parse_recipe(__doc__, (RunArguments, CalibrationArguments)))


def lists_parser() -> CommandParser:
    usage = "%(prog)s --output FOLDER [--OPTION VALUE ...]"
    parser = CommandParser(__doc__, usage=usage)
    # Errors point at the help of this form.
    parser.prog += " MODEL --lists FILE"
    parser.add_argument("model", help="folder or Hub id of a reranker, or of a sequence classifier with one logit")
    parser.add_argument("--lists", type=Path, required=True, help="file or folder: .jsonl, .parquet, .arrow")
    parser.add_argument("--output", type=Path, required=True, help="folder of the new model; must not exist")
    parser.add_argument("--revision", help="tag, branch or commit on the Hub")
    parser.add_argument("--device", help="cpu, cuda, ... (default: a GPU if there is one)")
    parser.add_argument("--dtype", help="auto, float32, bfloat16 or float16 (default: auto)")
    usual = CalibrationArguments()
    parser.add_argument("--calibrator", default=usual.calibrator, help="as in a recipe (default: auto)")
    for name, meaning in (
        ("target_precision", "precision that the tier high is certified for"),
        ("confidence", "confidence of this certificate"),
    ):
        parser.add_argument(
            f"--{name}", type=float, default=getattr(usual, name), help=f"{meaning} (default: %(default)s)"
        )
    parser.add_argument(
        "--seed", type=int, default=RunArguments().seed, help="seed for splitting the documents into folds"
    )
    parser.add_argument(
        "--exhaustive", action="store_true", help="have the cross-encoder score also candidates that cannot win"
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="load the model, check the lists and say what they hold; score nothing"
    )
    return parser


def calibrate_on_lists(options) -> None:
    from umls_reranker.calibration.calibrators import Calibrator
    from umls_reranker.calibration.fusion import CANDIDATE_FEATURES
    from umls_reranker.core.errors import UserError
    from umls_reranker.data.labelled_lists import read_labelled_lists
    from umls_reranker.serving.recalibration import (
        SourceModel,
        before_and_after,
        described,
        recalibrate,
        save_recalibrated,
    )

    methods = ("auto", *(name for name, kind in Calibrator.kinds.items() if kind.fits_lists))
    if options.calibrator not in methods:
        raise UserError(f"calibrator: {options.calibrator!r} is unknown; with lists choose from {', '.join(methods)}")
    for name in ("target_precision", "confidence"):
        if not 0 < getattr(options, name) < 1:
            raise UserError(f"{name}: {getattr(options, name)} must be between 0 and 1, such as 0.95")
    if not 0 <= options.seed < 2**32:
        raise UserError(f"seed: {options.seed} must be from 0 to {2**32 - 1:,}")
    if options.output.exists():
        raise UserError(f"{options.output} exists already; choose another folder for the new model")
    source = SourceModel.load(options.model, options.revision, options.device, options.dtype)
    given = read_labelled_lists(options.lists, source.hierarchy, CANDIDATE_FEATURES)
    # Before anything is scored, which may take long.
    print(described(given), flush=True)
    if options.dry_run:
        would_make("calibrate", options.output)
        return
    settings = CalibrationArguments(
        calibrator=options.calibrator,
        target_precision=options.target_precision,
        confidence=options.confidence,
        exhaustive=options.exhaustive,
    )
    found = recalibrate(source, given, settings, options.seed)
    save_recalibrated(source, found, options.output)
    print(before_and_after(found))
    print(f"the new model is in {options.output}")


def calibrate(recipe) -> None:
    """Run the whole stage; recalibrate.py calls it for a new run."""
    run = RunFolder(recipe.run.run_dir)
    corrections = recipe.calibration.calibration_feedback
    cache = Path(recipe.run.cache_dir)
    stage = model_stage(recipe, run, corrections and remembered(fingerprint_path, Path(corrections), cache))
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, overwrite=recipe.run.overwrite, dry_run=recipe.run.dry_run):
            make(recipe, run, stage)


def make(recipe, run, stage) -> None:
    from umls_reranker.calibration.fitting import fit_parts
    from umls_reranker.calibration.history import note_on_certificate
    from umls_reranker.calibration.network_logits import NetworkLogits
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.data.sources import describe_dictionary
    from umls_reranker.hub.model_folder import copy_network, write_parts
    from umls_reranker.models.cross_encoder import PairScorer
    from umls_reranker.models.template import PairTemplate

    concepts = ConceptTable.load(run.path / "concepts")
    candidates = run.splits("candidates")["calibration"]
    mentions = run.splits("mentions")
    fitted_mentions, corrections = mentions["calibration"], {}
    if recipe.calibration.calibration_feedback:
        candidates, fitted_mentions, corrections = with_corrections(recipe, run, candidates, mentions, concepts)
    template = PairTemplate.from_recipe(recipe.model)
    key = key_of_lists(run.path)
    lists = CandidateLists.from_run(candidates, fitted_mentions, concepts, template.candidate_fields, key)
    dictionary = describe_dictionary(read_json(run.path / "concepts" / "read_report.json"))
    with stage.writing() as (folder, summary):
        copy_network(run.path / "checkpoints" / "checkpoint-best", folder)
        scorer = PairScorer.from_folder(folder, template, recipe.run.device, recipe.run.scoring_precision)
        network = NetworkLogits(scorer, lists, "scoring calibration candidates")
        calibration, fitted = fit_parts(
            lists,
            network,
            mentions["train"],
            recipe.calibration,
            concepts.hierarchy,
            recipe.run.seed,
            template.reads,
            former_certificates(run, stage),
        )
        fitted |= corrections
        write_parts(folder, recipe, template, scorer.precision, calibration, fitted, dictionary)
        summary |= fitted | {"truncated_pairs": network.truncated}
    thresholds, fusion = calibration.thresholds, calibration.models[0].fusion
    default = thresholds.for_type()
    if fusion:
        for strings, weights in (("seen in training", fusion.seen_weights), ("new", fusion.weights)):
            shown = ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
            print(f"features weighed for strings {strings}: {shown}")
        print(f"bonus of the top candidate: {fusion.bonus:.3g}")
    print(
        f"{calibration.models[0].calibrator.method} calibrator on {fitted['pairs']:,} candidates of "
        f"{fitted['mentions']:,} mentions; "
        f"default thresholds: accept {default.accept:.3f}, high confidence {thresholds.certificate}"
    )
    if cut := calibration.models[0].cut:
        print(f"candidates below a probability of {cut:g} by the other features are left unscored")
    for model in calibration.models[1:]:
        print(f"{model.name}: high confidence {model.thresholds.certificate}")
    if contradicted := thresholds.contradicted:
        print(f"in the tier high, calibration mentions of these types contradict it: {', '.join(contradicted)}")
    if note := note_on_certificate(fitted["certified_by"]):
        print(note)


def former_certificates(run, stage):
    """Of the run that was recalibrated, and of its recalibrations with other corrections."""
    from umls_reranker.calibration.history import NO_CERTIFICATES, CertificateHistory
    from umls_reranker.hub.model_folder import CALIBRATOR

    if not (run.path / LINEAGE).is_file():
        return NO_CERTIFICATES
    if (run.path / "model" / CALIBRATOR).is_file():
        former = CertificateHistory.from_list(read_json(run.path / "model" / CALIBRATOR)["certificates"])
        # Fitted again from the same corrections, it is the same certificate.
        return former.before() if stage.former()["key"] == stage.key else former
    return CertificateHistory.from_list(read_json(run.path / LINEAGE)["former_certificates"])


def with_corrections(recipe, run, candidates, mentions, concepts) -> tuple:
    """Lists and mentions of the calibration split plus the corrections, and what calibrator.json says about them."""
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


if __name__ == "__main__":
    run_script(main)
