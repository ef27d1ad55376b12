"""Signals at every moment of a service's life: it ends as it should, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from served import command, free_port

pytest.importorskip("ray.serve", reason="the extra `serve` is not installed")

SECONDS = 240.0
HEEDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)


begun: list[Run] = []


@pytest.fixture(autouse=True)
def _end_all() -> Iterator[None]:
    """A test that fails leaves no service behind."""
    yield
    while begun:
        run = begun.pop()
        run.look()
        for process in (run.process, *run.seen.values()):
            with contextlib.suppress(psutil.Error):
                process.kill()


@dataclass
class Run:
    """A service that is started, and all processes that it has had."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    seen: dict[int, psutil.Process] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, model: str, *settings: str, port: int | None = None) -> Run:
        port = port or free_port()
        given = (f"models=[{model}]", "replicas.threads=1", *settings)
        log = folder / f"{port}-{time.monotonic_ns()}.log"
        process = subprocess.Popen(
            command("serve", "--port", port, *(part for text in given for part in ("--set", text))),
            stdout=log.open("wb"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        run = cls(process, port, log)
        begun.append(run)
        return run

    @property
    def said(self) -> str:
        return self.log.read_text()

    def look(self) -> list[str]:
        """Names of its processes, which are remembered."""
        names = []
        try:
            family = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.Error:
            return []
        for process in family:
            try:
                names.append(" ".join((process.name(), *process.cmdline()[:1])))
            except psutil.Error:
                continue
            self.seen[process.pid] = process
        return names

    def wait_for(self, what: Callable[[list[str], str], bool]) -> None:
        until = time.monotonic() + SECONDS
        while not what(self.look(), self.said) and self.process.poll() is None:
            assert time.monotonic() < until, self.said
            time.sleep(0.02)

    def left(self) -> list[psutil.Process]:
        """What still runs some seconds after its end."""
        sessions = {self.process.pid, *self.seen}
        until = time.monotonic() + 5
        while True:
            found = []
            for process in psutil.process_iter():
                try:
                    own = process.pid in self.seen or os.getsid(process.pid) in sessions
                    if own and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
                except (psutil.Error, OSError):
                    continue
            if not found or time.monotonic() > until:
                return found
            time.sleep(0.1)


def shows(name: str) -> Callable[[list[str], str], bool]:
    return lambda names, _: any(name in each for each in names)


def says(text: str) -> Callable[[list[str], str], bool]:
    return lambda _, said: text in said


STARTED = shows("python")  # the process of Ray, before Ray
MOMENTS: dict[str, Callable[[list[str], str], bool]] = {
    "begun": STARTED,
    "gcs": shows("gcs_server"),
    "raylet": shows("raylet"),
    "agents": shows("DashboardAgent"),
    "controller": shows("ServeController"),
    "replica": shows("ServeReplica"),
    "loaded": says(" runs on "),
    "warm": says(", warm after "),
    "taking": says("a replica is ready"),
    "ready": says(" at http://"),
}


def check_end(run: Run, number: signal.Signals, *, again: float | None = None) -> None:
    """Send a signal, and another one later; everything ends, with code 0."""
    run.look()
    run.process.send_signal(number)
    if again is not None:
        time.sleep(again)
        run.process.send_signal(HEEDED[(HEEDED.index(number) + 1) % len(HEEDED)])
    code = run.process.wait(SECONDS)
    assert code == 0, (code, run.said)
    assert run.left() == []
    assert "Traceback" not in run.said, run.said


@pytest.mark.exhaustive
def test_of_two_services_at_once_one_starts_and_ends_well(
    imported_model: str, tmp_path: Path
) -> None:
    """SIGHUP as soon as it is ready, and before that a second service on the same port."""
    first = Run.begin(tmp_path, imported_model)
    second = Run.begin(tmp_path, imported_model, port=first.port)
    until = time.monotonic() + SECONDS
    while first.process.poll() is None and second.process.poll() is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    loser, winner = (first, second) if first.process.poll() is not None else (second, first)
    assert loser.process.returncode == 2
    assert f"http.port: cannot listen at 127.0.0.1:{first.port}" in loser.said
    winner.wait_for(MOMENTS["ready"])
    check_end(winner, signal.SIGHUP, again=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["raylet", pytest.param("taking", marks=pytest.mark.exhaustive)])
def test_signals_while_it_starts(moment: str, imported_model: str, tmp_path: Path) -> None:
    run = Run.begin(tmp_path, imported_model)
    run.wait_for(MOMENTS[moment])
    check_end(run, HEEDED[len(moment) % len(HEEDED)])


@pytest.mark.exhaustive
@pytest.mark.parametrize("turn", range(20))
def test_signals_at_twenty_moments(turn: int, imported_model: str, tmp_path: Path) -> None:
    moment = list(MOMENTS.values())[turn % len(MOMENTS)]
    run = Run.begin(tmp_path, imported_model, *(("replicas.count=2",) if turn % 3 == 0 else ()))
    run.wait_for(moment)
    time.sleep(0.37 * (turn // len(MOMENTS)))
    check_end(run, HEEDED[turn % len(HEEDED)], again=0.3 if turn % 2 else None)


@pytest.mark.exhaustive
@pytest.mark.parametrize("moment", ["replica", "ready"])
def test_nothing_outlives_a_service_that_is_killed(
    moment: str, imported_model: str, tmp_path: Path
) -> None:
    run = Run.begin(tmp_path, imported_model)
    run.wait_for(MOMENTS[moment])
    run.look()
    run.process.kill()
    run.process.wait()
    until = time.monotonic() + 60
    while left := run.left():
        assert time.monotonic() < until, left


@pytest.mark.exhaustive
def test_a_second_ctrl_c_ends_it_at_once(imported_model: str, tmp_path: Path) -> None:
    run = Run.begin(tmp_path, imported_model)
    run.wait_for(MOMENTS["ready"])
    run.look()
    run.process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 130
    assert run.left() == []
