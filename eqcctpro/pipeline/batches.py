"""Batches of windows of many owners, packed without copies and sent to a runtime."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.picker import Picker
from eqcctpro.runtimes.base import Runtime

__all__ = ["Batches", "Sent"]

Float32 = NDArray[np.float32]
Owner = TypeVar("Owner")


@dataclass(slots=True)
class Sent(Generic[Owner]):
    """A batch that was sent to the runtime.

    Attributes
    ----------
    curves : callable
        Waits for the predictions, shape (windows, out_samples, labels).
    claims : list of owner
        Of its windows, in their order.
    started : float
        By `time.perf_counter`.
    """

    curves: Callable[[], Float32]
    claims: list[Owner]
    started: float


class Batches(Generic[Owner]):
    """Fills batches while others are under way.

    Parameters
    ----------
    picker : Picker
    runtime : Runtime

    Attributes
    ----------
    seconds : float
        That the runtime took for what was waited for.
    """

    def __init__(self, picker: Picker, runtime: Runtime) -> None:
        self.runtime = runtime
        self.seconds = 0.0
        self._arena = deque(runtime.arena(len(picker.components), picker.in_samples))
        self._filled = 0
        self._claims: list[Owner] = []
        self._under_way: deque[Sent[Owner]] = deque()
        self._collected = 0.0

    @property
    def room(self) -> int:
        """Windows for which there is room in the batch that is being packed."""
        return self.runtime.batch_size - self._filled

    @property
    def under_way(self) -> int:
        """Batches that were sent and not waited for."""
        return len(self._under_way)

    def claim(self, owner: Owner) -> Float32:
        """An array for one window, for which there is room; the caller fills all of it.

        Returns
        -------
        ndarray of float32, shape (components, in_samples)
        """
        window: Float32 = self._arena[0][self._filled]
        self._claims.append(owner)
        self._filled += 1
        return window

    def send(self) -> bool:
        """Send what is packed on its way, also if the batch is not full; False if nothing is."""
        if not self._filled:
            return False
        started = time.perf_counter()
        curves = self.runtime.submit(self._arena[0][: self._filled])
        self._under_way.append(Sent(curves, self._claims, started))
        self._arena.rotate(-1)
        self._claims, self._filled = [], 0
        return True

    def wait(self) -> tuple[list[Owner], Float32]:
        """Wait for the oldest batch that is under way.

        Returns
        -------
        claims : list of owner
        predictions : ndarray of float32, shape (windows, out_samples, labels)
            Valid until `Runtime.ahead` more batches have been sent.
        """
        batch = self._under_way.popleft()
        predictions = batch.curves()
        inferred = time.perf_counter()
        self.seconds += inferred - max(batch.started, self._collected)
        self._collected = inferred
        return batch.claims, predictions
