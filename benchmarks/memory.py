"""Memory of a run's processes, by kind of process."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from eqcctpro.child import module_command
from eqcctpro.errors import WorkerError
from eqcctpro.resources.sampler import process_pss_mb

__all__ = ["RoleMemory", "RunMemory", "peak_rss_mb", "watch_pick"]

MB = 2**20
# PSS is read from a file of many lines, so it is not read more often.
INTERVAL_S = 0.25


@dataclass
class RoleMemory:
    """Highest memory of one process of a kind, MB of 2**20 bytes.

    Attributes
    ----------
    rss_mb : float
        The highest that the kernel knows of, where it keeps it; the others are readings.
    pss_mb : float
    own_mb : float
        Without files and memory that processes share: the pages of Ray's object store count in
        the RSS of whoever has touched them.
    """

    rss_mb: float = 0.0
    pss_mb: float = 0.0
    own_mb: float = 0.0

    def see(self, rss_mb: float, pss_mb: float, own_mb: float) -> None:
        """Take one reading."""
        self.rss_mb = max(self.rss_mb, rss_mb)
        self.pss_mb = max(self.pss_mb, pss_mb)
        self.own_mb = max(self.own_mb, own_mb)


@dataclass
class RunMemory:
    """A run's memory.

    Attributes
    ----------
    stations : int
    mode : str
    seconds : float
    roles : dict of str to RoleMemory
        ``"driver"``, and ``"worker"`` in the modes that have workers: the largest one.
    """

    stations: int
    mode: str
    seconds: float = 0.0
    roles: dict[str, RoleMemory] = field(default_factory=dict)


def watch_pick(
    archive: Path, *, stations: int, mode: str, model: str, options: Sequence[str] = ()
) -> RunMemory:
    """Pick an archive by the command line, and watch the processes.

    Parameters
    ----------
    archive : Path
    stations : int
        Only for the report.
    mode : {"local", "modelactor"}
    model : str
    options : sequence of str
        More options of ``eqcctpro pick``.

    Raises
    ------
    WorkerError
        The run failed.
    """
    memory = RunMemory(stations, mode)
    with tempfile.TemporaryDirectory(prefix="eqcctpro-memory-") as folder:
        command = module_command("eqcctpro", "pick", str(archive), "-o", folder)
        command += ["--model", model, "--mode", mode, "--no-overview", "-q", *options]
        began = time.perf_counter()
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        process = psutil.Process(run.pid)
        while run.poll() is None:
            _look(process, memory)
            time.sleep(INTERVAL_S)
        memory.seconds = time.perf_counter() - began
    if run.returncode:
        raise WorkerError(f"{' '.join(command)} ended with exit code {run.returncode}")
    return memory


def _look(run: psutil.Process, memory: RunMemory) -> None:
    try:
        family = [(run, "driver"), *((child, _role(child)) for child in run.children(True))]
    except psutil.Error:
        return  # it has just ended
    for process, role in family:
        if not role:
            continue
        try:
            kernel = _status_mb(process.pid)
            rss = kernel.get("VmHWM") or process.memory_info().rss / MB
        except psutil.Error:
            continue
        seen = memory.roles.setdefault(role, RoleMemory())
        seen.see(rss, process_pss_mb(process), kernel.get("RssAnon", 0.0))


def peak_rss_mb(process: psutil.Process) -> float:
    """Highest resident memory of a process so far, MB; 0 once it has ended."""
    return _status_mb(process.pid).get("VmHWM", 0.0)


def _status_mb(pid: int) -> dict[str, float]:
    """Memory fields of ``/proc/PID/status``, MB; VmHWM is the highest RSS so far."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if line.endswith(" kB"))
    return {name: int(value.split()[0]) / 1024 for name, value in pairs}


def _role(process: psutil.Process) -> str:
    try:
        return "worker" if any("PickWorker" in part for part in process.cmdline()) else ""
    except psutil.Error:
        return ""
