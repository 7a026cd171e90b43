"""`Memory`: a bounded cache of values made from texts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

# Longer texts are not cached: they come from requests, so the number of entries alone would not bound the memory.
LONGEST = 256

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Memory(Generic[Key, Value]):
    """A cache that calls `make` for keys it does not hold; safe to use from several threads.

    When it is full, it starts anew: frequent values are made again at once, and they are a small part of its content.

    Args:
        make: returns a value for each of some keys; never None.
        size: maximum number of keys.
    """

    def __init__(self, make: Callable[[Sequence[Key]], list[Value]], size: int) -> None:
        self.size = size
        self._make = make
        self._values: dict[Key, Value] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def __call__(self, keys: Sequence[Key]) -> list[Value]:
        """The value of each of n distinct keys."""
        with self._lock:
            values = list(map(self._values.get, keys))
        missing = [position for position, value in enumerate(values) if value is None] if None in values else []
        if missing:
            new = self._make([keys[position] for position in missing])
            with self._lock:
                for position, value in zip(missing, new, strict=True):
                    values[position], key = value, keys[position]
                    if isinstance(key, str) and len(key) > LONGEST:
                        continue
                    if len(self._values) >= self.size:
                        self._values.clear()
                    self._values[key] = value
        # The gaps are filled by now.
        return values  # type: ignore[return-value]
