"""A Ray worker that is killed costs nothing: its stations are picked by another one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from eqcctpro.synthetic.tiling import tile_network

pytestmark = pytest.mark.slow

START_SECONDS = 90.0


def _actors(pid: int) -> list[psutil.Process]:
    family = psutil.Process(pid).children(recursive=True)
    return [p for p in family if "PickWorker" in " ".join(p.cmdline() or [p.name()])]


def _wait_for_picking(run: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and run.poll() is None:
        if log.exists() and "actors ready" in log.read_text():
            return
        time.sleep(0.05)
    pytest.fail("the actors did not start")


def test_a_killed_actor_loses_nothing(
    generated_network: tuple[Path, object], tmp_path: Path, imported_model: str, pick: Any
) -> None:
    tile_network(generated_network[0], tmp_path / "archive", stations=24, seconds=100.0)
    common = [
        *("--model", imported_model, "--runtime", "torch", "--batch-size", "1"),
        *("--format", "csv", "--no-overview", "-q"),
    ]
    command = [sys.executable, "-m", "eqcctpro", "pick", str(tmp_path / "archive"), *common]
    calm = pick(tmp_path / "archive", output=tmp_path / "calm", model=imported_model, batch_size=1)
    assert calm.counts["picks"] > 24
    run = subprocess.Popen(
        [*command, "-o", str(tmp_path / "killed"), "--mode", "modelactor", "--workers", "2"]
    )
    try:
        _wait_for_picking(run, tmp_path / "killed" / "run.log")
        os.kill(_actors(run.pid)[0].pid, signal.SIGKILL)
        assert run.wait(timeout=180) == 0
    finally:
        run.kill()
    assert "died, a new one takes its place" in (tmp_path / "killed" / "run.log").read_text()
    summary = json.loads((tmp_path / "killed" / "summary.json").read_text())
    assert summary["tasks"] == {"done": 24, "empty": 0, "failed": 0}
    killed = (tmp_path / "killed" / "picks.csv").read_bytes()
    assert killed == (tmp_path / "calm" / "picks.csv").read_bytes()
    assert len(killed.splitlines()) > 24
