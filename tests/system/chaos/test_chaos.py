"""Runs that are disturbed at random moments end, once resumed, as if nothing had happened."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from disturbed_runs import Calm, end, results, start

MOST_ATTEMPTS = 6

# What happens to the process, from inside and from outside; and to its input.
INSIDE = ("exit", "enospc", "erofs")
SIGNALS = {"kill": signal.SIGKILL, "interrupt": signal.SIGINT, "terminate": signal.SIGTERM}
OUTSIDE = (*SIGNALS, "interrupt_twice")
INPUT = ("vanish", "change", "hang")
# What really happens to the disk, not only to the process's calls.
DISK = ("full", "unwritable")
RAY = ("kill_driver", "kill_group", "kill_actor", "kill_raylet", "interrupt_group")


def disturb(kind: str, chance: random.Random, calm: Calm, output: Path) -> str:
    """One disturbed run; returns how it ended."""
    archive = calm.archive
    when = chance.uniform(0.3, 0.95) * calm.seconds
    if kind in INSIDE:
        code, words = end(start(kind, chance.randrange(1, 24), archive, output, calm.options))
    elif kind in OUTSIDE:
        run = start("none", 0, archive, output, calm.options)
        time.sleep(when)
        run.send_signal(SIGNALS.get(kind, signal.SIGINT))
        if kind == "interrupt_twice":
            time.sleep(0.05)
            run.send_signal(signal.SIGINT)
        code, words = end(run)
    elif kind in INPUT:
        # While it reads, which it has done long before it ends.
        with spoiled(kind, chance, archive, chance.uniform(0.35, 0.8) * calm.seconds):
            options = [*calm.options, "--item-timeout", "1"]
            code, words = end(start("none", 0, archive, output, options))
    elif kind == "full":
        code, words = on_a_full_disk(chance, calm, output)
    elif kind == "unwritable":
        code, words = while_it_may_not_write(when, calm, output)
    else:
        code, words = disturb_ray(kind, chance, calm, output)
    assert "Traceback" not in words or kind == "interrupt_twice", words
    return f"{kind} {when:.2f} s: {code}"


def may_mount() -> bool:
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    allowed = os.geteuid() == 0 and shutil.which("unshare") is not None
    return allowed and subprocess.run(probe, capture_output=True, check=False).returncode == 0


def on_a_full_disk(chance: random.Random, calm: Calm, output: Path) -> tuple[int, str]:
    """The output folder is a file system of some pages, which then gets more of them."""
    if not os.path.ismount(output):
        output.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "none", str(output)], check=True)
    used = shutil.disk_usage(output).used
    size = used + 4096 * chance.randrange(1, 60)
    resize = ["mount", "-o", f"remount,size={size}", str(output)]
    subprocess.run(resize, check=True)
    try:
        code, words = end(start("none", 0, calm.archive, output, calm.options))
    finally:
        subprocess.run(["mount", "-o", "remount,size=100m", str(output)], check=True)
    assert code in (0, 5), words
    assert code == 0 or "No space left" in words or "full" in words, words
    return code, words


def while_it_may_not_write(when: float, calm: Calm, output: Path) -> tuple[int, str]:
    """The output folder's permissions change while the run is at work."""
    # The superuser may write nevertheless, unless that right is given up.
    before = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()
    output.mkdir(exist_ok=True)
    run = start("none", 0, calm.archive, output, calm.options, before=before)
    time.sleep(when)
    folders = [output, output / ".eqcctpro", output / ".eqcctpro" / "parts"]
    changed = [folder for folder in folders if folder.is_dir()]
    for folder in changed:
        folder.chmod(0o555)
    try:
        code, words = end(run)
    finally:
        for folder in changed:
            if folder.exists():
                folder.chmod(0o755)
    assert code in (0, 5), words
    return code, words


@contextmanager
def spoiled(kind: str, chance: random.Random, archive: Path, when: float) -> Iterator[None]:
    """A file of the archive vanishes, changes or hangs after some time, and is mended."""
    path = chance.choice(sorted(archive.rglob("*.mseed")))
    before, content = path.stat(), path.read_bytes()
    spoil = [
        *(sys.executable, "-c", "import os, sys, time; time.sleep(float(sys.argv[1]))\n"),
        *(str(when), str(path)),
    ]
    spoil[2] += {
        "vanish": "os.unlink(sys.argv[2])",
        "change": "open(sys.argv[2], 'r+b').truncate(1024)",
        "hang": "os.unlink(sys.argv[2]); os.mkfifo(sys.argv[2])",
    }[kind]
    spoiler = subprocess.Popen(spoil)
    try:
        yield
    finally:
        spoiler.wait(timeout=60)
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def disturb_ray(kind: str, chance: random.Random, calm: Calm, output: Path) -> tuple[int, str]:
    options = [*calm.options, "--mode", "modelactor", "--workers", "2"]
    # Actors outlive their raylet by some fifteen seconds, and may finish.
    pause = 1.5 if kind == "kill_raylet" else 0.05
    run = start("none", 0, calm.archive, output, options, worker_pause_s=pause)
    log, deadline = output / "run.log", time.monotonic() + 90
    while time.monotonic() < deadline and run.poll() is None:
        if log.exists() and "actors ready" in log.read_text():
            break
        time.sleep(0.02)
    time.sleep(chance.uniform(0.0, 0.6))
    family = psutil.Process(run.pid).children(recursive=True) if run.poll() is None else []
    names = [" ".join(_cmdline(process)) for process in family]
    if kind == "kill_group":
        os.killpg(run.pid, signal.SIGKILL)
    elif kind == "interrupt_group":
        os.killpg(run.pid, signal.SIGINT)
    elif kind == "kill_driver":
        run.kill()
    else:
        name = {"kill_actor": "PickWorker", "kill_raylet": "raylet/raylet"}[kind]
        for process, command in zip(family, names, strict=True):
            if name in command.split(" ")[0]:
                process.kill()
                break
    ended = end(run)
    # Its agents notice a driver that was killed after a minute.
    servers = [process for process, name in zip(family, names, strict=True) if "Agent" not in name]
    assert not _alive_after(servers, 20.0), "Ray's processes outlive the run"
    return ended


def _cmdline(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline() or [process.name()]
    except psutil.Error:
        return []


def _alive_after(processes: list[psutil.Process], seconds: float) -> list[psutil.Process]:
    return psutil.wait_procs(processes, timeout=seconds)[1]


def resume(calm: Calm, output: Path) -> None:
    """Give the same command until it ends well."""
    words = ""
    for _ in range(MOST_ATTEMPTS):
        options = list(calm.options)
        if status(output).get("state") == "finished" and (output / ".eqcctpro").exists():
            options.append("--resume")  # for what failed
        code, words = end(start("none", 0, calm.archive, output, options))
        if code == 0:
            return
        assert "Traceback" not in words, words
    pytest.fail(f"it does not end well: {words}")


def status(output: Path) -> dict[str, object]:
    shown = subprocess.run(
        [sys.executable, "-m", "eqcctpro", "status", str(output), "--json"],
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    found: dict[str, object] = json.loads(shown.stdout) if shown.returncode == 0 else {}
    return found


def survive(kinds: list[str], seed: int, calm: Calm, output: Path) -> None:
    """Disturb a run several times, resume it, and compare it with an undisturbed one."""
    chance = random.Random(seed)
    story = []
    for kind in kinds:
        story.append(disturb(kind, chance, calm, output))
        known = status(output)
        if known.get("attempts"):
            tasks = dict(known["station_tasks"])  # type: ignore[call-overload]
            assert tasks.pop("total") == sum(tasks.values()), story
    # Without its file a station may have been picked as the archive was then.
    if (
        (output / ".eqcctpro").exists()
        or not (output / "summary.json").exists()
        or "vanish" in kinds
    ):
        resume(calm, output)
    assert results(output) == calm.results, story
    left = {path.name for path in output.iterdir()}
    assert left == {*calm.results, "summary.json", "tasks.parquet", "run.log"}, story
    summary = json.loads((output / "summary.json").read_text())
    assert summary["balanced"] and summary["tasks"]["failed"] == 0, story
    print("; ".join(story))


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    """The output folder, which may become a file system of its own."""
    folder = tmp_path / "out"
    yield folder
    if os.path.ismount(folder):
        subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder, ignore_errors=True)


def skip_if_impossible(kinds: list[str]) -> None:
    if "full" in kinds and not may_mount():
        pytest.skip("needs the right to mount, to fill a disk")
    if "unwritable" in kinds and os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("the superuser may write everywhere, and setpriv is not there")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kinds", "seed"),
    [
        *((["kill", "exit"], 1), (["interrupt", "erofs"], 3)),
        # A full disk is also in journal/test_journal.py, without a process of its own.
        pytest.param(["enospc"], 2, marks=pytest.mark.exhaustive),
        pytest.param(["vanish"], 4, marks=pytest.mark.exhaustive),
        pytest.param(["full", "unwritable"], 5, marks=pytest.mark.exhaustive),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else str(value),
)
def test_short(kinds: list[str], seed: int, calm: Calm, output: Path) -> None:
    skip_if_impossible(kinds)
    survive(kinds, seed, calm, output)


# Each kind at least twice, alone or among others: with those on Ray, more than sixty faults.
IN_ONE_PROCESS = (*INSIDE, *OUTSIDE, *INPUT, *DISK)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(100, 100 + 2 * len(IN_ONE_PROCESS)))
def test_many_faults_in_one_process(seed: int, calm: Calm, output: Path) -> None:
    chance = random.Random(seed)
    kinds = [IN_ONE_PROCESS[seed % len(IN_ONE_PROCESS)]]
    kinds += chance.choices(IN_ONE_PROCESS, k=chance.choice((0, 1, 2)))
    skip_if_impossible(kinds)
    survive(kinds, seed, calm, output)


@pytest.mark.exhaustive
@pytest.mark.parametrize("kind", RAY)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_faults_on_ray(kind: str, seed: int, calm: Calm, output: Path) -> None:
    survive([kind], seed, calm, output)
