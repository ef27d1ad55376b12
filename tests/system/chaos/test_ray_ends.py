"""Runs on a Ray that dies, or that cannot start, end with one sentence and exit code 6."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from disturbed_runs import Calm, end, results, start

pytestmark = pytest.mark.slow

# Until a run has noticed that Ray's server is dead, and that its raylet is: actors live on for a
# quarter of a minute.
NOTICED_S = {"gcs_server": 30.0, "raylet": 90.0}


# Runs with something done in the middle of Ray's start: before, or after it has put its handlers
# of signals in.
STARTED = """
import os, signal, sys, ray
moment = sys.argv.pop(1)
made = ray._raylet.CoreWorker
def then(*given):
    worker = made(*given)
    os.kill(os.getpid(), signal.SIGTERM)
    return worker
def connected(*given, sound=ray._private.worker.connect, **named):
    (raylet,) = ray._private.worker._global_node.all_processes["raylet"]
    raylet.process.kill()
    raylet.process.wait()
    return sound(*given, **named)
if moment == "terminated":
    ray._raylet.CoreWorker = then
else:
    ray._private.worker.connect = connected
from eqcctpro.__main__ import main
main()
"""


def said_once(words: str) -> str:
    """The one line that says what happened; the second says what to do."""
    lines = [line for line in words.splitlines() if line and "warning" not in line]
    assert lines[0].startswith("error: ") and lines[1].startswith("hint: "), words
    assert len(lines) == 2 and "Traceback" not in words, words
    return lines[0]


def children(run: subprocess.Popen[bytes]) -> list[psutil.Process]:
    return psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []


def is_at_work(process: psutil.Process) -> bool:
    """Whether a process is one of Ray's workers that picks."""
    try:
        title = process.cmdline()[0]
    except (psutil.Error, IndexError):
        return False
    return (title.startswith("ray::") and "rip" in title.lower()) or "PickWorker.pick" in title


@pytest.mark.exhaustive
@pytest.mark.parametrize("server", NOTICED_S)
@pytest.mark.parametrize("mode", ["ripper", "modelactor"])
def test_a_dead_server_ends_the_run(server: str, mode: str, calm: Calm, tmp_path: Path) -> None:
    output, log = tmp_path / "out", tmp_path / "out" / "run.log"
    options = [*calm.options, "--mode", mode, "--workers", "1", "--batch-size", "1"]
    run = start("none", 0, calm.archive, output, options, worker_pause_s=20.0)
    deadline = time.monotonic() + 90
    while not any(is_at_work(each) for each in children(run)):
        assert run.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    family = children(run)
    (victim,) = [each for each in family if each.name() == server]
    victim.kill()
    began = time.monotonic()
    code, words = end(run)
    assert code == 6, words
    assert time.monotonic() - began < NOTICED_S[server]
    said_once(words)
    assert not psutil.wait_procs(family, timeout=20)[1]
    code, words = end(start("none", 0, calm.archive, output, calm.options))
    assert code == 0, words
    assert results(output) == calm.results


@pytest.mark.parametrize(
    ("moment", "code", "said"),
    [
        ("terminated", 130, r"interrupted\n"),
        (
            "without raylet",
            6,
            r"error: Ray's server \(raylet, process \d+\) died\n"
            r"hint: [^\n]+\n",
        ),
    ],
)
def test_while_ray_starts(
    moment: str, code: int, said: str, imported_model: str, network: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-c", STARTED, moment, "pick", str(network), "-o", str(output)]
    options = ["--model", imported_model, "--runtime", "torch", "--mode", "ripper", "-q"]
    ended = subprocess.run(
        [*command, *options, "--workers", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "EQCCTPRO_TEST_RUN": str(output)},
    )
    assert ended.returncode == code and re.fullmatch(said, ended.stderr), ended.stderr
    alive = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("EQCCTPRO_TEST_RUN") == str(output):
                alive.append(process)
    assert not psutil.wait_procs(alive, timeout=20)[1]


def test_without_a_loopback_interface(calm: Calm, tmp_path: Path) -> None:
    apart = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--net", "--map-root-user"]
    unshare = shutil.which("unshare") is not None
    if not unshare or subprocess.run([*apart, "true"], check=False).returncode:
        pytest.skip("needs the right to have a network of its own")
    options = [*calm.options, "--mode", "ripper", "--workers", "1"]
    run = start("none", 0, calm.archive, tmp_path / "out", options, before=tuple(apart))
    code, words = end(run)
    assert code == 6, words
    assert "cannot reach each other at 127.0.0.1" in said_once(words)
