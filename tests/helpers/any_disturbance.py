"""Draws disturbances of runs from a seed, and carries them out."""

from __future__ import annotations

import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
from disturbed_runs import FAULTY, Calm

MARK = "EQCCTPRO_TEST_RUN"
MODES = ("local", "modelactor", "ripper")
SIGNALS = {
    "kill": signal.SIGKILL,
    "interrupt": signal.SIGINT,
    "terminate": signal.SIGTERM,
    "interrupt twice": signal.SIGINT,
}
# Parts of Ray that are killed, by the names of their processes.
PARTS = {"kill worker": "ray::", "kill raylet": "raylet", "kill server": "gcs_server"}

#: How a run may end that is disturbed so, besides well: docs/faults.md.
ENDINGS: dict[str, tuple[int, ...]] = {
    "kill": (-9,),
    **dict.fromkeys(("interrupt", "terminate", "interrupt twice"), (130,)),
    "kill worker": (6,),  # while it loads the model
    "kill raylet": (6,),
    "kill server": (6,),
    "weights exchanged": (2, 4),
    "weights cut": (2, 4),
    "input cut": (2, 10),
    "input gone": (2, 10),
    "second run": (),
    "output removed": (5,),
    "disk full": (5,),
    "little memory": (7,),
    "closed streams": (),
    "record damaged": (5,),
    "clock ahead": (),
    "odd folders": (),
}
NOT_IN_LOCAL = frozenset(PARTS)
# Ray's own processes would have the limit too, and not start.
NOT_ON_RAY = frozenset({"disk full"})
# What comes back is as it was, times of the last change included.
RESTORED = ("weights exchanged", "weights cut", "input cut", "input gone")
# While Ray starts it writes of a dead server, and of SIGTERM, whose handler is then its own.
RAYS_OWN = re.compile(r"\[\d{4}-\d\d-\d\d .*\] |\*\*\* SIGTERM|PC: @|    @ ")
# Lines that tell what becomes of data or settings, and no end.
TOLD = ("warning: ", "not picked: ", "finishing what is under way", "planning: ")


@dataclass
class Disturbance:
    """A disturbance of one run.

    Attributes
    ----------
    kind, mode : str
    when : float
        Moment, as a share of the time that a calm run takes.
    chance : random.Random
        For what else there is to choose.
    """

    kind: str
    mode: str
    when: float
    chance: random.Random

    def __str__(self) -> str:
        return f"{self.kind} in {self.mode} at {self.when:.2f}"


def draw(seed: int, *, modes: tuple[str, ...] = MODES) -> list[Disturbance]:
    """One to three disturbances of runs that go on with each other."""
    chance = random.Random(seed)
    drawn = []
    for _ in range(chance.choice((1, 1, 2, 3))):
        # Ray takes long to start.
        mode = chance.choices(modes, [3 if one == "local" else 1 for one in modes])[0]
        other = NOT_IN_LOCAL if mode == "local" else NOT_ON_RAY
        kinds = [kind for kind in ENDINGS if kind not in other]
        kind = kinds[seed % len(kinds)] if not drawn else chance.choice(kinds)
        drawn.append(Disturbance(kind, mode, chance.uniform(0.1, 1.05), chance))
    return drawn


@dataclass
class Place:
    """Where a run is: its archive, weights, results and temporary files."""

    calm: Calm
    weights: Path
    output: Path
    temporary: Path
    seen: list[psutil.Process] = field(default_factory=list)

    def command(self, mode: str, *more: str) -> list[str]:
        options = [*self.calm.options, "--mode", mode, *more]
        if mode != "local":
            options += ["--workers", "2"]
        started = [sys.executable, str(FAULTY), "none", "0"]
        return [*started, "pick", str(self.calm.archive), "-o", str(self.output), *options]

    def start(
        self,
        mode: str,
        *more: str,
        shell: str = "",
        limit: Callable[[], None] | None = None,
        environment: dict[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a run; `shell` is what a shell appends to the command."""
        command = self.command(mode, *more)
        if shell:
            command = ["bash", "-c", f'exec "$@" {shell}', "bash", *command]
        given = {**os.environ, "TMPDIR": str(self.temporary), MARK: str(self.output)}
        if mode != "local":
            given["EQCCTPRO_TEST_PAUSE_S"] = "0.05"
            given["PYTHONPATH"] = str(FAULTY.parent / "slow_workers")
        return subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={**given, **(environment or {})},
            start_new_session=True,
            preexec_fn=limit,
        )

    def processes(self) -> list[psutil.Process]:
        """Processes of the runs here that are alive."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get(MARK) == str(self.output)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end(self, run: subprocess.Popen[bytes]) -> tuple[int, str]:
        try:
            _, words = run.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            for process in self.processes():
                with suppress(psutil.Error):
                    process.kill()
            raise
        return run.returncode, words.decode(errors="replace")


def disturb(one: Disturbance, place: Place) -> tuple[int, str]:
    """Carry out a disturbed run; returns its exit code and what it said."""
    seconds = place.calm.seconds * (1 if one.mode == "local" else 3)
    with prepared(one, place) as started:
        run = place.start(one.mode, **started)  # type: ignore[arg-type]
        if one.kind in PARTS:
            _kill_part(one, place, run)
        elif one.kind in SIGNALS or one.kind in DURING:
            _sleep(one.when * seconds, run)
            if one.kind in SIGNALS:
                run.send_signal(SIGNALS[one.kind])
            else:
                DURING[one.kind](one, place)
            if one.kind == "interrupt twice":
                _sleep(one.chance.uniform(0.0, 0.3), run)
                run.send_signal(signal.SIGINT)
        return place.end(run)


def _sleep(seconds: float, run: subprocess.Popen[bytes]) -> None:
    with suppress(subprocess.TimeoutExpired):
        run.wait(seconds)


def _kill_part(one: Disturbance, place: Place, run: subprocess.Popen[bytes]) -> None:
    """Kill one of Ray's processes some time after it is there."""
    deadline = time.monotonic() + 60
    while run.poll() is None and time.monotonic() < deadline:
        with suppress(psutil.Error):
            for process in psutil.Process(run.pid).children(recursive=True):
                title = (process.cmdline() or [""])[0]
                named = title if one.kind == "kill worker" else process.name()
                if named.startswith(PARTS[one.kind]) and "Agent" not in named:
                    _sleep(one.when * 2, run)
                    process.kill()
                    return
        time.sleep(0.05)


@contextmanager
def prepared(one: Disturbance, place: Place) -> Iterator[dict[str, object]]:
    """What is set up before a run, and mended after it; yields how it is started."""
    record = place.output / ".eqcctpro"
    started: dict[str, object] = {}
    if one.kind == "disk full":
        most = one.chance.randrange(1, 120) * 1000

        def limit() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        started["limit"] = limit
    elif one.kind == "little memory":
        budget = one.chance.choice((60, 150, 300))
        started["environment"] = {"EQCCTPRO_RAM_BUDGET_MB": str(budget)}
    elif one.kind == "closed streams":
        started["shell"] = one.chance.choice(("2>&-", "<&- >&- 2>&-", "2>/dev/full >/dev/full"))
    elif one.kind == "odd folders":
        long = place.temporary / ("long" * 30)
        long.mkdir(exist_ok=True)
        home = one.chance.choice(("/proc/none", str(place.output.parent)))
        folder = one.chance.choice(("/proc/none", str(long)))
        started["environment"] = {"TMPDIR": folder, "HOME": home}
    elif one.kind == "clock ahead" and record.is_dir():
        later = time.time() + one.chance.choice((3600, 10**9))
        for path in (place.output, *record.rglob("*")):
            os.utime(path, (later, later))
    elif one.kind == "record damaged" and record.is_dir():
        paths = [path for path in sorted(record.rglob("*")) if path.is_file()]
        path = one.chance.choice(paths) if paths else record / "journal.sqlite"
        content = path.read_bytes() if path.exists() else b""
        at = one.chance.randrange(max(len(content), 1))
        path.write_bytes(content[:at] + one.chance.randbytes(one.chance.randrange(4000)))
    kept = [place.weights, _some_file(one, place)]
    before = [(path, path.stat(), path.read_bytes()) for path in kept if one.kind in RESTORED]
    try:
        yield started
    finally:
        for path, status, content in before:
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def _some_file(one: Disturbance, place: Place) -> Path:
    files = sorted(place.calm.archive.rglob("*.mseed"))
    return files[int(one.when * 1000) % len(files)]


def _exchange(one: Disturbance, place: Place) -> None:
    import torch

    state = torch.load(place.weights, weights_only=True)
    name = next(iter(state))
    state[name] = state[name] * 1.01
    torch.save(state, place.temporary / "new")
    shutil.copyfile(place.temporary / "new", place.weights.with_suffix(".new"))
    (place.temporary / "new").unlink()
    place.weights.with_suffix(".new").replace(place.weights)


def _second(one: Disturbance, place: Place) -> None:
    """A second run must be refused while the first is at work, and may go on behind it."""
    code, words = place.end(place.start(one.chance.choice(("local", one.mode))))
    assert code in (0, 2), words
    if code == 2:
        assert "another run is writing to" in words and "process" in words, words


def _cut(path: Path, one: Disturbance) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(one.chance.randrange(size))


DURING: dict[str, Callable[[Disturbance, Place], None]] = {
    "weights exchanged": _exchange,
    "weights cut": lambda one, place: _cut(place.weights, one),
    "input cut": lambda one, place: _cut(_some_file(one, place), one),
    "input gone": lambda one, place: _some_file(one, place).unlink(),
    "second run": _second,
    "output removed": lambda _, place: shutil.rmtree(place.output, ignore_errors=True),
}


def end_lines(words: str) -> list[str]:
    """Lines on the end of a run: one that says what happened, and perhaps one on what to do."""
    lines = [line for line in words.splitlines() if line.strip() and not line.startswith(TOLD)]
    return [line for line in lines if not RAYS_OWN.match(line)]
