"""Waveforms of local earthquakes at the stations of a synthetic network.

Straight rays in a half-space give the arrival times; what arrives is a direct pulse followed by
a decaying coda of random scattered waves, over coloured noise.  That is enough for a picker that
was trained on real earthquakes to recognise them, and the true times are known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import signal

from eqcctpro.errors import SettingsError

__all__ = [
    "NOISE_COUNTS",
    "VP_KM_S",
    "VS_KM_S",
    "EventTimes",
    "Recording",
    "coloured_noise",
    "earthquake",
    "synthetic_waveforms",
]

Float64 = NDArray[np.float64]

VP_KM_S = 6.0
VS_KM_S = VP_KM_S / 1.73
"""Shear velocity; Vp/Vs = 1.73 is that of a Poisson solid, usual for the upper crust."""

_DISTANCE_KM = (5.0, 60.0)
_DEPTH_KM = (6.0, 12.0)
_EVENT_EVERY_S = 60.0
_SHORTEST_S = 40.0
_LOWEST_RATE_HZ = 40.0

# Peak of the direct P wave on the vertical component at 10 km, and how much stronger S is on the
# horizontal components, as for a magnitude of about 2.5 on a broadband station.
_P_COUNTS_AT_10_KM = 12_000.0
_S_OVER_P = 3.0
NOISE_COUNTS = (40.0, 120.0)
_CORNER_HZ = (1.5, 14.0)


@dataclass(frozen=True, slots=True)
class Recording:
    """Synthetic recording of a network.

    Attributes
    ----------
    counts : ndarray of int32, shape (stations, 3, samples)
        Components in the order Z, N, E; stations by increasing distance from the centre.
    p_s, s_s : ndarray, shape (earthquakes, stations)
        True arrival times in s since the first sample.
    """

    counts: NDArray[np.int32]
    p_s: Float64
    s_s: Float64


@dataclass(frozen=True, slots=True)
class EventTimes:
    """Times in s since the start and distances in km of every event at every station.

    All arrays have the shape (earthquakes, stations), but `strength` (earthquakes,).
    """

    p_s: Float64
    s_s: Float64
    distance_km: Float64
    azimuth: Float64
    strength: Float64


def synthetic_waveforms(
    *,
    stations: int = 12,
    duration_s: float = 120.0,
    seed: int = 0,
    sampling_rate: float = 100.0,
) -> Recording:
    """Waveforms of one earthquake in every minute, or of one in all in a shorter record.

    Parameters
    ----------
    stations : int
        Number of stations, 1 to 999, at 5 to 60 km from the network's centre.
    duration_s : float
        Length of the record in s, at least 40.
    seed : int
        The same seed gives the same waveforms.
    sampling_rate : float
        Hz, at least 40.

    Returns
    -------
    Recording

    Raises
    ------
    SettingsError
        A parameter is out of its range.
    """
    _check(stations, duration_s, sampling_rate)
    rng = np.random.default_rng(seed)
    events = _draw_events(rng, stations, duration_s)
    times = np.arange(round(duration_s * sampling_rate)) / sampling_rate
    waveforms = _noise(rng, stations, times.size, sampling_rate)
    for number in range(events.p_s.shape[0]):
        waveforms += earthquake(rng, events, number, times, sampling_rate)
    return Recording(np.rint(waveforms).astype(np.int32), events.p_s, events.s_s)


def _check(stations: int, duration_s: float, sampling_rate: float) -> None:
    if not 1 <= stations <= 999:
        raise SettingsError(f"stations: {stations} is not between 1 and 999")
    if not duration_s >= _SHORTEST_S:
        raise SettingsError(
            f"duration_s: {duration_s} s is too short for a local earthquake with its S waves",
            hint=f"take at least {_SHORTEST_S:g}",
        )
    if not sampling_rate >= _LOWEST_RATE_HZ:
        raise SettingsError(
            f"sampling_rate: {sampling_rate} Hz does not hold a local earthquake's frequencies",
            hint=f"take at least {_LOWEST_RATE_HZ:g}",
        )


def _draw_events(rng: np.random.Generator, stations: int, duration_s: float) -> EventTimes:
    # The golden angle spreads any number of stations evenly around the centre.
    bearing = np.arange(stations) * np.pi * (3.0 - np.sqrt(5.0))
    radius = np.linspace(*_DISTANCE_KM, stations)
    station_xy = np.stack([radius * np.sin(bearing), radius * np.cos(bearing)], axis=-1)
    count = max(1, int(duration_s // _EVENT_EVERY_S))
    period = duration_s / count
    event_xy = rng.uniform(-6.0, 6.0, (count, 1, 2))
    depth = rng.uniform(*_DEPTH_KM, (count, 1))
    origin = (np.arange(count)[:, None] + rng.uniform(0.18, 0.22, (count, 1))) * period
    offset = station_xy[None] - event_xy
    distance = np.sqrt((offset**2).sum(axis=-1) + depth**2)
    return EventTimes(
        p_s=origin + distance / VP_KM_S,
        s_s=origin + distance / VS_KM_S,
        distance_km=distance,
        azimuth=np.arctan2(offset[..., 0], offset[..., 1]),
        strength=rng.uniform(0.6, 1.4, count),
    )


def earthquake(
    rng: np.random.Generator, events: EventTimes, number: int, times: Float64, sampling_rate: float
) -> Float64:
    """One earthquake at all stations, counts, shape (stations, 3, samples) in the order ZNE.

    `times` are evenly spaced, in s since the same start as the arrivals.
    """
    distance = events.distance_km[number]
    azimuth = events.azimuth[number]
    # Geometrical spreading, and an attenuation that takes a third at 60 km.
    amplitude = _P_COUNTS_AT_10_KM * events.strength[number]
    amplitude = amplitude * (10.0 / distance) * np.exp(-distance / 150.0)
    upgoing = np.cos(np.arctan2(distance, 25.0))  # rays steepen towards the surface
    along = np.sqrt(1.0 - upgoing**2) * 0.5
    p_pattern = np.stack([0.6 + 0.4 * upgoing, along * np.cos(azimuth), along * np.sin(azimuth)])
    twist = azimuth + rng.uniform(0.3, 0.6, azimuth.size) * np.pi
    s_pattern = np.stack([np.full_like(azimuth, 0.25), np.cos(twist), np.sin(twist)])
    waves = _phase(
        rng, times, events.p_s[number], p_pattern, (0.35, 0.15, 0.15), 1.5 + distance / 25
    )
    waves += _S_OVER_P * _phase(
        rng, times, events.s_s[number], s_pattern, (0.2, 0.35, 0.35), 2.0 + distance / 15
    )
    low, high = _CORNER_HZ
    band = signal.butter(
        2, (low, min(high, 0.4 * sampling_rate)), "band", fs=sampling_rate, output="sos"
    )
    # A causal filter: nothing may precede the arrival.
    filtered: Float64 = signal.sosfilt(band, waves, axis=-1)
    return filtered * amplitude[:, None, None]


def _phase(
    rng: np.random.Generator,
    times: Float64,
    arrival: Float64,
    pattern: Float64,
    scatter: tuple[float, float, float],
    decay: Float64,
) -> Float64:
    """A direct pulse of about 0.15 s and its coda, shape (stations, 3, samples).

    `pattern` (3, stations) is the polarisation of the direct wave, `scatter` the coda's strength
    on the three components, `decay` its time constant in s at each station.
    """
    since = times[None] - arrival[:, None]
    after = np.clip(since, 0.0, None)
    pulse = np.where(since >= 0, np.sin(2 * np.pi * 6.0 * after) * np.exp(-after / 0.12), 0.0)
    envelope = np.where(
        since >= 0, (0.3 + 0.7 * np.exp(-after / 0.5)) * np.exp(-after / decay[:, None]), 0.0
    )
    coda = rng.standard_normal((arrival.size, 3, times.size)) * np.asarray(scatter)[None, :, None]
    waves: Float64 = 2.0 * pattern.T[..., None] * pulse[:, None] + 2.5 * coda * envelope[:, None]
    return waves


def _noise(rng: np.random.Generator, stations: int, samples: int, rate: float) -> Float64:
    """Ground noise in counts, stronger at some stations than at others."""
    noise = coloured_noise(rng, (stations, 3), samples, rate)
    return noise * rng.uniform(*NOISE_COUNTS, (stations, 1, 1))


def coloured_noise(
    rng: np.random.Generator, shape: tuple[int, ...], samples: int, rate: float
) -> Float64:
    """Noise that falls with frequency, with the sea's peak near 0.2 Hz.

    Of unit standard deviation, shape ``(*shape, samples)``.
    """
    frequency = np.fft.rfftfreq(samples, 1.0 / rate)
    level = 1.0 / np.sqrt(1.0 + (frequency / 1.0) ** 2)
    level += 3.0 * np.exp(-0.5 * (np.log(np.maximum(frequency, 1e-3) / 0.2) / 0.35) ** 2)
    level[frequency < 0.05] = 0.0
    spectrum = np.fft.rfft(rng.standard_normal((*shape, samples)), axis=-1) * level
    noise: Float64 = np.fft.irfft(spectrum, n=samples, axis=-1)
    noise /= noise.std(axis=-1, keepdims=True)
    return noise
