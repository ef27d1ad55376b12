"""A service in a process of its own, without Ray, that is watched while something happens to it.

Run as a program, it serves: ``python bare_service.py '{"settings": {...}, "fixed": {...}}'``.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from probes import Prober, probing
from served import START_SECONDS, free_port

_GLANCE_S = 0.05
# A machine whose cores are wanted elsewhere is not the service's fault; a loop that waits is.
_PROBE_S = 0.25
_MB = 2**20


def serve(content: str) -> None:
    """Serve until the input ends."""
    from eqcctpro.serving.app import create_app
    from eqcctpro.serving.engines import find_model, open_engine
    from eqcctpro.serving.listener import Listener
    from eqcctpro.serving.logs import set_up_logs
    from eqcctpro.serving.metrics import Metrics
    from eqcctpro.serving.security import Guard
    from eqcctpro.serving.service import Service
    from eqcctpro.serving.settings import LimitSettings, ServeSettings

    given = json.loads(content)
    for name, value in given["fixed"].items():
        setattr(LimitSettings, name, value)
    settings = ServeSettings.checked(given["settings"])
    set_up_logs(settings.logs)
    sys.setswitchinterval(0.0005)
    engines = {choice.name: open_engine(find_model(choice), settings) for choice in settings.models}
    service = Service(
        settings, engines, Metrics(settings.metrics), Guard(settings.security, "x" * 32)
    )
    listener = Listener(create_app(service), settings)
    gc.collect()
    gc.freeze()  # as a replica does
    listener.start()
    print("ready", flush=True)
    sys.stdin.read()
    listener.close(5.0)
    os._exit(0)


@dataclass
class Watched:
    """A service that runs.

    Attributes
    ----------
    port : int
    process : subprocess.Popen
    log : Path
    prober : Prober
    bystander_s : float
        The longest that a server took which has nothing else to do, during the last `watch`.
    slowest_s : float
        The longest that a probe took.
    grown_mb : float
        Memory above what it was then, at most.
    refused : list
        Probes that were not answered with 200.
    """

    port: int
    process: subprocess.Popen[str]
    log: Path
    prober: Prober
    bystander_s: float = 0.0
    slowest_s: float = 0.0
    grown_mb: float = 0.0
    refused: list[Any] = field(default_factory=list)

    @property
    def patient(self) -> bool:
        """Whether no probe waited longer than a machine that is as busy as this one explains."""
        busy = os.getloadavg()[0] / (os.cpu_count() or 1)
        return self.slowest_s < _PROBE_S * max(1.0, busy) + self.bystander_s

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Probe it, each time through a new connection, until the end of the block."""
        import psutil

        inside = psutil.Process(self.process.pid)
        before = inside.memory_info().rss
        self.grown_mb = 0.0
        ended = threading.Event()

        def weigh() -> None:
            while not ended.wait(_GLANCE_S / 5):
                grown = (inside.memory_info().rss - before) / _MB
                self.grown_mb = max(self.grown_mb, grown)

        weighing = threading.Thread(target=weigh)
        weighing.start()
        self.prober.begin()
        try:
            yield
        finally:
            ended.set()
            weighing.join()
            found = self.prober.end()
            self.slowest_s, self.bystander_s = max(found.service), max(found.bystander)
            self.refused = found.refused


@contextmanager
def bare_service(folder: Path, fixed: Any = None, **settings: Any) -> Iterator[Watched]:
    """Run a service until the end of the block; `fixed` are limits that are no settings."""
    port = free_port()
    settings = {**settings, "http": {"port": port, **settings.get("http", {})}}
    settings.setdefault("jobs", {})["folder"] = str(folder / "jobs")
    log = folder / f"bare-{port}.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"settings": settings, "fixed": fixed or {}})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
    killer = threading.Timer(START_SECONDS, process.kill)
    killer.start()
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", log.read_text()
        killer.cancel()
        with probing(port) as prober:
            yield Watched(port, process, log, prober)
    finally:
        killer.cancel()
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


if __name__ == "__main__":
    serve(sys.argv[1])
