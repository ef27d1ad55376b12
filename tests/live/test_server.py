"""The rehearsal server, seen by clients that nobody here wrote."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from obspy import Stream, read
from obspy.clients.seedlink.easyseedlink import EasySeedLinkClient
from pymseed import DataEncoding, MS3Record, MS3TraceList

from eqcctpro.errors import OutputError, SettingsError
from eqcctpro.live.packets import StationChoice
from eqcctpro.live.rehearse import Rehearsal, rehearse
from eqcctpro.live.replay import Archive, ReplaySource, shifted
from eqcctpro.live.server import SeedLinkServer
from eqcctpro.live.sources import open_source
from eqcctpro.times import NS_PER_S


def test_records_come_in_the_order_of_their_completion(
    archive: Archive, live_archive: Path
) -> None:
    records = list(archive)
    parsed = [
        (record.endtime, record.sourceid)
        for path in live_archive.iterdir()
        for record in MS3Record.from_file(str(path))
    ]
    assert len(records) == len(parsed) > 500
    assert [record.end_ns for record in records] == sorted(end for end, _ in parsed)
    assert sorted(record.record for record in records) == sorted(
        path.read_bytes()[at : at + 512]
        for path in live_archive.iterdir()
        for at in range(0, path.stat().st_size, 512)
    )


class _ObsPyClient(EasySeedLinkClient):  # type: ignore[misc]
    """ObsPy's client, which collects traces until the server says END."""

    def __init__(self, port: int) -> None:
        super().__init__(f"127.0.0.1:{port}", autoconnect=False)
        self.conn.timeout = 5  # without one it cannot connect
        self.connect()
        self.stream = Stream()
        self.ends = False

    def on_data(self, trace: Any) -> None:
        self.stream.append(trace)

    def on_terminate(self) -> None:
        self.ends = True


def test_obspy_receives_every_sample(
    archive: Archive, live_archive: Path, serve: Callable[..., SeedLinkServer]
) -> None:
    server = serve()
    thread = threading.Thread(target=rehearse, args=(archive, server, Rehearsal(speed=0)))
    thread.start()
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        client = _ObsPyClient(server.port)
        assert {"info:streams", "multistation"} <= set(client.capabilities)
        client.select_stream("TX", "PB*", "HHZ")
        client.run()
    thread.join()
    assert client.ends
    expected = read(str(live_archive / "*HHZ*")).sort()
    found = client.stream.merge(-1).sort()
    assert [trace.id for trace in found] == [trace.id for trace in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.stats.starttime == other.stats.starttime
        np.testing.assert_array_equal(one.data, other.data)


def test_obspy_reads_the_stations(archive: Archive, serve: Callable[..., SeedLinkServer]) -> None:
    server = serve()
    server.publish(list(archive))
    client = _ObsPyClient(server.port)
    text = client.get_info("STREAMS")
    client.close()
    assert text.count("<station ") == 6 and text.count("<stream ") == 18


@pytest.mark.parametrize("version", ["3", "4"])
def test_the_client_of_earthscope_receives_every_record(
    version: str, archive: Archive, serve: Callable[..., SeedLinkServer]
) -> None:
    library = pytest.importorskip("seedlink_client", reason="seedlink-client is not installed")
    from seedlink_client.protocol import Protocol

    server = serve()
    with library.SeedLink(
        "127.0.0.1", server.port, timeout=5, protocol=Protocol(version)
    ) as client:
        client.add_stream("TX_*", "HH?")
        thread = threading.Thread(target=rehearse, args=(archive, server, Rehearsal(speed=0)))
        thread.start()
        packets = list(client.collect(reconnect=False))
    thread.join()
    records = list(archive)
    assert [packet.payload for packet in packets] == [record.record for record in records]
    assert [packet.seqnum for packet in packets] == list(range(1, len(records) + 1))
    assert {packet.station_id for packet in packets} == {f"TX_PB0{n}" for n in range(6)}


def test_selectors_mean_what_they_mean_elsewhere() -> None:
    streams = pytest.importorskip("seedlink_client.streams", reason="not installed")
    from eqcctpro.live.commands import selector_v4

    for selector in ("HHZ", "BH?", "00HHZ", "--HHZ", "??EH?", "*_H_H_Z", "H_H_Z"):
        assert selector_v4(selector) == (streams.v3_to_v4_selector(selector) or selector)


def test_time_passes_at_the_speed_that_was_asked_for(archive: Archive) -> None:
    source = ReplaySource(archive, speed=400)
    began, packets = time.monotonic(), []
    while not source.ended:
        packets += source.read(1.0)
    took_s = time.monotonic() - began
    records = list(archive)
    assert [packet.record for packet in packets] == [record.record for record in records]
    # Never faster; how much slower is the machine's.
    assert took_s >= (records[-1].end_ns - records[0].end_ns) / NS_PER_S / 400 * 0.99


def test_a_replay_resumes(archive: Archive) -> None:
    records = list(archive)
    source = ReplaySource(archive, speed=1000)
    first = source.read(0.02)
    assert 0 < len(first) < len(records)
    again = ReplaySource(archive, speed=0, checkpoint=source.checkpoint())
    rest = []
    while not again.ended:
        rest += again.read(0)
    assert [packet.record for packet in [*first, *rest]] == [one.record for one in records]


def test_an_address_is_a_source(live_archive: Path, serve: Callable[..., SeedLinkServer]) -> None:
    choice = StationChoice(("TX.PB00",))
    records = list(Archive([live_archive], choice))
    server = serve()
    server.publish(records)
    for url in (f"replay:{live_archive}?speed=0", f"seedlink://127.0.0.1:{server.port}"):
        source, packets = open_source(url, choice, start_ns=0), []
        ends_at = time.monotonic() + 10
        while len(packets) < len(records) and time.monotonic() < ends_at:
            packets += source.read(0.2)
        assert [packet.record for packet in packets] == [one.record for one in records]
        assert set(source.checkpoint().positions) == {"TX_PB00"}
        source.close()
    with pytest.raises(SettingsError, match="speed=fast is no speed"):
        open_source(f"replay:{live_archive}?speed=fast")
    with pytest.raises(SettingsError, match="is no address of a SeedLink server"):
        open_source("ftp://here")


def test_stations_are_chosen_by_patterns(live_archive: Path) -> None:
    chosen = Archive([live_archive], StationChoice(("TX.PB0[0-2]", "PB05"), ("*.*.*.HHE",)))
    codes = {record.code for record in chosen}
    assert {code[1] for code in codes} == {"PB00", "PB01", "PB02", "PB05"}
    assert {code[3] for code in codes} == {"HHN", "HHZ"}
    with pytest.raises(SettingsError, match=r"'A\.B\.C\.D\.E' is no pattern"):
        StationChoice(("A.B.C.D.E",))


@pytest.mark.parametrize("version", [2, 3])
def test_times_are_shifted(version: int, archive: Archive) -> None:
    record = next(iter(archive)).record
    if version == 3:
        traces = MS3TraceList()
        traces.add_buffer(record, unpack_data=True)
        record = next(iter(traces.generate(encoding=DataEncoding.STEIM2, format_version=3)))
    shift_ns = 200 * 86400 * NS_PER_S + 123_400_000
    before = MS3Record.parse(record, unpack_data=True)
    after = MS3Record.parse(shifted(record, shift_ns), unpack_data=True, validate_crc=True)
    assert after.starttime == before.starttime + shift_ns
    assert after.sourceid == before.sourceid
    np.testing.assert_array_equal(after.np_datasamples, before.np_datasamples)


@pytest.mark.slow
def test_a_loop_goes_on_behind_its_end(
    archive: Archive, serve: Callable[..., SeedLinkServer]
) -> None:
    server, ended = serve(), threading.Event()
    settings = Rehearsal(speed=0, loop=True, wait=False)
    count = len(list(archive))

    def told(number: int, _: int) -> None:
        if number > 2 * count + 100:
            ended.set()

    rehearse(archive, server, settings, ended=ended, told=told)
    codes = {item.code for item in server.items}
    for code in codes:
        times = [MS3Record.parse(one.record) for one in server.items if one.code == code]
        assert all(a.endtime < b.starttime for a, b in pairwise(times)), code


def test_what_is_kept_is_bounded(archive: Archive, serve: Callable[..., SeedLinkServer]) -> None:
    server = serve(history_bytes=100 * 512)
    records = list(archive)
    for at in range(0, len(records), 10):
        server.publish(records[at : at + 10])
        assert sum(len(item.record) for item in server.items) <= 100 * 512
    assert [item.record for item in server.items] == [
        one.record for one in records[-len(server.items) :]
    ]


def test_a_port_that_is_taken_is_named(serve: Callable[..., SeedLinkServer]) -> None:
    server = serve()
    with pytest.raises(OutputError, match=f"cannot listen at 127.0.0.1:{server.port}"):
        SeedLinkServer(port=server.port)


@pytest.mark.slow
def test_the_command_serves_an_archive(live_archive: Path) -> None:
    command = [sys.executable, "-m", "eqcctpro", "live", "rehearse", str(live_archive)]
    options = ["--port", "0", "--speed", "0", "--fault", "gap:0.1", "--stations", "PB0[01]"]
    process = subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("2 stations at seedlink://127.0.0.1:")
        from eqcctpro.live.client import SeedLinkSource

        source = SeedLinkSource(line.split()[-1])
        packets, ends_at = [], time.monotonic() + 20
        while process.poll() is None and time.monotonic() < ends_at:
            packets += source.read(0.1)
        packets += source.read(0)
        source.close()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    sent = len(list(Archive([live_archive], StationChoice(("PB0[01]",)))))
    assert 0.8 * sent < len(packets) < sent
    assert f"{len(packets)} records were published" in errors


@pytest.mark.parametrize(
    ("options", "message", "code"),
    [
        (["--speed", "-1"], "not between 0 and 1,000,000", 2),
        (["--fault", "fire"], "there is no such fault", 2),
        (["--fault", "gap:2"], "the value is no number above 0 and up to 1", 2),
        (["--retime", "later"], "neither keep nor now", 2),
        (["--retime", "now", "--speed", "2"], "faster data would come from the future", 2),
        (["--stations", "XX.*"], "holds no record of the chosen stations", 3),
    ],
)
def test_wrong_options_are_named(
    options: list[str], message: str, code: int, live_archive: Path, cli: Callable[..., Any]
) -> None:
    done = cli("live", "rehearse", str(live_archive), "--port", "0", "--no-wait", *options)
    assert done.exit_code == code
    assert message in done.stderr
