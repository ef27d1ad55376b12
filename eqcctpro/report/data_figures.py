"""Plots of where and when a run had data; and what all plots of a run share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import cos, radians
from typing import Any, Final

from eqcctpro.report.page import Figure, plain, seconds_text
from eqcctpro.report.run_data import Picks, RunData
from eqcctpro.times import NS_PER_S

__all__ = [
    "MS",
    "NAMED",
    "PHASE_COLOURS",
    "coverage_figure",
    "map_figure",
    "phases",
    "pick_count",
    "station_axis",
]

#: Colours of the page.
PHASE_COLOURS: Final = {"P": "--p", "S": "--s"}

#: With more stations their names are left to the pointer.
NAMED: Final = 60

#: Nanoseconds in the unit of plotly.js's times.
MS: Final = 1_000_000

_MAP_LIMIT = 20_000


def phases(picks: Picks) -> list[str]:
    """Phases of the picks, P and S first."""
    return sorted(set(picks.phase.tolist()), key=lambda name: (name not in PHASE_COLOURS, name))


def pick_count(picks: Picks, station: str) -> int:
    """Picks of a station."""
    return sum(picks.counts.get((station, phase), 0) for phase in phases(picks))


def station_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis of stations, the first one on top, with their names when they are few."""
    axis: dict[str, Any] = {"range": [len(names) - 0.4, -0.6], "zeroline": False}
    if len(names) > NAMED:
        return {**axis, "title": {"text": "Stations"}, "showticklabels": False, "showgrid": False}
    return {
        **axis,
        "tickvals": list(range(len(names))),
        "ticktext": [plain(name) for name in names],
        "tickfont": {"size": 10},
    }


def coverage_figure(data: RunData) -> Figure | None:
    """A line for each stretch of data, and one for each gap."""
    if not data.coverage:
        return None
    names = sorted(data.coverage)
    held: list[tuple[int, str, int, int]] = []
    gaps: list[tuple[int, str, int, int]] = []
    for row, name in enumerate(names):
        spans = data.coverage[name].spans
        held += [(row, name, start, end) for start, end in spans]
        gaps += [(row, name, end, start) for (_, end), (start, _) in pairwise(spans)]
    wide = len(names) <= NAMED
    traces = [
        _stretches("data", held, "--good", 6 if wide else 1.5),
        _stretches("gaps", gaps, "--bad", 6 if wide else 2.5),
    ]
    lost = sum(end - start for *_, start, end in gaps) / NS_PER_S
    note = f"{len(gaps):,} gap{'' if len(gaps) == 1 else 's'}"
    note += f", {seconds_text(lost)} together." if gaps else "."
    if not data.gaps_known:
        note += " The archive is large: only gaps between files are known."
    layout = {"xaxis": {"type": "date"}, "yaxis": station_axis(names), "hovermode": "closest"}
    height = int(min(max(240, 110 + 13 * len(names)), 640))
    return Figure("coverage", "Data of each station", traces, layout, height=height, note=note)


def _stretches(
    what: str, stretches: Sequence[tuple[int, str, int, int]], colour: str, width: float
) -> dict[str, Any]:
    """Horizontal lines in one trace; None ends a line."""
    x: list[int | None] = []
    y: list[int | None] = []
    text: list[str] = []
    for row, name, start, end in stretches:
        label = f"{plain(name)}: {what}, {seconds_text((end - start) / NS_PER_S)}"
        x += [start // MS, end // MS, None]
        y += [row, row, None]
        text += [label, label, ""]
    return {
        "type": "scattergl" if len(x) > 6000 else "scatter",
        "mode": "lines",
        "name": what,
        "x": x,
        "y": y,
        "text": text,
        "hovertemplate": "%{text}<extra></extra>",
        "line": {"color": colour, "width": width},
    }


def map_figure(data: RunData) -> Figure | None:
    """Stations where they are; no map tiles, which would have to come over a network."""
    places = {
        name: data.coordinates[key]
        for name in data.stations
        if (key := tuple(name.split(".", 1))) in data.coordinates
    }
    if not places:
        return None
    failed = {item["station"].rsplit(".", 2)[0] for item in data.told if item["status"] == "failed"}
    most = max((pick_count(data.picks, name) for name in places), default=0) or 1
    groups: dict[str, list[str]] = {"with picks": [], "without picks": [], "failed": []}
    for name in list(places)[:_MAP_LIMIT]:
        picked = pick_count(data.picks, name)
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
            "customdata": [[plain(name), pick_count(data.picks, name)] for name in names],
            "hovertemplate": "%{customdata[0]}: %{customdata[1]} picks<br>"
            "%{y:.4f}, %{x:.4f}<extra></extra>",
            "marker": {
                "color": looks[group],
                "symbol": "triangle-up" if group == "with picks" else "x",
                "opacity": 0.85,
                "size": [7 + 11 * (pick_count(data.picks, name) / most) ** 0.5 for name in names],
            },
        }
        for group, names in groups.items()
        if names
    ]
    middle = radians(sum(latitude for latitude, _ in places.values()) / len(places))
    layout = {
        "xaxis": {"title": {"text": "Longitude"}, "zeroline": False, "constrain": "domain"},
        "yaxis": {
            "title": {"text": "Latitude"},
            "zeroline": False,
            "constrain": "domain",
            "scaleanchor": "x",
            "scaleratio": 1 / max(cos(middle), 0.05),
        },
        "hovermode": "closest",
    }
    note = "Equal distances east and north; the larger a mark, the more picks."
    without = len(data.stations) - len(places)
    if without:
        note += f" Without coordinates: {without:,} station{'' if without == 1 else 's'}."
    return Figure("map", "Map", traces, layout, height=520, note=note)
