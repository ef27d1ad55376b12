"""Isolated picking of station tasks that may kill their process, each in a child process."""

from __future__ import annotations

import faulthandler
import pickle
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.child import ChildDiedError, ChildProcess, Parent
from eqcctpro.errors import EQCCTProError, WorkerError
from eqcctpro.orchestration.dispatch import MOST_DEATHS, never, quarantined
from eqcctpro.orchestration.worker import BundleResult, PickWorker, WorkerSpec

__all__ = ["pick_isolated"]


def pick_isolated(
    spec: WorkerSpec, tasks: Sequence[StationTask], *, stop: Callable[[], bool] = never
) -> Iterator[BundleResult]:
    """Pick station tasks that have already killed a process.

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
    """Child process with a loaded model, which receives tasks and returns results."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._process = ChildProcess(__name__)
        if self._ask(spec) is None:
            words = self.last_words()
            self.close()
            raise WorkerError(f"a process for single station tasks did not start: {words}")

    def pick(self, task: StationTask) -> BundleResult | None:
        """Pick a task and return its result; None if the process died."""
        result: BundleResult | None = self._ask(task)
        return result

    def _ask(self, question: object) -> Any:
        """Send a request and return the reply; None if the process died."""
        try:
            self._process.send(pickle.dumps(question))
            answer = pickle.loads(self._process.receive())
        except ChildDiedError:
            return None
        if isinstance(answer, Exception):
            self.close()
            raise answer
        return answer

    def last_words(self) -> str:
        """Describe in one line how the process ended."""
        return self._process.last_words()

    def close(self) -> None:
        """End the process."""
        self._process.kill()


def main() -> None:
    """Main function of the child process: load the model, then pick."""
    faulthandler.enable()
    parent = Parent()
    worker: PickWorker | None = None
    for question in parent.requests():
        asked = pickle.loads(question)
        if worker is not None:
            parent.reply(pickle.dumps(worker.pick([asked])))
            continue
        worker = PickWorker(asked)
        try:
            parent.reply(pickle.dumps(worker.load()))
        except EQCCTProError as error:
            parent.reply(pickle.dumps(error))
            return


if __name__ == "__main__":
    main()
