"""Picks from QuakeML and SCML, without holding the document in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from eqcctpro.errors import InputError
from eqcctpro.picks.columns import picks_of_text
from eqcctpro.picks.table import PICK_SCHEMA

__all__ = ["xml_picks"]

_BATCH = 65_536
_FACT = re.compile(r"(probability|model|timechunk|run)=(\S+)")
_COLUMNS = (
    *("network", "station", "location", "channel", "phase", "time"),
    *("probability", "model", "weights", "timechunk", "run_id"),
)


def xml_picks(file: Path, schema: pa.Schema = PICK_SCHEMA) -> Iterator[pa.RecordBatch]:
    """Every ``pick`` element of a document, wherever it stands.

    Channel codes of three letters lose the component, as in our table.

    Raises
    ------
    InputError
        The file is not well-formed XML, or a pick has no time.
    """
    from lxml import etree

    rows: list[tuple[str, ...]] = []
    try:
        # No entities and no network: a document cannot make the parser read other files.
        document = etree.iterparse(
            str(file), events=("end",), resolve_entities=False, no_network=True, huge_tree=True
        )
        for _, element in document:
            if not isinstance(element.tag, str) or etree.QName(element).localname != "pick":
                continue
            rows.append(_row(element, file))
            _forget(element)
            if len(rows) == _BATCH:
                yield from _batches(rows, file, schema)
                rows = []
    except etree.XMLSyntaxError as error:
        raise InputError(
            f"{file} is not well-formed XML: {error}", hint="write or fetch it again"
        ) from error
    yield from _batches(rows, file, schema)


def _batches(
    rows: list[tuple[str, ...]], file: Path, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
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


def _row(element: Any, file: Path) -> tuple[str, ...]:
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
