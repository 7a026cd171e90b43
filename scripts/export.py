#!/usr/bin/env python
"""Export the model folder's network to ONNX or OpenVINO, in float32 or int8, and measure it on the dev split.

    umls-reranker export quickstart --backends onnx onnx_int8

Writes onnx/ and openvino/ into the model folder as sentence-transformers and Optimum expect them, and backends.json.
A network that loses more than MOST_POINTS_LOST of acc@1 is refused. If its scores differ, it gets its own calibrator
and thresholds. `UMLSReranker.from_pretrained(..., backend="onnx_int8")` loads it.
"""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from umls_reranker.core.arguments import EXPORTED_FILES, CalibrationArguments, RunArguments
from umls_reranker.core.errors import UserError
from umls_reranker.core.recipe import parse_recipe
from umls_reranker.core.script import run_script, would_make
from umls_reranker.core.stage_keys import key_of_lists
from umls_reranker.core.stages import RunFolder


@dataclass
class ExportOptions:
    """Export: which networks to make, and how much they may lose."""

    backends: list[str] = field(
        default_factory=lambda: ["onnx", "onnx_int8"], metadata={"help": ", ".join(EXPORTED_FILES), "choices": None}
    )
    most_points_lost: float = field(
        default=0.2, metadata={"help": "largest loss of acc@1 on the dev lists, in percentage points", "choices": None}
    )


def main() -> None:
    recipe, options = parse_recipe(__doc__, (RunArguments, CalibrationArguments), extra=ExportOptions)
    for backend in options.backends:
        if backend not in EXPORTED_FILES:
            raise UserError(f"backends: {backend!r} is unknown; choose from {', '.join(EXPORTED_FILES)}")
    run = RunFolder(recipe.run.run_dir)
    run.key_of("model", "calibrate")
    if recipe.run.dry_run:
        for backend in options.backends:
            would_make(backend, run.path / "model")
        return
    with run.locked():
        make(recipe, run, options)


def make(recipe, run, options) -> None:
    from umls_reranker.calibration.fitting import fit_parts
    from umls_reranker.calibration.network_logits import NetworkLogits
    from umls_reranker.data.candidate_lists import CandidateLists
    from umls_reranker.data.concepts import ConceptTable
    from umls_reranker.hub.export import export_network, needs_calibrator, register
    from umls_reranker.serving.reranker import UMLSReranker

    concepts = ConceptTable.load(run.path / "concepts")
    mentions = run.splits("mentions")
    candidates = run.splits("candidates")
    folder = run.path / "model"
    reranker = UMLSReranker.from_pretrained(folder, device=recipe.run.device, dtype=recipe.run.scoring_precision)
    template = reranker.scorer.template
    key = key_of_lists(run.path)
    dev, fitting = (
        CandidateLists.from_run(candidates[name], mentions[name], concepts, template.candidate_fields, key)
        for name in ("dev", "calibration")
    )
    for backend in options.backends:
        with tempfile.TemporaryDirectory(dir=run.path, prefix=".export.") as workspace:
            scorer, figures = export_network(
                folder, backend, reranker.scorer, dev, options.most_points_lost, Path(workspace)
            )
            calibration = None
            if needs_calibrator(figures):
                calibration = fit_parts(
                    fitting,
                    NetworkLogits(scorer, fitting, "scoring calibration candidates"),
                    mentions["train"],
                    recipe.calibration,
                    concepts.hierarchy,
                    recipe.run.seed,
                    template.reads,
                )
            register(folder, Path(workspace), backend, figures, calibration)
        print(
            f"{backend}: acc@1 {figures['acc@1']:.4f} ({figures['torch_acc@1']:.4f} in PyTorch), same top candidate "
            f"for {figures['same_top_share']:.2%} of {figures['mentions']:,} mentions, "
            f"{'a calibrator of its own' if calibration else 'calibrated as PyTorch'}"
        )


if __name__ == "__main__":
    run_script(main)
