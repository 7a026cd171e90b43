#!/usr/bin/env python
"""Refit calibrator and thresholds of a finished run with reviewers' corrections: minutes, no training.

    umls-reranker recalibrate quickstart --calibration_feedback corrections --name corrected

Creates the run folder NAME next to the recipe's, with links to the finished stages and a new model/, whose
calibrator.json names the version it comes from. The original run is unchanged. With more corrections, the same command
refits NAME; it is refused once the recipe's run has another model. Then run evaluate, validate --against
and publish with --run_name NAME, as for any run.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

from umls_reranker.core.errors import UserError
from umls_reranker.core.files import read_json, write_json
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, would_make
from umls_reranker.core.settings import CalibrationArguments, RunArguments
from umls_reranker.core.stages import LINEAGE, RunFolder
from umls_reranker.review.run_calibration import calibrate_run


@dataclass
class RecalibrationOptions:
    """Recalibration: options of this script only."""

    name: str | None = field(default=None, metadata={"help": "name of the new run, next to the recipe's run folder"})


def main() -> None:
    recipe, options = parse_recipe(__doc__, (RunArguments, CalibrationArguments), extra=RecalibrationOptions)
    for key, value in (("name", options.name), ("calibration_feedback", recipe.calibration.calibration_feedback)):
        if not value:
            raise UserError(f"recalibration requires --{key}; see --help")
    run = RunFolder(recipe.run.run_dir)
    run.key_of("model", "calibrate")
    from umls_reranker.core.files import file_sha256
    from umls_reranker.hub.model_folder import CALIBRATOR, THRESHOLDS, verify_model
    from umls_reranker.review.corrections import load_feedback

    load_feedback(Path(recipe.calibration.calibration_feedback))
    verify_model(run.path / "model")
    new = run.path.parent / options.name
    shas = {f"{Path(part).stem}_sha256": file_sha256(run.path / "model" / part) for part in (CALIBRATOR, THRESHOLDS)}
    former = read_json(run.path / "model" / CALIBRATOR)["certificates"]
    lineage = {"recalibrated_from": {"run": run.path.name} | shas, "former_certificates": former}
    if not new.exists():
        if recipe.run.dry_run:
            would_make("model", new / "model")
            return
        write_json(run.fork(new, leave_out=("model", "report")).path / LINEAGE, lineage)
    elif not (new / LINEAGE).is_file() or read_json(new / LINEAGE) != lineage:
        raise UserError(
            f"{new} already exists and is not a recalibration of the present {run.path}; remove it or choose another "
            "--name"
        )
    calibrate_run(replace(recipe, run=replace(recipe.run, run_name=options.name)))


if __name__ == "__main__":
    run_script(main)
