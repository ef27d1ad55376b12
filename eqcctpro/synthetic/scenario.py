"""Synthetic network on the map, its earthquakes, and the arrival times of their waves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import SettingsError
from eqcctpro.synthetic.waveforms import VP_KM_S, VS_KM_S, EventTimes

__all__ = ["Earth", "Scenario", "draw_scenario"]

Float64 = NDArray[np.float64]
Earth = Literal["homogeneous", "iasp91", "ak135"]
"""What the waves travel through: our half-space, or a layered model of ObsPy's TauP."""

# WGS 84.
_SEMI_MAJOR_KM = 6378.137
_FLATTENING = 1 / 298.257223563
_ECCENTRICITY_2 = _FLATTENING * (2 - _FLATTENING)

_DEPTH_KM = (6.0, 14.0)
_STRENGTH = (0.6, 1.4)
# The first earthquake's waves arrive within the record, the last one's before its end.
_QUIET_S = (10.0, 30.0)
# Travel times are computed this far apart and interpolated; that errs by less than 3 ms.
_GRID_KM = 1.0


@dataclass(frozen=True)
class Scenario:
    """Stations and earthquakes.

    Attributes
    ----------
    station_latitude, station_longitude : ndarray, shape (stations,)
        Degrees, WGS 84; all stations are at sea level.
    latitude, longitude, depth_km, origin_s : ndarray, shape (earthquakes,)
        Hypocentres; origin time in s since the record's start.
    arrivals : EventTimes
        Times and distances of every earthquake at every station.
    earth : {"homogeneous", "iasp91", "ak135"}
    """

    station_latitude: Float64
    station_longitude: Float64
    latitude: Float64
    longitude: Float64
    depth_km: Float64
    origin_s: Float64
    arrivals: EventTimes
    earth: Earth


def draw_scenario(
    *,
    stations: int,
    duration_s: float,
    earthquakes: int,
    seed: int,
    centre: tuple[float, float],
    radius_km: float,
    earth: Earth,
) -> Scenario:
    """Place stations evenly in a circle and earthquakes at random within half of it.

    Parameters
    ----------
    stations, earthquakes : int
    duration_s : float
        Length of the record; origin times are spread over it.
    seed : int
        The same seed gives the same earthquakes.
    centre : tuple of float
        Latitude and longitude, degrees.
    radius_km : float
        Largest distance of a station from the centre; the first is at 5 km or nearer.
    earth : {"homogeneous", "iasp91", "ak135"}

    Raises
    ------
    SettingsError
        A parameter is out of its range.
    """
    if not (abs(centre[0]) <= 85 and abs(centre[1]) <= 180):
        raise SettingsError(
            f"centre: {centre[0]}, {centre[1]} is no latitude and longitude a network can be at",
            hint="latitude from -85 to 85, longitude from -180 to 180",
        )
    rng = np.random.default_rng([seed, 0])
    # The golden angle spreads any number of stations evenly around the centre.
    bearing = np.arange(stations) * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.linspace(min(5.0, radius_km), radius_km, stations)
    station_xy = np.stack([radius * np.sin(bearing), radius * np.cos(bearing)], axis=-1)
    event_bearing = rng.uniform(0.0, 2 * np.pi, earthquakes)
    event_radius = 0.5 * radius_km * np.sqrt(rng.uniform(0.0, 1.0, earthquakes))
    event_xy = event_radius[:, None] * np.stack([np.sin(event_bearing), np.cos(event_bearing)], -1)
    depth = rng.uniform(*_DEPTH_KM, earthquakes)
    first, last = _QUIET_S
    slot = (duration_s - first - last) / max(1, earthquakes)
    origin = first + (np.arange(earthquakes) + rng.uniform(0.0, 0.4, earthquakes)) * slot
    offset = station_xy[None] - event_xy[:, None]
    station_map, event_map = _on_the_map(station_xy, centre), _on_the_map(event_xy, centre)
    away = _distance_km(station_map, event_map)
    p_s, s_s = _travel_times(away, depth, earth)
    arrivals = EventTimes(
        p_s=origin[:, None] + p_s,
        s_s=origin[:, None] + s_s,
        distance_km=np.sqrt(away**2 + depth[:, None] ** 2),
        azimuth=np.arctan2(offset[..., 0], offset[..., 1]),
        strength=rng.uniform(*_STRENGTH, earthquakes),
    )
    return Scenario(
        *station_map,
        *event_map,
        depth,
        origin,
        arrivals,
        earth,
    )


def _on_the_map(xy: Float64, centre: tuple[float, float]) -> tuple[Float64, Float64]:
    """Latitude and longitude of points east and north of the centre, by its curvatures."""
    latitude = np.radians(centre[0])
    root = np.sqrt(1 - _ECCENTRICITY_2 * np.sin(latitude) ** 2)
    meridian = _SEMI_MAJOR_KM * (1 - _ECCENTRICITY_2) / root**3
    parallel = _SEMI_MAJOR_KM / root * np.cos(latitude)
    north, east = np.degrees(xy[:, 1] / meridian), np.degrees(xy[:, 0] / parallel)
    return centre[0] + north, (centre[1] + east + 180.0) % 360.0 - 180.0


def _distance_km(stations: tuple[Float64, Float64], events: tuple[Float64, Float64]) -> Float64:
    """Along the surface, shape (earthquakes, stations); to a few metres at these distances.

    The chord through the ellipsoid, bent to the arc of a circle.
    """
    chord = np.linalg.norm(_in_space(*stations)[None] - _in_space(*events)[:, None], axis=-1)
    bent: Float64 = 2 * _SEMI_MAJOR_KM * np.arcsin(chord / (2 * _SEMI_MAJOR_KM))
    return bent


def _in_space(latitude: Float64, longitude: Float64) -> Float64:
    """Earth-centred coordinates in km, shape (points, 3)."""
    phi, lam = np.radians(latitude), np.radians(longitude)
    normal = _SEMI_MAJOR_KM / np.sqrt(1 - _ECCENTRICITY_2 * np.sin(phi) ** 2)
    x, y = normal * np.cos(phi) * np.cos(lam), normal * np.cos(phi) * np.sin(lam)
    return np.stack([x, y, normal * (1 - _ECCENTRICITY_2) * np.sin(phi)], axis=-1)


def _travel_times(away: Float64, depth: Float64, earth: Earth) -> tuple[Float64, Float64]:
    """First P and first S, in s, shape (earthquakes, stations)."""
    if earth == "homogeneous":
        path = np.sqrt(away**2 + depth[:, None] ** 2)
        return path / VP_KM_S, path / VS_KM_S
    from obspy.geodetics import kilometers2degrees
    from obspy.taup import TauPyModel

    model = TauPyModel(earth)
    times = np.empty((2, *away.shape))
    for number, source_depth in enumerate(depth.tolist()):
        low, high = np.floor(away[number].min()), np.ceil(away[number].max())
        grid = np.arange(low, high + _GRID_KM, _GRID_KM)
        if len(grid) > away.shape[1]:
            grid = np.unique(away[number])
        for row, phases in enumerate((["p", "P", "Pn", "Pg"], ["s", "S", "Sn", "Sg"])):
            first = [
                min(
                    arrival.time
                    for arrival in model.get_travel_times(
                        source_depth, max(1e-6, kilometers2degrees(distance)), phases
                    )
                )
                for distance in grid.tolist()
            ]
            times[row, number] = np.interp(away[number], grid, first)
    return times[0], times[1]
