"""Synthetic record of one station, of which any part can be computed by itself.

The samples of a part do not depend on which parts are asked for: chunks that overlap hold the
same samples, and a record of any length takes the memory of a chunk.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eqcctpro.synthetic.scenario import Scenario
from eqcctpro.synthetic.waveforms import NOISE_COUNTS, EventTimes, coloured_noise, earthquake

__all__ = ["Defects", "StationRecord"]

Float64 = NDArray[np.float64]

# Noise is laid in blocks that overlap by half and fade into each other.
_BLOCK_S = 240.0
# After this many time constants the coda is far below the noise.
_CODA_DECAYS = 10.0
_GAP_S = (2.0, 20.0)
_GLITCH_COUNTS = (2e4, 2e6)
_PER_HOUR = 6.0


@dataclass(frozen=True)
class Defects:
    """Share of the stations, 0 to 1, that have each defect.

    Attributes
    ----------
    gaps : float
        Spans of 2 to 20 s without samples, six an hour and at least one.
    glitches : float
        Spikes of one to three samples on one component, six an hour and at least one.
    dead : float
        A component that records nothing but zeros.
    """

    gaps: float = 0.0
    glitches: float = 0.0
    dead: float = 0.0


class StationRecord:
    """The record of one station.

    Parameters
    ----------
    scenario : Scenario
    index : int
        The station.
    seed : int
    duration_s, sampling_rate : float
    defects : Defects
    """

    def __init__(
        self,
        scenario: Scenario,
        index: int,
        *,
        seed: int,
        duration_s: float,
        sampling_rate: float,
        defects: Defects,
    ) -> None:
        self._scenario, self._index, self._seed = scenario, index, seed
        self._rate = self.sampling_rate = sampling_rate
        self.samples = round(duration_s * sampling_rate)
        rng = self._rng(1)
        self._level = rng.uniform(*NOISE_COUNTS)
        has = rng.uniform(size=3) < (defects.gaps, defects.glitches, defects.dead)
        count = max(1, round(duration_s / 3600 * _PER_HOUR))
        self.gaps = self._draw_gaps(count) if has[0] else []
        self.glitches = self._draw_glitches(count) if has[1] else []
        self.dead = int(self._rng(4).integers(3)) if has[2] else None
        self._cached: tuple[int, Float64] | None = None

    def pieces(self, first: int, last: int) -> list[tuple[int, int]]:
        """Spans of samples from `first` to before `last` that are not in a gap."""
        found = []
        at = first
        for begin, end in self.gaps:
            if end <= at or begin >= last:
                continue
            if begin > at:
                found.append((at, begin))
            at = max(at, end)
        if at < last:
            found.append((at, last))
        return found

    def in_gap(self, time_s: float) -> bool:
        """True if a time, in s since the start, lies in a gap."""
        sample = time_s * self._rate
        return any(begin <= sample < end for begin, end in self.gaps)

    def counts(self, first: int, last: int) -> NDArray[np.int32]:
        """Samples from `first` to before `last`, shape (3, samples), in the order Z, N, E."""
        waves = self._level * self._noise(first, last)
        events = self._scenario.arrivals
        for number in range(events.p_s.shape[0]):
            self._add_earthquake(waves, number, first, last)
        for begin, length, component, size in self.glitches:
            part = slice(max(0, begin - first), max(0, begin + length - first))
            waves[component, part] += size
        if self.dead is not None:
            waves[self.dead] = 0.0
        return np.rint(waves).astype(np.int32)

    def _rng(self, *purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, self._index + 1, *purpose])

    def _draw_gaps(self, count: int) -> list[tuple[int, int]]:
        rng = self._rng(2)
        begin = rng.uniform(0, self.samples, count)
        length = rng.uniform(*_GAP_S, count) * self._rate
        spans = sorted(
            (int(b), min(int(b + n), self.samples)) for b, n in zip(begin, length, strict=True)
        )
        joined: list[tuple[int, int]] = []
        for first, last in spans:
            if joined and first <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return joined

    def _draw_glitches(self, count: int) -> list[tuple[int, int, int, float]]:
        """First sample, length, component and size."""
        rng = self._rng(3)
        component = int(rng.integers(3))
        return [
            (
                int(rng.integers(self.samples)),
                int(rng.integers(1, 4)),
                component,
                float(rng.choice([-1, 1]) * rng.uniform(*_GLITCH_COUNTS)),
            )
            for _ in range(count)
        ]

    def _noise(self, first: int, last: int) -> Float64:
        hop = round(_BLOCK_S * self._rate / 2)
        # Squares of neighbouring windows add up to one, so that the level stays.
        fade = np.sin(np.pi * (np.arange(2 * hop) + 0.5) / (2 * hop))
        noise = np.zeros((3, last - first))
        for block in range(first // hop - 1, (last - 1) // hop + 1):
            begin = block * hop
            part = slice(max(first, begin), min(last, begin + 2 * hop))
            inside = slice(part.start - begin, part.stop - begin)
            values = self._block(block, 2 * hop)[:, inside] * fade[inside]
            noise[:, part.start - first : part.stop - first] += values
        return noise

    def _block(self, block: int, samples: int) -> Float64:
        if self._cached is None or self._cached[0] != block:
            # The first block begins before the record.
            rng = self._rng(5, block + 1)
            self._cached = (block, coloured_noise(rng, (3,), samples, self._rate))
        return self._cached[1]

    def _add_earthquake(self, waves: Float64, number: int, first: int, last: int) -> None:
        arrivals = self._scenario.arrivals
        here = (slice(number, number + 1), slice(self._index, self._index + 1))
        begin_s = float(arrivals.p_s[here][0, 0]) - 0.5
        decay = 2.0 + float(arrivals.distance_km[here][0, 0]) / 15.0
        end_s = float(arrivals.s_s[here][0, 0]) + _CODA_DECAYS * decay
        begin, end = int(begin_s * self._rate), int(end_s * self._rate)
        if end <= first or begin >= last:
            return
        one = EventTimes(
            arrivals.p_s[here],
            arrivals.s_s[here],
            arrivals.distance_km[here],
            arrivals.azimuth[here],
            arrivals.strength[number : number + 1],
        )
        times = np.arange(begin, end) / self._rate
        # All of it, also where only a part is asked for: the coda is random.
        whole = earthquake(self._rng(6, number), one, 0, times, self._rate)[0]
        part = slice(max(first, begin), min(last, end))
        waves[:, part.start - first : part.stop - first] += whole[
            :, part.start - begin : part.stop - begin
        ]
