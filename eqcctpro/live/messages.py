"""Messages about picks, as the picker of real-time data makes them and sinks send them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from eqcctpro.errors import EQCCTProError, InputError
from eqcctpro.picks.formats.quakeml import resource_part
from eqcctpro.times import format_utc, parse_utc

__all__ = ["PickMessage", "Status", "message_id"]

Status = Literal["preliminary", "final", "retracted"]
"""A pick is preliminary until every window that covers it was used; then final or retracted."""

_STATUSES = get_args(Status)
#: Names of times in JSON, and the attributes that hold them in nanoseconds.
_TIMES = {
    "time": "time_ns",
    "start_time": "start_ns",
    "end_time": "end_ns",
    "created": "created_ns",
    "data_end": "data_end_ns",
    "received": "received_ns",
}
_TEXTS = ("id", "network", "station", "location", "channel", "phase")
_MEASURED = ("snr", "mb")


@dataclass(frozen=True, slots=True)
class PickMessage:
    """One version of one pick.

    Times are nanoseconds since 1970 UTC; as JSON they are text with microseconds.

    Attributes
    ----------
    id : str
        Identity of the pick, the same in all its versions; see `message_id`.
    version : int
        Counted from 1.
    status : {"preliminary", "final", "retracted"}
    network, station, location, channel : str
        Codes; `channel` is band and instrument, such as ``HH``.
    phase : str
    time_ns : int
        Peak of the probability.
    start_ns, end_ns : int
        Where the trigger goes on and off.
    probability : float
        At the peak, from 0 to 1.
    model, weights : str
    components : str
        Components that had data, such as ``ZNE``.
    late : bool
        The pick was made of data that came after its windows had been decided.
    created_ns : int
        When this version was made, by this machine's clock.
    data_end_ns : int
        End of the data that decided it.
    received_ns : int
        When these data arrived, by this machine's clock.
    snr : float, optional
        Ratio of the signal behind the pick to the noise before it.
    mb : float, optional
        Amplitude for the body-wave magnitude, in the units that SeisComP expects of ``mb``.

    Raises
    ------
    InputError
        Status, version, probability or codes cannot be those of a pick.
    """

    id: str
    version: int
    status: Status
    network: str
    station: str
    location: str
    channel: str
    phase: str
    time_ns: int
    start_ns: int
    end_ns: int
    probability: float
    model: str
    weights: str
    components: str
    late: bool
    created_ns: int
    data_end_ns: int
    received_ns: int
    snr: float | None = None
    mb: float | None = None

    def __post_init__(self) -> None:
        wrong = (
            f"status {self.status!r}"
            if self.status not in _STATUSES
            else f"version {self.version}"
            if self.version < 1
            else f"probability {self.probability}"
            if not 0.0 <= self.probability <= 1.0
            else "an empty id"
            if not self.id
            else ""
        )
        if wrong:
            raise InputError(f"a message about a pick has {wrong} (id {self.id!r})")

    @property
    def origin(self) -> str:
        """Model and weights: ``PhaseNet/original``."""
        return "/".join(part for part in (self.model, self.weights) if part)

    @property
    def key(self) -> str:
        """Identity of this version: ``ID/VERSION``."""
        return f"{self.id}/{self.version}"

    def as_dict(self) -> dict[str, Any]:
        """Fields as in JSON, times as ISO-8601 text in UTC with microseconds."""
        content: dict[str, Any] = {"id": self.id, "version": self.version, "status": self.status}
        for name in ("network", "station", "location", "channel", "phase"):
            content[name] = getattr(self, name)
        for name in ("time", "start_time", "end_time"):
            content[name] = format_utc(getattr(self, _TIMES[name]))
        content["probability"] = self.probability
        for name in ("model", "weights", "components", "late"):
            content[name] = getattr(self, name)
        for name in ("created", "data_end", "received"):
            content[name] = format_utc(getattr(self, _TIMES[name]))
        for name in _MEASURED:
            value = getattr(self, name)
            if value is not None and math.isfinite(value):
                content[name] = value
        return content

    def as_json(self) -> str:
        """One line of JSON, which `from_json` reads; the same message gives the same text."""
        return json.dumps(self.as_dict(), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> PickMessage:
        """Read what `as_json` wrote; fields of later versions of the program are passed over.

        Raises
        ------
        InputError
            It is no message about a pick.
        """
        try:
            content = json.loads(text)
            times: dict[str, Any] = {
                _TIMES[name]: parse_utc(content.pop(name), name) for name in _TIMES
            }
            known = {one.name for one in fields(cls)}
            content = {name: value for name, value in content.items() if name in known}
            content["probability"] = float(content["probability"])
            message = cls(**content, **times)
            if not all(isinstance(getattr(message, name), str) for name in _TEXTS):
                raise TypeError("a code is no text")
            return message
        except (ValueError, TypeError, KeyError, AttributeError, EQCCTProError) as error:
            raise InputError(
                f"this is no message about a pick: {type(error).__name__}: {error}",
                hint=f"the text begins with {text[:80]!r}",
            ) from error


def message_id(
    model: str, weights: str, time_ns: int, code: tuple[str, str, str, str], phase: str
) -> str:
    """Identity of a pick, made at its first report: ``MODEL.weights/TIME/NET.STA.LOC.CH.PHASE``.

    It is that of the exports, `eqcctpro.picks.formats.quakeml.pick_id`, of a pick at that time.

    Parameters
    ----------
    model, weights : str
    time_ns : int
        Time of the first report, nanoseconds since 1970 UTC.
    code : tuple of str
        Network, station, location, and band and instrument code.
    phase : str
    """
    origin = ".".join(part for part in (model, weights) if part)
    moment = format_utc(time_ns).replace("-", "").replace(":", "")
    parts = (resource_part(origin), moment, resource_part(".".join((*code, phase))))
    return "/".join(part for part in parts if part)
