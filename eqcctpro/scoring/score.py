"""Scores of picks against labels: every pick and every label counts, once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.scoring.arrays import Level, PickArrays, as_arrays, phase_of, place_names
from eqcctpro.scoring.matching import Residuals, match, residuals_of
from eqcctpro.times import Time, parse_utc

__all__ = ["Counts", "PhaseScore", "Scores", "score_picks"]

# Thresholds of the precision-recall curve.
THRESHOLDS = np.round(np.arange(0.0, 1.0, 0.01), 2)


@dataclass(frozen=True)
class Counts:
    """Number of picks, labels and matches, with precision, recall and F1.

    Attributes
    ----------
    labels, picks, matched : int
    false, missed : int
        Picks without a label, and labels without a pick.
    duplicates : int
        False picks within the tolerance of a label that another pick has; they count as false.
    precision, recall, f1 : float or None
        None where there is nothing to divide by.
    """

    labels: int
    picks: int
    matched: int
    false: int
    missed: int
    duplicates: int
    precision: float | None
    recall: float | None
    f1: float | None

    @classmethod
    def of(cls, labels: int, picks: int, matched: int, duplicates: int = 0) -> Counts:
        """Everything that follows from three counts."""
        return cls(
            labels,
            picks,
            matched,
            picks - matched,
            labels - matched,
            duplicates,
            matched / picks if picks else None,
            matched / labels if labels else None,
            2 * matched / (picks + labels) if picks + labels else None,
        )


@dataclass(frozen=True)
class PhaseScore:
    """The score of one phase.

    Attributes
    ----------
    counts : Counts
    false_per_station_hour : float or None
        None when the hours are not known.
    residuals : Residuals or None
        Pick minus label of the pairs; None without pairs.
    curve : list of dict
        Threshold, picks, matched, precision, recall; empty without probabilities.
    area : float or None
        Area under precision over recall, from recall 0 to the recall of all picks given: picks
        below the threshold of the run are not known.
    """

    counts: Counts
    false_per_station_hour: float | None
    residuals: Residuals | None
    curve: list[dict[str, float | int | None]]
    area: float | None


@dataclass(frozen=True)
class Scores:
    """Scores of a set of picks.

    Attributes
    ----------
    tolerance_s : float
    per : {"station", "location", "instrument"}
    station_hours : float or None
    phases : dict of str to PhaseScore
    stations : list of dict
        Counts of each place and phase.
    matches : pyarrow.Table
        Every pick and every label: place, phase, outcome (``match``, ``false``, ``missed``),
        pick_time, label_time, residual_s, probability.
    """

    tolerance_s: float
    per: Level
    station_hours: float | None
    phases: dict[str, PhaseScore]
    stations: list[dict[str, Any]]
    matches: pa.Table = field(repr=False)

    def as_dict(self) -> dict[str, Any]:
        """All but the single picks, for JSON."""
        return {
            "tolerance_s": self.tolerance_s,
            "per": self.per,
            "station_hours": self.station_hours,
            "phases": {name: asdict(score) for name, score in self.phases.items()},
            "stations": self.stations,
        }


def score_picks(
    picks: pa.Table,
    labels: pa.Table,
    *,
    tolerance_s: float = 0.5,
    phases: Sequence[str] | None = None,
    per: Level = "station",
    station_hours: float | None = None,
    start: Time | None = None,
    end: Time | None = None,
) -> Scores:
    """Compare picks with labels, one to one.

    A pick without a label of its own is false, wherever it is: also at a station, or of a phase,
    without any label, and also beside a label that another pick has.

    Parameters
    ----------
    picks, labels : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    tolerance_s : float
        Largest time difference of a pair.
    phases : sequence of str, optional
        Phases that are scored; None takes all that are in the picks or the labels.
    per : {"station", "location", "instrument"}
        What a pick and its label must share.
    station_hours : float, optional
        Hours of data that were picked, summed over the stations.
    start, end : str, datetime or UTCDateTime, optional
        Only picks and labels from `start` on and before `end`.

    Raises
    ------
    SettingsError
        A parameter is out of its range, or there are no labels.
    """
    if not tolerance_s > 0:
        raise SettingsError(f"tolerance: {tolerance_s} s is not positive")
    if station_hours is not None and not station_hours > 0:
        raise SettingsError(f"station_hours: {station_hours} is not positive")
    picks, labels = _between(picks, start, end), _between(labels, start, end)
    wanted = _phases(picks, labels, phases)
    names, (pick_place, label_place) = place_names((picks, labels), per)
    results, stations, matches = {}, [], []
    for phase in wanted:
        mine, theirs = as_arrays(picks, pick_place, phase), as_arrays(labels, label_place, phase)
        tolerance_us = round(tolerance_s * 1e6)
        partner = match(mine.place, mine.time_us, theirs.place, theirs.time_us, tolerance_us)
        duplicate = (partner < 0) & _near_any(mine, theirs, tolerance_us)
        results[phase] = _phase_score(mine, theirs, partner, duplicate, tolerance_s, station_hours)
        stations += _by_station(names, phase, mine, theirs, partner, duplicate)
        matches.append(_match_table(names, phase, mine, theirs, partner))
    stations.sort(key=lambda row: (row["place"], row["phase"]))
    return Scores(tolerance_s, per, station_hours, results, stations, pa.concat_tables(matches))


def _between(table: pa.Table, start: Time | None, end: Time | None) -> pa.Table:
    times = table["time"].cast(pa.timestamp("us")).cast(pa.int64())
    if start is not None:
        keep = pc.greater_equal(times, parse_utc(start, "start") // 1000)
        table, times = table.filter(keep), times.filter(keep)
    if end is not None:
        table = table.filter(pc.less(times, parse_utc(end, "end") // 1000))
    return table


def _phases(picks: pa.Table, labels: pa.Table, phases: Sequence[str] | None) -> list[str]:
    labelled = set(pc.unique(phase_of(labels)).to_pylist())
    if not labelled:
        raise SettingsError(
            "there are no labels to compare with",
            hint="check the file, and the times that start and end leave",
        )
    if phases is None:
        return sorted(labelled | set(pc.unique(phase_of(picks)).to_pylist()))
    wanted = [name.strip().upper() for name in phases]
    if unlabelled := [name for name in wanted if name not in labelled]:
        raise SettingsError(
            f"phases: no label is a {', '.join(unlabelled)}",
            hint=f"the labels are of {', '.join(sorted(labelled))}",
        )
    return wanted


def _phase_score(
    picks: PickArrays,
    labels: PickArrays,
    partner: NDArray[np.int64],
    duplicate: NDArray[np.bool_],
    tolerance_s: float,
    station_hours: float | None,
) -> PhaseScore:
    found = partner >= 0
    counts = Counts.of(len(labels), len(picks), int(found.sum()), int(duplicate.sum()))
    seconds = (picks.time_us[found] - labels.time_us[partner[found]]) / 1e6
    curve = _curve(picks, labels, round(tolerance_s * 1e6))
    return PhaseScore(
        counts,
        counts.false / station_hours if station_hours else None,
        residuals_of(seconds, tolerance_s) if len(seconds) else None,
        curve,
        _area(curve),
    )


def _curve(
    picks: PickArrays, labels: PickArrays, tolerance_us: int
) -> list[dict[str, float | int | None]]:
    """Precision and recall by threshold; at each one the picks are matched anew."""
    if not len(picks) or np.isnan(picks.probability).any():
        return []
    lowest = picks.probability.min()
    # The highest threshold that keeps all picks, and all above it.
    first = max(0, int(np.searchsorted(THRESHOLDS, lowest, "right")) - 1)
    curve: list[dict[str, float | int | None]] = []
    for threshold in THRESHOLDS[first:].tolist():
        kept = picks.where(picks.probability >= threshold)
        if not len(kept):
            break
        partner = match(kept.place, kept.time_us, labels.place, labels.time_us, tolerance_us)
        counts = Counts.of(len(labels), len(kept), int((partner >= 0).sum()))
        curve.append(
            {
                "threshold": threshold,
                "picks": counts.picks,
                "matched": counts.matched,
                "precision": counts.precision,
                "recall": counts.recall,
                "f1": counts.f1,
            }
        )
    return curve


def _area(curve: list[dict[str, float | int | None]]) -> float | None:
    if not curve or curve[0]["recall"] is None:
        return None
    recall = np.array([point["recall"] for point in reversed(curve)], float)
    precision = np.array([point["precision"] for point in reversed(curve)], float)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def _near_any(picks: PickArrays, labels: PickArrays, tolerance_us: int) -> NDArray[np.bool_]:
    """Picks within the tolerance of some label of their place, taken or not."""
    near = np.zeros(len(picks), bool)
    if not len(labels):
        return near
    order = np.lexsort((labels.time_us, labels.place))
    place, time = labels.place[order], labels.time_us[order]
    first, last = np.searchsorted(place, picks.place), np.searchsorted(place, picks.place, "right")
    for index in np.flatnonzero(last > first):
        times = time[first[index] : last[index]]
        at = np.searchsorted(times, picks.time_us[index] - tolerance_us)
        near[index] = at < len(times) and times[at] <= picks.time_us[index] + tolerance_us
    return near


def _by_station(
    names: list[str],
    phase: str,
    picks: PickArrays,
    labels: PickArrays,
    partner: NDArray[np.int64],
    duplicate: NDArray[np.bool_],
) -> list[dict[str, Any]]:
    size = len(names)
    found = partner >= 0
    per_place = zip(
        np.bincount(labels.place, minlength=size).tolist(),
        np.bincount(picks.place, minlength=size).tolist(),
        np.bincount(picks.place[found], minlength=size).tolist(),
        np.bincount(picks.place[duplicate], minlength=size).tolist(),
        strict=True,
    )
    residual = np.zeros(len(picks))
    residual[found] = (picks.time_us[found] - labels.time_us[partner[found]]) / 1e6
    sums = np.bincount(picks.place, weights=residual, minlength=size)
    return [
        {
            "place": names[place],
            "phase": phase,
            **asdict(Counts.of(*numbers)),
            "mean_residual_s": float(sums[place] / numbers[2]) if numbers[2] else None,
        }
        for place, numbers in enumerate(per_place)
        if numbers[0] or numbers[1]
    ]


def _match_table(
    names: list[str],
    phase: str,
    picks: PickArrays,
    labels: PickArrays,
    partner: NDArray[np.int64],
) -> pa.Table:
    found = partner >= 0
    free = np.ones(len(labels), bool)
    free[partner[found]] = False
    missed = labels.where(free)
    place = np.concatenate([picks.place, missed.place])
    utc = pa.timestamp("us", tz="UTC")
    no_pick = np.arange(len(place)) >= len(picks)
    no_label = np.concatenate([~found, np.zeros(len(missed), bool)])
    label_time = np.concatenate(
        [labels.time_us[np.maximum(partner, 0)] if len(labels) else picks.time_us, missed.time_us]
    )
    pick_time = np.concatenate([picks.time_us, missed.time_us])
    probability = np.concatenate([picks.probability, np.full(len(missed), np.nan)])
    outcome = np.where(no_pick, "missed", np.where(no_label, "false", "match"))
    return pa.table(
        {
            "place": pa.array(names, pa.string()).take(pa.array(place)),
            "phase": pa.array(np.full(len(place), phase)),
            "outcome": pa.array(outcome),
            "pick_time": pa.array(pick_time, pa.int64(), mask=no_pick).cast(utc),
            "label_time": pa.array(label_time, pa.int64(), mask=no_label).cast(utc),
            "residual_s": pa.array((pick_time - label_time) / 1e6, mask=no_pick | no_label),
            "probability": pa.array(probability, mask=np.isnan(probability)),
        }
    )
