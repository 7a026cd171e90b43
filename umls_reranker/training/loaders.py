"""Data loaders of the trainers, whose batches are divided among processes by the trainer itself."""

from typing import Any

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader
from transformers import TrainingArguments


def loader_options(arguments: TrainingArguments) -> dict[str, Any]:
    """Options of a `DataLoader` that divide its work among processes."""
    return {
        "num_workers": arguments.dataloader_num_workers,
        "persistent_workers": arguments.dataloader_persistent_workers,
        "prefetch_factor": arguments.dataloader_prefetch_factor,
        "multiprocessing_context": arguments.dataloader_multiprocessing_context,
        "in_order": arguments.dataloader_in_order,
    }


def loader_of_own_share(loader: DataLoader, device: torch.device) -> DataLoader:
    """A loader of this process's batches that puts them on its device.

    Accelerate does not divide them: its division would repeat rows at the end of an epoch.
    """
    return prepare_data_loader(loader, device, num_processes=1, process_index=0, put_on_device=True)
