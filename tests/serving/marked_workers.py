"""What Spark and Ray call, with a mark for each loaded model, and one worker that dies."""

import os
import signal
import uuid
from functools import cache
from pathlib import Path

from umls_reranker.serving import bulk
from umls_reranker.serving.bulk import RerankBatches, RerankPartitions


def mark_loads(folder: str) -> None:
    """From now on each model that this process loads leaves a file ``PID.ID`` in the folder."""
    load = bulk._load

    @cache
    def marked(*args, **options):
        (Path(folder) / f"{os.getpid()}.{uuid.uuid4()}").touch()
        return load(*args, **options)

    bulk._load = marked


def die_once(folder: str) -> None:
    """End the first process that comes here, as a lost machine does."""
    try:
        (Path(folder) / "died").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


class MarkedBatches(RerankBatches):
    def __init__(self, model, folder, **options):
        self.folder = folder
        mark_loads(folder)
        super().__init__(model, **options)

    def __call__(self, batch):
        done = super().__call__(batch)
        die_once(self.folder)
        return done


class MarkedPartitions(RerankPartitions):
    def __init__(self, model, folder, **options):
        super().__init__(model, **options)
        self.folder = folder

    def __call__(self, frames):
        if bulk._load.__name__ != "marked":
            mark_loads(self.folder)
        for frame in super().__call__(frames):
            die_once(self.folder)
            yield frame
