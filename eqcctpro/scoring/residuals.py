"""Residuals of picks against their labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Residuals", "residuals_of"]

_PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
_BINS = 50


@dataclass(frozen=True)
class Residuals:
    """Pick minus label, in s.

    Attributes
    ----------
    mean, mae, sigma : float
        Mean, mean of the magnitude, and standard deviation around the mean.
    percentiles : dict of str to float
        Of the residual, from ``p1`` to ``p99``.
    magnitude_percentiles : dict of str to float
        Of its magnitude: ``p50``, ``p95``, ``p99``.
    histogram : dict
        ``edges_s`` over plus and minus the tolerance, and ``counts``.
    """

    mean: float
    mae: float
    sigma: float
    percentiles: dict[str, float]
    magnitude_percentiles: dict[str, float]
    histogram: dict[str, list[float] | list[int]]


def residuals_of(seconds: NDArray[np.float64], tolerance_s: float) -> Residuals:
    """Describe at least one residual."""
    counts, edges = np.histogram(seconds, bins=_BINS, range=(-tolerance_s, tolerance_s))
    size = np.abs(seconds)
    return Residuals(
        float(seconds.mean()),
        float(size.mean()),
        float(seconds.std()),
        {f"p{q}": float(np.percentile(seconds, q)) for q in _PERCENTILES},
        {f"p{q}": float(np.percentile(size, q)) for q in (50, 95, 99)},
        {"edges_s": [round(float(edge), 9) for edge in edges], "counts": counts.tolist()},
    )
