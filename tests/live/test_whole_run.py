"""Whole live runs that are killed: each pick reaches each sink once."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import real_programs

from eqcctpro.live.messages import PickMessage
from eqcctpro.live.packets import StationChoice
from eqcctpro.live.replay import Archive, CompletedRecord, shifted
from eqcctpro.live.server import SeedLinkServer
from eqcctpro.picks.reading import read_picks
from eqcctpro.times import NS_PER_S


def ids_in(output: Path) -> list[str]:
    return [
        json.loads(line)["id"]
        for file in sorted((output / "picks").glob("*/*.jsonl"))
        for line in file.read_text().splitlines()
    ]


def hour_old(archive: Archive) -> list[CompletedRecord]:
    """Records as of an hour ago, shifted by whole seconds."""
    shift_ns = (time.time_ns() // NS_PER_S - 3600) * NS_PER_S
    shift_ns -= archive.end_ns // NS_PER_S * NS_PER_S
    return [
        CompletedRecord(one.end_ns + shift_ns, one.code, shifted(one.record, shift_ns))
        for one in archive
    ]


@pytest.mark.exhaustive
def test_killed_runs_send_each_pick_once(
    imported_model: str, generated_network: tuple[Path, Any], tmp_path: Path
) -> None:
    redis = pytest.importorskip("redis")
    program = real_programs.redis_server(tmp_path)
    records = hour_old(Archive([generated_network[0]], StationChoice()))
    same = ("--model", imported_model, "--runtime", "torch", "--threads", "1", "-q")

    def command(output: str, server: SeedLinkServer, *more: str) -> list[str]:
        source = f"seedlink://127.0.0.1:{server.port}"
        return [
            *(sys.executable, "-m", "eqcctpro", "live", source, "-o", str(tmp_path / output)),
            *("--sink", f"redis://127.0.0.1:{program.port}/{output}", "--backfill", "120"),
            *same,
            *more,
        ]

    # Undisturbed, with all data there.
    server = SeedLinkServer()
    server.publish(records)
    subprocess.run(command("calm", server, "--for", "15"), check=True, timeout=300)
    expected = sorted(ids_in(tmp_path / "calm"))
    assert len(expected) > 10
    server.close()

    server = SeedLinkServer()
    bounds = [number * len(records) // 8 for number in range(9)]
    for number, part in enumerate(pairwise(bounds)):
        server.publish(records[slice(*part)])
        if part[1] == len(records):
            break
        process = subprocess.Popen(command("killed", server))
        time.sleep(random.Random(number).uniform(2.0, 12.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
    subprocess.run(command("killed", server, "--for", "20"), check=True, timeout=300)
    server.close()
    found = sorted(ids_in(tmp_path / "killed"))
    with redis.Redis(port=program.port, decode_responses=True) as client:
        sent = [PickMessage.from_json(fields["pick"]).key for _, fields in client.xrange("killed")]
    program.stop()
    assert len(sent) == len(set(sent))
    assert sorted(one.rpartition("/")[0] for one in sent) == found
    assert found == expected
    assert len(read_picks(tmp_path / "killed")) == len(expected)
