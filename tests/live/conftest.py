"""A small network for the tests of real-time data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from quick_timing import QUICK

from eqcctpro.live.client import SeedLinkSource
from eqcctpro.live.faults import Faults
from eqcctpro.live.replay import Archive
from eqcctpro.live.server import SeedLinkServer
from eqcctpro.times import parse_utc
from eqcctpro.waveform.encode import encode_file
from eqcctpro.waveform.segments import ChannelCode, Segment


@pytest.fixture(scope="session")
def live_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six stations with three channels of two minutes, in records of 512 bytes."""
    folder = tmp_path_factory.mktemp("live")
    drawn = np.random.default_rng(3)
    start_ns = parse_utc("2024-03-01T00:00:00")
    for number in range(6):
        for component in "ENZ":
            code = ChannelCode(
                "TX", f"PB{number:02d}", "" if number % 2 else "00", f"HH{component}"
            )
            samples = np.cumsum(drawn.integers(-900, 900, 12_000)).astype(np.int32)
            segment = Segment(code, start_ns + number * 130_000_000, 100.0, samples)
            encode_file(folder / f"{'.'.join(code)}.mseed", [segment])
    return folder


@pytest.fixture
def archive(live_archive: Path) -> Archive:
    """The network as an archive that is served."""
    return Archive([live_archive])


@pytest.fixture
def serve() -> Iterator[Callable[..., SeedLinkServer]]:
    """Start servers, which are closed at the end."""
    servers: list[SeedLinkServer] = []

    def start(*faults: str, seed: int = 0, **settings: Any) -> SeedLinkServer:
        servers.append(SeedLinkServer(faults=Faults(faults, seed), **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect() -> Iterator[Callable[..., SeedLinkSource]]:
    """Connect clients, which are closed at the end."""
    sources: list[SeedLinkSource] = []

    def start(server: SeedLinkServer, *more: Any, **settings: Any) -> SeedLinkSource:
        settings.setdefault("timing", QUICK)
        url = f"seedlink://127.0.0.1:{server.port}"
        sources.append(SeedLinkSource(url, *more, **settings))
        return sources[-1]

    yield start
    for source in sources:
        source.close()
