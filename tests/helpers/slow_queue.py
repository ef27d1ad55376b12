"""A device that works by itself, some time after work is given to it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from eqcctpro.runtimes.lanes import Queue

Result = TypeVar("Result")


class SlowQueue(Queue):
    """Does work in a thread of its own, in order and late; it may run out of memory.

    Parameters
    ----------
    failing : dict of int to Exception, optional
        What a piece of work, by its number, raises in place of being done.
    """

    def __init__(self, failing: dict[int, Exception] | None = None, seed: int = 0) -> None:
        super().__init__(torch.device("cpu"))
        self.failing = failing or {}
        self.given = self.most = self.released = 0
        self._random = random.Random(seed)
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1)

    def submit(self, work: Callable[[], Result]) -> Callable[[], Result]:
        number, self.given = self.given, self.given + 1
        delay = self._random.uniform(0, 0.004)
        self._waiting += 1
        self.most = max(self.most, self._waiting)

        def later() -> Result:
            time.sleep(delay)
            if number in self.failing:
                raise self.failing[number]
            return work()

        future = self._thread.submit(later)

        def wait() -> Result:
            self._waiting -= 1
            return future.result(timeout=60)

        return wait

    def release(self) -> None:
        self.released += 1

    def close(self) -> None:
        self._thread.shutdown()
