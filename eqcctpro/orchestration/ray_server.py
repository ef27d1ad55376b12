"""Health of the servers of a Ray that this process has started; calls to a dead one hang.

Without them Ray ends the process after a while, in the middle of a call and without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from eqcctpro.background import BackgroundTask
from eqcctpro.errors import WorkerError

__all__ = ["answer_of", "require_server", "servers_required"]

Answer = TypeVar("Answer")

# How often it is looked at while it is asked.
GLANCE_SECONDS = 0.5


def require_server(ray: Any, *names: str) -> None:
    """Raise if a server of a Ray that this process has started is dead.

    Parameters
    ----------
    ray : module
    *names : str
        Programs, by default ``gcs_server``.

    Raises
    ------
    WorkerError
        It has died.
    """
    node = getattr(ray._private.worker, "_global_node", None)
    processes = getattr(node, "all_processes", {})
    for name in names or ("gcs_server",):
        for started in processes.get(name, ()):
            if started.process.poll() is not None:
                raise WorkerError(
                    f"Ray's server ({name}, process {started.process.pid}) died",
                    hint="the same command goes on where the run stopped",
                )


@contextmanager
def servers_required(ray: Any) -> Iterator[None]:
    """Let a start of Ray fail if one of its servers dies meanwhile.

    Ray would try to reach it for ten seconds, and then end the process.
    """
    made = ray._raylet.CoreWorker

    def made_with_servers(*given: Any, **named: Any) -> Any:
        require_server(ray, "gcs_server", "raylet")
        return made(*given, **named)

    ray._raylet.CoreWorker = made_with_servers
    try:
        yield
    finally:
        ray._raylet.CoreWorker = made


def answer_of(ray: Any, question: Callable[[], Answer]) -> Answer:
    """Ask Ray's server in a thread of its own; return its answer.

    Parameters
    ----------
    ray : module
        Connected.
    question : callable
        Asks it, such as ``ray.nodes``.  Where the server dies meanwhile it is left to itself.

    Raises
    ------
    WorkerError
        The server has died.
    """
    answers: list[Answer] = []
    errors: list[Exception] = []

    def ask(_: BackgroundTask) -> None:
        try:
            answers.append(question())
        except Exception as error:
            errors.append(error)

    require_server(ray)
    asking = BackgroundTask(ask)
    asking.start()
    while not asking.wait(GLANCE_SECONDS):
        require_server(ray)
    if errors:
        require_server(ray)
        raise errors[0]
    return answers[0]
