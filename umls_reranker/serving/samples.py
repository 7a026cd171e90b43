"""Samples: some of the documents of a pool, in an order that is drawn before any label."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from ..core.errors import UserError

Document = TypeVar("Document", bound=Hashable)


@dataclass(frozen=True)
class Sample:
    """Some of the documents of a pool, in a drawn order.

    Attributes:
        first: number of the first in this order, from 1.
        last: number of the last.
        seed: seed of the order.
    """

    first: int
    last: int
    seed: int

    @classmethod
    def parse(cls, text: str, seed: int) -> Sample:
        """Read ``200`` or ``201-400``; `ValueError` if it is neither."""
        first, mark, last = text.partition("-")
        sample = cls(1, int(first), seed)
        if mark:
            sample = cls(int(first), int(last), seed)
        if not 1 <= sample.first <= sample.last:
            raise ValueError(text)
        return sample

    def named(self, output: Path) -> Path:
        """The output's path, with the sample in its name."""
        words = f"sample_{self.first}-{self.last}_seed_{self.seed}"
        return output.with_name(f"{output.stem}.{words}{output.suffix}")

    def of(self, order: Sequence[Document]) -> Sequence[Document]:
        """The documents of the sample.

        Raises:
            UserError: there are none.
        """
        if self.first > len(order):
            raise UserError(
                f"--sample {self.first}-{self.last}: there are {len(order):,} documents to draw"
            )
        return order[self.first - 1 : self.last]


def drawn_order(documents: Iterable[Document], seed: int) -> list[Document]:
    """The distinct documents in an order drawn by a seed."""
    distinct = list(dict.fromkeys(documents))
    order = np.random.default_rng(seed).permutation(len(distinct))
    return [distinct[number] for number in order.tolist()]
