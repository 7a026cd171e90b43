"""Devices, precisions and threads: what the machine lacks is refused in one line."""

import runpy
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch

from umls_reranker.core import devices
from umls_reranker.core.devices import (
    batch_mapper,
    resolve_device,
    resolve_dtype,
    sharing_processes,
    work_alone,
    worker_pool,
)
from umls_reranker.core.recipe import Recipe
from umls_reranker.core.text_files import UserError

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


def refused(function, *arguments, **options):
    with pytest.raises(UserError) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def without_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.fixture
def with_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.mark.parametrize("device", ["auto", None, "cpu"])
def test_without_gpu_the_processor_computes(without_gpu, device):
    assert resolve_device(device) == CPU


def test_auto_takes_a_gpu(with_gpu):
    assert resolve_device("auto") == resolve_device(None) == torch.device("cuda")
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("cuda", "no CUDA GPU is visible; use --device cpu"),
        ("cuda:1", "'cuda:1' is not available"),
        ("mps", "'mps' is not available on this machine"),
        ("gpu", "device 'gpu' is unknown; use auto, cpu"),
        ("", "device '' is unknown"),
        ("meta", "device 'meta' is unknown"),
        ("xpu", "device 'xpu' is unknown"),
        (1.5, "device 1.5 is unknown"),
    ],
)
def test_a_device_that_is_not_there_is_refused(without_gpu, device, reason):
    assert reason in refused(resolve_device, device)


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
@pytest.mark.parametrize("auto", ["auto", None])
def test_auto_is_bfloat16_where_the_processor_computes_in_it(monkeypatch, supported, dtype, auto):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    assert resolve_dtype(auto, CPU) == dtype


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert resolve_dtype("auto", CPU) == "float32"


@pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_is_bfloat16_on_gpus_since_ampere(monkeypatch, capability, dtype):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert resolve_dtype("auto", torch.device("cuda")) == dtype


def test_inference_is_float16_on_gpus_before_ampere(monkeypatch):
    for capability, expected in (((6, 1), "float32"), ((7, 0), "float16"), ((7, 5), "float16"), ((8, 0), "bfloat16")):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, found=capability: found)
        assert resolve_dtype("auto", torch.device("cuda"), inference=True) == expected


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_given_dtype_is_kept(dtype):
    assert resolve_dtype(dtype, CPU) == dtype


def test_float16_needs_a_gpu():
    assert resolve_dtype("float16", torch.device("cuda")) == "float16"
    message = refused(resolve_dtype, "float16", CPU, key="scoring_dtype")
    assert message == "scoring_dtype: float16 needs a GPU; use auto, bfloat16 or float32"


def test_an_unknown_dtype_is_named_with_the_choices():
    message = refused(resolve_dtype, "fp16", CPU)
    assert message == "dtype: 'fp16' is unknown; use auto, float32, bfloat16 or float16"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(UserError, match="'cuda:7' is not available: this machine has 2 GPU.s."):
        resolve_device("cuda:7")
    assert resolve_device("cuda:1").index == 1


@pytest.mark.parametrize(
    ("processes", "asked", "threads"),
    [
        (None, "3", []),
        ("1", "3", []),
        ("4", "3", [12] * 2),
        ("4", "3,2", [12] * 2),
        ("4", "", [4] * 2),
        ("4", "0", [4] * 2),
    ],
)
def test_one_process_takes_the_cores_of_those_that_wait(monkeypatch, processes, asked, threads):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    if processes:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    work_alone()
    work_alone()
    assert given == threads


def test_processes_that_share_shards_wait_for_days(monkeypatch):
    given = {}
    monkeypatch.setattr("umls_reranker.core.devices.PartialState", lambda **options: given.update(options))
    sharing_processes("cpu")
    assert given == {"cpu": True, "timeout": timedelta(days=7)}


@pytest.mark.parametrize(("script", "function"), [("build_index", "make_stages"), ("mine_negatives", "make")])
def test_the_scripts_share_their_shards_among_such_processes(monkeypatch, script, function):
    class Asked(Exception):
        pass

    def ask(device):
        raise Asked(device)

    monkeypatch.setattr("umls_reranker.core.devices.sharing_processes", ask)
    names = runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))
    with pytest.raises(Asked, match="cpu"):
        names[function](Recipe.from_values({"device": "cpu"}), None, None)


@pytest.fixture
def two_threads(monkeypatch):
    monkeypatch.setattr(devices, "_pool", None)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_threads_of_the_pool_compute_alone_and_others_as_before(two_threads):
    pool = worker_pool()
    assert worker_pool() is pool
    assert set(pool.map(lambda _: torch.get_num_threads(), range(8))) == {1}
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as other:
        assert other.submit(torch.get_num_threads).result() == 2
    pool.shutdown()


def test_one_thread_needs_no_pool(two_threads):
    torch.set_num_threads(1)
    assert worker_pool() is None
    assert list(batch_mapper(torch.device("cpu"))(str, [1, 2])) == ["1", "2"]
