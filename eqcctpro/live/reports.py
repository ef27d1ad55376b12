"""Reported picks of an instrument: their identities and versions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

from eqcctpro.codes import Code
from eqcctpro.live.messages import PickMessage, Status, message_id
from eqcctpro.models.picker import Picker

__all__ = ["SAME_ARRIVAL_NS", "Decision", "Found", "Reports"]

#: A preliminary report of one phase and what is found there closer than this are of the same
#: arrival, ns; and of one that all data of the time were used for.
SAME_ARRIVAL_NS = 500_000_000
_SAME_FINAL_NS = 100_000_000


class Found(NamedTuple):
    """A pick as it was found on curves.

    Attributes
    ----------
    phase : str
    time_ns, start_ns, end_ns : int
        Peak, trigger on and trigger off, nanoseconds since 1970 UTC.
    probability : float
    """

    phase: str
    time_ns: int
    start_ns: int
    end_ns: int
    probability: float


class Decision(NamedTuple):
    """Data that a message is based on.

    Attributes
    ----------
    components : str
    data_end_ns : int
        End of the data.
    received_ns : int
        When they arrived.
    """

    components: str
    data_end_ns: int
    received_ns: int


@dataclass(frozen=True, slots=True)
class _Open:
    """A pick that was reported before it was decided."""

    id: str
    version: int
    status: Status
    found: Found


class Reports:
    """Makes messages about the picks of an instrument, and follows those that may change.

    Parameters
    ----------
    picker : Picker
    code : tuple of str
        With band and instrument in place of the channel.
    """

    def __init__(self, picker: Picker, code: Code) -> None:
        self._picker = picker
        self._code = code
        self._open: list[_Open] = []
        # Identities that belong to picks which have moved since, and until when they do.
        self._moved: dict[str, int] = {}

    @property
    def open(self) -> int:
        """Number of reported picks that are not decided, or have moved."""
        return len(self._open) + len(self._moved)

    def decided(self, found: Found, basis: Decision) -> PickMessage | None:
        """Message about a pick that no more data will change; None if it was reported so before."""
        known = self._known(found)
        if known is None:
            return self._message(self._new(found, "final"), basis)
        self._open.remove(known)
        self._note(known, found)
        if known.status == "final" and known.found == found:
            return None
        changed = replace(known, version=known.version + 1, status="final", found=found)
        return self._message(changed, basis)

    def at_the_end(self, found: Found, basis: Decision) -> PickMessage | None:
        """Message about a pick by all the data that there are, which more data may change."""
        known = self._known(found)
        if known is None:
            new = self._new(found, "final")
        elif known.status == "final" and known.found == found:
            return None
        else:
            self._open.remove(known)
            self._note(known, found)
            new = replace(known, version=known.version + 1, status="final", found=found)
        self._open.append(new)
        return self._message(new, basis)

    def passed(self, until_ns: int, basis: Decision) -> list[PickMessage]:
        """Messages that take back what was reported and is not there.

        Parameters
        ----------
        until_ns : int
            Time up to which all picks are decided, and were given to `decided`.
        basis : Decision
        """
        if not self._open and not self._moved:
            return []
        self._moved = {name: end for name, end in self._moved.items() if end > until_ns}
        limit_ns = until_ns - SAME_ARRIVAL_NS
        gone = [one for one in self._open if one.found.time_ns < limit_ns]
        self._open = [one for one in self._open if one.found.time_ns >= limit_ns]
        return [
            self._message(replace(one, version=one.version + 1, status="retracted"), basis)
            for one in gone
        ]

    def state(self) -> list[Any]:
        """The reports that may change, as values of JSON."""
        return [[[*asdict(one).values()] for one in self._open], self._moved]

    def restore(self, state: Sequence[Any]) -> None:
        """Go on from a state."""
        kept, moved = state
        self._open = [
            _Open(name, version, status, Found(*found)) for name, version, status, found in kept
        ]
        self._moved = dict(moved)

    def _known(self, found: Found) -> _Open | None:
        """The report of the same arrival that is nearest."""
        near = [
            one
            for one in self._open
            if one.found.phase == found.phase
            and abs(one.found.time_ns - found.time_ns)
            <= (_SAME_FINAL_NS if one.status == "final" else SAME_ARRIVAL_NS)
        ]
        return min(near, key=lambda one: abs(one.found.time_ns - found.time_ns), default=None)

    def _new(self, found: Found, status: Status) -> _Open:
        picker, time_ns = self._picker, found.time_ns
        used = {*self._moved, *(one.id for one in self._open)}
        while True:
            name = message_id(picker.model, picker.weights, time_ns, self._code, found.phase)
            if name not in used:
                return _Open(name, 1, status, found)
            time_ns += 1000  # another pick was first reported at that time

    def _note(self, known: _Open, found: Found) -> None:
        """Note the identity of a pick that moves, as another pick may be found where it was."""
        if known.found.time_ns != found.time_ns:
            self._moved[known.id] = max(known.found.time_ns, found.time_ns) + 2 * SAME_ARRIVAL_NS

    def _message(self, one: _Open, basis: Decision) -> PickMessage:
        found = one.found
        return PickMessage(
            id=one.id,
            version=one.version,
            status=one.status,
            network=self._code[0],
            station=self._code[1],
            location=self._code[2],
            channel=self._code[3],
            phase=found.phase,
            time_ns=found.time_ns,
            start_ns=found.start_ns,
            end_ns=found.end_ns,
            probability=min(max(found.probability, 0.0), 1.0),
            model=self._picker.model,
            weights=self._picker.weights,
            components=basis.components,
            late=False,
            created_ns=time.time_ns(),
            data_end_ns=basis.data_end_ns,
            received_ns=basis.received_ns,
        )
