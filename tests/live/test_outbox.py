"""Outbox: picks and checkpoints together, once each, within a limit."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from live_messages import START_NS, message

from eqcctpro.errors import InputError, OutboxError, OutboxFullError, SettingsError
from eqcctpro.live.messages import PickMessage, message_id
from eqcctpro.live.outbox import Entry, Outbox
from eqcctpro.picks.formats.quakeml import pick_id
from eqcctpro.picks.formats.rows import PickRow


def keys(outbox: Outbox, sends: str = "all", after: int = 0) -> list[tuple[str, int]]:
    return [(one.message.id, one.message.version) for one in outbox.read(after, 10**6, sends)]  # type: ignore[arg-type]


# Messages.


def test_a_message_is_the_same_after_json() -> None:
    one = message(3, late=True, snr=4.5, mb=1.25)
    assert PickMessage.from_json(one.as_json()) == one
    plain = message(4)
    assert "snr" not in plain.as_dict() and PickMessage.from_json(plain.as_json()) == plain
    later = plain.as_json()[:-1] + ',"of_another_version":[1]}'
    assert PickMessage.from_json(later) == plain


def test_json_has_the_documented_fields() -> None:
    names = (
        "id version status network station location channel phase time start_time end_time "
        "probability model weights components late created data_end received"
    )
    content = message(0).as_dict()
    assert list(content) == names.split()
    assert content["time"] == "2024-03-02T23:59:00.000123Z"
    assert content["id"] == "PhaseNet.original/20240302T235900.000123Z/NC.S0..HH.P"


def test_a_message_has_the_id_of_the_exports() -> None:
    row = PickRow(
        *("NC", "A B", "", "HH", "P", "2024-03-02T23:59:00.000123", 0),
        *(0.5, "My model", "v 1", "", "", float("nan")),
    )
    code = ("NC", "A B", "", "HH")
    assert message_id("My model", "v 1", START_NS + 123_000, code, "P") == pick_id(row)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", message(0).as_json().replace('"P"', "7"), '{"id": "x"}'],
)
def test_what_is_no_message_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no message about a pick"):
        PickMessage.from_json(text)


@pytest.mark.parametrize(
    "change", [{"status": "sure"}, {"version": 0}, {"probability": float("nan")}, {"id": ""}]
)
def test_an_impossible_message_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        message(0, **change)


# The outbox.


def test_picks_come_once_in_their_order(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite")
    first = message(0, status="preliminary")
    final = replace(first, version=2, status="final")
    assert outbox.commit([first, message(1), first], b"A") == 2
    assert outbox.commit([message(1), final, first], b"B") == 1
    expected = [(first.id, 1), (message(1).id, 1), (first.id, 2)]
    assert keys(outbox) == expected
    assert outbox.checkpoint() == b"B"
    identity = outbox.identity
    outbox.close()

    outbox = Outbox(tmp_path / "state.sqlite")
    assert (keys(outbox), outbox.checkpoint()) == (expected, b"B")
    assert (outbox.identity, outbox.last) == (identity, 3)
    assert outbox.commit([final, message(1)]) == 0
    assert [one.number for one in outbox.read(1, 1)] == [2]
    assert [one.message for one in outbox.newest(2)] == [message(1), final]
    outbox.close()


def test_sinks_are_sent_what_they_want(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite")
    a, b, c = (message(n, status="preliminary") for n in range(3))
    outbox.commit([a, b, c])
    outbox.commit([replace(a, version=2, status="final"), replace(b, version=2)])
    outbox.commit([replace(b, version=3, status="retracted")])
    assert keys(outbox, "first") == [(a.id, 1), (b.id, 1), (c.id, 1)]
    assert keys(outbox, "final") == [(a.id, 2)]
    # What had been final is taken back with the finals.
    outbox.commit([replace(a, version=3, status="retracted")])
    assert keys(outbox, "final") == [(a.id, 2), (a.id, 3)]
    assert len(keys(outbox)) == 7
    outbox.close()


def test_cursors_only_rise_and_stay(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite")
    outbox.commit([message(n) for n in range(5)])
    held = outbox.open_cursors({"a": "all", "b": "final"})
    assert [one.number for one in held.values()] == [0, 0]
    outbox.advance("a", 4)
    outbox.advance("a", 2)
    outbox.close()
    outbox = Outbox(tmp_path / "state.sqlite")
    held = outbox.open_cursors({"a": "all", "new": "all"})
    assert held["a"].number == 4
    assert held["new"].number == 5  # what came before it is not its own
    assert outbox.open_cursors({"b": "final"})["b"].number == 0
    with pytest.raises(OutboxError, match="no sink 'c'"):
        outbox.cursor("c")
    assert outbox.oldest_ns(4, "all") == message(4).created_ns
    assert outbox.oldest_ns(5, "all") is None
    outbox.close()


def test_who_follows_gets_each_message_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(tmp_path / "state.sqlite")
    outbox.commit([message(0), message(1, status="preliminary")])
    assert outbox.follow(0, 10, "final") == (outbox.read(0, 1), 2)
    assert outbox.follow(0, 1) == (outbox.read(0, 1), 1)
    assert outbox.follow(2, 10) == ([], 2)
    read = outbox.read

    def read_late(*asked: object) -> list[Entry]:
        outbox.commit([message(2)])
        return read(*asked)  # type: ignore[arg-type]

    # A message comes after the look at the last number, and before the messages are read.
    monkeypatch.setattr(outbox, "read", read_late)
    entries, reached = outbox.follow(1, 10)
    assert ([entry.number for entry in entries], reached) == ([2, 3], 3)
    outbox.close()


def test_a_waiting_reader_is_woken(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite")
    assert not outbox.wait(0, 0.01)
    timer = threading.Timer(0.05, lambda: outbox.commit([message(0)]))
    timer.start()
    assert outbox.wait(0, 30.0)
    timer.join()
    outbox.close()


def test_what_all_sinks_have_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eqcctpro.live.outbox._PRUNE_EVERY_S", 0.0)
    outbox = Outbox(tmp_path / "state.sqlite", keep_s=60.0)
    outbox.open_cursors({"fast": "all", "slow": "all"})
    now = time.time_ns()
    old, young = now - 120 * 10**9, now
    outbox.commit([message(n, created_ns=old) for n in range(6)])
    outbox.commit([message(n, created_ns=young) for n in range(6, 8)])
    outbox.advance("fast", 8)
    outbox.advance("slow", 4)
    outbox.commit([])
    assert [one.number for one in outbox.read(0, 100)] == [5, 6, 7, 8]
    outbox.advance("slow", 8)
    outbox.commit([])
    assert [one.number for one in outbox.read(0, 100)] == [7, 8]
    assert outbox.commit([message(0)]) == 0  # it is remembered
    state = outbox.state()
    assert (state.messages, state.last, state.held_back_by, state.skipped) == (2, 8, "", {})
    outbox.close()


@pytest.mark.slow
@pytest.mark.slow
def test_what_stays_for_readers_holds_nothing_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite", limit_bytes=1_000_000)
    outbox.open_cursors({"quick": "all"})
    now_ns = time.time_ns()
    for at in range(0, 2400, 200):
        outbox.commit([message(n, created_ns=now_ns) for n in range(at, at + 200)])
        state = outbox.state()
        assert not state.alarm and not state.skipped and state.bytes < 1_000_000
        outbox.advance("quick", outbox.last)
    outbox.close()


@pytest.mark.slow
def test_a_full_outbox_names_who_holds_it_back(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite", limit_bytes=1_000_000)
    outbox.open_cursors({"ok": "all", "down": "final"})
    sent = 0
    while not outbox.state().held_back_by:
        outbox.commit([message(n) for n in range(sent, sent + 200)])
        sent += 200
        outbox.advance("ok", outbox.last)
        assert sent < 10_000
    state = outbox.state()
    assert state.held_back_by == "down" and not state.skipped
    assert "down holds it back" in state.alarm and "removed" not in state.alarm
    for _ in range(30):
        outbox.commit([message(n) for n in range(sent, sent + 200)])
        sent += 200
        outbox.advance("ok", outbox.last)
    state = outbox.state()
    assert state.bytes < 1_300_000
    left = outbox.read(0, 10**6)
    assert state.skipped == {"down": sent - len(left)} and len(left) == state.messages
    assert outbox.cursor("down").number == left[0].number - 1 > 0
    assert "messages were removed before it took them" in state.alarm
    # The last picks are known also where the messages have gone.
    assert outbox.commit([message(n) for n in range(sent - 100, sent)]) == 0
    # Nobody is waited for who is no sink of this run.
    outbox.open_cursors({"ok": "all"})
    outbox.commit([message(sent)])
    assert outbox.state().alarm == ""
    outbox.close()
    assert (tmp_path / "state.sqlite").stat().st_size < 2_000_000


def test_a_full_disk_is_told_and_gone_on_from(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "state.sqlite")
    outbox.commit([message(0)], b"before")
    pages = outbox._picker.execute("PRAGMA page_count").fetchone()[0]
    outbox._picker.execute(f"PRAGMA max_page_count = {pages + 1}")
    many = [message(n) for n in range(1, 500)]
    with pytest.raises(OutboxFullError, match="no space is left"):
        outbox.commit(many, b"after")
    assert (keys(outbox), outbox.checkpoint()) == ([(message(0).id, 1)], b"before")
    outbox._picker.execute("PRAGMA max_page_count = 1000000")
    assert outbox.commit(many, b"after") == 499
    assert (outbox.last, outbox.checkpoint()) == (500, b"after")
    outbox.close()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    path.write_bytes(b"no database at all, but long enough to be taken for one" * 100)
    with pytest.raises(OutboxError, match=r"state\.sqlite is damaged"):
        Outbox(path)
    path.unlink()
    outbox = Outbox(path)
    outbox.commit([message(n) for n in range(500)], b"x" * 10_000)
    outbox.close()
    content = bytearray(path.read_bytes())
    content[8192:40_000] = bytes(40_000 - 8192)
    path.write_bytes(content)
    with pytest.raises(OutboxError, match=r"state\.sqlite is damaged"):
        Outbox(path)


def test_a_wrong_place_or_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutboxError, match="cannot be used"):
        Outbox(tmp_path / "missing" / "state.sqlite")
    with pytest.raises(SettingsError, match="limit of the outbox"):
        Outbox(tmp_path / "state.sqlite", limit_bytes=10)
    db = sqlite3.connect(tmp_path / "later.sqlite")
    db.execute("PRAGMA user_version = 9")
    db.close()
    with pytest.raises(OutboxError, match="format 9"):
        Outbox(tmp_path / "later.sqlite")


WRITER = """
import sys
sys.path.insert(0, sys.argv[2])
from live_messages import message
from eqcctpro.live.outbox import Outbox

outbox = Outbox(sys.argv[1])
at = int(outbox.checkpoint() or 0)
print("ready", flush=True)
while True:
    outbox.commit([message(n) for n in range(max(at - 3, 0), at + 7)], str(at + 7).encode())
    at += 7
"""


def kill_writers(folder: Path, seeds: range) -> int:
    """Kill processes that write to one outbox; it holds what checkpoints say, once each."""
    helpers = str(Path(__file__).parents[1] / "helpers")
    path = folder / "state.sqlite"
    for seed in seeds:
        command = [sys.executable, "-c", WRITER, str(path), helpers]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            time.sleep(random.Random(seed).uniform(0.0, 0.05))
            process.send_signal(signal.SIGKILL)
        outbox = Outbox(path)
        at = int(outbox.checkpoint() or 0)
        found = [one.message for one in outbox.read(0, 10**9)]
        assert found == [message(n) for n in range(at)], f"seed {seed}"
        outbox.close()
    return at


@pytest.mark.slow
def test_a_killed_writer_leaves_picks_and_checkpoint_together(tmp_path: Path) -> None:
    assert kill_writers(tmp_path, range(3)) > 0


@pytest.mark.exhaustive
def test_many_killed_writers_leave_picks_and_checkpoint_together(tmp_path: Path) -> None:
    assert kill_writers(tmp_path, range(100)) > 0
