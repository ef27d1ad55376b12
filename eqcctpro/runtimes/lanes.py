"""Batches on their way to a device: page-locked buffers, and queues of work.  Imports torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["DirectQueue", "GpuQueue", "Lane", "Queue", "queue_for"]

Float32 = NDArray[np.float32]
Result = TypeVar("Result")


class Queue(ABC):
    """Work for a device, which is done in the order in which it is given.

    Parameters
    ----------
    device : torch.device
    """

    #: Whether buffers on the host are page-locked, from which a GPU copies by itself.
    locks_pages: bool = False

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def buffer(self, shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
        """A buffer on the host that the device copies from."""
        return torch.empty(tuple(shape), dtype=dtype, pin_memory=self.locks_pages)

    @abstractmethod
    def submit(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin work; what is returned waits until it is done, and raises what it has raised."""

    def beside(self, work: Callable[[], Result]) -> Result:
        """Do work on what is done already, without waiting for what was submitted since."""
        return work()

    def release(self) -> None:
        """Give back memory that the device holds for later."""

    def close(self) -> None:
        """Wait for all work; a second call does nothing."""


class DirectQueue(Queue):
    """Work that is done when it is given: on the CPU, and on a Mac, whose GPU has one queue."""

    def submit(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Do work; see `Queue.submit`."""
        try:
            result = work()
        except Exception as error:
            raised = error  # the name of an error ends with its handler

            def fail() -> Result:
                raise raised

            return fail
        return lambda: result

    def release(self) -> None:
        """Give back memory; see `Queue.release`."""
        if self.device.type == "mps":
            torch.mps.empty_cache()


class GpuQueue(Queue):
    """Streams of an NVIDIA or AMD GPU: one for batches, and a more urgent one beside it."""

    locks_pages = True

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._stream = torch.cuda.Stream(device)
        self._beside = torch.cuda.Stream(device, priority=-1)

    def submit(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """Begin work; see `Queue.submit`."""
        done = torch.cuda.Event()
        try:
            with torch.cuda.stream(self._stream):
                result = work()
                done.record(self._stream)
        except Exception as error:
            raised = error

            def fail() -> Result:
                raise raised

            return fail

        def wait() -> Result:
            done.synchronize()
            return result

        return wait

    def beside(self, work: Callable[[], Result]) -> Result:
        """Do work; see `Queue.beside`."""
        with torch.cuda.stream(self._beside):
            result = work()
            self._beside.synchronize()  # before what it has read may be overwritten
        return result

    def release(self) -> None:
        """Give back memory; see `Queue.release`."""
        torch.cuda.empty_cache()

    def close(self) -> None:
        """Wait for all work; see `Queue.close`."""
        self._stream.synchronize()
        self._beside.synchronize()


def queue_for(device: torch.device) -> Queue:
    """The queue of a device."""
    return GpuQueue(device) if device.type == "cuda" else DirectQueue(device)


class Lane:
    """Samples of one batch and where its windows begin, on the host and on the device.

    Windows overlap, and stretches of samples are sent once.  A lane is filled again only when
    its batch is done.

    Parameters
    ----------
    queue : Queue
    components, in_samples : int
        Of a window.
    batch_size : int
        Windows at most.
    """

    def __init__(self, queue: Queue, components: int, in_samples: int, batch_size: int) -> None:
        self.in_samples = in_samples
        # A stretch is sent in one piece only where that takes no more than its windows.
        shape = (components, batch_size * in_samples)
        self._samples = queue.buffer(shape, torch.float32)
        self._starts = queue.buffer((batch_size,), torch.int64)
        self._host: Float32 = self._samples.numpy()
        self._begins: NDArray[np.int64] = self._starts.numpy()
        self._there = torch.empty(shape, dtype=torch.float32, device=queue.device)
        self._starts_there = torch.empty(batch_size, dtype=torch.int64, device=queue.device)
        self.clear()

    def clear(self) -> None:
        """Forget what was put in."""
        self.windows = self.used = 0

    def add(self, data: Float32, offsets: Sequence[int]) -> None:
        """Put windows in.

        Parameters
        ----------
        data : ndarray of float32, shape (components, samples)
        offsets : sequence of int
            Where windows begin in it, ascending.
        """
        length, n = self.in_samples, len(offsets)
        first = offsets[0]
        span = offsets[-1] + length - first
        if span <= n * length:
            self._host[:, self.used : self.used + span] = data[:, first : first + span]
            begins = np.asarray(offsets, dtype=np.int64) + (self.used - first)
            self.used += span
        else:
            begins = self.used + length * np.arange(n, dtype=np.int64)
            for begin, offset in zip(begins.tolist(), offsets, strict=True):
                self._host[:, begin : begin + length] = data[:, offset : offset + length]
            self.used += n * length
        self._begins[self.windows : self.windows + n] = begins
        self.windows += n

    def windows_there(self, rows: int, size: int) -> list[torch.Tensor]:
        """Copy to the device and cut windows there, in parts of one size.

        Parameters
        ----------
        rows : int
            Windows that the lane holds.
        size : int
            Windows in a part; the last part is filled up with the first window.

        Returns
        -------
        list of torch.Tensor of float32, shape (size, components, in_samples)
        """
        used = self.used
        for there, here in zip(self._there, self._samples, strict=True):
            there[:used].copy_(here[:used], non_blocking=True)
        self._starts_there[:rows].copy_(self._starts[:rows], non_blocking=True)
        reach = torch.arange(self.in_samples, device=self._there.device)
        parts = []
        for first in range(0, rows, size):
            starts = self._starts_there[first : min(first + size, rows)]
            if len(starts) < size:
                starts = torch.cat([starts, self._starts_there[:1].expand(size - len(starts))])
            positions = starts[:, None] + reach
            parts.append(self._there[:, positions].transpose(0, 1).contiguous())
        return parts

    @property
    def n_bytes(self) -> int:
        """Memory on the device."""
        held: Any = (self._there, self._starts_there)
        return sum(tensor.nbytes for tensor in held)
