"""Devices, precisions and threads: what the machine lacks is refused in one line."""

from concurrent.futures import ThreadPoolExecutor
from inspect import getsource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from umls_reranker.core import devices
from umls_reranker.core.devices import (
    batch_mapper,
    goes_on_alone,
    resolve_device,
    resolve_dtype,
    worker_pool,
)
from umls_reranker.core.errors import UserError
from umls_reranker.pipeline import indexes, preflight, training
from umls_reranker.pipeline.runner import LAUNCHED, PREFLIGHT

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")


@pytest.fixture
def gpus(monkeypatch):
    """Sets how many there are."""

    def make(count):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)

    return make


@pytest.mark.parametrize(("count", "device"), [(0, "cpu"), (2, "cuda")])
def test_auto_takes_a_gpu_if_there_is_one(gpus, count, device):
    gpus(count)
    assert resolve_device("auto") == resolve_device(None) == torch.device(device)
    assert resolve_device("cpu") == CPU


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cuda:7", "mps", "gpu", "meta", 1.5])
def test_a_device_that_is_not_there_is_refused(gpus, device):
    gpus(2 if device == "cuda:7" else 0)
    with pytest.raises(UserError, match=str(device)):
        resolve_device(device)


@pytest.mark.parametrize(("supported", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_processor_computes_in_it(monkeypatch, supported, dtype):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: supported, raising=False)
    assert resolve_dtype("auto", CPU) == resolve_dtype(None, CPU) == dtype


@pytest.mark.parametrize(
    ("capability", "trains", "infers"),
    [
        ((6, 1), "float32", "float32"),
        ((7, 0), "float32", "float16"),
        ((7, 5), "float32", "float16"),
        ((8, 0), "bfloat16", "bfloat16"),
    ],
)
def test_auto_is_what_a_gpu_computes_fast_in(monkeypatch, capability, trains, infers):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    gpu = torch.device("cuda")
    assert (resolve_dtype("auto", gpu), resolve_dtype("auto", gpu, inference=True)) == (
        trains,
        infers,
    )


def test_a_given_dtype_is_kept_or_refused():
    assert resolve_dtype("float16", torch.device("cuda")) == "float16"
    for dtype, key in (("float16", "scoring_dtype"), ("fp16", "dtype")):
        with pytest.raises(UserError, match=f"{key}: .*{dtype}"):
            resolve_dtype(dtype, CPU, key=key)


@pytest.mark.parametrize(
    ("processes", "asked", "threads"),
    [("1", "3", []), ("4", "3", [12] * 2), ("4", "3,2", [12] * 2), ("4", "", [4] * 2)],
)
def test_one_process_takes_the_cores_of_those_that_wait(monkeypatch, processes, asked, threads):
    given = []
    monkeypatch.setattr(torch, "set_num_threads", given.append)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1
    )
    first = SimpleNamespace(is_main_process=True)
    other = SimpleNamespace(is_main_process=False)
    assert goes_on_alone(first) and not goes_on_alone(other)
    assert given == threads and not torch.distributed.is_initialized()


def test_run_launches_only_commands_that_share_their_work():
    modules = {"build_index": indexes, "train": training, PREFLIGHT: preflight}
    assert {*LAUNCHED} == {*modules}
    assert all("sharing_processes" in getsource(module) for module in modules.values())


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
