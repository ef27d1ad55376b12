"""The time of a configuration where nobody measured it, from where somebody did.

Over stations, the time of one configuration is close to a straight line: something that every
run pays, and something that every station pays.  Between two measured station counts their
connecting line is taken; beyond them, a line through all, each point weighted by the inverse of
its own size.  How far off such a prediction may be is found by leaving out points that are
known and predicting them in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

import numpy as np

from eqcctpro.errors import SettingsError

__all__ = ["REACH", "Estimate", "Point", "predict", "predict_between_cpus"]

#: Stations may be this many times more than the most, or fewer than the least measured.
REACH: Final = 1.5

# Relative standard deviation where too few points are known to test the prediction.
_UNTESTED = 0.10
# No prediction is better than this: repeated medians differ as much on a quiet machine.
_AT_BEST = 0.02
# Width of the interval in standard deviations, for about 95 %.
_WIDTH = 2.0


@dataclass(frozen=True)
class Point:
    """A measured quantity at a station count, and the relative range of its repeats."""

    stations: int
    value: float
    spread: float = 0.0


@dataclass(frozen=True)
class Estimate:
    """A value and the interval that it is expected in."""

    value: float
    low: float
    high: float
    measured: bool = False


def predict(points: Sequence[Point], stations: int) -> Estimate:
    """A configuration's value at a station count.

    Parameters
    ----------
    points : sequence of Point
        Of one configuration; several at one station count are replaced by their median.
    stations : int

    Raises
    ------
    SettingsError
        Fewer than two station counts are known, or `stations` is out of `REACH`.
    """
    known = _merged(points)
    for point in known:
        if point.stations == stations:
            half = point.value * max(point.spread / 2, _AT_BEST)
            return Estimate(point.value, point.value - half, point.value + half, measured=True)
    if len(known) < 2:
        raise SettingsError("one configuration has to be measured at two station counts at least")
    least, most = known[0].stations, known[-1].stations
    if not least / REACH <= stations <= most * REACH:
        raise SettingsError(
            f"{stations} stations are too far from the {least} to {most} that were measured",
            hint=f"predictions go from {-(-least // REACH):.0f} to {most * REACH:.0f}",
        )
    value = _value(known, stations)
    inside = least < stations < most
    residuals = _left_out(known, inside)
    tested = _typical(residuals)
    used = sorted(known, key=lambda point: abs(point.stations - stations))[:2]
    noise = max(point.spread for point in used) / 2
    relative = max(_WIDTH * float(np.hypot(tested, noise / _WIDTH)), _AT_BEST)
    if not inside:
        # Errors of a slope grow with the distance from what is known.
        beyond = stations - most if stations > most else least - stations
        relative *= 1 + beyond / (most - least)
    return Estimate(value, value * max(1 - relative, 0.0), value * (1 + relative))


def predict_between_cpus(
    fewer: tuple[int, Estimate], more: tuple[int, Estimate], cpus: int
) -> Estimate:
    """A value between those with fewer and with more CPUs.

    What can be shared among CPUs shrinks with their number, so that the value is a line over
    its inverse.  The interval reaches from one neighbour's end to the other's.
    """
    (few, slow), (many, fast) = fewer, more
    share = (1 / few - 1 / cpus) / (1 / few - 1 / many)
    value = slow.value + (fast.value - slow.value) * share
    return Estimate(value, min(slow.low, fast.low), max(slow.high, fast.high))


def _merged(points: Sequence[Point]) -> list[Point]:
    by_count: dict[int, list[Point]] = {}
    for point in points:
        by_count.setdefault(point.stations, []).append(point)
    return [
        Point(
            count, median(p.value for p in by_count[count]), max(p.spread for p in by_count[count])
        )
        for count in sorted(by_count)
    ]


def _value(known: Sequence[Point], stations: int) -> float:
    counts = [point.stations for point in known]
    values = [point.value for point in known]
    if counts[0] < stations < counts[-1]:
        return float(np.interp(stations, counts, values))
    fixed, each = _line(np.array(counts, float), np.array(values))
    return fixed + each * stations


def _line(counts: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Fit the cost of a run and the cost of a station; neither is negative."""
    weights = 1 / values
    design = np.stack([np.ones_like(counts), counts], axis=1) * weights[:, None]
    fixed, each = np.linalg.lstsq(design, np.ones_like(counts), rcond=None)[0]
    if each < 0:
        return float(np.sum(weights) / np.sum(weights**2)), 0.0
    if fixed < 0:
        scaled = counts * weights
        return 0.0, float(np.sum(scaled) / np.sum(scaled**2))
    return float(fixed), float(each)


def _typical(residuals: Sequence[float]) -> float:
    """Root mean square; a single residual may be small by luck."""
    if not residuals:
        return _UNTESTED
    size = float(np.sqrt(np.mean(np.square(residuals))))
    return size if len(residuals) > 1 else max(size, _UNTESTED / 2)


def _left_out(known: Sequence[Point], inside: bool) -> list[float]:
    """Relative errors of predictions of known points from the others."""
    if len(known) < 3:
        return []
    left = range(1, len(known) - 1) if inside else (0, len(known) - 1)
    errors = []
    for index in left:
        rest = [*known[:index], *known[index + 1 :]]
        point = known[index]
        errors.append((_value(rest, point.stations) - point.value) / point.value)
    return errors
