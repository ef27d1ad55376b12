"""Counts to ground velocity and to what a Wood-Anderson seismometer would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from eqcctpro.errors import InputError
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.segments import Segment

__all__ = ["GroundMotion"]

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


class GroundMotion:
    """Removes the responses of an inventory.

    Parameters
    ----------
    inventory : obspy.Inventory
    """

    def __init__(self, inventory: Any) -> None:
        self._inventory = inventory

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

    def peaks(self, segment: Segment, start_ns: int, end_ns: int) -> tuple[float, float] | None:
        """Largest velocity in m/s and Wood-Anderson amplitude in mm between two times.

        None where the inventory has no response of the channel at that time.
        """
        from obspy import Trace, UTCDateTime

        code = segment.code
        start = UTCDateTime(ns=segment.start_ns)
        try:
            self._inventory.get_response(str(code), start)
        except Exception as error:
            # ObsPy raises a bare Exception, and nothing else says that there is none.
            if "No matching response" not in str(error):
                raise
            return None
        trace = Trace(
            segment.samples.astype(np.float64),
            {
                "network": code.network,
                "station": code.station,
                "location": code.location,
                "channel": code.channel,
                "starttime": start,
                "sampling_rate": segment.sampling_rate,
            },
        )
        corners = (*_LOW_HZ, *(share * segment.sampling_rate for share in _HIGH))
        trace.detrend("linear")
        trace.remove_response(self._inventory, output="VEL", pre_filt=corners, water_level=None)
        first = round((start_ns - segment.start_ns) / NS_PER_S * segment.sampling_rate)
        last = round((end_ns - segment.start_ns) / NS_PER_S * segment.sampling_rate)
        window = slice(max(0, first), max(first + 1, last))
        velocity = float(np.abs(trace.data[window]).max())
        trace.simulate(paz_simulate=_WOOD_ANDERSON, taper=False)
        written = trace.data[window]
        return velocity, float((written.max() - written.min()) / 2 * 1000)
