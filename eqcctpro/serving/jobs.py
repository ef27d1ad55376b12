"""Jobs on archives on the server's disk: runs of `eqcctpro pick`, one after the other."""

from __future__ import annotations

import json
import logging
import secrets
import shutil
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import psutil

from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, SettingsError
from eqcctpro.journal.status import RunStatus, read_status
from eqcctpro.places import Place, is_address
from eqcctpro.roots import Roots
from eqcctpro.serving.job_files import PathHider
from eqcctpro.serving.job_process import JobLimits, JobProcess
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.problems import (
    BusyProblem,
    ForbiddenProblem,
    InvalidProblem,
    NotFoundProblem,
)
from eqcctpro.serving.security import Identity
from eqcctpro.serving.settings import JobSettings

__all__ = ["JobBoard", "JobRequest"]

_FINISHED = ("done", "failed", "cancelled")
# Exit code of a run that is complete though stations in it failed.
_COMPLETE = (0, 10)
_GLANCE_S = 0.2
# How often old jobs are looked for.
_TIDY_S = 600.0
# What no job needs more of.
_MOST_PATTERNS = 10_000
_LONGEST_TEXT = 4096
_LONGEST_MIN = 366 * 1440.0

_log = logging.getLogger("eqcctpro.serving")


class JobRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Request for a job; names as in the settings of ``eqcctpro pick``."""

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
    kind: str = ""
    weights: str = ""
    process: JobProcess | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def belongs_to(self, who: Identity) -> bool:
        """True if this client may see the job; jobs of earlier releases store only the name."""
        return self.by == who.name and self.kind in ("", who.kind)

    def keep(self) -> None:
        """Write the job's file to disk, atomically."""
        content = {
            name: getattr(self, name)
            for name in (
                *("request", "by", "submitted", "status", "started", "ended"),
                *("exit_code", "message", "kind", "weights"),
            )
        }
        new = self.folder / "job.json.new"
        new.write_text(json.dumps(content), encoding="utf-8")
        new.replace(self.folder / "job.json")

    @classmethod
    def read(cls, folder: Path) -> _Job:
        return cls(folder, **json.loads((folder / "job.json").read_text(encoding="utf-8")))


class JobBoard:
    """Queue of jobs: accepts them, runs each in a process, and reports their progress.

    What was waiting or running when the service ended goes on when it starts again.  A job
    belongs to whoever submitted it; to everybody else there is no such job.

    Parameters
    ----------
    settings : JobSettings
    models : sequence of str
        Those that jobs may use, the default first.
    metrics : Metrics, optional
        What counts jobs.
    """

    def __init__(
        self, settings: JobSettings, models: Sequence[str], metrics: Metrics | None = None
    ) -> None:
        self._settings = settings
        self._models = {name: name for name in models}
        self._roots: list[Place] = [
            root.resolve() if isinstance(root, Path) else root for root in settings.roots
        ]
        self._allowed_roots = Roots(self._roots)
        self._folder = settings.folder.resolve()
        self._limits = JobLimits(
            settings.memory_mb or psutil.virtual_memory().total / 2**21,
            settings.time_limit_s,
            settings.end_s,
        )
        self._tidied = 0.0
        self._jobs: dict[str, _Job] = {}
        self._waiting: deque[_Job] = deque()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._threads: list[threading.Thread] = []
        self._metrics = metrics
        if metrics is not None:
            for state in ("waiting", "running"):
                metrics.watch(metrics.jobs.labels(state), partial(self._number, state))
        if self._roots:
            self._begin()

    def _number(self, status: str) -> int:
        return sum(job.status == status for job in list(self._jobs.values()))

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

    def use_models(self, models: Mapping[str, str]) -> None:
        """From now on accept jobs for these models.

        Parameters
        ----------
        models : mapping of str to str
            Weights by what clients call them, the default first.
        """
        self._models = dict(models)

    def submit(self, request: JobRequest, who: Identity) -> dict[str, Any]:
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
        _require_bounds(request, self._settings)
        source = self._allowed(request.input)
        given = {
            name: value
            for name, value in msgspec.structs.asdict(request).items()
            if value is not None
        }
        given["input"] = str(source)
        given["model"], weights = self._model(request.model)
        with self._lock:
            if len(self._waiting) >= self._settings.waiting:
                raise BusyProblem(f"{len(self._waiting)} jobs wait", headers={"Retry-After": "60"})
            name = f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
            job = _Job(self._folder / name, given, who.name, time.time(), kind=who.kind)
            job.weights = weights
            try:
                PickConfig.checked(**given, output=job.out)
            except SettingsError as error:
                raise InvalidProblem(
                    self._hider(job)(error.message), hint=self._hider(job)(error.hint)
                ) from error
            job.folder.mkdir()
            job.keep()
            self._jobs[name] = job
            self._waiting.append(job)
        return self._facts(job)

    def _allowed(self, text: str) -> Place:
        """Input path, if it lies in an allowed folder after links are resolved."""
        found: list[Place] = []
        if is_address(text):
            found = [text]
        else:
            folders = [root for root in self._roots if isinstance(root, Path)]
            try:
                paths = [(root / text).resolve() for root in folders]
                found = [path for path in paths if path.exists()]
            except (OSError, ValueError) as error:
                raise ForbiddenProblem(f"input: {text[:200]!r} is no path") from error
        inside = [place for place in found if self._allowed_roots.hold(place)]
        if not inside:
            raise ForbiddenProblem(
                f"input: {text[:200]!r} is not in a folder that jobs may read",
                hint="the service's setting jobs.roots names them",
            )
        return inside[0]

    def _model(self, name: str | None) -> tuple[str, str]:
        """Model by its served name, and its weights."""
        models = self._models
        if name is None:
            return next(iter(models.items()))
        if name not in models:
            raise InvalidProblem(
                f"model: {name[:100]!r} is not served", hint=f"served are {', '.join(models)}"
            )
        return name, models[name]

    def jobs(self, who: Identity) -> list[dict[str, Any]]:
        """All jobs of a client, the latest first."""
        mine = [job for job in list(self._jobs.values()) if job.belongs_to(who)]
        return [self._facts(job) for job in sorted(mine, key=_by_time)]

    def job(self, name: str, who: Identity) -> dict[str, Any]:
        """One job and its progress.

        Raises
        ------
        NotFoundProblem
        """
        job = self._find(name, who)
        facts = self._facts(job)
        try:
            progress = _progress(read_status(job.out)) if job.out.is_dir() else None
            facts["progress"] = self._hider(job)(progress)
        except EQCCTProError:
            facts["progress"] = None
        facts["files"] = self._files(job)
        return facts

    def result(self, name: str, file: str, who: Identity) -> Path:
        """A file that a job has written.

        Raises
        ------
        NotFoundProblem
        """
        job = self._find(name, who)
        if file not in self._files(job):
            raise NotFoundProblem(f"job {name} has no file {file[:100]!r}")
        return job.out / file

    def cancel(self, name: str, who: Identity) -> dict[str, Any]:
        """Cancel a job that waits or runs.

        Raises
        ------
        NotFoundProblem
        """
        job = self._find(name, who)
        with self._lock:
            if job in self._waiting:
                self._waiting.remove(job)
            if job.status not in _FINISHED:
                job.status = "cancelled"
                job.ended = time.time()
                if job.process is not None:
                    job.process.end()
                else:
                    self._count(job)
                job.keep()
        return self._facts(job)

    def close(self) -> None:
        """Stop running jobs, so that they can be resumed."""
        self._ended.set()
        with self._lock:
            for job in self._jobs.values():
                if job.process is not None:
                    job.process.end()
        for thread in self._threads:
            thread.join(self._limits.end_s + 5.0)

    def _find(self, name: str, who: Identity) -> _Job:
        job = self._jobs.get(name)
        if job is None or not job.belongs_to(who):
            raise NotFoundProblem(f"there is no job {name[:100]!r}")
        return job

    def _hider(self, job: _Job) -> PathHider:
        folders = [root for root in self._roots if isinstance(root, Path)]
        return PathHider([*folders, job.out, job.folder])

    def _files(self, job: _Job) -> list[str]:
        # Until the process is gone, what it has written names folders of this machine.
        if job.status not in _FINISHED or job.process is not None or not job.out.is_dir():
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
        if is_address(text):
            return text
        path = Path(text)
        for root in self._roots:
            if isinstance(root, Path) and path.is_relative_to(root):
                return str(path.relative_to(root))
        return path.name

    def _work(self) -> None:
        while not self._ended.is_set():
            with self._lock:
                job = self._waiting.popleft() if self._waiting else None
                if time.monotonic() - self._tidied > _TIDY_S:
                    self._tidied = time.monotonic()
                    self._tidy()
            if job is None:
                time.sleep(_GLANCE_S)
            else:
                self._run_whatever_happens(job)

    def _run_whatever_happens(self, job: _Job) -> None:
        """Run a job; one that cannot be run, as on a full disk, fails and the next one starts."""
        try:
            self._run(job)
        except Exception as error:
            _log.exception("job %s: it cannot be carried out", job.name)
            with self._lock:
                if job.process is not None:
                    job.process.end()
                job.process, job.status, job.ended = None, "failed", time.time()
                job.message = f"the service cannot carry it out: {type(error).__name__}"
                self._count(job)
                with suppress(OSError):
                    job.keep()

    def _run(self, job: _Job) -> None:
        settings = job.folder / "settings.json"
        # The roots of now, whatever they were when the job was submitted.
        more = {
            "input_roots": [str(root) for root in self._roots],
            "overview": False,
            "model": job.weights or job.request["model"],
        }
        settings.write_text(json.dumps({**job.request, **more}), encoding="utf-8")
        arguments = ["pick", "--config", str(settings), "-o", str(job.out), "--quiet"]
        with self._lock:
            if job.status == "cancelled" or self._ended.is_set():
                return
            job.process = process = JobProcess(arguments, job.folder / "log", self._limits)
            job.status, job.started = "running", time.time()
            job.keep()
        code, limit = process.wait()
        with self._lock:
            if self._ended.is_set() and job.status != "cancelled":
                job.process = None
                return
            self._note_end(job, code, limit)

    def _note_end(self, job: _Job, code: int, limit: str) -> None:
        """Rewrite what a job has written, and only then say that it has ended."""
        status, message = job.status, limit
        if status != "cancelled":
            status = "failed" if limit or code not in _COMPLETE else "done"
        if status == "failed" and not limit:
            message = self._hider(job)(_last_line(job.folder / "log"))
        try:
            self._hider(job).rewrite(job.out)
        except (OSError, ValueError, EQCCTProError):
            _log.exception("job %s: what it wrote about itself cannot be rewritten", job.name)
            if status == "done":
                status, message = "failed", "its results cannot be read"
        job.exit_code, job.message = code, message or job.message
        if status != "cancelled":
            job.ended = time.time()
        job.process, job.status = None, status
        self._count(job)
        job.keep()

    def _count(self, job: _Job) -> None:
        if self._metrics is None:
            return
        stations: dict[str, int] = {}
        seconds = None if job.started is None else (job.ended or time.time()) - job.started
        if job.started is not None and job.out.is_dir():
            with suppress(EQCCTProError):
                stations = read_status(job.out).counts
        self._metrics.job_ended(job.status, seconds, stations)

    def _tidy(self) -> None:
        """Remove the oldest finished jobs, as far as the settings say so."""
        settings, now = self._settings, time.time()
        ended = sorted(
            (job for job in self._jobs.values() if job.status in _FINISHED), key=_by_time
        )
        for position, job in enumerate(ended):
            too_old = now - (job.ended or now) > settings.keep_days * 86_400
            if (too_old or position >= settings.keep) and job.process is None:
                _log.info("job %s of %s is removed: it ended long ago", job.name, job.by)
                shutil.rmtree(job.folder, ignore_errors=True)
                del self._jobs[job.name]


def _progress(status: RunStatus) -> dict[str, Any]:
    """Facts of a run's status that its client may see."""
    facts = status.as_dict()
    return {
        name: facts[name]
        for name in (
            *("state", "station_tasks", "quarantined", "skipped", "files_unusable"),
            *("per_second", "seconds_left", "attempts", "failures"),
        )
    }


def _require_bounds(request: JobRequest, settings: JobSettings) -> None:
    """Refuse a request that would cost more than any job may.

    Raises
    ------
    InvalidProblem
    """
    least = settings.least_timechunk_min
    if request.timechunk is not None and not least <= request.timechunk <= _LONGEST_MIN:
        raise InvalidProblem(
            f"timechunk: {request.timechunk:g} min is not between {least:g} and {_LONGEST_MIN:g}",
            hint="the service's setting jobs.least_timechunk_min says what is the least",
        )
    texts = [
        *(request.stations or ()),
        *(request.formats or ()),
        *filter(None, (request.input, request.start, request.end, request.layout)),
    ]
    if len(texts) > _MOST_PATTERNS or any(len(text) > _LONGEST_TEXT for text in texts):
        raise InvalidProblem(
            f"more than {_MOST_PATTERNS} stations, or a text of more than {_LONGEST_TEXT} letters"
        )
    if any("@" in text for text in request.stations or ()):
        raise InvalidProblem(
            "stations: lists in files are not read here", hint="send the patterns themselves"
        )


def _by_time(job: _Job) -> float:
    return -job.submitted


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1].removeprefix("error: ")[:500]
