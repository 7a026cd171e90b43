"""Smooth ECE: calibration error without bins (Blasiok & Nakkiran 2023, "Smooth ECE: principled reliability diagrams").

With r(t) the density of residuals y - p around t, smoothed by a Gaussian kernel of bandwidth s that is reflected at 0
and 1, ``smECE_s = integral of |r(t)|``; the smooth ECE is the value at the one bandwidth that equals it. It is
continuous in the probabilities, and within a constant factor of the distance to the nearest calibrated predictor.
"""

from __future__ import annotations

import numpy as np

__all__ = ["SmoothedResiduals", "grid_residuals", "smooth_ece"]

# Cells of the grid on [0, 1]; a bandwidth below one cell is not resolved.
GRID = 1024
BISECTIONS = 12


def smooth_ece(p: np.ndarray, y: np.ndarray) -> float:
    """Smooth ECE of probabilities (n,) and labels 0/1 (n,), in [0, 1]; exact to about 1 / `GRID`."""
    p, y = np.asarray(p, dtype=np.float64), np.asarray(y, dtype=np.float64)
    return SmoothedResiduals(grid_residuals(p, y - p)).smooth_ece()[0]


def grid_residuals(
    p: np.ndarray, residuals: np.ndarray, index: np.ndarray | None = None, documents: int = 1
) -> np.ndarray:
    """Mean residuals on a grid of [0, 1], each shared by the two cells nearest to its probability.

    Args:
        p: (n,) probabilities.
        residuals: (n,).
        index, documents: document of each row and their number, where the sums of each are needed.

    Returns:
        (documents, `GRID`) float64.
    """
    place = np.clip(p * GRID - 0.5, 0.0, GRID - 1.0)
    cell = np.minimum(place.astype(np.int64), GRID - 2)
    upper = (place - cell) * residuals
    key = cell if index is None else index * GRID + cell
    sums = np.bincount(key, weights=residuals - upper, minlength=documents * GRID)
    sums += np.bincount(key + 1, weights=upper, minlength=documents * GRID)
    return sums.reshape(documents, GRID) / len(p)


class SmoothedResiduals:
    """Grids of residuals under a Gaussian kernel of any bandwidth.

    Args:
        grids: (grids, `GRID`), as of `grid_residuals`.
    """

    def __init__(self, grids: np.ndarray) -> None:
        from scipy.fft import dct

        self._cosines = dct(grids, axis=1)

    def at(self, bandwidth: float | np.ndarray) -> np.ndarray:
        """(grids,) smECE at one bandwidth, or one for each grid."""
        from scipy.fft import idct

        # The reflected Gaussian kernel is diagonal in the cosine basis: it solves the heat equation on [0, 1].
        damping = np.exp(-0.5 * (np.pi * np.arange(GRID) * np.reshape(bandwidth, (-1, 1))) ** 2)
        return np.abs(idct(self._cosines * damping, axis=1)).sum(axis=1)

    def smooth_ece(self) -> tuple[np.ndarray | float, np.ndarray | float]:
        """Smooth ECE and its bandwidth: floats for one grid, else (grids,) each."""
        low, high = np.zeros(len(self._cosines)), np.ones(len(self._cosines))
        # The value falls as the bandwidth grows, so they meet once.
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            above = self.at(middle) > middle
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        value = self.at(high)
        return (float(value[0]), float(high[0])) if len(value) == 1 else (value, high)
