"""The reference of a model: distributions of its test split, stored as ``reference.json``, and drift from them."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...calibration.resampling import document_index, document_sums
from ...core.errors import UserError
from ...core.files import read_json, require_format

SCHEMA_VERSION = 1
SCORE_CELLS = 10
# Types with a smaller share of the mentions are pooled.
SMALLEST_SHARE = 0.01
OTHER, NO_CANDIDATES = "other", "no candidates"
# Common interpretation of the population stability index: below 0.1 stable, up to 0.25 moderate drift, above it large
# drift.
SMALLEST_PSI = 0.1
EPSILON = 1e-14


@dataclass(frozen=True)
class Drift:
    """A window compared with the reference.

    Attributes:
        psi: population stability index, nats: the sum over cells of (q - p) log(q / p).
        p_value: probability of at least this difference between two samples of one distribution.
        cell: label of the cell whose share changed most.
        share: share of that cell in the window.
        reference_share: its share in the reference.
    """

    psi: float
    p_value: float
    cell: str
    share: float
    reference_share: float


@dataclass(frozen=True)
class Distribution:
    """Counts of mentions by cell, and the similarity of the mentions of a document.

    Mentions of one document share a subject, so counts vary more from sample to sample than those of independent
    mentions. For Pearson's statistic of such counts, divided by `scale`, the chi-square distribution with `degrees` of
    freedom holds (Rao & Scott 1984, second order): with the generalized design effects d, ``scale = sum(d^2) /
    sum(d)`` and ``degrees = sum(d)^2 / sum(d^2)``; independent mentions have scale 1 and degrees cells - 1.

    Attributes:
        cells: labels, at least two.
        counts: number of mentions in each.
        scale: scale of the test, from the documents of the reference.
        degrees: degrees of freedom of the test.
    """

    cells: tuple[str, ...]
    counts: tuple[int, ...]
    scale: float
    degrees: float

    @classmethod
    def fit(cls, cells: Sequence[str], cell: np.ndarray, groups: Sequence) -> Distribution:
        """Count mentions.

        Args:
            cells: k labels.
            cell: (n,) int in [0, k), cell of each mention.
            groups: (n,) document of each mention.
        """
        index, documents = document_index(groups)
        sums = document_sums(index, documents, [np.ones(len(cell))], cell, len(cells))[:, 0]
        used = sums.sum(axis=0) > 0
        share = sums[:, used].sum(axis=0) / len(cell)
        surprise = (sums[:, used] - sums.sum(axis=1, keepdims=True) * share) / np.sqrt(share * len(cell))
        effects = documents / max(documents - 1, 1) * surprise.T @ surprise
        total, squares = float(np.trace(effects)), float((effects**2).sum())
        independent = max(np.count_nonzero(used) - 1, 1)
        scale, degrees = (squares / total, total**2 / squares) if total > 0 else (1.0, float(independent))
        counts = sums.sum(axis=0).astype(int).tolist()
        return cls(tuple(cells), tuple(counts), max(scale, 1.0), degrees)

    @property
    def shares(self) -> np.ndarray:
        """Share of each cell, (k,) float64."""
        return np.array(self.counts) / max(sum(self.counts), 1)

    def drift(self, window: np.ndarray) -> Drift:
        """Compare with the counts of a window, (k,).

        Pearson's two-sample statistic, assuming the reference's clustering by document for both.
        """
        reference, window = np.array(self.counts, np.float64), np.asarray(window, np.float64)
        used = reference + window > 0
        n, m = reference.sum(), window.sum()
        differences = (np.sqrt(m / n) * reference - np.sqrt(n / m) * window)[used]
        statistic = (differences**2 / (reference + window)[used]).sum()
        # Half a mention per cell keeps the index finite for empty cells.
        p = (reference + 0.5) / (n + len(reference) / 2)
        q = (window + 0.5) / (m + len(window) / 2)
        moved = int(np.argmax(np.abs(q - p)))
        return Drift(
            psi=float(((q - p) * np.log(q / p)).sum()),
            p_value=chi_square_tail(float(statistic) / self.scale, self.degrees),
            cell=self.cells[moved],
            share=float(window[moved] / m),
            reference_share=float(reference[moved] / n),
        )


@dataclass(frozen=True)
class Reference:
    """The test split in the form that a monitor needs.

    Attributes:
        mentions: number of mentions.
        documents: number of documents.
        target_precision: guaranteed precision of the high tier.
        figures: name -> ``{"value", "low", "high"}``, those of ``serving`` in ``metrics.json``.
        score_edges: (SCORE_CELLS - 1 at most) ascending inner edges of the cells of `scores`; a score on an edge
            belongs to the cell above.
        scores: distribution of the top scores; its last cell holds mentions without candidates.
        types: distribution of the types; its last cell holds all rare types and mentions without types.
    """

    mentions: int
    documents: int
    target_precision: float
    figures: Mapping[str, Mapping[str, float]]
    score_edges: tuple[float, ...]
    scores: Distribution
    types: Distribution

    @classmethod
    def fit(
        cls,
        score: np.ndarray,
        types: Sequence[Sequence[str]],
        groups: Sequence,
        figures: Mapping[str, Mapping[str, float]],
        target_precision: float,
    ) -> Reference:
        """Make the reference of a test split.

        Args:
            score: (n,) scores of the top candidates, NaN without candidates.
            types: type ids of each mention; a mention counts in the first.
            groups: (n,) documents.
            figures: figures to store.
            target_precision: guaranteed precision to store.
        """
        scored = score[~np.isnan(score)]
        quantiles = np.quantile(scored, np.linspace(0, 1, SCORE_CELLS + 1)[1:-1]) if len(scored) else []
        edges = tuple(np.unique(quantiles).tolist())
        bounds = [0.0, *edges, 1.0]
        names = [f"{low:.3f} to {high:.3f}" for low, high in zip(bounds, bounds[1:], strict=False)]
        first_types = [kinds[0] if len(kinds) else OTHER for kinds in types]
        counts = Counter(kind for kind in first_types if kind != OTHER)
        common = sorted(kind for kind, count in counts.items() if count >= SMALLEST_SHARE * len(first_types))
        kinds = [*common, OTHER]
        cells = {kind: cell for cell, kind in enumerate(kinds)}
        return cls(
            mentions=len(score),
            documents=len(np.unique(np.asarray(groups))),
            target_precision=target_precision,
            figures={name: {key: entry[key] for key in ("value", "low", "high")} for name, entry in figures.items()},
            score_edges=edges,
            scores=Distribution.fit([*names, NO_CANDIDATES], _score_cells(score, edges), groups),
            types=Distribution.fit(kinds, np.array([cells.get(kind, cells[OTHER]) for kind in first_types]), groups),
        )

    def score_cell(self, score: float | None) -> int:
        """Cell of a top score; None for a mention without candidates."""
        return len(self.score_edges) + 1 if score is None else bisect_right(self.score_edges, score)

    def type_cell(self, types: Sequence[str]) -> int:
        """Cell of a mention's first type."""
        cells = self.types.cells
        return cells.index(types[0]) if types and types[0] in cells else len(cells) - 1

    def to_dict(self) -> dict[str, Any]:
        """The content of ``reference.json``."""
        return {"schema_version": SCHEMA_VERSION} | asdict(self)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read ``reference.json``.

        Raises:
            UserError: the file is missing, damaged or of another format.
        """
        if not path.is_file():
            raise UserError(f"{path} is missing; umls-reranker evaluate writes it")
        content = read_json(path)
        require_format(path, content, SCHEMA_VERSION, "evaluate")
        state = {name: value for name, value in content.items() if name != "schema_version"}
        try:
            for name in ("scores", "types"):
                fields = state[name]
                state[name] = Distribution(**fields | {key: tuple(fields[key]) for key in ("cells", "counts")})
            reference = cls(**state | {"score_edges": tuple(map(float, state["score_edges"]))})
            reference._check()
            return reference
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"{path} is damaged ({error}); run umls-reranker evaluate again") from None

    def _check(self) -> None:
        """Refuse content that the first mention, or the first full window, would fail on.

        Raises:
            AttributeError: something does not fit, which the message names.
            KeyError: likewise.
            TypeError: likewise.
            ValueError: likewise.
        """
        edges = np.array(self.score_edges)
        if not (np.isfinite(edges).all() and (np.diff(edges) > 0).all()):
            raise ValueError("score_edges are not increasing")
        if len(self.scores.cells) != len(edges) + 2:
            raise ValueError(f"{len(self.scores.cells)} cells of scores for {len(edges)} edges")
        if not 0 < self.target_precision <= 1 or min(self.mentions, self.documents) < 0:
            raise ValueError("target_precision or a count is out of range")
        for name, stored in (("scores", self.scores), ("types", self.types)):
            if not 0 < len(stored.cells) == len(stored.counts) or set(map(type, stored.cells)) != {str}:
                raise ValueError(f"cells and counts of {name} differ in number")
            if not all(type(count) is int and count >= 0 for count in stored.counts):
                raise ValueError(f"counts of {name} are not integers of 0 or more")
            if not (0 < stored.scale < math.inf and 0 < stored.degrees < math.inf):
                raise ValueError(f"scale and degrees of {name} must be above 0")
        for name, figure in self.figures.items():
            for key in ("value", "low", "high"):
                if not (figure[key] is None or math.isfinite(figure[key])):
                    raise ValueError(f"metric {name} has a non-finite {key}")


def _score_cells(score: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    cells = np.searchsorted(np.asarray(edges, dtype=np.float64), score, side="right")
    return np.where(np.isnan(score), len(edges) + 1, cells)


def chi_square_tail(x: float, degrees: float) -> float:
    """Probability of at least `x` under the chi-square distribution; serving does not need SciPy for it.

    The power series and the continued fraction of the incomplete gamma function (Abramowitz and Stegun 1964, 6.5.29
    and 6.5.31), each where it converges fast.
    """
    a, x = degrees / 2, x / 2
    if x <= 0:
        return 1.0
    factor = math.exp(a * math.log(x) - x - math.lgamma(a))
    if x < a + 1:
        term = total = 1 / a
        while term > EPSILON * total:
            a += 1
            term *= x / a
            total += term
        return 1 - factor * total
    # Evaluated by Lentz's method.
    b = x + 1 - a
    c, d = math.inf, 1 / b
    fraction, change, n = d, 0.0, 0
    while abs(change - 1) > EPSILON:
        n += 1
        numerator = n * (a - n)
        b += 2
        c, d = b + numerator / c, 1 / (b + numerator * d)
        change = c * d
        fraction *= change
    return factor * fraction
