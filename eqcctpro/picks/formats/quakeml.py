"""Picks as QuakeML 1.2 and as SeisComP's SCML, written piece by piece."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import NamedTuple

from eqcctpro.picks.formats.rows import Batches, ExportOptions, PickRow, pick_rows
from eqcctpro.picks.writers import atomic_file

__all__ = [
    "QUAKEML_FOOT",
    "QUAKEML_HEAD",
    "SCML_FOOT",
    "SCML_HEAD",
    "Report",
    "creation_info",
    "pick_id",
    "quakeml_pick",
    "quakeml_waveform",
    "resource_part",
    "scml_amplitude",
    "scml_pick",
    "write_quakeml",
    "write_scml",
]

QUAKEML_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    '<q:quakeml xmlns="http://quakeml.org/xmlns/bed/1.2" '
    'xmlns:q="http://quakeml.org/xmlns/quakeml/1.2">\n'
    '<eventParameters publicID="smi:local/eqcctpro/eventParameters">\n'
)
QUAKEML_FOOT = "</eventParameters>\n</q:quakeml>\n"

# The schema of SeisComP 5; later releases read it, too.
_SCML_VERSION = "0.12"
_SCML_NAMESPACE = f"http://geofon.gfz-potsdam.de/ns/seiscomp3-schema/{_SCML_VERSION}"
SCML_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?>\n'
    f'<seiscomp xmlns="{_SCML_NAMESPACE}" version="{_SCML_VERSION}">\n<EventParameters>\n'
)
SCML_FOOT = "</EventParameters>\n</seiscomp>\n"

# What QuakeML allows in a resource identifier, without the slash.
# An escape as in codes takes its place, so that different names stay different.
_NOT_IN_IDS = re.compile(r"[^A-Za-z0-9_.()~*+=,;-]|~(?![018-9A-F][0-9A-F]|7[EF])")
# XML 1.0 has no place for control characters, not even as references.
_NOT_IN_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Report(NamedTuple):
    """What a live run knows of a pick beyond its row.

    Attributes
    ----------
    id : str
        Identity of the pick; by default that of its row, `pick_id`.
    status : {"", "preliminary", "rejected"}
    created : str
        ISO-8601 in UTC.
    """

    id: str = ""
    status: str = ""
    created: str = ""


_NO_REPORT = Report()


def write_quakeml(batches: Batches, path: Path, options: ExportOptions) -> None:
    """QuakeML 1.2 with picks only.

    QuakeML keeps picks inside an event; here one event without an origin holds them all.
    """
    with atomic_file(path) as file:
        file.write(QUAKEML_HEAD.encode())
        file.write(b'<event publicID="smi:local/eqcctpro/event/picks">\n')
        file.write(b"<description><text>Picks that no event was looked for</text></description>\n")
        for text in _picks(batches, options):
            file.write(text.encode())
        file.write(b"</event>\n" + QUAKEML_FOOT.encode())


def _picks(batches: Batches, options: ExportOptions) -> Iterator[str]:
    for batch in batches:
        yield "".join(quakeml_pick(row, options) for row in pick_rows(batch))


def write_scml(batches: Batches, path: Path, options: ExportOptions) -> None:
    """SeisComP's SCML, schema 0.12: picks as ``scdb`` and ``scdispatch`` take them."""
    with atomic_file(path) as file:
        file.write(SCML_HEAD.encode())
        for batch in batches:
            text = "".join(scml_pick(row, options) for row in pick_rows(batch))
            file.write(text.encode())
        file.write(SCML_FOOT.encode())


def pick_id(row: PickRow) -> str:
    """A name that says which pick it is; the same pick has the same one in every file."""
    moment = row.time.replace("-", "").replace(":", "")
    return "/".join(
        part
        for part in (
            resource_part(row.source.replace("/", ".")),
            f"{moment}Z",
            resource_part(f"{row.instrument_id}.{row.phase}"),
        )
        if part
    )


@lru_cache(maxsize=65_536)
def resource_part(text: str) -> str:
    """A text as part of a resource identifier."""
    return _NOT_IN_IDS.sub(lambda found: "".join(f"~{b:02X}" for b in found[0].encode()), text)


def quakeml_pick(
    row: PickRow, options: ExportOptions, *, indent: str = "", report: Report = _NO_REPORT
) -> str:
    """One ``pick`` element of QuakeML 1.2."""
    return (
        f'{indent}<pick publicID="smi:local/eqcctpro/pick/{report.id or pick_id(row)}">'
        f"<time><value>{row.time}Z</value>{_uncertainty(row, options)}</time>"
        f"{quakeml_waveform(row.network, row.station, row.location, row.channel)}"
        f"{_method(row.source, 'smi:local/eqcctpro/model/')}"
        f"<phaseHint>{_text(row.phase)}</phaseHint>"
        f"<evaluationMode>automatic</evaluationMode>{_status(report)}"
        f"<comment><text>{_comment(row)}</text></comment>"
        f"{creation_info(options.agency, report.created)}</pick>\n"
    )


def scml_pick(row: PickRow, options: ExportOptions, report: Report = _NO_REPORT) -> str:
    """One ``pick`` element of SCML."""
    # SCML is a sequence: the order of the elements matters.
    return (
        f'<pick publicID="eqcctpro/pick/{report.id or pick_id(row)}">'
        f"<time><value>{row.time}Z</value>{_uncertainty(row, options)}</time>"
        f"{quakeml_waveform(row.network, row.station, row.location, row.channel)}"
        f"{_method(row.source, '')}"
        f"<phaseHint>{_text(row.phase)}</phaseHint>"
        f"<evaluationMode>automatic</evaluationMode>{_status(report)}"
        f"{creation_info(options.agency, report.created)}"
        f"<comment><text>{_comment(row)}</text><id>eqcctpro</id></comment></pick>\n"
    )


def scml_amplitude(
    row: PickRow, options: ExportOptions, report: Report, kind: str, value: float
) -> str:
    """One ``amplitude`` element of SCML that refers to a pick.

    Parameters
    ----------
    row : PickRow
    options : ExportOptions
    report : Report
        With the pick's id.
    kind : str
        Type of the amplitude, such as ``snr``.
    value : float
    """
    return (
        f'<amplitude publicID="eqcctpro/amplitude/{report.id}/{kind}"><type>{kind}</type>'
        f"<amplitude><value>{value:.6g}</value></amplitude>"
        f"<pickID>eqcctpro/pick/{report.id}</pickID>"
        f"{quakeml_waveform(row.network, row.station, row.location, row.channel)}"
        f"{creation_info(options.agency, report.created)}</amplitude>\n"
    )


def _status(report: Report) -> str:
    return f"<evaluationStatus>{report.status}</evaluationStatus>" if report.status else ""


def _uncertainty(row: PickRow, options: ExportOptions) -> str:
    if not options.state_uncertainty:
        return ""
    return f"<uncertainty>{options.uncertainty_of(row.phase):g}</uncertainty>"


@lru_cache(maxsize=65_536)
def quakeml_waveform(network: str, station: str, location: str, channel: str) -> str:
    """A ``waveformID`` element, the same in QuakeML and SCML."""
    codes = {
        "networkCode": network,
        "stationCode": station,
        "locationCode": location,
        "channelCode": channel,
    }
    return (
        "<waveformID "
        + " ".join(f'{name}="{escape(_plain(value))}"' for name, value in codes.items())
        + "/>"
    )


@lru_cache(maxsize=1024)
def _method(source: str, prefix: str) -> str:
    if not source:
        return ""
    return f"<methodID>{prefix}{'/'.join(map(resource_part, source.split('/')))}</methodID>"


def _comment(row: PickRow) -> str:
    facts = {
        "probability": "" if row.probability != row.probability else f"{row.probability:.6f}",
        "model": row.source,
        "timechunk": row.timechunk,
        "run": row.run_id,
    }
    return _text(" ".join(f"{name}={value}" for name, value in facts.items() if value))


@lru_cache(maxsize=64)
def creation_info(agency: str, created: str = "") -> str:
    """``creationInfo`` with agency and time, if they are given, and this program as the author."""
    from eqcctpro import __version__

    named = f"<agencyID>{_text(agency[:64])}</agencyID>" if agency else ""
    moment = f"<creationTime>{created}</creationTime>" if created else ""
    return f"<creationInfo>{named}<author>eqcctpro {__version__}</author>{moment}</creationInfo>"


@lru_cache(maxsize=65_536)
def _text(value: str) -> str:
    return escape(_plain(value))


def _plain(value: str) -> str:
    return _NOT_IN_XML.sub("_", value)
