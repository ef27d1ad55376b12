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
from disturbed_runs import FAULTY, SLOW_WORKERS, Calm
from warm_runs import WarmRun, start_warm

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
# Ray takes long to start: it does where the disturbance may hit it.
ONLY_ON_RAY = frozenset(PARTS)
ON_RAY_TOO = frozenset({*SIGNALS, "second run", "output removed", "little memory", "odd folders"})
# With what code later runs may refuse what runs with these disturbances left, and go on from.
LATER = {
    "record damaged": 5,
    **dict.fromkeys(("weights exchanged", "input cut", "input gone"), 2),
}
# What comes back is as it was, times of the last change included.
RESTORED = ("weights exchanged", "weights cut", "input cut", "input gone")
# While Ray starts it writes of a dead server.
RAYS_OWN = re.compile(r"\[\d{4}-\d\d-\d\d (?!.*SIGTERM).*\] ")
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
    kinds = [kind for kind in ENDINGS if kind not in ONLY_ON_RAY or modes != ("local",)]
    drawn = []
    for number in range(chance.choice((1, 1, 2, 3))):
        # Consecutive seeds begin with each kind in turn; one of Ray's parts dies in a test.
        kind = kinds[seed % len(kinds)]
        while number and (kind in ONLY_ON_RAY or kind == drawn[-1].kind):
            kind = chance.choice(kinds)
        ray = chance.choice([mode for mode in modes if mode != "local"] or ["local"])
        on_ray = kind in ONLY_ON_RAY or (kind in ON_RAY_TOO and chance.random() < 0.25)
        mode = ray if on_ray else "local"
        drawn.append(Disturbance(kind, mode, chance.uniform(0.1, 1.05), chance))
    return drawn


Process = subprocess.Popen[bytes] | WarmRun


@dataclass(frozen=True)
class Started:
    """A run that was started, and the file that it writes its words to."""

    process: Process
    words: Path


@dataclass
class Place:
    """Where a run is: its archive, weights, results and temporary files.

    `server` starts runs in forks.
    """

    calm: Calm
    weights: Path
    output: Path
    temporary: Path
    server: Path
    forks: list[psutil.Process] = field(default_factory=list)

    def start(
        self,
        mode: str,
        *more: str,
        shell: str | None = None,
        largest_file: int | None = None,
        environment: dict[str, str] | None = None,
    ) -> Started:
        """Start a run; `shell` is what a shell appends to the command."""
        options = [*self.calm.options, "--mode", mode, *more]
        if mode != "local":
            options += ["--workers", "2"]
        arguments = ["pick", str(self.calm.archive), "-o", str(self.output), *options]
        given = {**os.environ, "TMPDIR": str(self.temporary), MARK: str(self.output)}
        if mode != "local":
            given["EQCCTPRO_TEST_PAUSE_S"] = "0.05"
            folders = [str(SLOW_WORKERS), given.get("PYTHONPATH", "")]
            given["PYTHONPATH"] = os.pathsep.join(filter(None, folders))
        given |= environment or {}
        words = self.output.with_name(f"words-{mode}-{time.monotonic_ns()}")
        with words.open("wb") as errors:
            if shell is None:
                process: Process = start_warm(self.server, arguments, given, errors)
                with suppress(psutil.Error):
                    self.forks.append(psutil.Process(process.pid))
            else:
                program = [sys.executable, str(FAULTY), "none", "0", *arguments]
                process = subprocess.Popen(
                    ["bash", "-c", f'exec "$@" {shell}', "bash", *program],
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    env=given,
                    start_new_session=True,
                )
        if largest_file is not None:
            limits = largest_file, largest_file
            with suppress(ProcessLookupError):
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, limits)
        return Started(process, words)

    def processes(self) -> list[psutil.Process]:
        """Processes of the runs here that are alive."""
        found = [fork for fork in self.forks if fork.is_running()]
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                ours = process.environ().get(MARK) == str(self.output)
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def end(self, run: Started) -> tuple[int, str]:
        try:
            code = run.process.wait(timeout=240)
        except subprocess.TimeoutExpired:
            for process in self.processes():
                with suppress(psutil.Error):
                    process.kill()
            raise
        return code, run.words.read_text(errors="replace")


def disturb(one: Disturbance, place: Place) -> tuple[int, str]:
    """Carry out a disturbed run; returns its exit code and what it said."""
    seconds = place.calm.seconds * (1 if one.mode == "local" else 3)
    with prepared(one, place) as started:
        begun = place.start(one.mode, **started)  # type: ignore[arg-type]
        run = begun.process
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
        return place.end(begun)


def _sleep(seconds: float, run: Process) -> None:
    with suppress(subprocess.TimeoutExpired):
        run.wait(seconds)


def _kill_part(one: Disturbance, place: Place, run: Process) -> None:
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
        started["largest_file"] = one.chance.randrange(1, 120) * 1000
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
        started["shell"] = ""
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
    """A second run must be refused while the first is at work, and may go on behind it.

    Both are refused where an earlier run had other weights or other input, or left a bad record.
    """
    code, words = place.end(place.start(one.chance.choice(("local", one.mode))))
    assert code in (0, 2, 5), words
    if code:
        at_work = "another run is writing to" in words and "process" in words
        assert at_work or "--fresh" in words, words


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
