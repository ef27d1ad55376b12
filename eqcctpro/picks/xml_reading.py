"""Picks from QuakeML and SCML, without holding the document in memory."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from eqcctpro.errors import InputError
from eqcctpro.picks.columns import picks_of_text
from eqcctpro.picks.table import PICK_SCHEMA

__all__ = ["xml_picks"]

_log = logging.getLogger("eqcctpro")

Row = tuple[str, ...]
"""A text for each of `_COLUMNS`."""

_BATCH = 65_536
_FACT = re.compile(r"(probability|model|timechunk|run)=(\S+)")
_COLUMNS = (
    *("network", "station", "location", "channel", "phase", "time"),
    *("probability", "model", "weights", "timechunk", "run_id"),
)
_PHASE = _COLUMNS.index("phase")


def xml_picks(file: Path, schema: pa.Schema = PICK_SCHEMA) -> Iterator[pa.RecordBatch]:
    """Every ``pick`` element of a document, wherever it stands.

    Channel codes of three letters lose the component, as in our table.  A pick without a phase
    hint has the phase of its arrival, that of the preferred origin where there are several; such
    picks come last.

    Raises
    ------
    InputError
        The file is not well-formed XML, or a pick has no time.
    """
    from lxml import etree

    rows: list[Row] = []
    unnamed = _Unnamed()
    try:
        # No entities and no network: a document cannot make the parser read other files.
        document = etree.iterparse(
            str(file),
            events=("start", "end"),
            resolve_entities=False,
            no_network=True,
            huge_tree=True,
        )
        for event, element in document:
            name = etree.QName(element).localname if isinstance(element.tag, str) else ""
            if event == "start":
                unnamed.in_event |= name == "event"
                continue
            if name == "pick":
                row = _row(element, file)
                if row[_PHASE]:
                    rows.append(row)
                else:
                    unnamed.picks[element.get("publicID") or str(len(unnamed.picks))] = row
                _forget(element)
            elif name == "origin":
                unnamed.add_origin(element)
                _forget(element)
            elif name == "preferredOriginID":
                unnamed.preferred.append((element.text or "").strip())
            elif name == "event":
                rows += unnamed.end_event()
            if len(rows) >= _BATCH:
                yield from _batches(rows, file, schema)
                rows = []
    except etree.XMLSyntaxError as error:
        raise InputError(
            f"{file} is not well-formed XML: {error}", hint="write or fetch it again"
        ) from error
    rows += unnamed.named()
    if unnamed.picks:
        _log.warning("%s: %d picks have neither a phase nor an arrival", file, len(unnamed.picks))
    yield from _batches([*rows, *unnamed.picks.values()], file, schema)


class _Unnamed:
    """Picks without a phase hint, and the phases of arrivals that may be theirs.

    Attributes
    ----------
    in_event : bool
        Whether an event is being read.
    picks : dict of str to Row
        By their identifiers.
    preferred : list of str
        Identifiers of origins that events prefer.
    """

    def __init__(self) -> None:
        self.in_event = False
        self.picks: dict[str, Row] = {}
        self.preferred: list[str] = []
        self._origins: dict[str, dict[str, str]] = {}
        self._in_events = False

    def add_origin(self, origin: Any) -> None:
        """Remember the phases of an origin's arrivals."""
        self._in_events |= self.in_event
        phases = {
            (arrival.findtext("{*}pickID") or "").strip(): phase.strip()
            for arrival in origin.iterfind("{*}arrival")
            if (phase := arrival.findtext("{*}phase"))
        }
        if not self._in_events:  # SCML, where all picks come before all origins
            phases = {pick: phase for pick, phase in phases.items() if pick in self.picks}
        if phases:
            self._origins[origin.get("publicID") or str(len(self._origins))] = phases

    def end_event(self) -> list[Row]:
        """Picks whose phase is known at the end of an event that holds its origins."""
        self.in_event = False
        return self.named() if self._in_events else []

    def named(self) -> list[Row]:
        """Picks whose phase is known; the arrivals are forgotten."""
        found = []
        for origin in (*self.preferred, *self._origins):
            for pick, phase in self._origins.get(origin, {}).items():
                row = self.picks.pop(pick, None)
                if row is not None:
                    found.append((*row[:_PHASE], phase, *row[_PHASE + 1 :]))
        self.preferred.clear()
        self._origins.clear()
        return found


def _batches(rows: list[Row], file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    if rows:
        columns = zip(*rows, strict=True)
        arrays = {
            name: pa.array(values, pa.string())
            for name, values in zip(_COLUMNS, columns, strict=True)
        }
        yield from picks_of_text(arrays, str(file), schema).to_batches()


def _forget(element: Any) -> None:
    element.clear()
    while element.getprevious() is not None:
        del element.getparent()[0]


def _row(element: Any, file: Path) -> Row:
    time = element.findtext("{*}time/{*}value")
    waveform = element.find("{*}waveformID")
    if time is None or waveform is None:
        raise InputError(
            f"{file}: pick {element.get('publicID')} has no time or no waveformID",
            hint="remove it from the document",
        )
    comments = " ".join(text.text or "" for text in element.iterfind("{*}comment/{*}text"))
    facts = dict(_FACT.findall(comments))
    model, _, weights = facts.get("model", "").rpartition("/")
    channel = waveform.get("channelCode") or ""
    return (
        waveform.get("networkCode") or "",
        waveform.get("stationCode") or "",
        waveform.get("locationCode") or "",
        channel[:2] if len(channel) == 3 else channel,
        (element.findtext("{*}phaseHint") or "").strip(),
        time.strip(),
        facts.get("probability", ""),
        model,
        weights,
        facts.get("timechunk", ""),
        facts.get("run", ""),
    )
