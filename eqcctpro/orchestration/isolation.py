"""Picks station tasks that may kill their process, one by one, in a process of their own."""

from __future__ import annotations

import faulthandler
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import EQCCTProError, WorkerError
from eqcctpro.orchestration.dispatch import MOST_DEATHS, never, quarantined
from eqcctpro.orchestration.worker import BundleResult, PickWorker, WorkerSpec

__all__ = ["pick_isolated"]

# What is kept of what a process wrote before it died.
LAST_WORDS = 300


def pick_isolated(
    spec: WorkerSpec, tasks: Sequence[StationTask], *, stop: Callable[[], bool] = never
) -> Iterator[BundleResult]:
    """Pick station tasks that a process has died over already.

    One that kills this process too is quarantined; the next one gets a new process.

    Raises
    ------
    EQCCTProError
        What the model raised while it was loaded.
    """
    child: _Child | None = None
    try:
        for task in tasks:
            if stop():
                return
            child = child or _Child(spec)
            result = child.pick(task)
            if result is None:
                result = quarantined(task, MOST_DEATHS, child.last_words())
                child.close()
                child = None
            yield result
    finally:
        if child is not None:
            child.close()


class _Child:
    """A process with a loaded model, which takes tasks and returns results."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "eqcctpro.orchestration.isolation"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        answer = self._ask(spec)
        if answer is None:
            words = self.last_words()
            self.close()
            raise WorkerError(f"a process for single station tasks did not start: {words}")

    def pick(self, task: StationTask) -> BundleResult | None:
        """The result of a task; None if the process died over it."""
        result: BundleResult | None = self._ask(task)
        return result

    def _ask(self, question: object) -> Any:
        """The answer to a question; None if the process died."""
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            pickle.dump(question, self._process.stdin)
            self._process.stdin.flush()
            answer = pickle.load(self._process.stdout)
        except (BrokenPipeError, EOFError, pickle.UnpicklingError):
            return None
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def last_words(self) -> str:
        """How the process ended, in one line."""
        code = self._process.wait()
        self._errors.seek(0)
        text = self._errors.read().decode(errors="replace").strip()
        said = next((line for line in text.splitlines() if line.startswith("Fatal")), text[-200:])
        try:
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        except ValueError:
            how = f"signal {-code}"
        return f"{how} {' '.join(said.split())}".strip()[:LAST_WORDS]

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            try:
                if stream is not None:
                    stream.close()
            except BrokenPipeError:
                continue  # it died with something unread


def _serve(questions: BinaryIO, answers: BinaryIO) -> None:
    """Answer until there is nothing more to read: first load the model, then pick."""

    def answer(value: object) -> None:
        pickle.dump(value, answers)
        answers.flush()

    worker = PickWorker(pickle.load(questions))
    try:
        answer(worker.load())
    except EQCCTProError as error:
        answer(error)
        return
    while True:
        try:
            task = pickle.load(questions)
        except EOFError:
            return
        answer(worker.pick([task]))


def main() -> None:
    """The body of the process."""
    faulthandler.enable()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    _serve(sys.stdin.buffer, answers)


if __name__ == "__main__":
    main()
