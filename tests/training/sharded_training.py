"""Training with sharded parameters on two processes; the processor is faked to be a GPU, where
Accelerate shards.

    accelerate launch --config_file accelerate_configs/fsdp.yaml --num_processes 2 \\
        tests/training/sharded_training.py MODEL FOLDER

Writes gradient and loss of one step into FOLDER/step.safetensors; fine-tunes in FOLDER/whole, and
in FOLDER/stopped with a stop after the first checkpoint, from which it resumes.
"""

import json
import os
import sys
from pathlib import Path

os.environ |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_MIXED_PRECISION": "no"}

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from loss_on_processes import take_steps
from safetensors.torch import save_file
from test_fine_tuning import make_rows, training

from umls_reranker.core.devices import leave_process_group
from umls_reranker.core.keys import RunArguments
from umls_reranker.models.arguments import ModelArguments
from umls_reranker.training import fine_tuning, trainer

start_process = PartialState.__init__


def start_as_gpu(self, *args, **options) -> None:
    start_process(self, *args, **options)
    if self._shared_state["distributed_type"] == DistributedType.MULTI_CPU:
        self._shared_state["distributed_type"] = DistributedType.MULTI_GPU


class EarlyStoppingCallback(trainer.EarlyStoppingCallback):
    """Stops after a checkpoint; of the same name, by which its state is restored."""

    def on_save(self, args, state, control, **kwargs) -> None:
        raise KeyboardInterrupt


def fine_tune(model: str, folder: Path) -> dict:
    settings = training(max_steps=4, loss="listwise", per_device_train_batch_size=4)
    return fine_tuning.fine_tune(
        RunArguments(device="cpu"),
        ModelArguments(model, max_length=32),
        settings,
        make_rows(26),
        make_rows(10),
        folder,
    )


if __name__ == "__main__":
    model = sys.argv[1]
    target = Path(sys.argv[2])
    PartialState.__init__ = start_as_gpu
    gradients, losses = take_steps(model, 27, 8, 2, 1, "listwise")
    main = torch.distributed.get_rank() == 0
    if main:
        save_file(gradients | {"losses": torch.tensor(losses)}, target / "step.safetensors")
    summaries = [fine_tune(model, target / "whole")]
    plain = trainer.EarlyStoppingCallback
    trainer.EarlyStoppingCallback = EarlyStoppingCallback
    try:
        fine_tune(model, target / "stopped")
    except KeyboardInterrupt:
        trainer.EarlyStoppingCallback = plain
    summaries.append(fine_tune(model, target / "stopped"))
    if main:
        (target / "summaries.json").write_text(json.dumps(summaries))
    leave_process_group()
