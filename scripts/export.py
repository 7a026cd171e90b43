"""Export the model folder's cross-encoder to ONNX, for serving without PyTorch.

    umls-reranker export quickstart
    umls-reranker serve runs/quickstart/model --backend onnx

Writes onnx/model.onnx into the model folder, where sentence-transformers and Optimum look for it.
Its logits on lists of the dev split must equal those of PyTorch in float32, so that calibrator,
thresholds and certificate stay valid; otherwise the export is refused. Needs the extra export.
"""

from umls_reranker.pipeline.command import would_make
from umls_reranker.pipeline.options import parse_recipe
from umls_reranker.pipeline.run_folder import RunFolder, tell_other_settings


def main() -> None:
    recipe = parse_recipe(__doc__, ("run_name", "output_dir", "dry_run"))
    run = RunFolder(recipe.run.run_dir)
    run.key_of("model", "calibrate")
    tell_other_settings(recipe, run, ["model"])
    folder = run.path / "model"
    if recipe.run.dry_run:
        would_make("onnx", folder)
        return
    from umls_reranker.hub.export import export_onnx

    with run.locked():
        pairs, apart = export_onnx(folder, run.lists("dev"))
    print(
        f"onnx: logits of {pairs:,} dev pairs differ from PyTorch's by at most {apart:.1e}; "
        "calibration unchanged"
    )
