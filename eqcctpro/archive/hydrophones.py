"""Hydrophones of ocean-bottom stations, which are picked together with the seismometer.

Their channels have an instrument code of their own, D for pressure: HDH is recorded beside HHZ,
HH1 and HH2.  A model with a component H sees all four.
"""

from __future__ import annotations

from collections.abc import Container
from typing import TypeVar

__all__ = ["COMPONENT", "has_hydrophone", "join_hydrophones", "seismometer_of"]

Key = tuple[str, str, str, str]
_Item = TypeVar("_Item")

#: The letter of the component, in a channel code and in the component order of a model.
COMPONENT = "H"
_PRESSURE = "D"
# Seismometers of high gain, of low gain, geophones or gravimeters, and accelerometers.
_SEISMOMETERS = "HLPGN"


def has_hydrophone(components: str) -> bool:
    """True if a model takes a hydrophone beside other components."""
    return COMPONENT in components and len(components) > 1


def seismometer_of(key: Key, known: Container[Key]) -> Key | None:
    """Find the seismometer that a hydrophone is picked with; None if there is none.

    Parameters
    ----------
    key : tuple of str
        Network, station, location, and band and instrument code.
    known : container of such tuples
        Known instruments.
    """
    *place, instrument = key
    if len(instrument) != 2 or instrument[1] != _PRESSURE:
        return None
    network, station, location = place
    beside = ((network, station, location, instrument[0] + letter) for letter in _SEISMOMETERS)
    return next((one for one in beside if one in known), None)


def join_hydrophones(instruments: dict[Key, list[_Item]], components: str) -> None:
    """Move what hydrophones recorded to their seismometers, if a model takes both.

    Parameters
    ----------
    instruments : dict of tuple to list
        By network, station, location, and band and instrument code; changed in place.
    components : str
        Components of the model.
    """
    if not has_hydrophone(components):
        return
    for key in sorted(instruments):
        seismometer = seismometer_of(key, instruments)
        if seismometer is not None:
            instruments[seismometer].extend(instruments.pop(key))
