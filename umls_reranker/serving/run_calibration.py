"""The stage ``model`` of a run: calibrator and thresholds.

Libraries are imported only if the stage must be made, so one that is up to date is skipped at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..core.files import read_json
from ..core.stages import RunFolder, Stage, make_stage, should_run

if TYPE_CHECKING:
    from ..core.recipe import Recipe


def calibrate_run(recipe: Recipe) -> None:
    """Make the stage, unless it is up to date, and print what was fitted."""
    run = RunFolder(recipe.run.run_dir)
    stage = make_stage("model", recipe, run)
    with run.locked(dry_run=recipe.run.dry_run):
        if should_run(stage, recipe.run):
            _make(recipe, run, stage)


def _make(recipe: Recipe, run: RunFolder, stage: Stage) -> None:
    from ..calibration.certificate import note_on_certificate
    from ..calibration.fitting import fit_calibration
    from ..calibration.network_logits import NetworkLogits
    from ..calibration.string_counts import StringCounts
    from ..data.concepts import ConceptTable
    from ..data.labelled_lists import read_run_lists
    from ..data.sources import describe_dictionary
    from ..hub.model_folder import copy_network, write_model_files
    from ..models.cross_encoder import PairScorer
    from ..models.pairs import PairTemplate

    concepts = ConceptTable.load(run.path / "concepts")
    mentions = run.splits("mentions")
    template = PairTemplate.from_recipe(recipe.model)
    lists = read_run_lists(run.path, "calibration", concepts)
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
        )
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
