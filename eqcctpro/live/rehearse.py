"""Rehearsal of a network: an archive served as if its data arrived now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from eqcctpro.errors import SettingsError
from eqcctpro.live.faults import Faults
from eqcctpro.live.replay import Archive, CompletedRecord, shifted
from eqcctpro.live.server import SeedLinkServer

__all__ = ["Rehearsal", "rehearse"]

# Records that are published together at most, so that clients are served meanwhile.
_AT_ONCE = 1000
_TICK_S = 0.02


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """Settings of a rehearsal.

    Attributes
    ----------
    speed : float
        1 is real time; 0 is as fast as possible.
    loop : bool
        Begin again at the end, with times that go on behind it.
    retime : bool
        Shift times such that the first record is completed when it is sent.
    wait : bool
        Begin with the first client.
    """

    speed: float = 1.0
    loop: bool = False
    retime: bool = False
    wait: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.speed <= 1e6:
            raise SettingsError(
                f"--speed {self.speed:g}: not between 0 and 1,000,000",
                hint="1 is real time, 20 is twenty times as fast, 0 is as fast as possible",
            )
        if self.retime and self.speed != 1.0:
            raise SettingsError(
                "--retime now needs --speed 1: faster data would come from the future",
                hint="leave one of them out",
            )


def rehearse(
    archive: Archive,
    server: SeedLinkServer,
    settings: Rehearsal,
    faults: Faults | None = None,
    ended: threading.Event | None = None,
    told: Callable[[int, int], None] | None = None,
) -> int:
    """Publish the records of an archive when they are due, until they end or are to end.

    Parameters
    ----------
    archive : Archive
    server : SeedLinkServer
    settings : Rehearsal
    faults : Faults, optional
        Those of records; those of packets are the server's.
    ended : threading.Event, optional
        Ends the rehearsal.
    told : callable, optional
        Is called now and then with the number of records and the time of the last one.

    Returns
    -------
    int
        Number of records that were published.
    """
    ended = ended or threading.Event()
    while settings.wait and not server.first_client.wait(0.1):
        if ended.is_set():
            return 0
    records = _timed(archive, settings)
    if faults:
        records = faults.of_records(records)
    count, last_ns = 0, 0
    for batch in _due(records, settings.speed, ended):
        server.publish(batch)
        count, last_ns = count + len(batch), batch[-1].end_ns
        if told is not None:
            told(count, last_ns)
    if not ended.is_set():
        server.finish()
    return count


def _timed(archive: Archive, settings: Rehearsal) -> Iterator[CompletedRecord]:
    """All records, again and again if they loop, with the times that they are to have."""
    span_ns = archive.end_ns - archive.start_ns + 1_000_000_000
    shift_ns = 0
    turns: Iterable[int] = iter(int, 1) if settings.loop else (0,)
    for number, _ in enumerate(turns):
        records = iter(archive)
        first = next(records, None)
        if first is None:
            return
        if settings.retime and not number:
            shift_ns = time.time_ns() - first.end_ns
        for record in chain([first], records):
            if shift_ns:
                end_ns = record.end_ns + shift_ns
                record = CompletedRecord(end_ns, record.code, shifted(record.record, shift_ns))
            yield record
        # Whole seconds, as times of records of miniSEED 2 are rounded.
        shift_ns += -(-span_ns // 1_000_000_000) * 1_000_000_000


def _due(
    records: Iterable[CompletedRecord], speed: float, ended: threading.Event
) -> Iterator[list[CompletedRecord]]:
    """Batches of the records that are due."""
    began, first_ns = 0.0, 0
    batch: list[CompletedRecord] = []
    for record in records:
        if not began:
            began, first_ns = time.monotonic(), record.end_ns
        due = began + (record.end_ns - first_ns) / 1e9 / speed if speed else 0.0
        wait_s = due - time.monotonic()
        if batch and (wait_s > 0 or len(batch) >= _AT_ONCE):
            yield batch
            batch = []
        if wait_s > 0 and ended.wait(max(wait_s, _TICK_S)):
            return
        if ended.is_set():
            return
        batch.append(record)
    if batch:
        yield batch
