"""Filters and detrending by the names, defaults and results of ObsPy's ``Stream`` methods.

A step is a text, ``TYPE:VALUES``: ``highpass:1``, ``bandpass:3,15,corners=2,zerophase``,
``detrend:linear``.  The arithmetic is that of `scipy.signal`, which ObsPy calls too, so that ObsPy
need not be imported to pick.
"""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, cast

from eqcctpro.errors import InputError
from eqcctpro.waveform.segments import Segment

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Detrend", "Filter", "Step", "apply_steps", "parse_step", "settling_s"]

FilterType = Literal["bandpass", "bandstop", "highpass", "lowpass"]
DetrendType = Literal["simple", "linear", "demean", "polynomial"]

# Names of the corner frequencies of each filter.
_FREQUENCIES: dict[str, tuple[str, ...]] = {
    "bandpass": ("freqmin", "freqmax"),
    "bandstop": ("freqmin", "freqmax"),
    "highpass": ("freq",),
    "lowpass": ("freq",),
}
_DETRENDS = {
    "simple": "simple",
    "linear": "linear",
    "demean": "demean",
    "constant": "demean",
    "polynomial": "polynomial",
}
_WORDS = {"causal": ("zerophase", "false"), "zerophase": ("zerophase", "true")}
_FLAGS = {"true": True, "false": False}

MOST_CORNERS = 20
HIGHEST_ORDER = 10
#: What a filter knew of the samples before the first one has decayed to this.
SETTLED = 1e-10
#: No filter may take longer to forget: what chunks read around themselves stays bounded.
LONGEST_SETTLING_S = 86_400.0
# ObsPy takes a corner this close below the Nyquist frequency for one above it.
_NYQUIST_MARGIN = 1e-6

ALLOWED = (
    "use highpass:HZ, lowpass:HZ, bandpass:HZ,HZ or bandstop:HZ,HZ, each with corners=4 and "
    "causal or zerophase, or detrend:linear (demean, constant, simple; polynomial,order=3)"
)


@dataclass(frozen=True, slots=True)
class Filter:
    """A Butterworth filter.

    Attributes
    ----------
    type : {"bandpass", "bandstop", "highpass", "lowpass"}
    frequencies : tuple of float
        Corners in Hz: two, the low one first, or one.
    corners : int
        Order of the filter.
    zerophase : bool
        Applied forwards and backwards: twice the order, and nothing is delayed.
    """

    type: FilterType
    frequencies: tuple[float, ...]
    corners: int = 4
    zerophase: bool = False

    def __str__(self) -> str:
        phase = "zerophase" if self.zerophase else "causal"
        return f"{self._name},corners={self.corners},{phase}"

    @property
    def _name(self) -> str:
        return f"{self.type}:{','.join(f'{one:.12g}' for one in self.frequencies)}"

    def require_rate(self, segment: Segment) -> None:
        """Refuse a segment whose sampling rate is too low for a corner.

        Raises
        ------
        InputError
        """
        highest = self.frequencies[-1]
        if highest >= segment.sampling_rate / 2 * (1 - _NYQUIST_MARGIN):
            raise InputError(
                f"{segment.code}: {self._name} needs a sampling rate above {2 * highest:g} Hz, and "
                f"this channel has {segment.sampling_rate:g} Hz",
                hint="lower the corner of the filter, or exclude such channels",
            )

    def apply(self, samples: NDArray[Any], sampling_rate: float) -> NDArray[Any]:
        """Filter samples; the result is float64."""
        from scipy.signal import sosfilt

        sections = _sections(self, sampling_rate)
        filtered = sosfilt(sections, samples)
        if self.zerophase:
            filtered = sosfilt(sections, filtered[::-1])[::-1]
        return cast("NDArray[Any]", filtered)


@dataclass(frozen=True, slots=True)
class Detrend:
    """A trend that is taken off.

    Attributes
    ----------
    type : {"simple", "linear", "demean", "polynomial"}
        A line through the first and the last sample, a fitted line, the mean, or a fitted
        polynomial.
    order : int
        Of the polynomial.
    """

    type: DetrendType
    order: int = 0

    def __str__(self) -> str:
        return f"detrend:{self.type}" + (f",order={self.order}" if self.order else "")

    def require_rate(self, segment: Segment) -> None:
        """Do nothing: every rate will do."""

    def apply(self, samples: NDArray[Any], _: float) -> NDArray[Any]:
        """Take the trend off; the result is float32 if samples are, else float64."""
        import numpy as np

        n = len(samples)
        at = np.arange(n)
        samples = samples.astype(np.float32 if samples.dtype == np.float32 else np.float64)
        if n == 1:
            samples[:] = 0.0
        elif self.type == "simple":
            first, last = samples[0], samples[-1]
            samples -= first + at * (last - first) / float(n - 1)
        elif self.type == "polynomial":
            samples -= np.polyval(np.polyfit(at, samples, deg=min(self.order, n - 1)), at)
        else:
            from scipy.signal import detrend

            kind = "constant" if self.type == "demean" else "linear"
            samples = np.asarray(detrend(samples, type=kind), dtype=samples.dtype)
        return samples


Step = Filter | Detrend


def apply_steps(segments: Sequence[Segment], steps: Sequence[Step]) -> list[Segment]:
    """Filter and detrend segments, each by itself, in the order of the steps.

    Raises
    ------
    InputError
        A corner lies above the Nyquist frequency of a segment, or the filter is unstable there.
    """
    for step in steps:
        for segment in segments:
            step.require_rate(segment)
    prepared = []
    for segment in segments:
        samples = segment.samples
        for step in steps:
            samples = step.apply(samples, segment.sampling_rate)
        prepared.append(replace(segment, samples=samples, record=None))
    return prepared


@lru_cache(maxsize=64)
def _sections(step: Filter, sampling_rate: float) -> NDArray[np.float64]:
    """Coefficients; every segment of a network asks for the same."""
    import numpy as np
    from scipy.signal import iirfilter

    edges = [one / (0.5 * sampling_rate) for one in step.frequencies]
    sections = iirfilter(
        step.corners,
        edges if len(edges) > 1 else edges[0],
        btype={"bandpass": "band"}.get(step.type, step.type),
        ftype="butter",
        output="sos",
    )
    return np.asarray(sections, dtype=np.float64)


@lru_cache(maxsize=64)
def settling_s(step: Step) -> float:
    """Seconds until a filter has forgotten what was before, as if it had always run.

    By the slowest pole of the analog filter, which that of the digital one follows.
    """
    if isinstance(step, Detrend):
        return 0.0
    low, high = (2 * math.pi * one for one in (step.frequencies[0], step.frequencies[-1]))
    n = step.corners
    poles = [cmath.exp(1j * math.pi * (2 * k + n + 1) / (2 * n)) for k in range(n)]
    if step.type in ("highpass", "bandstop"):
        poles = [1 / pole for pole in poles]
    if len(step.frequencies) == 1:
        poles = [pole * low for pole in poles]
    else:
        halves = [pole * (high - low) / 2 for pole in poles]
        roots = [cmath.sqrt(half * half - low * high) for half in halves]
        poles = [half + s * r for half, r in zip(halves, roots, strict=True) for s in (1, -1)]
    slowest = min(-pole.real for pole in poles)
    return -math.log(SETTLED) / slowest if slowest > 0 else math.inf


@lru_cache(maxsize=64)
def parse_step(text: str) -> Step:
    """A filter or a way to detrend from its text.

    Raises
    ------
    ValueError
        It is none; the message says what is allowed.
    """
    name, _, rest = text.strip().lower().partition(":")
    values, named = _values(text, rest)
    if name == "detrend":
        return _detrend(text, values, named)
    if name not in _FREQUENCIES:
        raise ValueError(f"{text!r} is no filter; {ALLOWED}")
    for frequency, value in zip(_FREQUENCIES[name], values, strict=False):
        if frequency in named:
            raise ValueError(f"{text!r} gives {frequency} twice")
        named[frequency] = value
    if len(values) > len(_FREQUENCIES[name]) or not named.keys() >= set(_FREQUENCIES[name]):
        needed = " and ".join(_FREQUENCIES[name])
        raise ValueError(f"{text!r}: {name} takes {needed} in Hz; {ALLOWED}")
    frequencies = tuple(_number(text, one, named.pop(one)) for one in _FREQUENCIES[name])
    if frequencies[0] <= 0 or (len(frequencies) > 1 and frequencies[0] >= frequencies[1]):
        raise ValueError(f"{text!r}: corners are above 0 Hz, the low one first")
    corners = _whole(text, "corners", named.pop("corners", "4"), MOST_CORNERS)
    zerophase = named.pop("zerophase", "false")
    if zerophase not in _FLAGS:
        raise ValueError(f"{text!r}: zerophase is true or false")
    _refuse_rest(text, named)
    step = Filter(cast(FilterType, name), frequencies, corners, _FLAGS[zerophase])
    if settling_s(step) > LONGEST_SETTLING_S:
        raise ValueError(
            f"{text!r} rings for {settling_s(step) / 3600:.0f} h after the beginning of a record, "
            "more than a day; use a higher corner, a wider band or fewer corners"
        )
    return step


def _detrend(text: str, values: list[str], named: dict[str, str]) -> Detrend:
    if len(values) != 1 or values[0] not in _DETRENDS:
        raise ValueError(f"{text!r}: detrend takes one of {', '.join(_DETRENDS)}")
    kind = cast(DetrendType, _DETRENDS[values[0]])
    order = 0
    if kind == "polynomial":
        if "order" not in named:
            raise ValueError(f"{text!r}: a polynomial needs its order, such as order=3")
        order = _whole(text, "order", named.pop("order"), HIGHEST_ORDER)
    _refuse_rest(text, named)
    return Detrend(kind, order)


def _values(text: str, rest: str) -> tuple[list[str], dict[str, str]]:
    """Values without a name, in their order, and those with one."""
    values: list[str] = []
    named: dict[str, str] = {}
    for part in filter(None, map(str.strip, rest.split(","))):
        name, equals, value = part.partition("=")
        if not equals and part not in _WORDS:
            values.append(part)
            continue
        name, value = (name.strip(), value.strip()) if equals else _WORDS[part]
        if name in named:
            raise ValueError(f"{text!r} says {name} twice")
        named[name] = value
    return values, named


def _number(text: str, name: str, value: str) -> float:
    return _read(text, name, value, float, "a number of Hz")


def _whole(text: str, name: str, value: str, most: int) -> int:
    number = _read(text, name, value, int, f"a whole number from 1 to {most}")
    if not 1 <= number <= most:
        raise ValueError(f"{text!r}: {name} is a whole number from 1 to {most}")
    return number


def _read(text: str, name: str, value: str, kind: Callable[[str], Any], what: str) -> Any:
    try:
        number = kind(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"{text!r}: {name} is {what}, not {value!r}; {ALLOWED}")
    return number


def _refuse_rest(text: str, named: dict[str, str]) -> None:
    if named:
        raise ValueError(f"{text!r}: {next(iter(named))} is not known; {ALLOWED}")
