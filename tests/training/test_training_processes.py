"""Which device a training process uses; launches that a script refuses."""

import pytest
from list_model import run_script
from transformers import TrainingArguments

from umls_reranker.core.errors import UserError
from umls_reranker.core.keys import RunArguments
from umls_reranker.training.trainer import training_device
from umls_reranker.training.training_arguments import OneGpuArguments


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "auto"])
def test_training_takes_the_first_gpu(two_gpus, device):
    assert training_device(RunArguments(device=device)).type == "cuda"


def test_another_gpu_is_chosen_by_the_environment(two_gpus):
    with pytest.raises(
        UserError,
        match="device: cuda:1 cannot be selected .* set CUDA_VISIBLE_DEVICES=1 and device: cu",
    ):
        training_device(RunArguments(device="cuda:1"))


@pytest.mark.parametrize(("visible", "used"), [(4, 1), (1, 1), (0, 0)])
def test_a_process_keeps_to_one_gpu_of_all_it_sees(tmp_path, visible, used, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: visible))
    arguments = OneGpuArguments(
        output_dir=str(tmp_path), use_cpu=True, per_device_train_batch_size=16
    )
    assert (arguments.n_gpu, arguments.train_batch_size) == (used, 16)


def test_the_encoder_is_trained_by_one_process(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    (tmp_path / "recipe.yaml").write_text("encoder_training_steps: 1\n")
    with pytest.raises(UserError, match="trains on one process"):
        run_script("train_encoder", tmp_path / "recipe.yaml", "--output_dir", tmp_path)
