"""`Memory`: what was made of texts before, for as many as there is room for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

__all__ = ["LONGEST", "Memory"]

# Longer texts are made anew each time: requests bring them, so they would bound the memory by number alone.
LONGEST = 256

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """Calls `make` for keys it does not remember; may be used from several threads.

    Memory is bounded by two generations: when the young one is full it becomes the old one, and what of the old one
    was not used since is forgotten.

    Args:
        make: gives what is remembered of each of some keys; never None.
        size: most keys remembered.
    """

    def __init__(self, make: Callable[[Sequence[Key]], list[Value]], size: int) -> None:
        if size < 2:
            raise ValueError(f"a memory of {size} is none; give 2 or more")
        self.size = size
        self._make = make
        self._young: dict[Key, Value] = {}
        self._old: dict[Key, Value] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __call__(self, keys: Sequence[Key]) -> list[Value]:
        """What is known of each of n distinct keys."""
        with self._lock:
            found = list(map(self._young.get, keys))
            if None not in found:
                return found  # type: ignore[return-value]
            for place, value in enumerate(found):
                if value is None:
                    found[place] = self._recall(keys[place])
        missing = [place for place, value in enumerate(found) if value is None]
        if missing:
            new = self._make([keys[place] for place in missing])
            with self._lock:
                for place, value in zip(missing, new, strict=True):
                    found[place], key = value, keys[place]
                    if not isinstance(key, str) or len(key) <= LONGEST:
                        self._keep(key, value)
        # The gaps are filled by now.
        return found  # type: ignore[return-value]

    def _recall(self, key: Key) -> Value | None:
        value = self._young.get(key)
        if value is None and (value := self._old.pop(key, None)) is not None:
            self._keep(key, value)
        return value

    def _keep(self, key: Key, value: Value) -> None:
        if len(self._young) >= self.size // 2:
            self._old, self._young = self._young, {}
        self._young[key] = value
