"""Exact nearest vectors by inner product, as FAISS's flat index finds them, in a fraction of its time.

Where the processor multiplies in bfloat16, a first pass in it shortlists what can be among the nearest: how far its
rounding may move a score is bounded (Cauchy-Schwarz), so that nothing is lost. The shortlist is compared in float32.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ..core.devices import resolve_precision

__all__ = ["ExactSearch"]

# Vectors and queries multiplied at once, and scores looked at one by one only where the largest is of interest.
VECTORS, QUERIES, GROUP = 8_192, 512, 16
# Vectors that the first idea of what is near comes from, at most, and their share of all.
SAMPLE, SAMPLE_SHARE = 8 * VECTORS, 1 / 16
# Shortlisted scores, in multiples of what is wanted, at which the shortlist is cut.
SLACK = 3


class ExactSearch:
    """Searches vectors that stay where they are, in memory or mapped into it.

    Args:
        vectors: (m, d) float32, of length 1.
        precision: of the first pass; ``"auto"`` is bfloat16 where the processor multiplies in it, else float32.
    """

    def __init__(self, vectors: np.ndarray, precision: str = "auto") -> None:
        self.vectors = torch.from_numpy(vectors)
        self.dtype = getattr(torch, resolve_precision(precision, self.vectors.device))
        # How far rounding moves a vector at most.
        self.loss = max(
            (float((block - block.to(self.dtype).float()).norm(dim=1).max()) for block in self.vectors.split(VECTORS)),
            default=0.0,
        )

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The k vectors with the largest inner products; may be called by several threads at once.

        Args:
            queries: (n, d) float32, of length 1.
            k: 1 or more, and not more than there are vectors.

        Returns:
            (n, k) float32 scores in falling order, equal ones by number, and (n, k) int64 numbers of vectors.
        """
        shortlist = _Shortlist(self, torch.from_numpy(queries), k)
        for start in range(0, len(self.vectors), VECTORS):
            shortlist.add(start)
        return shortlist.best()


class _Shortlist:
    """Vectors that can be among the k nearest of each query: those whose score can reach the k-th best.

    Attributes:
        floor: (n,) what the k-th best score is at least.
        error: (n,) how far off a score of the first pass can be, but for the rounding of the score itself.
        unit: how far that is, relative to the score.
    """

    def __init__(self, searched: ExactSearch, queries: torch.Tensor, k: int) -> None:
        self._searched, self._exact_queries, self._k = searched, queries, k
        self._queries = queries.to(searched.dtype)
        loss = (queries - self._queries.float()).norm(dim=1)
        # The products are summed in float32 and rounded.
        sums = queries.shape[1] * torch.finfo(torch.float32).eps
        self.unit = torch.finfo(searched.dtype).eps / 2
        self.error = (loss + (1 + loss) * searched.loss + sums) * (1 + 4 * self.unit)
        # To fetch new memory for each product takes longer than the product.
        self._block = torch.empty((VECTORS, queries.shape[1]), dtype=searched.dtype)
        self._scores = torch.empty(VECTORS * QUERIES, dtype=searched.dtype)
        self.floor = self._at_least(self._sampled_kth(), self.error)
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._limit = SLACK * k * len(queries)

    def _sampled_kth(self) -> torch.Tensor:
        """(n,) a score that k vectors reach: the k-th best of the largest ones of small groups."""
        total = len(self._searched.vectors)
        sample = min(max(min(SAMPLE, round(SAMPLE_SHARE * total)), VECTORS, 2 * self._k), total)
        group = max(1, sample // (2 * self._k))
        largest = [
            torch.cat([_grouped(scores, group).amax(dim=0) for scores in self._products(start, sample)], dim=1)
            for start in range(0, sample, VECTORS)
        ]
        return torch.cat(largest).T.topk(self._k, dim=1).values[:, -1].float()

    def _products(self, start: int, stop: int) -> Iterator[torch.Tensor]:
        """Scores of the block of vectors from `start`, up to `stop`, and some queries after the others.

        Each takes the place of the former in memory.
        """
        size = min(VECTORS, stop - start)
        block = self._block[:size].copy_(self._searched.vectors[start : start + size])
        for queries in self._queries.split(QUERIES):
            scores = self._scores[: size * len(queries)].view(size, len(queries))
            yield torch.mm(block, queries.T, out=scores)

    def _at_least(self, scores: torch.Tensor, error: torch.Tensor) -> torch.Tensor:
        """The exact score that stands behind a score of the first pass, at least."""
        return scores - 2 * self.unit * scores.abs() - error

    def add(self, start: int) -> None:
        """Shortlist vectors of the block from `start`; cut the shortlist when it has grown."""
        reach = self._at_least(self.floor, self.error)
        # The same or less in the precision of the products.
        rough = (reach - 2 * self.unit * reach.abs()).to(self._queries.dtype)
        products = self._products(start, len(self._searched.vectors))
        for first, product in zip(range(0, len(reach), QUERIES), products, strict=True):
            queries = slice(first, first + QUERIES)
            # A group is a column of rows that lie far apart, whose largest scores are quickly found.
            scores = _grouped(product, GROUP)
            cells = np.flatnonzero((scores.amax(dim=0) >= rough[queries]).numpy())
            place, query = np.divmod(cells, product.shape[1])
            values = _columns(scores.view(GROUP, -1), cells)
            row, cell = np.nonzero(values >= reach[queries].numpy()[query])
            self._entries.append((first + query[cell], start + row * scores.shape[1] + place[cell], values[row, cell]))
        if sum(len(query) for query, _, _ in self._entries) > self._limit:
            self._cut()

    def _cut(self) -> None:
        query, number, value = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        # Query and score, the largest first, in one number each: to sort these takes a tenth of the time of lexsort.
        keys = (query.astype(np.uint64) << np.uint64(32)) | _falling(value)
        keys.sort()
        starts = np.searchsorted(keys, np.arange(len(self.floor) + 1).astype(np.uint64) << np.uint64(32))
        full = np.flatnonzero(np.diff(starts) >= self._k)
        kth = torch.from_numpy(_value(keys[starts[full] + self._k - 1].astype(np.uint32)))
        self.floor[full] = torch.maximum(self.floor[full], self._at_least(kth, self.error[full]))
        kept = value >= self._at_least(self.floor, self.error).numpy()[query]
        self._entries = [(query[kept], number[kept], value[kept])]
        self._limit = max(self._limit, 2 * int(kept.sum()))

    def best(self) -> tuple[np.ndarray, np.ndarray]:
        """Scores and numbers of the k nearest, compared in float32."""
        self._cut()
        query, number, _ = self._entries[0]
        vectors, queries = self._searched.vectors.numpy(), self._exact_queries.numpy()
        # By query, then by number, so that equal scores come in order of number.
        keys = (query.astype(np.uint64) << np.uint64(32)) | number.astype(np.uint64)
        keys.sort()
        edges = np.searchsorted(keys, np.arange(len(queries) + 1).astype(np.uint64) << np.uint64(32)).tolist()
        number = (keys & np.uint64(2**32 - 1)).astype(np.int64)
        scores = np.empty((len(queries), self._k), np.float32)
        numbers = np.empty((len(queries), self._k), np.int64)
        for row, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
            own = number[start:stop]
            # Unlike a product of matrices, it gives equal vectors equal scores wherever they stand.
            exact = np.einsum("nd,d->n", vectors[own], queries[row])
            best = (-exact).argsort(kind="stable")[: self._k]
            scores[row], numbers[row] = exact[best], own[best]
        return scores, numbers


def _grouped(scores: torch.Tensor, group: int) -> torch.Tensor:
    """(m, n) -> (group, m / group, n); filled up with -inf."""
    if missing := -len(scores) % group:
        scores = torch.nn.functional.pad(scores, (0, 0, 0, missing), value=-np.inf)
    return scores.view(group, -1, scores.shape[1])


def _columns(matrix: torch.Tensor, columns: np.ndarray) -> np.ndarray:
    """Some columns in float32. NumPy gathers them three times as fast as torch, but knows no bfloat16."""
    if matrix.dtype == torch.float32:
        return matrix.numpy().take(columns, axis=1)
    taken = matrix.view(torch.int16).numpy().take(columns, axis=1)
    return torch.from_numpy(taken).view(matrix.dtype).float().numpy()


def _falling(values: np.ndarray) -> np.ndarray:
    """float32 as uint32 that sort the other way round."""
    bits = values.view(np.int32)
    return ~np.where(bits < 0, ~bits, bits | np.int32(-(2**31))).view(np.uint32)


def _value(falling: np.ndarray) -> np.ndarray:
    """The float32 that `_falling` was made of."""
    bits = (~falling).view(np.int32)
    return np.where(bits < 0, bits & np.int32(2**31 - 1), ~bits).view(np.float32)
