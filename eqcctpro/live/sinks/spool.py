"""Spools: folders that other programs take files of picks from."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from eqcctpro.errors import SettingsError
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Entry, Sends
from eqcctpro.live.sinks.base import Sink
from eqcctpro.live.sinks.payload import anss_pick, glass3_pick, require_agency
from eqcctpro.picks.formats.quakeml import (
    QUAKEML_FOOT,
    QUAKEML_HEAD,
    SCML_FOOT,
    SCML_HEAD,
    Report,
    quakeml_pick,
    scml_amplitude,
    scml_pick,
)
from eqcctpro.picks.formats.rows import ExportOptions, PickRow
from eqcctpro.times import format_utc

__all__ = ["SpoolSink"]

_SUFFIXES = {"scml": "scml", "quakeml": "quakeml", "glass3": "jsonpick", "anss": "json"}
_UNFINISHED = re.compile(r"\.(\d+)-(\d+)\.(\w+)\.part")


class SpoolSink(Sink):
    """Files of up to 100 picks in a folder, named ``FIRST-LAST.KIND`` by numbers that rise.

    A file takes its name when it is complete.  It may be removed at any time: what was in it is
    not written again.
    """

    schemes: ClassVar[tuple[str, ...]] = tuple(_SUFFIXES)
    options: ClassVar[tuple[str, ...]] = ("agency",)
    send_usually: ClassVar[Sends] = "final"
    batch = 100

    def check(self) -> None:
        """Check the folder's name, and what the format needs."""
        kind = self.target.scheme
        if self.target.host or not self.target.path:
            raise SettingsError(
                f"sink {self.target.name}: a folder is expected", hint=f"{kind}:FOLDER"
            )
        agency = self.target.options.get("agency", "")
        if kind in ("glass3", "anss"):
            require_agency(self.target, kind)
            if self.sends == "all":
                raise SettingsError(
                    f"sink {self.target.name}: picks of {kind} have no versions; send=all is not "
                    "possible",
                    hint="send=final, or send=first",
                )
        self._folder = Path(self.target.path)
        options = ExportOptions(agency=agency)
        writers: dict[str, Callable[[Iterable[PickMessage]], str]] = {
            "scml": lambda picks: _scml(picks, options),
            "quakeml": lambda picks: _quakeml(picks, options),
            "glass3": lambda picks: "".join(f"{glass3_pick(one, agency)}\n" for one in picks),
            "anss": lambda picks: "".join(f"{anss_pick(one, agency)}\n" for one in picks),
        }
        self._text = writers[kind]

    def open(self) -> None:
        """Make the folder; finish a file that was complete, and remove one that was not."""
        self._folder.mkdir(parents=True, exist_ok=True)
        number = self.place.outbox.cursor(self.target.name).number
        for path in self._folder.glob(f".*.{_SUFFIXES[self.target.scheme]}.part"):
            found = _UNFINISHED.fullmatch(path.name)
            if found is None:
                continue
            if int(found[2]) <= number:
                path.replace(self._folder / path.name[1 : -len(".part")])
            else:
                path.unlink()

    def send(self, entries: Sequence[Entry]) -> None:
        """Write a file of picks."""
        suffix = _SUFFIXES[self.target.scheme]
        name = f"{entries[0].number:012d}-{entries[-1].number:012d}.{suffix}"
        text = self._text(entry.message for entry in entries)
        unfinished = self._folder / f".{name}.part"
        with unfinished.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        # From here on these picks are sent: `open` gives the file its name if this does not.
        self.place.outbox.advance(self.target.name, entries[-1].number)
        unfinished.replace(self._folder / name)

    def close(self) -> None:
        """Nothing is held open."""


def _scml(picks: Iterable[PickMessage], options: ExportOptions) -> str:
    """Picks, then their amplitudes, as scautoloc wants them."""
    found = [(one, _row(one), _report(one)) for one in picks]
    parts = [SCML_HEAD]
    parts += [scml_pick(row, options, report) for _, row, report in found]
    for one, row, report in found:
        parts += [
            scml_amplitude(row, options, report, kind, value)
            for kind, value in (("snr", one.snr), ("mb", one.mb))
            if value is not None and math.isfinite(value) and one.status != "retracted"
        ]
    return "".join([*parts, SCML_FOOT])


def _quakeml(picks: Iterable[PickMessage], options: ExportOptions) -> str:
    parts = [QUAKEML_HEAD, '<event publicID="smi:local/eqcctpro/event/picks">\n']
    parts.append("<description><text>Picks that no event was looked for</text></description>\n")
    parts += [quakeml_pick(_row(one), options, report=_report(one)) for one in picks]
    return "".join([*parts, "</event>\n", QUAKEML_FOOT])


def _report(one: PickMessage) -> Report:
    status = {"preliminary": "preliminary", "final": "", "retracted": "rejected"}[one.status]
    return Report(one.id, status, format_utc(one.created_ns))


def _row(one: PickMessage) -> PickRow:
    time_us = (one.time_ns + 500) // 1000
    return PickRow(
        network=one.network,
        station=one.station,
        location=one.location,
        channel=one.channel,
        phase=one.phase,
        time=format_utc(time_us * 1000).removesuffix("Z"),
        time_us=time_us,
        probability=one.probability,
        model=one.model,
        weights=one.weights,
        timechunk="",
        run_id="",
        velocity_m_s=float("nan"),
    )
