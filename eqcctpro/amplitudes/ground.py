"""Counts to ground velocity and to what a Wood-Anderson seismometer would write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from eqcctpro.codes import Code
from eqcctpro.errors import InputError
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S, format_utc
from eqcctpro.waveform.segments import ChannelCode, Segment

__all__ = ["GroundMotion", "moves"]

# Static magnification 2080, damping 0.7, period 0.8 s (IASPEI, 2013), for velocity in m/s.
_WOOD_ANDERSON = {
    "sensitivity": 2080.0,
    "zeros": [0j],
    "gain": 1.0,
    "poles": [-5.49779 - 5.60886j, -5.49779 + 5.60886j],
}
# Below 0.2 Hz it is mostly the ocean and the response's own noise; shares of the sampling rate.
_LOW_HZ = (0.1, 0.2)
_HIGH = (0.4, 0.45)


# Input units of ground displacement, velocity and acceleration, in SEED's and StationXML's writing.
_LENGTH = r"(?:[NUMCK]?M|(?:NANO|MICRO|MILLI|CENTI)?MET(?:ER|RE)S?)"
_MOTION_UNITS = re.compile(rf"{_LENGTH}(?:/S(?:EC)?(?:(?:\*\*|\^)?2|/S(?:EC)?)?)?", re.IGNORECASE)
# Letters of components without an orientation in the metadata.
_HORIZONTAL = frozenset("NE12RTXY")
# A horizontal component lies this near to the horizon.
_MOST_DIP = 30.0


class _Epoch(NamedTuple):
    """A channel for as long as nothing about it changed; times in ns since 1970."""

    start_ns: int
    end_ns: int
    dip: float | None
    response: Any


class GroundMotion:
    """Removes the responses of an inventory.

    Parameters
    ----------
    inventory : obspy.Inventory

    Attributes
    ----------
    problems : dict of str to set of str
        Channels whose ground motion is not known, by the reason.
    """

    def __init__(self, inventory: Any) -> None:
        self.problems: dict[str, set[str]] = {}
        self._epochs: dict[Code, list[_Epoch]] = {}
        for network in inventory:
            for station in network:
                for channel in station:
                    code = _key((network.code, station.code, channel.location_code, channel.code))
                    epoch = _Epoch(
                        _ns(channel.start_date, -FOREVER_NS),
                        _ns(channel.end_date, FOREVER_NS),
                        None if channel.dip is None else float(channel.dip),
                        channel.response,
                    )
                    self._epochs.setdefault(code, []).append(epoch)

    @classmethod
    def read(cls, path: Path) -> GroundMotion:
        """From StationXML, or what else ObsPy reads.

        Raises
        ------
        InputError
            The file is missing or is no inventory.
        """
        from lxml.etree import LxmlError
        from obspy import read_inventory

        try:
            return cls(read_inventory(str(path)))
        except (OSError, TypeError, ValueError, LxmlError) as error:
            raise InputError(
                f"{path} is no inventory that ObsPy reads: {error}",
                hint="give StationXML with responses",
            ) from error

    def measures_motion(self, code: ChannelCode, time_ns: int) -> bool:
        """True if a channel records ground motion: by its input units, else by its letters.

        A hydrophone does not: its instrument code is D, or its component H.
        """
        epoch = self._epoch(code, time_ns)
        units = None if epoch is None else _input_units(epoch.response)
        return moves(code) if units is None else _MOTION_UNITS.fullmatch(units) is not None

    def is_horizontal(self, code: ChannelCode, time_ns: int) -> bool:
        """True if a channel is a horizontal one: by its dip, else by its component."""
        epoch = self._epoch(code, time_ns)
        if epoch is None or epoch.dip is None:
            return code.component in _HORIZONTAL
        return abs(epoch.dip) < _MOST_DIP

    def peaks(self, segment: Segment, start_ns: int, end_ns: int) -> tuple[float, float] | None:
        """Largest velocity in m/s and Wood-Anderson amplitude in mm between two times.

        None where the inventory has no response to ground motion of the channel at the first
        time; `problems` then says why.
        """
        from obspy import Trace, UTCDateTime

        response = self._response(segment.code, start_ns)
        if response is None:
            return None
        trace = Trace(
            segment.samples.astype(np.float64),
            {
                "starttime": UTCDateTime(ns=segment.start_ns),
                "sampling_rate": segment.sampling_rate,
                "response": response,
            },
        )
        corners = (*_LOW_HZ, *(share * segment.sampling_rate for share in _HIGH))
        trace.detrend("linear")
        trace.remove_response(output="VEL", pre_filt=corners, water_level=None)
        first = round((start_ns - segment.start_ns) / NS_PER_S * segment.sampling_rate)
        last = round((end_ns - segment.start_ns) / NS_PER_S * segment.sampling_rate)
        window = slice(max(0, first), max(first + 1, last))
        velocity = float(np.abs(trace.data[window]).max())
        trace.simulate(paz_simulate=_WOOD_ANDERSON, taper=False)
        written = trace.data[window]
        return velocity, float((written.max() - written.min()) / 2 * 1000)

    def _epoch(self, code: ChannelCode, time_ns: int) -> _Epoch | None:
        known = self._epochs.get(_key(code), ())
        return next((one for one in known if one.start_ns <= time_ns < one.end_ns), None)

    def _response(self, code: ChannelCode, time_ns: int) -> Any:
        """The response to ground motion at a time, or None."""
        epoch, name = self._epoch(code, time_ns), str(code)
        if epoch is None:
            known = self._epochs.get(_key(code), ())
            spans = ", ".join(f"{_date(one.start_ns)} to {_date(one.end_ns)}" for one in known)
            if spans:
                self._miss("no epoch at the time of a pick", f"{name} ({spans})")
            else:
                self._miss("not in the inventory", name)
            return None
        units = _input_units(epoch.response)
        if units is None or not epoch.response.response_stages:
            self._miss("no response stages", name)
        elif _MOTION_UNITS.fullmatch(units) is None:
            self._miss("no ground motion", f"{name} ({units})")
        else:
            return epoch.response
        return None

    def _miss(self, reason: str, name: str) -> None:
        self.problems.setdefault(reason, set()).add(name)


def moves(code: ChannelCode) -> bool:
    """True if a channel records ground motion, by its letters: hydrophones do not."""
    return code.component != "H" and not code.instrument.endswith("D")


def _key(code: Code) -> Code:
    """Codes to compare: no location is written as an empty text, blanks or two dashes."""
    network, station, location, channel = (text.strip() for text in code)
    return network, station, location.replace("--", ""), channel


def _input_units(response: Any) -> str | None:
    if response is None:
        return None
    stages = response.response_stages
    units = stages[0].input_units if stages else None
    if not units and response.instrument_sensitivity is not None:
        units = response.instrument_sensitivity.input_units
    return units.strip() if units else None


def _ns(time: Any, unknown: int) -> int:
    """Nanoseconds of an ObsPy time; what 64 bits do not hold is without an end."""
    return unknown if time is None else min(max(int(time.ns), -FOREVER_NS), FOREVER_NS)


def _date(time_ns: int) -> str:
    if abs(time_ns) == FOREVER_NS:
        return "now" if time_ns > 0 else "ever"
    return format_utc(time_ns)[:10]
