"""Export networks for other runtimes, compare them with PyTorch, and refuse those that are worse."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..calibration.probabilities import COUNTS_FILE
from ..core.arguments import EXPORTED_FILES
from ..core.arrays import best_candidates
from ..core.errors import UserError
from ..core.files import write_json
from ..models.cross_encoder import PairScorer, score_lists
from ..models.networks import input_names
from ..models.pretrained import load_model
from ..models.runtimes import import_openvino
from ..models.tokens import PairBatch
from .model_folder import NETWORK, REGISTER, WEIGHTS, changing, exported, verify_parts, write_calibration

if TYPE_CHECKING:
    from ..calibration.probabilities import Calibration
    from ..data.candidate_lists import AnnotatedLists
    from ..models.tokens import PairEncoder

__all__ = ["agreement", "export_network", "needs_calibrator", "register"]

# Logits that differ by more need a calibrator of their own.
SAME_SCORES = 1e-3
OPSET = 18
# Real pairs for the activation ranges of OpenVINO's static quantization.
QUANTIZATION_PAIRS = 300


def agreement(lists: AnnotatedLists, reference: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """How much a network's scores differ from the reference, and the effect on accuracy.

    Args:
        lists: real candidate lists, n mentions with m candidates.
        reference, logits: (m,) of PyTorch and of the network.

    Returns:
        Largest and mean difference of logits, share of mentions with the same top candidate, acc@1 of both (share of
        all mentions), and ``points_lost``, their difference in percentage points.
    """
    apart = np.abs(reference - logits)
    tops = [best_candidates(scores, lists.offsets) for scores in (reference, logits)]
    right = [float(np.mean(lists.is_right(top))) for top in tops]
    return {
        "mentions": len(lists),
        "pairs": len(reference),
        "largest_logit_difference": float(apart.max(initial=0.0)),
        "mean_logit_difference": float(apart.mean()) if len(apart) else 0.0,
        "same_top_share": float(np.mean(tops[0] == tops[1])),
        "torch_acc@1": right[0],
        "acc@1": right[1],
        "points_lost": 100 * (right[0] - right[1]),
    }


def export_network(
    folder: Path,
    backend: str,
    reference: PairScorer,
    lists: AnnotatedLists,
    most_points_lost: float,
    workspace: Path,
) -> tuple[PairScorer, dict[str, float]]:
    """Export a network into `workspace` and measure it on candidate lists.

    Args:
        folder: model folder.
        backend: one of `EXPORTED_FILES`.
        reference: scores in PyTorch.
        lists: of the dev split.
        most_points_lost: largest accepted loss of acc@1, in percentage points.
        workspace: becomes a model folder with only this network.

    Returns:
        A scorer of the network, and its `agreement`.

    Raises:
        UserError: it loses more, or a library required for the export is not installed.
    """
    for name in NETWORK:
        if name != WEIGHTS and (folder / name).is_file():
            shutil.copyfile(folder / name, workspace / name)
    try:
        _write_network(folder, backend, reference.encoder, lists, workspace)
    except ImportError as error:
        extra = backend.partition("_")[0]
        raise UserError(f"export to {backend} needs {error.name}: pip install 'umls_reranker[{extra}]'") from None
    scorer = PairScorer.from_folder(workspace, reference.encoder.template, "cpu", backend=backend)
    expected = score_lists(reference, lists, f"scoring in {reference.backend}").logits
    figures = agreement(lists, expected, score_lists(scorer, lists, f"scoring in {backend}").logits)
    if figures["points_lost"] > most_points_lost:
        raise UserError(
            f"{backend} is refused: acc@1 {figures['acc@1']:.4f} against {figures['torch_acc@1']:.4f} in PyTorch on "
            f"{figures['mentions']:,} mentions, {figures['points_lost']:.2f} points lost where {most_points_lost:.2f} "
            f"are allowed; same top candidate for {figures['same_top_share']:.2%}, logits differ by "
            f"{figures['mean_logit_difference']:.3f} on average"
        )
    return scorer, figures


def _write_network(folder: Path, backend: str, encoder: PairEncoder, lists: AnnotatedLists, target: Path) -> None:
    """Write a network's files into `target`, in the layout of Optimum.

    Args:
        encoder, lists: real pairs, for the ranges of activations in int8.
    """
    file = target / EXPORTED_FILES[backend][0]
    file.parent.mkdir(exist_ok=True)
    plain = file.with_name("plain.onnx")
    if _has_network(folder, "onnx"):
        shutil.copyfile(folder / EXPORTED_FILES["onnx"][0], plain)
    else:
        _write_onnx(folder, plain, encoder)
    if backend == "onnx":
        plain.rename(file)
    elif backend == "onnx_int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        # Seven-bit weights: with eight, sums overflow on CPUs without VNNI, so scores and calibrator would hold for
        # one kind of CPU only.
        quantize_dynamic(plain, file, per_channel=True, reduce_range=True, weight_type=QuantType.QInt8)
    else:
        openvino = import_openvino()
        model = openvino.convert_model(plain)
        if backend == "openvino_int8":
            model = _quantized(model, encoder, lists)
        openvino.save_model(model, file, compress_to_fp16=False)


def register(
    folder: Path,
    workspace: Path,
    backend: str,
    figures: dict[str, float],
    calibration: tuple[Calibration, dict[str, Any]] | None,
) -> None:
    """Add a measured network to the model folder and to ``backends.json``.

    Args:
        figures: its `agreement`.
        calibration: its own, if its scores differ, with what it was fitted on.
    """
    known = exported(folder)
    known[backend] = {"is_recalibrated": calibration is not None, "agreement": figures}
    with changing(folder) as new:
        if calibration is not None:
            write_calibration(new, *calibration, backend=backend)
            _refuse_other_counts(folder, new)
        for name in EXPORTED_FILES[backend]:
            (new / name).parent.mkdir(exist_ok=True)
            (workspace / name).replace(new / name)
        write_json(new / REGISTER, {"schema_version": 1, "backends": dict(sorted(known.items()))})


def _refuse_other_counts(folder: Path, new: Path) -> None:
    """All calibrators of a model folder share one file of counts."""
    counts = new / COUNTS_FILE
    if counts.is_file() and counts.read_bytes() != (folder / COUNTS_FILE).read_bytes():
        raise UserError(
            f"{folder} was calibrated with other training mentions than the run holds now; "
            "run umls-reranker calibrate again, then this"
        )


def _has_network(folder: Path, backend: str) -> bool:
    """Whether a backend was exported from the folder's weights."""
    try:
        verify_parts(folder, backend)
    except UserError:
        return False
    return True


def needs_calibrator(figures: dict[str, float]) -> bool:
    """Whether scores differ by more than rounding."""
    return figures["largest_logit_difference"] > SAME_SCORES


def _write_onnx(folder: Path, file: Path, encoder: PairEncoder) -> None:
    model = load_model(folder)
    names = input_names(encoder.tokenizer)
    # Two rows and several columns: a dimension of one would be treated as a constant.
    inputs = {name: torch.ones(2, 8, dtype=torch.int64) for name in names}
    axes = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=encoder.template.max_length)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model,
            kwargs=inputs,
            dynamo=True,
            opset_version=OPSET,
            input_names=names,
            output_names=["logits"],
            dynamic_shapes=dict.fromkeys(names, axes),
            verbose=False,
        )
    assert program is not None  # which it is only without dynamo
    program.save(file, external_data=False)


def _quantized(model, encoder: PairEncoder, lists: AnnotatedLists):
    nncf = import_openvino("nncf")
    texts = encoder.template.candidate_texts(lists)
    chosen = np.linspace(0, len(texts) - 1, min(QUANTIZATION_PAIRS, len(texts))).astype(int)
    mentions = [lists.mentions[row] for row in lists.owner[chosen].tolist()]
    pairs = encoder.encode(mentions, texts[chosen])
    names = input_names(encoder.tokenizer)

    def inputs(row: int) -> dict[str, np.ndarray]:
        arrays = PairBatch.of(pairs, np.array([row])).padded(encoder.tokenizer.pad_token_id or 0)
        return {name: arrays[name] for name in names}

    data = nncf.Dataset(list(range(len(pairs))), inputs)
    # As for ONNX: seven-bit weights, for the same scores with and without VNNI.
    advanced = nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE)
    return nncf.quantize(
        model,
        data,
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(pairs),
        advanced_parameters=advanced,
    )
