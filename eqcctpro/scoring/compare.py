"""Parity of two sets of picks."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.scoring.arrays import Level, PickArrays, as_arrays, phase_of, place_names
from eqcctpro.scoring.matching import Residuals, match, residuals_of

__all__ = ["Parity", "PhaseParity", "compare_picks"]


@dataclass(frozen=True)
class PhaseParity:
    """Agreement of two sets of picks of one phase.

    Attributes
    ----------
    a, b, both : int
        Picks of each set, and pairs.
    only_a, only_b : int
    agreement : float or None
        Pairs over pairs and single picks: 1 when neither set has a pick of its own.
    same_time : int
        Pairs at the same microsecond.
    within_s : dict of str to float
        Share of the pairs within 0.01, 0.05 and 0.1 s.
    times : Residuals or None
        B minus A.
    probability : dict
        Largest, mean and root-mean-square difference of the pairs' probabilities, and their
        correlation; empty without probabilities.
    """

    a: int
    b: int
    both: int
    only_a: int
    only_b: int
    agreement: float | None
    same_time: int
    within_s: dict[str, float]
    times: Residuals | None
    probability: dict[str, float | None]


@dataclass(frozen=True)
class Parity:
    """Agreement of two sets of picks.

    Attributes
    ----------
    tolerance_s : float
    per : {"station", "location", "instrument"}
    phases : dict of str to PhaseParity
    stations : list of dict
        Places and phases where one set has picks that the other lacks.
    """

    tolerance_s: float
    per: Level
    phases: dict[str, PhaseParity]
    stations: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """All values, for JSON."""
        return asdict(self)


def compare_picks(
    a: pa.Table, b: pa.Table, *, tolerance_s: float = 0.1, per: Level = "station"
) -> Parity:
    """Pair the picks of two sets, and describe what is alike and what is not.

    Parameters
    ----------
    a, b : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    tolerance_s : float
        Largest time difference of a pair.
    per : {"station", "location", "instrument"}
        What the picks of a pair share.

    Raises
    ------
    SettingsError
        A parameter is out of its range.
    """
    if not tolerance_s > 0:
        raise SettingsError(f"tolerance: {tolerance_s} s is not positive")
    names, (place_a, place_b) = place_names((a, b), per)
    found = {phase for table in (a, b) for phase in pc.unique(phase_of(table)).to_pylist()}
    phases, stations = {}, []
    for phase in sorted(found):
        first, second = as_arrays(a, place_a, phase), as_arrays(b, place_b, phase)
        partner = match(
            first.place, first.time_us, second.place, second.time_us, round(tolerance_s * 1e6)
        )
        phases[phase] = _phase(first, second, partner, tolerance_s)
        stations += _differing(names, phase, first, second, partner)
    return Parity(tolerance_s, per, phases, stations)


def _phase(
    a: PickArrays, b: PickArrays, partner: NDArray[np.int64], tolerance_s: float
) -> PhaseParity:
    paired = partner >= 0
    both = int(paired.sum())
    seconds = (b.time_us[partner[paired]] - a.time_us[paired]) / 1e6
    single = len(a) + len(b) - 2 * both
    return PhaseParity(
        len(a),
        len(b),
        both,
        len(a) - both,
        len(b) - both,
        both / (both + single) if both + single else None,
        int((seconds == 0).sum()),
        {f"{limit}": float((np.abs(seconds) <= limit).mean()) for limit in (0.01, 0.05, 0.1)}
        if both
        else {},
        residuals_of(seconds, tolerance_s) if both else None,
        _probabilities(a.probability[paired], b.probability[partner[paired]]),
    )


def _probabilities(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, float | None]:
    known = ~(np.isnan(a) | np.isnan(b))
    a, b = a[known], b[known]
    if not len(a):
        return {}
    difference = b - a
    varies = len(a) > 1 and a.std() > 0 and b.std() > 0
    return {
        "largest": float(np.abs(difference).max()),
        "mean": float(np.abs(difference).mean()),
        "rms": float(np.sqrt((difference**2).mean())),
        "correlation": float(np.corrcoef(a, b)[0, 1]) if varies else None,
    }


def _differing(
    names: list[str], phase: str, a: PickArrays, b: PickArrays, partner: NDArray[np.int64]
) -> list[dict[str, Any]]:
    paired = partner >= 0
    both = np.bincount(a.place[paired], minlength=len(names))
    in_a, in_b = (np.bincount(each.place, minlength=len(names)) for each in (a, b))
    return [
        {
            "place": names[place],
            "phase": phase,
            "both": int(both[place]),
            "only_a": int(in_a[place] - both[place]),
            "only_b": int(in_b[place] - both[place]),
        }
        for place in np.flatnonzero((in_a > both) | (in_b > both)).tolist()
    ]
