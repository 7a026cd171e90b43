"""How many tokens a forward pass should hold: measured on the first large call on a machine, and remembered."""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..core.files import written

if TYPE_CHECKING:
    from .network import Network

__all__ = ["TokenBudget", "memory_file"]

# Small batches stay in a processor's cache; a GPU needs many rows to be busy.
DEFAULT_TOKENS = {"cpu": 1_024, "cuda": 65_536}
CHOICES = {"cpu": (512, 1_024, 2_048, 4_096), "cuda": (16_384, 32_768, 65_536, 131_072)}
# A trial shorter than this measures chance; the first large call is cut into ROUNDS trials of each choice.
TRIAL_TOKENS = {"cpu": 16_384, "cuda": 65_536}
ROUNDS = 3
# The default stays unless another choice is faster by more than two runs differ by.
CLEARLY = 1.03


class TokenBudget:
    """The token budget of one network; may be used from several threads.

    The trials are the work itself: each takes every n-th pair of the call, so nothing is computed twice. Logits do
    not depend on the choice beyond rounding.

    Attributes:
        tokens: the budget, or the default until it is settled.
        is_settled: whether it was given, remembered or measured.

    Args:
        network: what computes.
        tokens: a budget that is kept as it is; None takes the remembered one, and else measures.
    """

    def __init__(self, network: Network, tokens: int | None = None) -> None:
        kind = network.device.type
        self._network = network
        self._choices = CHOICES.get(kind, CHOICES["cuda"])
        self._trial_tokens = TRIAL_TOKENS.get(kind, TRIAL_TOKENS["cuda"])
        if tokens is not None and tokens < 1:
            raise ValueError(f"token_budget must be at least 1, got {tokens}")
        known = tokens or _remembered().get(_key(network))
        self.tokens = known or DEFAULT_TOKENS.get(kind, DEFAULT_TOKENS["cuda"])
        self.is_settled = known is not None
        self._speeds: dict[int, list[float]] = defaultdict(list)
        self._lock = threading.Lock()

    def plan(self, lengths: np.ndarray) -> list[tuple[np.ndarray, int]]:
        """Cut n pairs into parts with a budget each: one part, or the trials when they are still to be made."""
        rows, trials = np.arange(len(lengths)), len(self._choices) * ROUNDS
        if self.is_settled or lengths.sum() < trials * self._trial_tokens:
            return [(rows, self.tokens)]
        return [(rows[place::trials], self._choices[place % len(self._choices)]) for place in range(trials)]

    @contextmanager
    def timed(self, budget: int, tokens: int) -> Iterator[None]:
        """Around the work on a part; settles on the fastest budget once all trials are made."""
        if self.is_settled or tokens < self._trial_tokens // 2:
            yield
            return
        started = time.perf_counter()
        yield
        if self._network.device.type == "cuda":
            import torch

            torch.cuda.synchronize(self._network.device)
        self._note(budget, tokens / (time.perf_counter() - started))

    def _note(self, budget: int, speed: float) -> None:
        with self._lock:
            self._speeds[budget].append(speed)
            if self.is_settled or any(len(self._speeds[choice]) < ROUNDS for choice in self._choices):
                return
            best = {choice: max(self._speeds[choice]) for choice in self._choices}
            fastest = max(best, key=best.__getitem__)
            if best[fastest] > CLEARLY * best.get(self.tokens, 0.0):
                self.tokens = fastest
            self.is_settled = True
            _remember(_key(self._network), self.tokens)


def memory_file() -> Path:
    """Where budgets are remembered: ``token_budgets.json`` in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "umls_reranker" / "token_budgets.json"


def _key(network: Network) -> str:
    import torch

    if network.device.type == "cuda":
        device = torch.cuda.get_device_name(network.device)
    else:
        device = f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()} x {torch.get_num_threads()}"
    return f"{network.backend} {network.precision} {network.shape} on {device}"


def _remembered() -> dict[str, int]:
    try:
        known = json.loads(memory_file().read_text(encoding="utf-8"))["token_budgets"]
        return {key: tokens for key, tokens in known.items() if isinstance(tokens, int) and tokens > 0}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remember(key: str, tokens: int) -> None:
    """Add a budget to the file; without a place to write it is measured again next time."""
    path = memory_file()
    content = {"schema_version": 1, "token_budgets": _remembered() | {key: tokens}}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with written(path, shared=True) as partial:
            partial.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")
