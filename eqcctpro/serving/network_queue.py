"""Batches of many replicas that wait for one network: those that somebody waits for go first."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from eqcctpro.runtimes.base import Float32

__all__ = ["Asked", "NetworkQueue"]


@dataclass(eq=False)
class Asked:
    """A batch, and what is known of it.

    Attributes
    ----------
    number : int
        Of the version that is to be executed.
    windows : ndarray of float32, shape (n, components, in_samples)
    behind : bool
        Whether all of it is of batch requests, so that others go first.
    caller : str
        Who takes its results in the order in which it has asked.
    since : float
        When it came; of `time.monotonic`.
    """

    number: int
    windows: Float32
    behind: bool
    caller: str
    since: float = field(default_factory=time.monotonic)


class NetworkQueue:
    """Executes batches together, as many as have come meanwhile, interactive ones first.

    Parameters
    ----------
    execute : callable
        Takes batches, and returns the curves of each or what went wrong; called in a thread.
    most : int
        Windows that are executed together, unless one batch has more.
    aging_s : float
        How long a batch of batch requests waits for others at most.
    """

    def __init__(
        self,
        execute: Callable[[Sequence[Asked]], Sequence[Float32 | Exception]],
        most: int,
        aging_s: float,
    ) -> None:
        self._execute, self._most, self._aging_s = execute, most, aging_s
        self._waiting: dict[Asked, asyncio.Future[Float32]] = {}
        self._work: asyncio.Task[None] | None = None

    async def predict(self, asked: Asked) -> Float32:
        """The curves of a batch.  When the caller is cancelled it is taken out.

        Raises
        ------
        Exception
            Whatever a runtime raises.
        """
        if not asked.behind:
            self.hurry(asked.caller)
        answer: asyncio.Future[Float32] = asyncio.get_running_loop().create_future()
        self._waiting[asked] = answer
        if self._work is None or self._work.done():
            self._work = asyncio.ensure_future(self._execute_all())
        try:
            return await answer
        finally:
            self._waiting.pop(asked, None)

    def hurry(self, caller: str) -> None:
        """Have what a caller waits for go first: what it asks next stands behind that."""
        for asked in self._waiting:
            if asked.caller == caller:
                asked.behind = False

    async def _execute_all(self) -> None:
        while self._waiting:
            batches = self._next()
            answers = [self._waiting.pop(asked) for asked in batches]
            found = await asyncio.to_thread(self._execute, batches)
            for answer, one in zip(answers, found, strict=True):
                if answer.done():
                    continue
                if isinstance(one, Exception):
                    answer.set_exception(one)
                else:
                    answer.set_result(one)

    def _next(self) -> list[Asked]:
        """Batches that are executed together next."""
        overdue = time.monotonic() - self._aging_s
        order = sorted(self._waiting, key=lambda one: one.behind and one.since > overdue)
        room = self._most
        batches: list[Asked] = []
        for asked in order:
            room -= len(asked.windows)
            if batches and room < 0:
                break
            batches.append(asked)
        return batches
