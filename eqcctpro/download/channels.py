"""Channels of a data centre and their epochs, from its station service."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from eqcctpro.download.data_centre import DataCentre, NotThereError, TooLargeError
from eqcctpro.download.settings import DownloadSettings, Pattern
from eqcctpro.errors import SettingsError
from eqcctpro.picks.writers import atomic_file
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import format_utc, parse_utc

__all__ = ["Channel", "find_channels", "stream_lines", "write_station_xml"]

# Columns of the text format (FDSN Web Service Specifications 1.2, station, level channel).
_NETWORK, _STATION, _LOCATION, _CHANNEL, _START, _END = 0, 1, 2, 3, 15, 16


@dataclass(frozen=True, slots=True, order=True)
class Channel:
    """A channel, and when it was in operation."""

    network: str
    station: str
    location: str
    channel: str
    start_ns: int = -FOREVER_NS
    end_ns: int = FOREVER_NS

    @property
    def code(self) -> tuple[str, str, str, str]:
        """Network, station, location and channel."""
        return self.network, self.station, self.location, self.channel

    @property
    def name(self) -> str:
        """``NET.STA.LOC.CHA``."""
        return ".".join(self.code)


def find_channels(service: DataCentre, settings: DownloadSettings) -> list[Channel]:
    """The channels that match, by the station service.

    A data centre without one can be asked for streams that are named exactly.

    Raises
    ------
    SettingsError
        No channel matches.
    DataCentreError
        The service does not answer.
    """
    body = "level=channel\nformat=text\nnodata=204\n" + stream_lines(
        settings.patterns, settings.start_ns, settings.end_ns
    )
    try:
        answer = service.post("station", body, _check_text)
    except NotThereError as error:
        exact = [pattern for pattern in settings.patterns if not set("".join(pattern)) & set("*?")]
        if len(exact) < len(settings.patterns):
            raise SettingsError(
                f"host: {settings.host} has no station service, which * and ? need",
                hint="name every stream: --streams TX.PB35.00.HHZ,TX.PB35.00.HH1",
            ) from error
        return [Channel(net, sta, "" if loc == "--" else loc, cha) for net, sta, loc, cha in exact]
    channels = sorted({_channel(line) for line in _rows(answer)})
    if not channels:
        wanted = ", ".join(".".join(pattern) for pattern in settings.patterns[:5])
        raise SettingsError(
            f"no channel of {settings.host} matches {wanted} from {settings.start} to "
            f"{settings.end}",
            hint="check the codes and the time",
        )
    return channels


def stream_lines(patterns: Sequence[Pattern], start_ns: int, end_ns: int) -> str:
    """Lines of a request's body."""
    span = f"{_service_time(start_ns)} {_service_time(end_ns)}"
    return "".join(f"{' '.join(pattern)} {span}\n" for pattern in patterns)


def write_station_xml(
    service: DataCentre, channels: Sequence[Channel], settings: DownloadSettings
) -> bool:
    """Write ``stations.xml`` with the responses of some channels; False if there is none.

    Raises
    ------
    DataCentreError
        The service does not answer.
    OutputError
        It cannot be written.
    """
    patterns = sorted(
        {(one.network, one.station, one.location or "--", one.channel) for one in channels}
    )
    try:
        answers = list(_station_xml(service, patterns, settings))
    except NotThereError:
        return False
    if not answers:
        return False
    with atomic_file(settings.output / "stations.xml") as file:
        file.write(answers[0] if len(answers) == 1 else _joined(answers))
    return True


def _station_xml(
    service: DataCentre, patterns: Sequence[Pattern], settings: DownloadSettings
) -> Iterator[bytes]:
    """StationXML of some channels, in pieces where a centre does not send it at once."""
    head = "level=response\nformat=xml\nnodata=204\n"
    body = head + stream_lines(patterns, settings.start_ns, settings.end_ns)
    try:
        answer = service.post("station", body, _check_xml)
    except TooLargeError:
        if len(patterns) == 1:
            raise
        middle = len(patterns) // 2
        yield from _station_xml(service, patterns[:middle], settings)
        yield from _station_xml(service, patterns[middle:], settings)
        return
    if answer:
        yield answer


def _joined(answers: Sequence[bytes]) -> bytes:
    """One document with the networks of several."""
    from lxml import etree

    first, *others = (etree.fromstring(answer, _xml_parser()) for answer in answers)
    for other in others:
        first.extend(other.findall("{*}Network"))
    document: bytes = etree.tostring(first, xml_declaration=True, encoding="UTF-8")
    return document


def _xml_parser() -> Any:
    from lxml import etree

    return etree.XMLParser(resolve_entities=False, huge_tree=True)


def _rows(answer: bytes) -> list[str]:
    lines = answer.decode().splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _channel(line: str) -> Channel:
    parts = [part.strip() for part in line.split("|")]
    start, end = parts[_START], parts[_END]
    return Channel(
        parts[_NETWORK],
        parts[_STATION],
        parts[_LOCATION].replace("--", ""),
        parts[_CHANNEL],
        parse_utc(start) if start else -FOREVER_NS,
        parse_utc(end) if end else FOREVER_NS,
    )


def _check_text(content: bytes) -> str:
    line = ""
    try:
        for line in _rows(content):
            _channel(line)
    except (UnicodeDecodeError, IndexError, SettingsError):
        return f"the answer is no complete list of channels: {line[:100]}"
    return ""


def _check_xml(content: bytes) -> str:
    from lxml import etree

    try:
        root = etree.fromstring(content, _xml_parser())
    except etree.XMLSyntaxError as error:
        return f"the answer is no complete XML: {error}"
    return "" if root.tag.endswith("FDSNStationXML") else f"the answer is {root.tag}"


def _service_time(time_ns: int) -> str:
    return format_utc(time_ns).removesuffix("Z")
