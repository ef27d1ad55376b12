"""Settings of a download: data, data centres, and limits of requests."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from eqcctpro.config import Settings, UtcText, sentences, split_names
from eqcctpro.errors import SettingsError
from eqcctpro.times import parse_utc

__all__ = ["DownloadSettings", "service_root"]

Pattern = tuple[str, str, str, str]


class DownloadSettings(Settings):
    """Everything that a download can be told; the names are those of the command line."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    output: Path
    start: UtcText
    end: UtcText
    networks: tuple[str, ...] = ()
    stations: tuple[str, ...] = ()
    locations: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    streams: tuple[str, ...] = Field((), description="NET.STA.LOC.CHA, with * and ?")
    host: str = Field("EARTHSCOPE", description="A data centre's name, or the root of its services")
    layout: Literal["chunks", "sds"] = "chunks"
    chunk: float | None = Field(None, gt=0, description="Length of a time chunk, minutes")
    overlap: float = Field(0.0, ge=0, description="How much earlier each chunk begins, minutes")
    denoise: bool = False
    denoise_model: str = "urban"
    workers: int = Field(4, ge=1, le=32, description="Requests under way at a time")
    rate: float = Field(5.0, gt=0, description="Requests a second, at most")
    retries: int = Field(5, ge=0, description="How often a request is sent again")
    timeout: float = Field(60.0, gt=0, description="Seconds without a byte that end a request")
    retry_empty: bool = Field(False, description="Ask again for what there was no data of")
    metadata: bool = Field(True, description="Write StationXML beside the data")

    @field_validator("networks", "stations", "locations", "channels", "streams", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return split_names(value)

    @field_validator("streams")
    @classmethod
    def _are_streams(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for stream in value:
            if stream.count(".") != 3:
                raise ValueError(f"{stream!r} is not NET.STA.LOC.CHA, such as TX.PB35.00.HH?")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> DownloadSettings:
        if self.end_ns <= self.start_ns:
            raise ValueError(f"end {self.end} is not after start {self.start}")
        if self.streams and (self.networks or self.stations or self.locations or self.channels):
            raise ValueError("streams: give these, or networks, stations, locations and channels")
        if not self.streams and not self.networks and not self.stations:
            raise ValueError("give streams, or networks or stations")
        if self.layout == "sds" and (self.chunk is not None or self.overlap):
            raise ValueError("chunk and overlap: SDS has day files")
        if self.overlap >= self.chunk_min:
            raise ValueError(
                f"overlap ({self.overlap} min) must be shorter than chunk ({self.chunk_min} min)"
            )
        return self

    @property
    def start_ns(self) -> int:
        """`start` in nanoseconds since 1970."""
        return parse_utc(self.start, "start")

    @property
    def end_ns(self) -> int:
        """`end` in nanoseconds since 1970."""
        return parse_utc(self.end, "end")

    @property
    def chunk_min(self) -> float:
        """Length of a time chunk in minutes; an hour where none is given."""
        return 60.0 if self.chunk is None else self.chunk

    @property
    def patterns(self) -> list[Pattern]:
        """Network, station, location and channel of what is wanted; ``--`` is no location."""
        if self.streams:
            given: Iterator[Any] = (tuple(stream.split(".")) for stream in self.streams)
        else:
            codes = (self.networks, self.stations, self.locations, self.channels)
            given = product(*(part or ("*",) for part in codes))
        return [(net, sta, loc if loc.strip() else "--", cha) for net, sta, loc, cha in given]

    @classmethod
    def checked(cls, **values: Any) -> DownloadSettings:
        """Validate, and report everything that is wrong in one `SettingsError`."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(sentences(error, cls))) from error


def service_root(host: str) -> str:
    """The address below which a data centre's services are, such as ``https://host/fdsnws``.

    Raises
    ------
    SettingsError
        There is no such data centre.
    """
    if "://" in host or "." in host or ":" in host or host == "localhost":
        address = host if "://" in host else f"https://{host}"
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError(f"host: {host!r} is no web address", hint="https://host")
        path = parts.path.rstrip("/")
        path = path.removesuffix("/fdsnws")
        return f"{parts.scheme}://{parts.netloc}{path}/fdsnws"
    from difflib import get_close_matches

    from obspy.clients.fdsn.header import URL_MAPPINGS

    known: dict[str, str] = URL_MAPPINGS
    if host.upper() not in known:
        close = get_close_matches(host.upper(), known, n=3)
        raise SettingsError(
            f"host: no data centre is known as {host!r}",
            hint=f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(known)}",
        )
    return f"{known[host.upper()]}/fdsnws"
