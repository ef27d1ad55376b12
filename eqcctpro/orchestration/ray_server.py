"""The server of a Ray that this process has started, which may die: whoever asks it would hang.

Without it Ray ends the process after a minute, in the middle of a call and without a word.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from eqcctpro.background import BackgroundTask
from eqcctpro.errors import WorkerError

__all__ = ["answer_of", "require_server"]

Answer = TypeVar("Answer")

# How often it is looked at while it is asked.
GLANCE_SECONDS = 0.5


def require_server(ray: Any) -> None:
    """Make sure that the server of a Ray that this process has started is alive.

    Raises
    ------
    WorkerError
        It has died.
    """
    node = getattr(ray._private.worker, "_global_node", None)
    for started in getattr(node, "all_processes", {}).get("gcs_server", ()):
        if started.process.poll() is not None:
            raise WorkerError(
                f"Ray's server (gcs_server, process {started.process.pid}) died",
                hint="the same command goes on where the run stopped",
            )


def answer_of(ray: Any, question: Callable[[], Answer]) -> Answer:
    """What Ray's server answers.

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
