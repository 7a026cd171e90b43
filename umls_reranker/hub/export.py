"""Export the cross-encoder to ONNX, with the logits of PyTorch, for serving without it."""

import shutil
import warnings
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import transformers

from ..core.errors import UserError
from ..lists.candidate_lists import CandidateLists
from ..models.cross_encoder import PairScorer, score_lists
from ..models.pair_template import PairTemplate
from ..models.pretrained import input_names, load_model, load_pretrained
from .file_names import ONNX
from .manifest import has_cross_encoder, verify_model
from .model_folder import changing, restored

# Calibrator, thresholds and certificate hold for both backends if logits differ by rounding only.
LARGEST_DIFFERENCE = 1e-4
# Number of mentions whose candidates are compared.
EXAMPLES = 100
# Version of the ONNX operators.
OPSET = 18
EXPORT_LIBRARIES = ("onnx", "onnxscript", "onnxruntime")


def export_onnx(folder: Path, lists: CandidateLists) -> tuple[int, float]:
    """Add the cross-encoder in ONNX to a model folder, if its logits are those of PyTorch.

    Args:
        folder: model folder; it stays as it is if the export fails.
        lists: the model's own candidate lists, of which `EXAMPLES` are scored by both backends.

    Returns:
        The number of compared pairs, and the largest difference of their logits.

    Warns:
        UserWarning: the calibrator was fitted on logits of another dtype than float32.

    Raises:
        UserError: the model has no cross-encoder, logits differ by more than `LARGEST_DIFFERENCE`,
            or a library that exports is not installed.
    """
    info = verify_model(restored(folder))
    if not has_cross_encoder(info):
        raise UserError(
            f"{folder} has no cross-encoder to export; it is already served without PyTorch"
        )
    missing = [name for name in EXPORT_LIBRARIES if find_spec(name) is None]
    if missing:
        raise UserError(f"export needs {' and '.join(missing)}: install the extra export")
    if info["dtype"] != "float32":
        warnings.warn(
            f"this model was calibrated in {info['dtype']}, whose logits differ from float32 by a "
            "few hundredths; calibrate with scoring_dtype: float32 to certify what ONNX serves",
            stacklevel=2,
        )
    template = PairTemplate.from_dict(info["template"])
    # Mentions spread over all lists.
    positions = np.linspace(0, len(lists) - 1, EXAMPLES).astype(int)
    examples = lists.take(np.unique(positions))
    reference = PairScorer.from_folder(folder, template, "cpu", "float32")
    with changing(folder) as new:
        for name in ("config.json", "tokenizer.json"):
            shutil.copyfile(folder / name, new / name)
        (new / ONNX).parent.mkdir()
        _write_onnx(folder, new / ONNX, template.max_length)
        exported = PairScorer.from_folder(new, template, backend="onnx")
        expected = score_lists(reference, examples, desc="scoring in torch").logits
        logits = score_lists(exported, examples, desc="scoring in onnx").logits
        # Both lack the logits of pairs that the tokenizer cannot tell apart.
        differences = np.nan_to_num(np.abs(expected - logits))
        difference = float(differences.max(initial=0.0))
        if difference > LARGEST_DIFFERENCE:
            raise UserError(
                f"ONNX and PyTorch logits differ by up to {difference:.1e} on {len(logits):,} "
                f"pairs, more than rounding ({LARGEST_DIFFERENCE:.0e}); "
                "serve this model with backend torch"
            )
    return len(logits), difference


def _write_onnx(folder: Path, file: Path, max_length: int) -> None:
    """Write the cross-encoder of a model folder as a graph for any number of pairs.

    Args:
        folder: the model folder.
        file: the file to make.
        max_length: most tokens of a pair.
    """
    model = load_model(folder)
    names = input_names(model, load_pretrained(transformers.AutoTokenizer, folder))
    # Two rows and several columns: a dimension of one would be treated as a constant.
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in names}
    # torch 2.9 wants it said that they are two or more; the graph computes one row all the same.
    batch = torch.export.Dim("batch", min=2)
    length = torch.export.Dim("length", min=2, max=max_length)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(names, {0: batch, 1: length}),
            verbose=False,
        )
    assert program is not None  # which it is only without dynamo
    program.save(file, external_data=False)
