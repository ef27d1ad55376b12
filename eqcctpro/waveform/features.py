"""Features that DKPN's network reads in place of waveforms (Lomax et al. 2024).

Of a three-component record come five channels: for each component a characteristic function, which
is the highest of several octaves' energy over its decaying mean, then the incidence and
the modulus of ground motion in the octave that stands out.  They depend on the whole record: its
mean and deviation, and filters that begin where it begins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.blocks import Block

__all__ = ["FeatureSettings", "feature_block"]

Float64 = NDArray[np.float64]

_SMALL, _SMALL_ENERGY, _SMALL_MODULUS = 1e-10, 1e-6, 1e-6


@dataclass(frozen=True)
class FeatureSettings:
    """Arguments of ``seisbench.models.DKPN``, by their names there.

    Attributes
    ----------
    fp_stabilization : float
        Seconds at the beginning of a record that are left out.
    t_long : float
        Time constant of the decaying means, s.
    freqmin : float
        Lower corner of the lowest octave is half of 1.5 times this, Hz.
    corner : int
        Order of the filters.
    clip : float
        Largest characteristic function; not above 0 for no limit.
    log, normalize, use_amax_only : bool
        Logarithms; division by the record's maximum; one octave for the whole record.
    """

    fp_stabilization: float
    t_long: float
    freqmin: float
    corner: int
    clip: float
    log: bool
    normalize: bool
    use_amax_only: bool

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> FeatureSettings:
        """Settings from a picker's ``features``."""
        return cls(**{name: given[name] for name in cls.__dataclass_fields__})

    def left_out(self, sampling_rate: float) -> int:
        """Samples at the beginning of a record that have no features."""
        return round(float(self.fp_stabilization) * float(sampling_rate))


def feature_block(block: Block, settings: FeatureSettings) -> Block | None:
    """The features of a block; None where it is too short to have any.

    Parameters
    ----------
    block : Block
        Vertical, north and east.
    settings : FeatureSettings

    Returns
    -------
    Block or None
        Five channels, which begin `fp_stabilization` later.
    """
    left_out = settings.left_out(block.sampling_rate)
    if block.data.shape[1] <= left_out:
        return None
    features = _features(block.data, block.sampling_rate, settings)
    shift_ns = round(left_out / block.sampling_rate * NS_PER_S)
    return Block(
        block.start_ns + shift_ns,
        block.sampling_rate,
        np.ascontiguousarray(features[:, left_out:], dtype=np.float32),
        block.origin_ns + shift_ns,
    )


def _features(waveforms: NDArray[np.float32], rate: float, settings: FeatureSettings) -> Float64:
    scaled = waveforms.astype(np.float64)
    scaled -= scaled.mean(axis=1, keepdims=True)
    scaled /= scaled.std(axis=1, keepdims=True) + _SMALL
    curves, octaves = zip(*(_characteristic(row, rate, settings) for row in scaled), strict=True)
    functions, which = np.array(curves), np.array(octaves)
    if settings.use_amax_only:
        chosen = np.full(scaled.shape[1], which.reshape(-1)[np.argmax(functions)])
    else:
        chosen = which.max(axis=0)
    motion = np.array([_in_octaves(row, chosen, rate, settings) for row in scaled])
    if settings.clip > 0:
        functions = np.minimum(functions, settings.clip)
    if settings.log:
        functions = np.log10(functions + 1)
    if settings.normalize:
        functions = functions / (np.abs(functions).max() + _SMALL)
    return np.concatenate([functions, _polarisation(motion, settings)])


def _octaves(rate: float, settings: FeatureSettings) -> list[Float64]:
    """Band-pass filters, as second-order sections."""
    return list(_filters(rate, float(settings.freqmin), int(settings.corner)))


@lru_cache(maxsize=8)
def _filters(rate: float, freqmin: float, corner: int) -> tuple[Float64, ...]:
    from scipy.signal import iirfilter

    count = int(np.log2(rate / 2 / 1.5 / freqmin)) + 1
    sections = []
    for octave in range(count):
        high = 1.5 * freqmin * 2**octave
        low, high = (2 * edge / rate for edge in (high / 2, high))
        if high > 1 - 1e-6:  # as ObsPy does
            sections.append(iirfilter(corner, low, btype="highpass", output="sos"))
        else:
            sections.append(iirfilter(corner, [low, high], btype="band", output="sos"))
    return tuple(sections)


def _characteristic(
    row: Float64, rate: float, settings: FeatureSettings
) -> tuple[Float64, NDArray[np.int8]]:
    """The highest ratio over the octaves, and the octave it is in; first ones of equals."""
    from scipy.signal import lfilter, sosfilt

    decay = 1 / rate / settings.t_long
    highest: Float64 = np.zeros(len(row))
    which = np.zeros(len(row), dtype=np.int8)
    unsettled = min(round(settings.t_long * rate), len(row))
    for octave, sections in enumerate(_octaves(rate, settings)):
        energy = sosfilt(sections, row) ** 2
        mean = np.sqrt(lfilter([decay], [1.0, decay - 1.0], energy**2))
        ratio = energy / (lfilter([decay], [1.0, decay - 1.0], mean) + _SMALL_ENERGY)
        ratio[:unsettled] = 0
        above = ratio > highest if octave else np.ones(len(row), dtype=bool)
        highest[above] = ratio[above]
        which[above] = octave
    return highest, which


def _in_octaves(
    row: Float64, chosen: NDArray[np.int8], rate: float, settings: FeatureSettings
) -> Float64:
    """A component, at every sample in the octave that was chosen for it."""
    from scipy.signal import sosfilt

    motion: Float64 = np.empty(len(row))
    for octave, sections in enumerate(_octaves(rate, settings)):
        here = chosen == octave
        if here.any():
            motion[here] = sosfilt(sections, row)[here]
    return motion


def _polarisation(motion: Float64, settings: FeatureSettings) -> Float64:
    """Incidence, from -1 (down) to 1 (up), and modulus."""
    vertical = motion[0]
    horizontal = np.hypot(motion[1], motion[2])
    modulus = np.hypot(horizontal, vertical)
    incidence = np.zeros_like(vertical)
    if horizontal.max() > vertical.max() / 1000:
        incidence = np.arctan2(vertical, horizontal) / (np.pi / 2)
    if settings.log:
        modulus = np.log10(modulus + 1)
    if settings.normalize:
        modulus = modulus / (modulus + _SMALL_MODULUS).max()
    return np.array([incidence, modulus])
