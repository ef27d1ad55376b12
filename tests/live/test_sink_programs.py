"""Sinks against the programs that they send to: picks arrive once, whatever is killed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import real_programs
from live_messages import message
from real_programs import Program

from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks import publisher
from eqcctpro.live.sinks.base import Place
from eqcctpro.live.sinks.opening import Sinks, check_sinks

pytestmark = pytest.mark.slow


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "state.sqlite")
    yield box
    box.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time between attempts."""
    monkeypatch.setattr(publisher, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(publisher, "_LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(publisher, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
def run(tmp_path: Path, outbox: Outbox) -> Iterator[Callable[[str], Sinks]]:
    """Start one sink alone."""
    started: list[Sinks] = []

    def start(url: str) -> Sinks:
        sink = check_sinks([url])[-1]
        started.append(Sinks([sink], Place(tmp_path, outbox, "")).start())
        return started[-1]

    yield start
    for sinks in started:
        sinks.close(0.0)


Run = Callable[[str], Sinks]


def until(condition: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def send_while_killing(
    sinks: Sinks, outbox: Outbox, program: Program, total: int = 1500
) -> list[PickMessage]:
    """Commit picks while the program is killed twice and started again."""
    now_ns = time.time_ns() // 1000 * 1000
    picks = [message(n, created_ns=now_ns) for n in range(total)]

    def commit() -> None:
        for at in range(0, total, 25):
            outbox.commit(picks[at : at + 25])
            time.sleep(0.002)

    thread = threading.Thread(target=commit)
    thread.start()
    for reached in (total // 4, total // 2):
        until(lambda reached=reached: sinks.state()[0].sent > reached, sinks.state)
        program.stop()
        until(lambda: sinks.state()[0].state == "failing" or not sinks.state()[0].behind)
        program.start()
    thread.join()
    until(lambda: not sinks.state()[0].behind, sinks.state)
    assert sinks.state()[0].errors > 0
    assert sinks.state()[0].last_error == ""
    return picks


# Redis.


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = real_programs.redis_server(tmp_path_factory.mktemp("redis"))
    yield program
    program.stop()


def stream_of(program: Program, name: str) -> list[PickMessage]:
    redis = pytest.importorskip("redis")
    with redis.Redis(port=program.port, decode_responses=True) as client:
        entries = client.xrange(name)
    for _, fields in entries:
        one = PickMessage.from_json(fields["pick"])
        assert (one.id, str(one.version), one.status) == (
            *(fields["id"], fields["version"], fields["status"]),
        )
    return [PickMessage.from_json(fields["pick"]) for _, fields in entries]


def test_redis_has_each_pick_once_though_it_is_killed(
    run: Run, outbox: Outbox, redis_server: Program
) -> None:
    sinks = run(f"redis://127.0.0.1:{redis_server.port}/killed")
    picks = send_while_killing(sinks, outbox, redis_server)
    assert stream_of(redis_server, "killed") == picks


def test_redis_has_each_pick_once_though_the_cursor_is_lost(
    run: Run, outbox: Outbox, redis_server: Program
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/again?send=final&keep=0"
    outbox.commit([message(n) for n in range(20)] + [message(30, status="preliminary")])
    for _ in range(2):
        sinks = run(url)
        until(lambda sinks=sinks: not sinks.state()[0].behind, sinks.state)
        sinks.close()
        # As if the process had been killed before its cursor was kept.
        outbox._cursors.execute("UPDATE sinks SET number = 7")
    assert stream_of(redis_server, "again") == [message(n) for n in range(20)]


def test_a_wrong_password_of_redis_is_told_without_it(
    run: Run, outbox: Outbox, redis_server: Program
) -> None:
    outbox.commit([message(0)])
    sinks = run(f"redis://me:hunter2@127.0.0.1:{redis_server.port}/picks")
    until(lambda: sinks.state()[0].errors > 0)
    state: dict[str, Any] = sinks.state()[0].as_dict()
    assert "password" in state["last_error"] and "hunter2" not in str(state)
