"""Runs that are killed at any moment, and started again, have the picks of one that was not."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from live_networks import START_NS

from eqcctpro.live.messages import PickMessage
from eqcctpro.waveform.encode import encode_file
from eqcctpro.waveform.segments import ChannelCode, Segment

HELPERS = Path(__file__).parents[1] / "helpers"


@pytest.fixture(scope="module")
def minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four stations with three channels of four minutes, of which two have gaps."""
    folder = tmp_path_factory.mktemp("minutes")
    noise = np.random.default_rng(5)
    for number in range(4):
        for component in "ENZ":
            values = noise.normal(0, 20, 24_000)
            for at in noise.integers(0, 24_000, 60):
                span = np.arange(max(at - 30, 0), min(at + 30, 24_000))
                values[span] += noise.normal(0, 2000) * np.exp(-(((span - at) / 5) ** 2))
            samples = values.astype(np.int32)
            code = ChannelCode("TX", f"PB{number:02d}", "00", f"HH{component}")
            edges = [0, 9_000 + 40 * number, 24_000] if number % 2 else [0, 24_000]
            pieces = [
                Segment(code, START_NS + (first + 700 * bool(first)) * 10_000_000, 100.0, part)
                for first, part in (
                    (edge, samples[edge + 700 * bool(edge) : end]) for edge, end in pairwise(edges)
                )
            ]
            encode_file(folder / f"{'.'.join(code)}.mseed", pieces)
    return folder


def start(source: str, output: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(HELPERS)}
    command = [sys.executable, "-m", "live_process", source, str(output)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE)


def messages_in(output: Path) -> list[PickMessage]:
    db = sqlite3.connect(output / "state.sqlite")
    try:
        rows = db.execute("SELECT content FROM messages ORDER BY number").fetchall()
    finally:
        db.close()
    return [PickMessage.from_json(content) for (content,) in rows]


def finals(messages: list[PickMessage]) -> dict[str, tuple[int, int, int, float]]:
    last = {one.id: one for one in messages}
    return {
        one.id: (one.time_ns, one.start_ns, one.end_ns, round(one.probability, 6))
        for one in last.values()
        if one.status == "final"
    }


@pytest.fixture(scope="module")
def undisturbed(minutes: Path, tmp_path_factory: pytest.TempPathFactory) -> list[PickMessage]:
    output = tmp_path_factory.mktemp("undisturbed")
    process = start(f"replay:{minutes}?speed=0", output)
    assert process.wait(120) == 0, process.stderr and process.stderr.read()
    return messages_in(output)


def seeds(count: int, first: int) -> Iterator[object]:
    for seed in range(count):
        marks = [pytest.mark.exhaustive] if seed >= first else [pytest.mark.slow]
        yield pytest.param(seed, marks=marks)


@pytest.mark.parametrize("seed", seeds(30, 1))
def test_kills_lose_and_double_nothing(
    seed: int, minutes: Path, undisturbed: list[PickMessage], tmp_path: Path
) -> None:
    drawn = random.Random(seed)
    source = f"replay:{minutes}?speed=60"
    for number in range(40):
        process = start(source if number < 4 else source.replace("60", "0"), tmp_path)
        if number >= 4:
            assert process.wait(120) == 0, process.stderr and process.stderr.read()
            break
        state = tmp_path / "status.json"
        before = state.stat().st_mtime_ns if state.exists() else 0
        ends = time.monotonic() + 60
        while not (state.exists() and state.stat().st_mtime_ns > before):
            assert process.poll() is None and time.monotonic() < ends
            time.sleep(0.01)
        time.sleep(drawn.uniform(0, 1.2))
        process.send_signal(drawn.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        process.wait(60)
    found = messages_in(tmp_path)
    assert len({(one.id, one.version) for one in found}) == len(found)
    assert finals(found) == finals(undisturbed) and len(finals(found)) > 200
