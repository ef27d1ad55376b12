"""Of runs with one output folder only one writes to it, on any file system."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from disturbed_runs import Calm, end, results, start

from eqcctpro.errors import OutputError, ResumeError
from eqcctpro.journal import lock as lock_module
from eqcctpro.journal.lock import LOCK_FILE, SILENCE_S, Holder, OutputLock, holder_at_work


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    # The name of its holder is in it a moment later.
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.005)


def no_locks(*_: Any) -> None:
    raise OSError(37, "No locks available")


Begin = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def begin() -> Iterator[Begin]:
    """Starts runs, of which none is left behind, stopped or not."""
    with ExitStack() as stack:

        def begin(*given: Any) -> subprocess.Popen[bytes]:
            run = start("none", 0, *given)
            stack.callback(run.communicate)
            stack.callback(run.kill)
            return run

        yield begin


@pytest.mark.slow
class TestRuns:
    @pytest.mark.parametrize("first", [[], ["--no-journal"]])
    def test_a_second_run_is_refused_and_touches_nothing(
        self, begin: Begin, calm: Calm, tmp_path: Path, first: list[str]
    ) -> None:
        run = begin(calm.archive, tmp_path / "out", [*calm.options, *first])
        wait_for(tmp_path / "out" / LOCK_FILE)
        os.kill(run.pid, signal.SIGSTOP)
        for options in (["--no-journal", "--fresh"], []):
            second = begin(calm.archive, tmp_path / "out", [*calm.options, *options])
            code, words = end(second)
            assert code == 2, words
            assert f"another run is writing to {tmp_path / 'out'} (process {run.pid} on" in words
        os.kill(run.pid, signal.SIGCONT)
        code, words = end(run)
        assert code == 0, words
        assert results(tmp_path / "out") == calm.results
        assert not (tmp_path / "out" / LOCK_FILE).exists()

    def test_a_folder_that_is_removed_and_taken_belongs_to_the_later_run(
        self, begin: Begin, calm: Calm, tmp_path: Path
    ) -> None:
        output = tmp_path / "out"
        first = begin(calm.archive, output, calm.options)
        wait_for(output / LOCK_FILE)
        os.kill(first.pid, signal.SIGSTOP)
        shutil.rmtree(output)
        second = begin(calm.archive, output, calm.options)
        wait_for(output / LOCK_FILE)
        os.kill(first.pid, signal.SIGCONT)
        code, words = end(first)
        assert code == 5, words
        assert "while this run was at work" in words or "cannot" in words, words
        code, words = end(second)
        assert code == 0, words
        assert results(output) == calm.results

    def test_a_killed_run_leaves_no_lock(self, begin: Begin, calm: Calm, tmp_path: Path) -> None:
        run = begin(calm.archive, tmp_path / "out", calm.options)
        wait_for(tmp_path / "out" / LOCK_FILE)
        run.kill()
        end(run)
        assert holder_at_work(tmp_path / "out") is None
        code, words = end(begin(calm.archive, tmp_path / "out", calm.options))
        assert code == 0, words
        assert results(tmp_path / "out") == calm.results


class TestFileSystemsWithoutLocks:
    @pytest.fixture(autouse=True)
    def _no_locks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(fcntl, "flock", no_locks)

    def test_a_living_holder_keeps_others_out(self, tmp_path: Path) -> None:
        with OutputLock(tmp_path):
            assert holder_at_work(tmp_path) is not None
            with pytest.raises(ResumeError, match=f"process {os.getpid()} on "):
                OutputLock(tmp_path).__enter__()
        assert holder_at_work(tmp_path) is None
        with OutputLock(tmp_path) as again:
            again.check()

    @pytest.mark.slow
    def test_the_lock_of_a_dead_process_is_free(self, tmp_path: Path) -> None:
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        dead = replace(
            Holder.me(), pid=child.pid, started=lock_module._started(child.pid), token="0"
        )
        (tmp_path / LOCK_FILE).write_text(json.dumps(asdict(dead)))
        assert holder_at_work(tmp_path) == dead
        with pytest.raises(ResumeError, match=f"process {child.pid}"):
            OutputLock(tmp_path).__enter__()
        child.communicate(b"\n")
        assert holder_at_work(tmp_path) is None
        with OutputLock(tmp_path) as lock:
            lock.check()

    def test_another_process_with_the_number_of_a_dead_one(self, tmp_path: Path) -> None:
        dead = replace(Holder.me(), started="1", token="0")
        (tmp_path / LOCK_FILE).write_text(json.dumps(asdict(dead)))
        with OutputLock(tmp_path) as lock:
            lock.check()

    @pytest.mark.parametrize("stale", [False, True])
    def test_of_many_at_once_one_gets_it(self, tmp_path: Path, stale: bool) -> None:
        if stale:
            dead = replace(Holder.me(), started="1", token="0")
            (tmp_path / LOCK_FILE).write_text(json.dumps(asdict(dead)))
        got: list[OutputLock] = []

        def take() -> None:
            with suppress(ResumeError):
                got.append(OutputLock(tmp_path).__enter__())

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holding = [lock for lock in got if lock._is_mine()]
        assert len(holding) == 1
        for lock in got:
            lock.__exit__()


class TestOtherMachines:
    """Locks of the operating system that end at the machine, as on some network file systems."""

    @pytest.fixture
    def there(self, tmp_path: Path) -> Path:
        holder = replace(Holder.me(), host="node7", machine="another boot", pid=1234)
        path = tmp_path / LOCK_FILE
        path.write_text(json.dumps(asdict(holder)))
        return path

    def test_a_holder_that_shows_itself_keeps_others_out(self, there: Path) -> None:
        assert holder_at_work(there.parent) is not None
        with pytest.raises(ResumeError, match=r"process 1234 on node7; if that one is dead"):
            OutputLock(there.parent).__enter__()

    def test_a_silent_one_is_dead(self, there: Path) -> None:
        before = time.time() - SILENCE_S - 5
        os.utime(there, (before, before))
        assert holder_at_work(there.parent) is None
        with OutputLock(there.parent) as lock:
            lock.check()

    def test_a_holder_shows_itself(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lock_module, "HEARTBEAT_S", 0.01)
        with OutputLock(tmp_path):
            os.utime(tmp_path / LOCK_FILE, (1.0, 1.0))
            deadline = time.monotonic() + 10
            while (tmp_path / LOCK_FILE).stat().st_mtime < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)

    def test_who_has_lost_the_lock_is_told(self, tmp_path: Path) -> None:
        with OutputLock(tmp_path) as lock:
            lock.check()
            other = replace(Holder.me(), host="node7", pid=1234)
            (tmp_path / LOCK_FILE).write_text(json.dumps(asdict(other)))
            with pytest.raises(OutputError, match="was taken by another run"):
                lock.check()
            (tmp_path / LOCK_FILE).unlink()
            with pytest.raises(OutputError, match="was removed"):
                lock.check()
