"""Sinks of files, and what holds for all sinks: nothing lost, nothing twice, nobody waited for."""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.dataset
import pytest
from live_messages import START_NS, message

from eqcctpro.errors import SettingsError
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Entry, Outbox
from eqcctpro.live.sinks import publisher
from eqcctpro.live.sinks.base import Place, RejectedError, Sink
from eqcctpro.live.sinks.opening import KINDS, Sinks, check_sinks, open_sinks
from eqcctpro.live.sinks.target import read_target
from eqcctpro.picks.reading import read_picks
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.times import NS_PER_S, format_utc


class Collector(Sink):
    """A sink in memory, which fails and hangs on request."""

    schemes = ("collector",)
    batch = 10

    def check(self) -> None:
        self.got: list[PickMessage] = []
        self.fail: Callable[[Sequence[Entry]], None] = lambda _: None

    def open(self) -> None:
        pass

    def send(self, entries: Sequence[Entry]) -> None:
        self.fail(entries)
        self.got += [entry.message for entry in entries]

    def close(self) -> None:
        pass


def collector(name: str, send: str = "") -> Collector:
    return Collector(read_target(f"collector:{name}" + (f"?send={send}" if send else "")))


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "state.sqlite")
    yield box
    box.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time between attempts."""
    monkeypatch.setattr(publisher, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(publisher, "_LOOK_EVERY_S", 0.02)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def lines_of(output: Path) -> list[str]:
    files = sorted((output / "picks").glob("*/*.jsonl"))
    return [line for file in files for line in file.read_text().splitlines()]


# Addresses.


def test_addresses_are_read() -> None:
    one = read_target("redis://me:p%40ss@[::1]:6380/picks?db=2&send=final", ("db",))
    assert (one.host, one.port, one.user, one.password) == ("::1", 6380, "me", "p@ss")
    assert (one.path, one.options, one.send) == ("picks", {"db": "2"}, "final")
    assert one.name == "redis://[::1]:6380/picks"
    assert read_target("jsonl?send=all").name == "jsonl"
    assert read_target("scml:/var/spool/a b").path == "/var/spool/a b"
    hook = read_target("https://host/T0/SECRETKEY?token=abcd&send=first", None)
    assert hook.url == "https://host/T0/SECRETKEY?token=abcd" and hook.send == "first"
    assert hook.name.startswith("https://host/#") and "SECRET" not in hook.name
    assert read_target("https://host/a?name=alarm", None).name == "alarm"


def test_a_variable_stands_for_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SINK_PASSWORD", "s3cret")
    assert read_target("redis://:${SINK_PASSWORD}@host/picks").password == "s3cret"
    with pytest.raises(SettingsError, match="NO_SUCH_VARIABLE is not set"):
        read_target("redis://:${NO_SUCH_VARIABLE}@host/picks")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "no address of a sink"),
        ("/tmp/picks", "no address of a sink"),
        ("ftp://host/picks", "no kind of sink"),
        ("redis://host:port/picks", "[Pp]ort"),
        ("redis://host/picks?send=some", "send=some is unknown"),
        ("redis://host/picks?sned=all", "'sned' is unknown"),
        ("redis://host/picks?timeout=soon", "timeout=soon"),
        ("redis://host", "stream"),
        ("redis:///picks", "host is missing"),
        ("jsonl://host/picks", "folder"),
        ("sqlite:other.sqlite", "no address"),
        ("sqlite?send=first", "send=first is not possible"),
        ("parquet?send=all", "send=all is not possible"),
        ("parquet?every=0", "every=0"),
        ("https:///path", "host is missing"),
        ("mqtt://host/picks#all", "no #"),
        ("mqtt://host/picks#", "no #"),
    ],
)
def test_a_wrong_address_is_named_before_work_begins(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_sinks([url])


def test_every_run_has_files_and_no_sink_is_given_twice() -> None:
    assert [one.target.name for one in check_sinks()] == ["jsonl", "sqlite", "parquet"]
    named = check_sinks(["jsonl?send=final", "redis://h/picks", "redis://h/picks?name=b"])
    assert [one.target.name for one in named] == [
        *("sqlite", "parquet", "jsonl", "redis://h/picks", "b"),
    ]
    with pytest.raises(SettingsError, match="given twice"):
        check_sinks(["redis://a@h/picks", "redis://b@h/picks"])
    assert len({scheme for kind in KINDS for scheme in kind.schemes}) >= len(KINDS)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eqcctpro.live.sinks.base.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match="redis, which it needs") as told:
        check_sinks(["redis://:secret@host/picks"])
    assert "eqcctpro[redis]" in str(told.value) and "secret" not in str(told.value)


# All sinks.


def test_a_sink_gets_all_in_order_and_goes_on_after_a_restart(
    tmp_path: Path, outbox: Outbox
) -> None:
    place = Place(tmp_path, outbox)
    everything, finals = collector("all"), collector("finals", "final")
    outbox.commit([message(n, status="preliminary") for n in range(25)])
    with Sinks([everything, finals], place) as sinks:
        until(lambda: len(everything.got) == 25)
        outbox.commit([message(3, version=2)])
        assert sinks.close() == []
        states = {one.name: one for one in sinks.state()}
    assert everything.got == [
        *(message(n, status="preliminary") for n in range(25)),
        message(3, version=2),
    ]
    assert finals.got == [message(3, version=2)]
    assert states["collector:all"].sent == sum(states["collector:all"].delays) == 26
    assert states["collector:finals"].sent == 1
    assert {(one.state, one.behind, one.lag_s) for one in states.values()} == {("stopped", 0, 0.0)}

    again = collector("all")
    outbox.commit([message(99)])
    with Sinks([again], place):
        until(lambda: len(again.got) == 1)
    assert again.got == [message(99)]


def test_a_sink_that_fails_or_hangs_delays_nobody(tmp_path: Path, outbox: Outbox) -> None:
    good, bad, stuck = (collector(name) for name in ("good", "bad", "stuck"))
    release = threading.Event()
    down = threading.Event()

    def refuse(entries: Sequence[Entry]) -> None:
        if not down.is_set():
            raise ConnectionError("the other end is down")

    bad.fail = refuse
    stuck.fail = lambda _: release.wait(60) and None
    now = time.time_ns()
    with Sinks([bad, stuck, good], Place(tmp_path, outbox)) as sinks:
        outbox.commit([message(n, created_ns=now - 5 * NS_PER_S) for n in range(30)])
        until(lambda: len(good.got) == 30)
        until(lambda: sinks.state()[0].errors > 2)
        states = sinks.state()
        assert [one.state for one in states[::2]] == ["failing", "ok"]
        assert [one.behind for one in states] == [30, 30, 0]
        assert states[0].lag_s > 4.9 and states[2].lag_s == 0.0
        assert states[0].last_error == "ConnectionError: the other end is down"
        assert states[1].sent == 0 and states[1].errors == 0
        down.set()
        until(lambda: len(bad.got) == 30)
        assert sinks.state()[0].last_error == ""
        release.set()
        until(lambda: len(stuck.got) == 30)
    assert [one.id for one in bad.got] == [message(n).id for n in range(30)]


def test_the_end_waits_for_a_sink_only_so_long(tmp_path: Path, outbox: Outbox) -> None:
    stuck, release = collector("stuck"), threading.Event()
    stuck.fail = lambda _: release.wait(60) and None
    sinks = Sinks([stuck], Place(tmp_path, outbox)).start()
    outbox.commit([message(0)])
    assert sinks.close(timeout_s=0.1) == ["collector:stuck"]
    release.set()
    until(lambda: sinks.state()[0].state == "stopped")


def test_one_refused_message_does_not_hold_back_others(tmp_path: Path, outbox: Outbox) -> None:
    sink = collector("picky")
    bad = message(4)

    def refuse(entries: Sequence[Entry]) -> None:
        if any(entry.message == bad for entry in entries):
            raise RejectedError("not this one")

    sink.fail = refuse
    outbox.commit([message(n) for n in range(15)])
    with Sinks([sink], Place(tmp_path, outbox)) as sinks:
        until(lambda: len(sink.got) == 14)
        sinks.close()
        state = sinks.state()[0]
    assert (state.rejected, state.errors, state.behind) == (1, 0, 0)
    assert bad not in sink.got


def test_secrets_are_in_no_log_and_no_state(
    tmp_path: Path, outbox: Outbox, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = "collector://me:hunter2@host/picks?token=abc123def"
    sink = Collector(read_target(url, ("token",)))

    def fail(entries: Sequence[Entry]) -> None:
        raise ConnectionError(f"cannot reach {url} with hunter2 and abc123def")

    sink.fail = fail
    outbox.commit([message(0)])
    sinks = Sinks([sink], Place(tmp_path, outbox)).start()
    until(lambda: sinks.state()[0].errors > 1)
    sinks.close(0.0)
    told = json.dumps([one.as_dict() for one in sinks.state()]) + caplog.text + repr(sink.target)
    assert "cannot reach" in told and "***" in told
    assert "hunter2" not in told and "abc123def" not in told


# Files.


def test_lines_are_by_the_hour_and_once_each(tmp_path: Path, outbox: Outbox) -> None:
    hour = 3600 * NS_PER_S
    first = [message(n, created_ns=START_NS) for n in range(3)]
    later = [message(n, created_ns=START_NS + hour) for n in range(3, 6)]
    outbox.commit(first + later)
    with open_sinks([], tmp_path, outbox):
        pass
    day, hours = "2024-03-02", ["2024-03-02/23.jsonl", "2024-03-03/00.jsonl"]
    files = sorted((tmp_path / "picks").glob("*/*"))
    assert [str(file.relative_to(tmp_path / "picks")) for file in files] == hours
    assert files[0].parent.name == day
    assert [PickMessage.from_json(line) for line in lines_of(tmp_path)] == first + later
    # A clock that is set back does not begin a new file.
    outbox.commit([message(6, created_ns=START_NS)])
    with open_sinks([], tmp_path, outbox):
        pass
    assert PickMessage.from_json(files[1].read_text().splitlines()[-1]).id == message(6).id


def test_a_line_that_was_cut_is_written_anew(tmp_path: Path, outbox: Outbox) -> None:
    outbox.commit([message(n) for n in range(4)])
    with open_sinks([], tmp_path, outbox):
        pass
    (file,) = (tmp_path / "picks").glob("*/*.jsonl")
    expected = file.read_bytes()
    lines = expected.splitlines(keepends=True)
    # As if the process had been killed after it wrote two and a half lines, before the cursor.
    outbox._cursors.execute(
        "UPDATE sinks SET number = 1, note = ? WHERE name = 'jsonl'",
        (json.dumps([f"{file.parent.name}/{file.name}", len(lines[0])]),),
    )
    file.write_bytes(b"".join(lines[:3]) + lines[3][:50])
    inode = file.stat().st_ino
    with open_sinks([], tmp_path, outbox):
        pass
    assert file.read_bytes() == expected and file.stat().st_ino == inode


def test_lines_wait_for_room_on_the_disk(
    tmp_path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, failures = os.fsync, [1, 2, 3]

    def full_disk(descriptor: int) -> None:
        if failures and threading.current_thread().name == "eqcctpro-sink-jsonl":
            failures.pop()
            os.truncate(descriptor, os.fstat(descriptor).st_size - 70)  # not all was written
            raise OSError(errno.ENOSPC, "No space left on device")
        really(descriptor)

    monkeypatch.setattr(os, "fsync", full_disk)
    outbox.commit([message(n) for n in range(20)])
    with open_sinks([], tmp_path, outbox) as sinks:
        until(lambda: not sinks.state()[0].behind)
        assert sinks.state()[0].errors == 3
    assert [PickMessage.from_json(line) for line in lines_of(tmp_path)] == [
        message(n) for n in range(20)
    ]


def test_lines_of_another_outbox_stay(tmp_path: Path) -> None:
    for number in range(2):
        outbox = Outbox(tmp_path / "state.sqlite")
        outbox.commit([message(number)])
        with open_sinks([], tmp_path, outbox):
            pass
        outbox.close()
        for path in tmp_path.glob("state.sqlite*"):
            path.unlink()
    assert [PickMessage.from_json(line) for line in lines_of(tmp_path)] == [message(0), message(1)]


def test_tables_hold_the_last_version(tmp_path: Path, outbox: Outbox) -> None:
    midnight_ns = START_NS + 60 * NS_PER_S
    picks = [message(n, created_ns=time.time_ns()) for n in range(400)]
    moved = replace(picks[5], version=2, time_ns=picks[5].time_ns + 10_000_000)
    gone = replace(picks[7], version=2, status="retracted")
    odd = replace(message(900, status="preliminary"), station="'); DROP TABLE picks; --")
    outbox.commit([*picks, odd, moved, gone])
    with open_sinks([], tmp_path, outbox):
        pass
    with sqlite3.connect(tmp_path / "picks.sqlite") as db:
        rows = dict(db.execute("SELECT id, status FROM picks"))
        assert len(rows) == 401 and rows[gone.id] == "retracted"
        assert db.execute("SELECT station FROM picks WHERE id = ?", (odd.id,)).fetchone() == (
            odd.station,
        )
        found = db.execute("SELECT time_us, version FROM picks WHERE id = ?", (moved.id,))
        assert found.fetchone() == (moved.time_ns // 1000, 2)
    db.close()

    expected = sorted(
        (one.time_ns, one.station, one.phase, one.probability)
        for one in [*picks[:5], moved, picks[6], *picks[8:]]
    )
    table = pyarrow.dataset.dataset(tmp_path / "picks.parquet").to_table()
    assert table.schema.equals(PICK_SCHEMA)
    for read in (table, read_picks(tmp_path), read_picks(tmp_path / "picks.parquet")):
        assert [
            (round(t.timestamp() * 1e6) * 1000, s, p)
            for t, s, p in zip(
                *(read[name].to_pylist() for name in ("time", "station", "phase")), strict=True
            )
        ] == [one[:3] for one in expected]
    assert table["probability"].to_pylist() == pytest.approx([one[3] for one in expected])
    days = sorted(path.name for path in (tmp_path / "picks.parquet").iterdir())
    assert days == ["2024-03-02.parquet", "2024-03-03.parquet"]
    before = sum(one[0] < midnight_ns for one in expected)
    assert len(read_picks(tmp_path / "picks.parquet" / days[0])) == before
    assert set(table["timechunk"].to_pylist()) == {
        "20240302T000000Z_20240303T000000Z",
        "20240303T000000Z_20240304T000000Z",
    }


def test_a_pick_that_moves_over_midnight_changes_both_days(tmp_path: Path, outbox: Outbox) -> None:
    midnight_ns = START_NS + 60 * NS_PER_S
    before, after = midnight_ns - 5_000_000, midnight_ns + 5_000_000
    one = message(0, time_ns=before)
    outbox.commit([one, message(1)])
    with open_sinks([], tmp_path, outbox):
        pass
    outbox.commit([replace(one, version=2, time_ns=after)])
    with open_sinks([], tmp_path, outbox):
        pass
    picks = read_picks(tmp_path)
    assert [format_utc(time_ns) for time_ns in (message(1).time_ns, after)] == [
        format_utc(round(t.timestamp() * 1e6) * 1000) for t in picks["time"].to_pylist()
    ]


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from live_messages import message
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks.opening import open_sinks

output = Path(sys.argv[1])
outbox = Outbox(output / "state.sqlite")
at = int(outbox.checkpoint() or 0)
with open_sinks(["parquet?every=1"], output, outbox):
    print("ready", flush=True)
    while True:
        outbox.commit([message(n) for n in range(at, at + 3)], str(at + 3).encode())
        at += 3
"""


def kill_runs(output: Path, seeds: range) -> None:
    """Kill processes that publish; each line and each row is there once."""
    helpers = str(Path(__file__).parents[1] / "helpers")
    for seed in seeds:
        command = [sys.executable, "-c", WRITER, str(output), helpers]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(random.Random(seed).uniform(0.0, 0.15))
            process.send_signal(signal.SIGKILL)
    outbox = Outbox(output / "state.sqlite")
    at = int(outbox.checkpoint() or 0)
    with open_sinks([], output, outbox):
        pass
    outbox.close()
    expected = [message(n) for n in range(at)]
    assert [PickMessage.from_json(line) for line in lines_of(output)] == expected
    assert len(read_picks(output)) == at > 0


@pytest.mark.slow
def test_a_killed_run_leaves_each_line_once(tmp_path: Path) -> None:
    kill_runs(tmp_path, range(2))


@pytest.mark.exhaustive
def test_many_killed_runs_leave_each_line_once(tmp_path: Path) -> None:
    kill_runs(tmp_path, range(100))


# Webhook.


@pytest.fixture
def hook() -> Iterator[tuple[str, list[tuple[dict[str, str], Any]], list[int]]]:
    """An HTTP server: its address, what it was sent, and answers that it is to give first."""
    got: list[tuple[dict[str, str], Any]] = []
    answers: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = answers.pop(0) if answers else 204
            if status < 300:
                got.append((dict(self.headers), json.loads(body)))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hooks/KEY", got, answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_is_sent_picks_until_it_takes_them(
    tmp_path: Path, outbox: Outbox, hook: tuple[str, list[Any], list[int]]
) -> None:
    url, got, answers = hook
    answers += [503, 302, 500]
    outbox.commit([message(n) for n in range(130)])
    with open_sinks([f"{url}?send=final"], tmp_path, outbox) as sinks:
        until(lambda: sum(len(body) for _, body in got) == 130)
        assert sinks.close() == []
        state = sinks.state()[-1]
    assert [PickMessage.from_json(json.dumps(one)) for _, body in got for one in body] == [
        message(n) for n in range(130)
    ]
    assert len({headers["Idempotency-Key"] for headers, _ in got}) == 2
    assert (state.errors, state.rejected, state.sent) == (3, 0, 130)
    assert "KEY" not in json.dumps(state.as_dict())


def test_a_webhook_may_refuse_a_pick(
    tmp_path: Path, outbox: Outbox, hook: tuple[str, list[Any], list[int]]
) -> None:
    url, got, answers = hook
    answers += [422, 204, 400]  # the list, then one by one
    outbox.commit([message(n) for n in range(3)])
    with open_sinks([url], tmp_path, outbox) as sinks:
        until(lambda: len(got) == 2)
        sinks.close()
        state = sinks.state()[-1]
    assert [body[0]["id"] for _, body in got] == [message(0).id, message(2).id]
    assert (state.rejected, state.errors) == (1, 0)
