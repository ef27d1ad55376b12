"""Plots of a run's picks, data and time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import cos, radians
from typing import Any, Final

import numpy as np

from eqcctpro.analysis.page import Figure, plain
from eqcctpro.analysis.run_data import Picks, RunData
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["run_figures"]

#: Colours of the page.
PHASE_COLOURS: Final = {"P": "--p", "S": "--s"}

#: Lengths of a bar of time, seconds.
_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 86400)
_BARS = 240

#: With more stations their names are left to the pointer.
_NAMED = 60

#: More marks than this in one plot are slow; the most probable ones are shown.
_MOST_MARKS = 50_000

#: An S this long after a P does not belong to it, s.
_LONGEST_S_MINUS_P = 60.0

_MAP_LIMIT = 20_000
_MS = 1_000_000


def run_figures(data: RunData) -> dict[str, Figure]:
    """Plots by name; those that have nothing to show are left out."""
    found: dict[str, Figure | None] = {
        "time": _over_time(data),
        "stations": _by_station(data),
        "all": _all_picks(data),
        "probability": _probabilities(data.picks),
        "s_minus_p": _s_minus_p(data.picks),
        "coverage": _coverage(data),
        "map": _map(data),
        "seconds": _seconds(data.summary),
    }
    return {name: figure for name, figure in found.items() if figure is not None}


def phases(picks: Picks) -> list[str]:
    """Phases of the picks, P and S first."""
    return sorted(set(picks.phase.tolist()), key=lambda name: (name not in PHASE_COLOURS, name))


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
                "x0": int(first + width // 2) // _MS,
                "dx": int(width) // _MS,
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
        note=f"{rate:,.3g} picks per minute on average. Times are UTC; bars of {unit}.",
    )


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
    order = sorted(names, key=lambda name: (-_count(picks, name), name))
    few = len(order) <= _NAMED
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
    silent = sum(_count(picks, name) == 0 for name in order)
    middle = float(np.median([_count(picks, name) for name in order]))
    note = f"{middle:,.3g} picks at the middle station; {silent:,} of {len(order):,} have none."
    return Figure("picks_by_station", "Picks by station", traces, layout, height=320, note=note)


def _count(picks: Picks, station: str) -> int:
    return sum(picks.counts.get((station, phase), 0) for phase in phases(picks))


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
                "x": (picks.time_ns[rows] // _MS).tolist(),
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
    layout = {"xaxis": {"type": "date"}, "yaxis": _station_axis(names), "hovermode": "closest"}
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


def _station_axis(names: Sequence[str]) -> dict[str, Any]:
    axis: dict[str, Any] = {"range": [len(names) - 0.4, -0.6], "zeroline": False}
    if len(names) > _NAMED:
        return {**axis, "title": {"text": "Stations"}, "showticklabels": False, "showgrid": False}
    return {
        **axis,
        "tickvals": list(range(len(names))),
        "ticktext": [plain(name) for name in names],
        "tickfont": {"size": 10},
    }


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
    """Seconds from each P to the first S before the next P at the station."""
    gaps = []
    for station in np.unique(picks.station[picks.phase == "S"]):
        here = picks.station == station
        p = np.sort(picks.time_ns[here & (picks.phase == "P")])
        s = np.sort(picks.time_ns[here & (picks.phase == "S")])
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
        f"{_LONGEST_S_MINUS_P:g} s; the middle one is {np.median(found):.2f} s.",
    )


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


def _coverage(data: RunData) -> Figure | None:
    """A line for each stretch of data."""
    if not data.coverage:
        return None
    names = sorted(data.coverage)
    x: list[int | None] = []
    y: list[int | None] = []
    text: list[str] = []
    for row, name in enumerate(names):
        for start, end in data.coverage[name].spans:
            label = f"{plain(name)}: {(end - start) / 1e9:,.1f} s"
            x += [start // _MS, end // _MS, None]
            y += [row, row, None]
            text += [label, label, ""]
    trace = {
        "type": "scattergl" if len(x) > 6000 else "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": "--good", "width": 6 if len(names) <= _NAMED else 1.5},
        "showlegend": False,
    }
    gaps = sum(item.gaps for item in data.coverage.values())
    lost = sum(item.gap_seconds for item in data.coverage.values())
    note = f"{gaps:,} gaps, {lost / 3600:,.2f} h of them together."
    if not data.gaps_known:
        note += " The archive is large: only gaps between files are known."
    layout = {"xaxis": {"type": "date"}, "yaxis": _station_axis(names), "hovermode": "closest"}
    height = int(min(max(240, 110 + 13 * len(names)), 640))
    return Figure("coverage", "Data of each station", [trace], layout, height=height, note=note)


def _map(data: RunData) -> Figure | None:
    """Stations where they are; no map tiles, which would have to come over a network."""
    places = {
        name: data.coordinates[key]
        for name in data.stations
        if (key := tuple(name.split(".", 1))) in data.coordinates
    }
    if not places:
        return None
    failed = {item["station"].rsplit(".", 2)[0] for item in data.summary.get("failed", ())}
    most = max((_count(data.picks, name) for name in places), default=0) or 1
    groups: dict[str, list[str]] = {"with picks": [], "without picks": [], "failed": []}
    for name in list(places)[:_MAP_LIMIT]:
        picked = _count(data.picks, name)
        group = "failed" if name in failed else "with picks" if picked else "without picks"
        groups[group].append(name)
    looks = {"with picks": "--accent", "without picks": "--dull", "failed": "--bad"}
    traces = [
        {
            "type": "scatter",
            "mode": "markers+text" if len(places) <= 30 else "markers",
            "name": group,
            "x": [places[name][1] for name in names],
            "y": [places[name][0] for name in names],
            "text": [plain(name.split(".")[1]) for name in names],
            "textposition": "top center",
            "textfont": {"size": 10},
            "customdata": [[plain(name), _count(data.picks, name)] for name in names],
            "hovertemplate": "%{customdata[0]}: %{customdata[1]} picks<br>"
            "%{y:.4f}, %{x:.4f}<extra></extra>",
            "marker": {
                "color": looks[group],
                "symbol": "triangle-up" if group == "with picks" else "x",
                "opacity": 0.85,
                "size": [7 + 11 * (_count(data.picks, name) / most) ** 0.5 for name in names],
            },
        }
        for group, names in groups.items()
        if names
    ]
    middle = radians(sum(latitude for latitude, _ in places.values()) / len(places))
    layout = {
        "xaxis": {"title": {"text": "Longitude"}, "zeroline": False},
        "yaxis": {
            "title": {"text": "Latitude"},
            "zeroline": False,
            "scaleanchor": "x",
            "scaleratio": 1 / max(cos(middle), 0.05),
        },
        "hovermode": "closest",
    }
    note = "Equal distances east and north; the larger a mark, the more picks."
    without = len(data.stations) - len(places)
    if without:
        note += f" {without:,} stations have no coordinates."
    return Figure("map", "Map", traces, layout, height=520, note=note)


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
        "xaxis": {"title": {"text": "Seconds"}, "rangemode": "tozero"},
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
