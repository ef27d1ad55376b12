"""Plots of a run's picks and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Final

import numpy as np

from eqcctpro.report.data_figures import (
    MS,
    NAMED,
    PHASE_COLOURS,
    coverage_figure,
    map_figure,
    phases,
    pick_count,
    station_axis,
)
from eqcctpro.report.page import Figure, plain
from eqcctpro.report.run_data import Picks, RunData
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["run_figures"]

#: Lengths of a bar of time, seconds.
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
_BARS = 240

#: More marks than this in one plot are slow; the most probable ones are shown.
_MOST_MARKS = 50_000

#: An S this long after a P does not belong to it, s.
_LONGEST_S_MINUS_P = 60.0

#: A P and an S of a station that are closer than this are picks of one arrival, s.
_SAME_ARRIVAL = 0.25


def run_figures(data: RunData) -> dict[str, Figure]:
    """Plots by name; those that have nothing to show are left out."""
    found: dict[str, Figure | None] = {
        "time": _over_time(data),
        "stations": _by_station(data),
        "all": _all_picks(data),
        "probability": _probabilities(data.picks),
        "s_minus_p": _s_minus_p(data.picks),
        "coverage": coverage_figure(data),
        "map": map_figure(data),
        "seconds": _seconds(data.summary),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def _over_time(data: RunData) -> Figure | None:
    span = data.span_ns
    if span is None or not len(data.picks):
        return None
    step = next((s for s in _STEPS if (span[1] - span[0]) / NS_PER_S / s <= _BARS), _STEPS[-1])
    width = step * NS_PER_S
    first = span[0] // width * width
    edges = np.arange(first, span[1] + width + 1, width)
    traces = []
    for phase in phases(data.picks):
        counts, _ = np.histogram(data.picks.time_ns[data.picks.phase == phase], edges)
        traces.append(
            {
                "type": "bar",
                "name": plain(phase),
                "x0": int(first + width // 2) // MS,
                "dx": int(width) // MS,
                "y": counts.tolist(),
                "marker": {"color": PHASE_COLOURS.get(phase, "--good")},
                "hovertemplate": f"%{{x}}<br>%{{y}} {plain(phase)} picks<extra></extra>",
            }
        )
    unit = _unit(step)
    layout = {
        "barmode": "stack",
        "bargap": 0.05,
        "xaxis": {"type": "date"},
        "yaxis": {"title": {"text": f"Picks per {unit}"}, "rangemode": "tozero"},
    }
    rate = len(data.picks) / max((span[1] - span[0]) / NS_PER_S / 60, 1 / 60)
    return Figure(
        "picks_over_time",
        "Picks over time",
        traces,
        layout,
        height=300,
        note=f"{_rounded(rate)} picks per minute on average. Times are UTC; bars of {unit}.",
    )


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _unit(step: int) -> str:
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if step % size == 0:
            return name if step == size else f"{step // size} {name}s"
    return f"{step} s"


def _by_station(data: RunData) -> Figure | None:
    picks = data.picks
    if not len(picks):
        return None
    names = data.stations
    order = sorted(names, key=lambda name: (-pick_count(picks, name), name))
    few = len(order) <= NAMED
    traces = [
        {
            "type": "bar",
            "name": plain(phase),
            "x": list(range(1, len(order) + 1)),
            "y": [picks.counts.get((name, phase), 0) for name in order],
            "text": [plain(name) for name in order],
            "textposition": "none",
            "hovertemplate": f"%{{text}}<br>%{{y}} {plain(phase)} picks<extra></extra>",
            "marker": {"color": PHASE_COLOURS.get(phase, "--good"), "line": {"width": 0}},
        }
        for phase in phases(picks)
    ]
    axis: dict[str, Any] = {"title": {"text": "Stations, those with most picks first"}}
    if few:
        axis = {
            "tickvals": list(range(1, len(order) + 1)),
            "ticktext": [plain(name) for name in order],
            "tickangle": -60,
            "tickfont": {"size": 10},
        }
    layout = {
        "barmode": "stack",
        "bargap": 0.1 if few else 0,
        "xaxis": axis,
        "yaxis": {"title": {"text": "Picks"}, "rangemode": "tozero"},
    }
    silent = sum(pick_count(picks, name) == 0 for name in order)
    middle = float(np.median([pick_count(picks, name) for name in order]))
    note = f"{middle:,.3g} picks per station (median); {silent:,} of {len(order):,} have none."
    return Figure("picks_by_station", "Picks by station", traces, layout, height=320, note=note)


def _all_picks(data: RunData) -> Figure | None:
    """Every pick as a mark: time and station."""
    picks = data.picks
    if not len(picks):
        return None
    names = _in_order(data)
    rank = {name: index for index, name in enumerate(names)}
    shown = np.argsort(-picks.probability, kind="stable")[:_MOST_MARKS]
    traces = []
    for phase in phases(picks):
        rows = shown[picks.phase[shown] == phase]
        traces.append(
            {
                "type": "scattergl" if len(shown) > 3000 else "scatter",
                "mode": "markers",
                "name": plain(phase),
                "x": (picks.time_ns[rows] // MS).tolist(),
                "y": [rank[name] for name in picks.station[rows].tolist()],
                "text": [
                    f"{plain(name)} {format_utc(int(time), 'milliseconds')[11:]} {probability:.2f}"
                    for name, time, probability in zip(
                        picks.station[rows].tolist(),
                        picks.time_ns[rows].tolist(),
                        picks.probability[rows].tolist(),
                        strict=True,
                    )
                ],
                "hovertemplate": f"{plain(phase)} %{{text}}<extra></extra>",
                "marker": {
                    "color": PHASE_COLOURS.get(phase, "--good"),
                    "size": 5 if len(names) > 100 else 7,
                    "opacity": 0.75,
                },
            }
        )
    note = "Drag to zoom, double-click to go back. Stations in the order of their first P pick."
    if len(picks) > _MOST_MARKS:
        note += f" The {_MOST_MARKS:,} most probable of {len(picks):,} picks."
    layout = {"xaxis": {"type": "date"}, "yaxis": station_axis(names), "hovermode": "closest"}
    height = int(min(max(260, 120 + 14 * len(names)), 700))
    return Figure("all_picks", "Every pick", traces, layout, height=height, note=note)


def _in_order(data: RunData) -> list[str]:
    """Stations with picks by their first P, the others below."""
    picks = data.picks
    first: dict[str, int] = {}
    wanted = picks.phase == "P" if (picks.phase == "P").any() else np.ones(len(picks), dtype=bool)
    pairs = zip(picks.station[wanted].tolist(), picks.time_ns[wanted].tolist(), strict=True)
    for name, time in pairs:
        first[name] = min(time, first.get(name, time))
    late = np.iinfo(np.int64).max
    return sorted(set(data.stations), key=lambda name: (first.get(name, late), name))


def _probabilities(picks: Picks) -> Figure | None:
    if not len(picks):
        return None
    edges = np.linspace(0, 1, 51)
    traces = []
    for phase in phases(picks):
        counts, _ = np.histogram(picks.probability[picks.phase == phase], edges)
        traces.append(_bars(phase, edges, counts, "%{y} picks between %{text}"))
    layout = _histogram("Probability", "Picks", [0, 1])
    return Figure("probability", "Probability of picks", traces, layout, height=280)


def _s_minus_p(picks: Picks) -> Figure | None:
    """Seconds from each P to the first S before the next P at the station.

    A sharp S onset often raises the curve of P as well.  Such a pick would hide the P that the S
    belongs to, and make a pair of no seconds.
    """
    gaps = []
    for station in np.unique(picks.station[picks.phase == "S"]):
        p, s = _arrivals(picks, picks.station == station)
        next_s = np.searchsorted(s, p, side="right")
        has = next_s < len(s)
        after = np.append(p[1:], np.iinfo(np.int64).max)[has]
        arrival, start = s[next_s[has]], p[has]
        gaps.append((arrival - start)[arrival < after] / NS_PER_S)
    found = np.concatenate(gaps) if gaps else np.empty(0)
    found = found[found <= _LONGEST_S_MINUS_P]
    if not len(found):
        return None
    edges = np.linspace(0, max(float(np.ceil(found.max() / 5) * 5), 5.0), 61)
    counts, _ = np.histogram(found, edges)
    trace = _bars("", edges, counts, "%{y} pairs, %{text} s") | {"marker": {"color": "--accent"}}
    layout = _histogram("S minus P (s)", "Pairs of picks", [0, float(edges[-1])])
    return Figure(
        "s_minus_p",
        "Time from P to S",
        [trace],
        layout,
        height=280,
        note=f"{len(found):,} pairs: an S after a P and before the next one, within "
        f"{_LONGEST_S_MINUS_P:g} s; the median is {np.median(found):.2f} s. Of a P and an S "
        f"within {_SAME_ARRIVAL:g} s of each other only the more probable one counts.",
    )


def _arrivals(picks: Picks, here: Any) -> tuple[Any, Any]:
    """Times of P and S at a station, one phase for each arrival, ascending."""
    sides = []
    for phase in ("P", "S"):
        rows = np.flatnonzero(here & (picks.phase == phase))
        rows = rows[np.argsort(picks.time_ns[rows], kind="stable")]
        sides.append((picks.time_ns[rows], picks.probability[rows]))
    (p, p_value), (s, s_value) = sides
    keep_p = p_value > _highest_near(p, s, s_value)
    keep_s = s_value >= _highest_near(s, p, p_value)
    return p[keep_p], s[keep_s]


def _highest_near(times: Any, others: Any, values: Any) -> Any:
    """Of each time the highest value of another within `_SAME_ARRIVAL`; -1 without any."""
    near = round(_SAME_ARRIVAL * NS_PER_S)
    first = np.searchsorted(others, times - near, side="left")
    last = np.searchsorted(others, times + near, side="right")
    highest = np.full(len(times), -1.0)
    for index in np.flatnonzero(last > first):
        highest[index] = values[first[index] : last[index]].max()
    return highest


def _bars(phase: str, edges: Any, counts: Any, hover: str) -> dict[str, Any]:
    return {
        "type": "bar",
        "name": plain(phase),
        "showlegend": bool(phase),
        "x": ((edges[1:] + edges[:-1]) / 2).tolist(),
        "y": counts.tolist(),
        "text": [f"{low:.3g} and {high:.3g}" for low, high in pairwise(edges)],
        "textposition": "none",
        "hovertemplate": f"{plain(phase)} {hover}<extra></extra>",
        "marker": {"color": PHASE_COLOURS.get(phase, "--good")},
    }


def _histogram(x: str, y: str, span: Sequence[float]) -> dict[str, Any]:
    return {
        "barmode": "stack",
        "bargap": 0.05,
        "xaxis": {"title": {"text": x}, "range": list(span)},
        "yaxis": {"title": {"text": y}, "rangemode": "tozero"},
    }


def _seconds(summary: Mapping[str, Any]) -> Figure:
    """Wall-clock parts of the run, and stages over all workers."""
    known = summary.get("seconds", {})
    parts = {name: value for name, value in known.items() if isinstance(value, int | float)}
    stages = known.get("stages", {})
    rows = [(f"{name} ", value, "--accent") for name, value in parts.items()]
    rows += [(f"{name} (all workers) ", value, "--good") for name, value in stages.items()]
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [value for _, value, _ in rows],
        "y": [name for name, _, _ in rows],
        "marker": {"color": ["#0072B2" if c == "--accent" else "#009E73" for *_, c in rows]},
        "text": [f"{value:.3g} s" for _, value, _ in rows],
        "textposition": "auto",
        "hovertemplate": "%{y}: %{x:.3g} s<extra></extra>",
        "showlegend": False,
    }
    layout = {
        "xaxis": {"title": {"text": "Time (s)"}, "rangemode": "tozero"},
        "yaxis": {"autorange": "reversed"},
    }
    return Figure(
        "seconds",
        "Where the time went",
        [trace],
        layout,
        height=110 + 26 * len(rows),
        note="Parts of the run one after the other, and stages of picking, which overlap and are "
        "added up over workers.",
    )
