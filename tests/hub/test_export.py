"""Networks for other runtimes: exported, measured, refused, recalibrated, loaded and checked."""

import subprocess
import sys
from importlib.util import find_spec
from threading import current_thread

import numpy as np
import pytest
from list_fixtures import make_lists
from tiny_reranker import fit_thresholds, tiny_reranker

from umls_reranker import UMLSReranker
from umls_reranker.calibration.calibrators import PlattCalibrator
from umls_reranker.calibration.fusion import FeatureFusion
from umls_reranker.calibration.probabilities import COUNTS_FILE, Calibration, InputModel
from umls_reranker.calibration.string_counts import StringCounts
from umls_reranker.core.errors import UserError
from umls_reranker.hub.export import agreement, export_network, needs_calibrator, register
from umls_reranker.hub.model_folder import changing, model_files, verify_parts
from umls_reranker.models.cross_encoder import score_lists
from umls_reranker.models.runtimes import OpenVinoNetwork

BACKENDS = ["onnx", "onnx_int8", "openvino", "openvino_int8"]


@pytest.fixture(scope="module")
def lists():
    choose = np.random.default_rng(0)
    texts = ["".join(choose.choice(list("abcdef "), size)) + "x" for size in choose.integers(1, 12, 120)]
    candidates = [texts[start : start + 5] for start in range(20, 120, 5)]
    return make_lists(texts[:20], candidates, gold=choose.integers(-1, 5, 20))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, lists):
    """A model folder with every network in it that the installed libraries can make, and their figures."""
    folder = tiny_reranker(tmp_path_factory.mktemp("export") / "model")
    reference = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32").scorer
    figures = {}
    for backend in BACKENDS:
        library = "nncf" if backend == "openvino_int8" else backend.partition("_")[0]
        if find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
        workspace = tmp_path_factory.mktemp(backend)
        _, figures[backend] = export_network(folder, backend, reference, lists, 100.0, workspace)
        calibration = None
        if needs_calibrator(figures[backend]):
            model = InputModel(PlattCalibrator(slope=0.5, intercept=0.25), thresholds=fit_thresholds())
            calibration = Calibration([model]), {}
        register(folder, workspace, backend, figures[backend], calibration)
    return folder, figures


def test_float32_networks_give_the_scores_of_pytorch(exported, lists):
    folder, figures = exported
    reference = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32")
    for backend in ("onnx", "openvino"):
        scorer = UMLSReranker.from_pretrained(folder, dtype="float32", backend=backend).scorer
        assert (scorer.backend, scorer.precision) == (backend, "float32")
        expected, logits = (score_lists(s, lists).logits for s in (reference.scorer, scorer))
        np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-3)
    assert figures["onnx"]["largest_logit_difference"] < 1e-3 and figures["onnx"]["same_top_share"] == 1


def test_openvino_sends_nothing(exported):
    assert sys.modules["openvino_telemetry"] is None


def test_openvino_is_first_called_by_one_thread(exported, monkeypatch):
    """Two threads in its first call stop each other forever."""
    calls = []
    compute = OpenVinoNetwork._logits
    monkeypatch.setattr(OpenVinoNetwork, "_logits", lambda *call: [calls.append(current_thread()), compute(*call)][1])
    UMLSReranker.from_pretrained(exported[0], backend="openvino")
    assert calls == [current_thread()]


SIGNAL = """
import gc, signal, sys
from umls_reranker import UMLSReranker
models = [UMLSReranker.from_pretrained(sys.argv[1], backend="openvino") for _ in range(2)]
while models:
    del models[0]
    gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled"))
signal.raise_signal(signal.SIGTERM)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no stack for signal handlers")
def test_a_signal_after_two_networks_of_openvino_is_handled(exported):
    done = subprocess.run([sys.executable, "-c", SIGNAL, exported[0]], capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr


@pytest.mark.parametrize("backend", ["onnx_int8", "openvino_int8"])
def test_int8_networks_are_close_and_come_with_their_own_calibrator(exported, backend):
    folder, figures = exported
    assert 1e-3 < figures[backend]["largest_logit_difference"] < 5
    reranker = UMLSReranker.from_pretrained(folder, backend=backend)
    assert reranker.scorer.precision == "int8"
    own = reranker.calibration.models[0].calibrator
    assert (own.slope, own.intercept) == (0.5, 0.25)
    assert UMLSReranker.from_pretrained(folder, backend="onnx").calibration.models[0].calibrator.slope == 0.8
    ranked = reranker.rerank("cold", ["common cold", "cough"])
    assert ranked[0].cross_encoder_score == pytest.approx(1 / (1 + np.exp(-(0.5 * ranked[0].logit + 0.25))), abs=1e-6)


def test_files_lie_where_other_libraries_look_for_them(exported):
    folder, _ = exported
    names = {path.relative_to(folder).as_posix() for path in model_files(folder)}
    assert {
        "onnx/model.onnx",
        "onnx/model_qint8_avx512_vnni.onnx",
        "openvino/openvino_model.xml",
        "openvino/openvino_model.bin",
        "openvino/openvino_model_qint8_quantized.xml",
        "openvino/openvino_model_qint8_quantized.bin",
        "backends.json",
        "calibrator_onnx_int8.json",
        "thresholds_onnx_int8.json",
    } <= names


def test_saved_networks_load_again(exported, tmp_path):
    folder, _ = exported
    saved = UMLSReranker.from_pretrained(folder).save_pretrained(tmp_path / "saved")
    again, first = (UMLSReranker.from_pretrained(path, backend="onnx_int8") for path in (saved, folder))
    assert again.rerank("cold", ["cough"])[0].logit == first.rerank("cold", ["cough"])[0].logit


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "onnx" / "model.onnx").write_bytes(b"other"), "model.onnx .* is not the file that"),
        (lambda folder: (folder / "onnx" / "model.onnx").unlink(), "model.onnx is missing; umls-reranker export"),
        (lambda folder: (folder / "backends.json").unlink(), "holds no onnx network"),
    ],
)
def test_a_network_that_does_not_belong_is_refused(exported, tmp_path, damage, reason):
    folder = UMLSReranker.from_pretrained(exported[0]).save_pretrained(tmp_path / "copy")
    verify_parts(folder, "onnx")
    damage(folder)
    with pytest.raises(UserError, match=reason):
        UMLSReranker.from_pretrained(folder, backend="onnx")


def test_a_network_that_is_not_loaded_need_not_be_there_or_be_read(exported, tmp_path):
    folder = UMLSReranker.from_pretrained(exported[0]).save_pretrained(tmp_path / "copy")
    (folder / "onnx" / "model.onnx").write_bytes(b"other")
    (folder / "openvino" / "openvino_model.bin").unlink()
    verify_parts(folder, "torch")
    with pytest.raises(UserError, match=r"model.onnx .* is not the file"):
        verify_parts(folder)


@pytest.mark.parametrize("name", ["backends.json", "calibrator_onnx_int8.json", "thresholds_onnx_int8.json"])
def test_what_an_export_decides_by_is_bound_too(exported, tmp_path, name):
    folder = UMLSReranker.from_pretrained(exported[0]).save_pretrained(tmp_path / "copy")
    (folder / name).write_text((folder / name).read_text() + " ")
    for backend in ("torch", "onnx_int8"):
        with pytest.raises(UserError, match=f"{name} .* is not the file that reranker.json describes"):
            UMLSReranker.from_pretrained(folder, backend=backend)


def test_registering_needs_the_training_mentions_of_the_calibration(tmp_path):
    folder, workspace = tiny_reranker(tmp_path / "model"), tmp_path / "workspace"
    with changing(folder) as new:
        StringCounts.fit([("cold", "C1", ["T047"])]).save(new / COUNTS_FILE)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def add(*mention):
        (workspace / "onnx").mkdir(parents=True, exist_ok=True)
        (workspace / "onnx" / "model.onnx").write_bytes(b"network")
        counts = StringCounts.fit([mention])
        fusion = FeatureFusion({"cross_encoder": 1.0}, {}, 0.0)
        model = InputModel(PlattCalibrator(slope=0.5, intercept=0.25), fusion, fit_thresholds())
        register(folder, workspace, "onnx", {}, (Calibration([model], counts), {}))

    with pytest.raises(UserError, match="calibrated with other training mentions"):
        add("flu", "C2", ["T047"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    add("cold", "C1", ["T047"])
    added = {"backends.json", "calibrator_onnx.json", "thresholds_onnx.json", "onnx/model.onnx"}
    assert added <= set(verify_parts(folder, "onnx")["sha256"])


def test_agreement_by_hand(lists):
    reference = np.tile([4.0, 3.0, 2.0, 1.0, 0.0], 20).astype(np.float32)
    logits = reference.copy()
    logits[:5] = [3.0, 4.0, 2.0, 1.0, 0.0]
    figures = agreement(lists, reference, logits)
    share = float(np.mean(lists.annotations.gold == 0))
    gained = (int(lists.annotations.gold[0] == 1) - int(lists.annotations.gold[0] == 0)) / 20
    assert figures["largest_logit_difference"] == 1 and figures["mean_logit_difference"] == pytest.approx(0.02)
    assert figures["same_top_share"] == 0.95 and figures["torch_acc@1"] == share
    assert figures["acc@1"] == pytest.approx(share + gained) and figures["points_lost"] == pytest.approx(-100 * gained)


def test_a_network_that_loses_too_much_is_refused_with_the_figures(exported, tmp_path, lists):
    folder, _ = exported
    reference = UMLSReranker.from_pretrained(folder, device="cpu", dtype="float32").scorer
    with pytest.raises(UserError, match=r"onnx is refused: acc@1 0\.\d{4} against .* 0\.00 points lost where -1\.00"):
        export_network(folder, "onnx", reference, lists, -1.0, tmp_path)


def test_backends_and_devices_that_are_not_there_are_refused(exported):
    folder, _ = exported
    with pytest.raises(UserError, match="backend 'onxx' is unknown; choose from torch"):
        UMLSReranker.from_pretrained(folder, backend="onxx")
    with pytest.raises(UserError, match="computes on the processor"):
        UMLSReranker.from_pretrained(folder, backend="onnx", device="cuda")
    with pytest.raises(UserError, match="computes in float32, not in bfloat16"):
        UMLSReranker.from_pretrained(folder, backend="onnx", dtype="bfloat16")
