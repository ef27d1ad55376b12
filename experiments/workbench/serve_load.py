"""How many stations a second does the service pick, and how long does a request take?

    python experiments/workbench/serve_load.py --model PhaseNet/original --clients 1 4 16 64
    python experiments/workbench/serve_load.py --mosec-python VENV/bin/python

Everything happens on the loopback interface: requests of one station, 60 s of three components at
100 Hz as float32 in msgpack, from processes that do nothing but ask.  With an interpreter that has
mosec, a Mosec service with the same exported model, the same batching and the same code from
windows to picks takes turns with ours.  Requests per turn are bounded.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_SECONDS = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="PhaseNet/original")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--requests", type=int, default=1000, help="of a turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="windows in a batch, of both")
    parser.add_argument("--wait-ms", type=float, default=0.0, help="for a batch, of both")
    parser.add_argument("--mseed", action="store_true", help="send miniSEED in place of arrays")
    parser.add_argument("--mosec-python", type=Path, help="an interpreter that has mosec")
    parser.add_argument("--mosec-workers", type=int, default=1)
    parser.add_argument("--set", action="append", default=[], help="a setting of our service")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    body, media_type = make_body(mseed=options.mseed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "body"
        file.write_bytes(body)
        with ours(options) as own, mosec(options, Path(scratch)) as other:
            services = {"eqcctpro": own, **({"mosec": other} if other else {})}
            for url in services.values():
                ask(url, file, media_type, 1, 20)  # warm
            for clients in options.clients:
                for _ in range(options.turns):
                    for name, url in services.items():
                        turn = ask(url, file, media_type, clients, options.requests)
                        rows.append({"service": name, "clients": clients, **turn})
                show(rows, clients)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n")


def make_body(*, mseed: bool) -> tuple[bytes, str]:
    """One station, 60 s."""
    import msgspec
    import numpy as np

    from eqcctpro.serving.example import example_miniseed, example_segments

    if mseed:
        return example_miniseed(), "application/vnd.fdsn.mseed"
    segments = example_segments()
    rows = np.stack([segment.samples for segment in segments]).astype("<f4")
    code = segments[0].code
    station = {
        "network": code.network,
        "station": code.station,
        "location": code.location,
        "channels": [segment.code.channel for segment in segments],
        "start": segments[0].start_ns,
        "sampling_rate": segments[0].sampling_rate,
        "samples": rows.tobytes(),
    }
    return msgspec.msgpack.encode({"stations": [station]}), "application/msgpack"


@contextmanager
def ours(options: argparse.Namespace) -> Iterator[str]:
    """``eqcctpro serve``."""
    port = free_port()
    given = [
        f"batching.max_batch_size={options.batch}",
        f"batching.max_wait_ms={options.wait_ms}",
        "logs.access=false",
        "limits.capacity=512",
        *options.set,
    ]
    command = [sys.executable, "-m", "eqcctpro", "serve", "--model", options.model]
    command += ["--port", str(port), *[part for text in given for part in ("--set", text)]]
    with running(command, f"http://127.0.0.1:{port}/health/ready"):
        yield f"http://127.0.0.1:{port}/v1/pick"


@contextmanager
def mosec(options: argparse.Namespace, scratch: Path) -> Iterator[str | None]:
    """Mosec with the same model, if there is an interpreter for it."""
    if options.mosec_python is None:
        yield None
        return
    port = free_port()
    environment = {
        "SERVE_LOAD_MODEL": options.model,
        "SERVE_LOAD_BATCH": str(options.batch),
        "SERVE_LOAD_WAIT_MS": str(max(1, round(options.wait_ms))),
        "SERVE_LOAD_WORKERS": str(options.mosec_workers),
        "MOSEC_PATH": str(scratch / "mosec"),
    }
    command = [str(options.mosec_python), str(HERE / "serve_load_mosec.py"), "--port", str(port)]
    command += ["--timeout", "30000", "--capacity", "512", "--address", "127.0.0.1"]
    command += ["--log-level", "warning"]
    with running(command, f"http://127.0.0.1:{port}/", **environment):
        yield f"http://127.0.0.1:{port}/inference"


@contextmanager
def running(command: list[str], probe: str, **environment: str) -> Iterator[None]:
    """A service until the end of the block; it answers when the block begins."""
    import httpx

    with subprocess.Popen(
        command, env={**os.environ, **environment}, start_new_session=True
    ) as process:
        try:
            until = time.monotonic() + START_SECONDS
            while True:
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[1:4]} did not start")
                try:
                    if httpx.get(probe).status_code == httpx.codes.OK:
                        break
                except httpx.HTTPError:
                    pass
                time.sleep(0.2)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def ask(url: str, body: Path, media_type: str, clients: int, requests: int) -> dict[str, float]:
    """Ask from one process with so many connections; stations a second and percentiles."""
    command = [sys.executable, str(HERE / "serve_load_client.py"), url, str(body), media_type]
    command += [str(clients), str(requests)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def show(rows: list[dict[str, Any]], clients: int) -> None:
    for name in dict.fromkeys(row["service"] for row in rows):
        turns = [row for row in rows if row["service"] == name and row["clients"] == clients]
        middle = {
            key: statistics.median(row[key] for row in turns)
            for key in ("stations_per_s", "p50_ms", "p95_ms", "p99_ms")
        }
        print(
            f"{clients:3} clients  {name:9} {middle['stations_per_s']:7.1f} stations/s   "
            f"p50 {middle['p50_ms']:7.1f}  p95 {middle['p95_ms']:7.1f}  "
            f"p99 {middle['p99_ms']:7.1f} ms",
            flush=True,
        )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
