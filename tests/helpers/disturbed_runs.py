"""Runs of the command in a process of their own, slowed down, with a fault built in."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

FAULTY = Path(__file__).with_name("faulty.py")
SLOW_WORKERS = Path(__file__).with_name("slow_workers")


@dataclass
class Calm:
    """An undisturbed run to compare with."""

    archive: Path
    results: dict[str, bytes]
    seconds: float
    options: list[str]


def results(folder: Path) -> dict[str, bytes]:
    names = ("picks.csv", "picks.parquet", "detections.csv", "detections.parquet")
    return {name: (folder / name).read_bytes() for name in names}


def start(
    fault: str,
    count: int,
    archive: Path,
    output: Path,
    options: list[str],
    *,
    worker_pause_s: float = 0.0,
    before: tuple[str, ...] = (),
) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if worker_pause_s:
        environment["EQCCTPRO_TEST_PAUSE_S"] = str(worker_pause_s)
        folders = [str(SLOW_WORKERS), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(folders)
    command = [sys.executable, str(FAULTY), fault, str(count), "pick", str(archive)]
    return subprocess.Popen(
        [*before, *command, "-o", str(output), *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
        env=environment,
    )


def end(run: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, words = run.communicate(timeout=120)
    return run.returncode, words.decode(errors="replace")
