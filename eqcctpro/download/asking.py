"""Requests to data centres: a station's channels in one time chunk each."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from eqcctpro.archive.timechunks import Timechunk, chunk_grid, day_chunks
from eqcctpro.download.channels import Channel
from eqcctpro.download.settings import DownloadSettings

__all__ = ["Request", "plan_requests"]


@dataclass(frozen=True)
class Request:
    """The channels of one station in one time chunk.

    Attributes
    ----------
    network, station : str
    chunk : Timechunk
        What is read of it is asked for.
    channels : tuple of Channel
        Those in operation then.
    """

    network: str
    station: str
    chunk: Timechunk
    channels: tuple[Channel, ...]

    @property
    def start_ns(self) -> int:
        """First moment that is asked for."""
        assert self.chunk.read_start_ns is not None
        return self.chunk.read_start_ns

    @property
    def end_ns(self) -> int:
        """Last moment that is asked for."""
        assert self.chunk.read_end_ns is not None
        return self.chunk.read_end_ns

    @property
    def name(self) -> str:
        """Station and time chunk."""
        return f"{self.network}.{self.station} {self.chunk.name}"

    @property
    def key(self) -> str:
        """The same where the same is asked for."""
        codes = sorted({one.name for one in self.channels})
        text = "|".join((self.network, self.station, str(self.start_ns), str(self.end_ns), *codes))
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def expected(self) -> dict[tuple[str, str, str, str], list[tuple[int, int]]]:
        """When each channel should have samples."""
        spans: dict[tuple[str, str, str, str], list[tuple[int, int]]] = {}
        for one in self.channels:
            first, last = max(one.start_ns, self.start_ns), min(one.end_ns, self.end_ns)
            spans.setdefault(one.code, []).append((first, last))
        return spans


def plan_requests(channels: Sequence[Channel], settings: DownloadSettings) -> list[Request]:
    """Every request of a download, chunk by chunk."""
    start, end = settings.start_ns, settings.end_ns
    if settings.layout == "sds":
        chunks = day_chunks([(start, end - 1)], start, end)
    else:
        chunks = chunk_grid(start, end, length_min=settings.chunk_min, overlap_min=settings.overlap)
    stations: dict[tuple[str, str], list[Channel]] = {}
    for channel in channels:
        stations.setdefault((channel.network, channel.station), []).append(channel)
    requests = []
    for chunk in chunks:
        for (network, station), held in sorted(stations.items()):
            there = tuple(one for one in held if _in_operation(one, chunk))
            if there:
                requests.append(Request(network, station, chunk, there))
    return requests


def _in_operation(channel: Channel, chunk: Timechunk) -> bool:
    assert chunk.read_start_ns is not None
    assert chunk.read_end_ns is not None
    return channel.start_ns < chunk.read_end_ns and channel.end_ns > chunk.read_start_ns
