"""Benchmark subjects in processes of their own, and the messages that such a process takes.

``python -m eqcctpro.evaluation.subject_process`` opens one subject, then prepares and runs it
whenever its parent asks.  It knows nothing of the program that started it, so that what that
program has imported or computed is in no measurement.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, field_serializer
from pydantic_core import from_json

from eqcctpro.child import ChildProcess, Parent
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError
from eqcctpro.evaluation.subject import Outcome, Subject, Workload
from eqcctpro.resources.sampler import ResourceSampler, ResourceUse

__all__ = ["SessionSpec", "SubjectError", "SubjectProcess", "SubjectSpec", "WorkloadSpec"]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="constants")


class SessionSpec(_Message):
    """A `PickSession` with settings that are complete."""

    kind: Literal["session"] = "session"
    config: PickConfig

    @field_serializer("config")
    def _only_what_was_set(self, config: PickConfig) -> dict[str, Any]:
        return config.model_dump(mode="json", exclude_unset=True)

    def open(self) -> Subject:
        """Make the subject, in the process that runs it."""
        from eqcctpro.evaluation.session_subject import SessionSubject

        return SessionSubject(self.config)


class WorkloadSpec(_Message):
    """A workload, and who picks it.

    Attributes
    ----------
    who : str
        ``session`` for our own modes, the name of a baseline, or ``module:Class`` of another
        `Subject`, which is made of the workload and the options.
    options : dict
        How it is computed: threads, device, batch size; mode, workers and runtime of our modes.
    """

    kind: Literal["workload"] = "workload"
    who: str
    workload: Workload
    options: dict[str, str | int | None] = Field(default_factory=dict)

    def open(self) -> Subject:
        """Make the subject, in the process that runs it."""
        options: dict[str, Any] = self.options
        if self.who == "session":
            from eqcctpro.evaluation.session_subject import SessionSubject

            return SessionSubject.of(self.workload, **options)
        if ":" in self.who:
            subject: Subject = resolve_name(self.who)(self.workload, **options)
            return subject
        from eqcctpro.evaluation.baselines import open_baseline

        return open_baseline(self.who, self.workload, **options)


SubjectSpec = SessionSpec | WorkloadSpec


class _Open(_Message):
    do: Literal["open"] = "open"
    subject: Annotated[SubjectSpec, Field(discriminator="kind")]
    watch: bool


class _Prepare(_Message):
    do: Literal["prepare"] = "prepare"


class _Run(_Message):
    do: Literal["run"] = "run"
    folder: Path


_REQUEST: TypeAdapter[_Open | _Prepare | _Run] = TypeAdapter(
    Annotated[_Open | _Prepare | _Run, Field(discriminator="do")]
)


class _Log(_Message):
    said: Literal["log"] = "log"
    level: int
    text: str


class _Answer(_Message):
    said: Literal["answer"] = "answer"
    facts: dict[str, Any] | None = None
    outcome: Outcome | None = None
    error: str = ""
    use: ResourceUse | None = None


_REPLY: TypeAdapter[_Log | _Answer] = TypeAdapter(
    Annotated[_Log | _Answer, Field(discriminator="said")]
)


class SubjectError(EQCCTProError):
    """A subject cannot be prepared or run; the message is its own."""


class SubjectProcess:
    """The process of a subject, seen from its parent.

    Parameters
    ----------
    subject : SubjectSpec
    watch : bool
        Let the process itself measure what it takes while it is at work.
    logger : logging.Logger, optional
        Gets warnings that the subject logs.

    Attributes
    ----------
    pid : int
    use : ResourceUse or None
        What the last request took, where the process watches itself.

    Raises
    ------
    ChildDiedError
        It has died; as `prepare` and `run`.
    """

    def __init__(
        self, subject: SubjectSpec, *, watch: bool = False, logger: logging.Logger | None = None
    ) -> None:
        self._child = ChildProcess(__name__)
        self._logger = logger
        self.pid = self._child.pid
        self.use: ResourceUse | None = None
        self._opening: _Open | None = _Open(subject=subject, watch=watch)

    def prepare(self, timeout_s: float | None = None) -> dict[str, Any]:
        """Let it load everything; returns facts, see `Subject.prepare`.

        Raises
        ------
        SubjectError
            It cannot be prepared.
        TimeoutError
        """
        return dict(self._ask(_Prepare(), timeout_s).facts or {})

    def run(self, folder: Path, timeout_s: float | None = None) -> Outcome:
        """Let it pick the workload once, with picks below a folder.

        Raises
        ------
        SubjectError
            It cannot be run.
        TimeoutError
        """
        outcome = self._ask(_Run(folder=folder.absolute()), timeout_s).outcome
        assert outcome is not None
        return outcome

    def _ask(self, request: _Prepare | _Run, timeout_s: float | None) -> _Answer:
        until = None if timeout_s is None else time.monotonic() + timeout_s
        if self._opening is not None:
            self._child.send(self._opening.model_dump_json().encode())
            self._opening = None
        self._child.send(request.model_dump_json().encode())
        while True:
            left = None if until is None else max(until - time.monotonic(), 0.0)
            reply = _REPLY.validate_python(from_json(self._child.receive(left)))
            if isinstance(reply, _Answer):
                break
            if self._logger is not None:
                self._logger.log(reply.level, "%s", reply.text)
        self.use = reply.use
        if reply.error:
            raise SubjectError(reply.error)
        return reply

    def end(self, timeout_s: float = 30.0) -> None:
        """Let it release everything and end; it must have answered."""
        self._child.end(timeout_s)

    def kill(self) -> None:
        """End it at once."""
        self._child.kill()


class _ToParent(logging.Handler):
    """Warnings of the subject, for the log of the parent."""

    def __init__(self, parent: Parent) -> None:
        super().__init__(logging.WARNING)
        self._parent = parent

    def emit(self, record: logging.LogRecord) -> None:
        said = _Log(level=record.levelno, text=record.getMessage())
        self._parent.reply(said.model_dump_json().encode())


class _Host:
    """The subject in its process."""

    def __init__(self) -> None:
        self._spec: SubjectSpec | None = None
        self._watch = False
        self._subject: Subject | None = None

    def answer(self, request: _Prepare | _Run) -> _Answer:
        """Carry out a request; an error is an answer too."""
        watched = ResourceSampler() if self._watch else nullcontext()
        said: Mapping[str, Any]
        with watched:
            try:
                said = self._carry_out(request)
            except EQCCTProError as error:
                said = {"error": str(error)}
            except Exception as error:  # told to the process that asked, by name
                said = {"error": f"{type(error).__name__}: {error}"}
        return _Answer(**said, use=watched.use if isinstance(watched, ResourceSampler) else None)

    def _carry_out(self, request: _Prepare | _Run) -> dict[str, Any]:
        if self._subject is None:
            assert self._spec is not None
            self._subject = self._spec.open()
        if isinstance(request, _Run):
            request.folder.mkdir(parents=True, exist_ok=True)
            return {"outcome": self._subject.run(request.folder)}
        return {"facts": self._subject.prepare()}

    def serve(self, parent: Parent) -> None:
        """Answer until the parent has no more requests."""
        try:
            for message in parent.requests():
                request = _REQUEST.validate_python(from_json(message))
                if isinstance(request, _Open):
                    self._spec, self._watch = request.subject, request.watch
                else:
                    parent.reply(self.answer(request).model_dump_json(fallback=str).encode())
        finally:
            if self._subject is not None:
                self._subject.close()


def main() -> None:
    """The body of the process."""
    parent = Parent()
    logging.getLogger("eqcctpro").addHandler(_ToParent(parent))
    _Host().serve(parent)


if __name__ == "__main__":
    main()
