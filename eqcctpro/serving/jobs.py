"""Jobs on archives that lie on the server's disk: runs of `eqcctpro pick`, one after the other."""

from __future__ import annotations

import json
import logging
import os
import secrets
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from eqcctpro.child import module_command
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, SettingsError
from eqcctpro.journal.status import read_status
from eqcctpro.serving.problems import (
    BusyProblem,
    ForbiddenProblem,
    InvalidProblem,
    NotFoundProblem,
)
from eqcctpro.serving.settings import JobSettings

__all__ = ["JobBoard", "JobRequest"]

_FINISHED = ("done", "failed", "cancelled")
# Exit code of a run that is complete though stations in it failed.
_COMPLETE = (0, 10)
_GLANCE_S = 0.2

_log = logging.getLogger("eqcctpro.serving")


class JobRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a job is to do; names as in the settings of ``eqcctpro pick``."""

    input: str
    model: str | None = None
    start: str | None = None
    end: str | None = None
    timechunk: float | None = None
    overlap: float | None = None
    layout: str | None = None
    stations: list[str] | None = None
    p_threshold: float | None = None
    s_threshold: float | None = None
    detection_threshold: float | None = None
    formats: list[str] | None = None


@dataclass
class _Job:
    """One job, as ``job.json`` keeps it."""

    folder: Path
    request: dict[str, Any]
    by: str
    submitted: float
    status: str = "waiting"
    started: float | None = None
    ended: float | None = None
    exit_code: int | None = None
    message: str = ""
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def keep(self) -> None:
        """Write it to the disk, whole."""
        content = {
            name: getattr(self, name)
            for name in (
                *("request", "by", "submitted", "status", "started", "ended"),
                *("exit_code", "message"),
            )
        }
        new = self.folder / "job.json.new"
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(self.folder / "job.json")

    @classmethod
    def read(cls, folder: Path) -> _Job:
        return cls(folder, **json.loads((folder / "job.json").read_text(encoding="utf-8")))


class JobBoard:
    """Accepts jobs, runs them in processes of their own, and tells how far they are.

    What was waiting or running when the service ended goes on when it starts again.

    Parameters
    ----------
    settings : JobSettings
    models : sequence of str
        Those that jobs may use, the default first.
    """

    def __init__(self, settings: JobSettings, models: Sequence[str]) -> None:
        self._settings = settings
        self._models = tuple(models)
        self._roots = [root.resolve() for root in settings.roots]
        self._folder = settings.folder.resolve()
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._ended = False
        self._threads: list[threading.Thread] = []
        if self._roots:
            self._begin()

    def _begin(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self._folder.glob("*/job.json")):
            try:
                job = _Job.read(path.parent)
            except (OSError, ValueError, TypeError):
                _log.warning("job %s cannot be read and is left alone", path.parent.name)
                continue
            self._jobs[job.name] = job
            if job.status not in _FINISHED:
                job.status = "waiting"
                self._waiting.append(job)
        for number in range(self._settings.at_a_time):
            thread = threading.Thread(target=self._work, name=f"eqcctpro-job-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, request: JobRequest, by: str) -> dict[str, Any]:
        """Accept a job.

        Raises
        ------
        ForbiddenProblem
            Its input lies outside of the folders that jobs may read.
        InvalidProblem
            A setting is wrong.
        BusyProblem
            Too many jobs wait.
        """
        if not self._roots:
            raise ForbiddenProblem(
                "this service takes no jobs", hint="its setting jobs.roots names no folder"
            )
        source = self._allowed(request.input)
        given = {
            name: value
            for name, value in msgspec.structs.asdict(request).items()
            if value is not None
        }
        given["input"] = str(source)
        given["model"] = self._model(request.model)
        with self._lock:
            if len(self._waiting) >= self._settings.waiting:
                raise BusyProblem(f"{len(self._waiting)} jobs wait", headers={"Retry-After": "60"})
            name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
            job = _Job(self._folder / name, given, by, time.time())
            try:
                PickConfig.checked(**given, output=job.out)
            except SettingsError as error:
                raise InvalidProblem(error.message, hint=error.hint) from error
            job.folder.mkdir()
            job.keep()
            self._jobs[name] = job
            self._waiting.append(job)
        return self._facts(job)

    def _allowed(self, text: str) -> Path:
        """The input, if it lies in a folder that jobs may read; links are followed first."""
        try:
            paths = [(root / text).resolve() for root in self._roots]
            inside = [
                path
                for path in paths
                if any(path.is_relative_to(root) for root in self._roots) and path.exists()
            ]
        except (OSError, ValueError) as error:
            raise ForbiddenProblem(f"input: {text[:200]!r} is no path") from error
        if not inside:
            raise ForbiddenProblem(
                f"input: {text[:200]!r} is not in a folder that jobs may read",
                hint="the service's setting jobs.roots names them",
            )
        return inside[0]

    def _model(self, name: str | None) -> str:
        if name is None:
            return self._models[0]
        if name not in self._models:
            raise InvalidProblem(
                f"model: {name[:100]!r} is not served", hint=f"served are {', '.join(self._models)}"
            )
        return name

    def jobs(self) -> list[dict[str, Any]]:
        """All jobs, the latest first."""
        return [self._facts(job) for job in sorted(self._jobs.values(), key=_by_time)]

    def job(self, name: str) -> dict[str, Any]:
        """One job and how far it is.

        Raises
        ------
        NotFoundProblem
        """
        job = self._find(name)
        facts = self._facts(job)
        try:
            facts["progress"] = read_status(job.out).as_dict() if job.out.is_dir() else None
        except EQCCTProError:
            facts["progress"] = None
        facts["files"] = self._files(job)
        return facts

    def result(self, name: str, file: str) -> Path:
        """A file that a job has written.

        Raises
        ------
        NotFoundProblem
        """
        job = self._find(name)
        if file not in self._files(job):
            raise NotFoundProblem(f"job {name} has no file {file[:100]!r}")
        return job.out / file

    def cancel(self, name: str) -> dict[str, Any]:
        """End a job that waits or runs.

        Raises
        ------
        NotFoundProblem
        """
        job = self._find(name)
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
            if job.status not in _FINISHED:
                job.status = "cancelled"
                job.ended = time.time()
                if job.process is not None:
                    job.process.send_signal(signal.SIGTERM)
                job.keep()
        return self._facts(job)

    def close(self) -> None:
        """End what runs, so that it can go on another time."""
        self._ended = True
        for job in self._jobs.values():
            if job.process is not None and job.process.poll() is None:
                job.process.send_signal(signal.SIGTERM)
        for thread in self._threads:
            thread.join(10.0)

    def _find(self, name: str) -> _Job:
        job = self._jobs.get(name)
        if job is None:
            raise NotFoundProblem(f"there is no job {name[:100]!r}")
        return job

    def _files(self, job: _Job) -> list[str]:
        if job.status not in _FINISHED or not job.out.is_dir():
            return []
        return sorted(
            path.name
            for path in job.out.iterdir()
            if path.is_file() and not path.name.startswith(".")
        )

    def _facts(self, job: _Job) -> dict[str, Any]:
        return {
            "id": job.name,
            "status": job.status,
            "by": job.by,
            "request": {**job.request, "input": self._shown(job.request["input"])},
            "submitted": job.submitted,
            "started": job.started,
            "ended": job.ended,
            "exit_code": job.exit_code,
            "message": job.message,
        }

    def _shown(self, text: str) -> str:
        """An input as clients write it."""
        path = Path(text)
        for root in self._roots:
            if path.is_relative_to(root):
                return str(path.relative_to(root))
        return path.name

    def _work(self) -> None:
        while not self._ended:
            with self._lock:
                job = self._waiting.popleft() if self._waiting else None
            if job is None:
                time.sleep(_GLANCE_S)
            else:
                self._run(job)

    def _run(self, job: _Job) -> None:
        settings = job.folder / "settings.json"
        settings.write_text(json.dumps({**job.request, "overview": False}), encoding="utf-8")
        command = module_command("eqcctpro", "pick", "--config", str(settings))
        command += ["-o", str(job.out), "--quiet"]
        with (job.folder / "log").open("ab") as log:
            job.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment()
            )
            with self._lock:
                if job.status == "cancelled":
                    job.process.terminate()
                else:
                    job.status, job.started = "running", time.time()
                    job.keep()
            job.exit_code = job.process.wait()
        with self._lock:
            job.process = None
            if self._ended or job.status == "cancelled":
                return
            job.status = "done" if job.exit_code in _COMPLETE else "failed"
            job.ended = time.time()
            if job.status == "failed":
                job.message = _last_line(job.folder / "log")
            job.keep()


def _by_time(job: _Job) -> float:
    return -job.submitted


def _environment() -> dict[str, str]:
    """Of a run that has nothing to do with this service's Ray."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1].removeprefix("error: ")[:500]
