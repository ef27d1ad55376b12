"""Execution by torch on a CPU: the reference.  Imports torch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import torch

from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.runtimes.slices import available_cores, slice_bounds

__all__ = ["TorchRuntime"]

#: Windows that a thread takes at once.  With more, activations leave the cache; with
#: fewer, the steps of hand-written recurrences in Python weigh more.
TORCH_SLICE = 16


class _OwnThreads:
    """Threads for whole slices, in each of which torch's operators use one thread.

    torch keeps that number for each thread, and one for threads to come, which is put back once
    no runtime is open any more.  The thread that calls keeps its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open = 0
        self._before = 1

    def open(self, count: int) -> ThreadPoolExecutor:
        with self._lock:
            if self._open == 0:
                self._before = torch.get_num_threads()
            self._open += 1
        return ThreadPoolExecutor(count, "torch", torch.set_num_threads, (1,))

    def close(self, pool: ThreadPoolExecutor) -> None:
        pool.shutdown()
        with self._lock:
            self._open -= 1
            if self._open == 0:
                torch.set_num_threads(self._before)


_own_threads = _OwnThreads()


class TorchRuntime(Runtime):
    """Runs a torch module from raw windows to curves, on the CPU.

    It works on slices of one size, and fills the last one up with zeros: torch adds
    up in another order for another number of windows, and a window's curves would depend on
    what shares its batch.

    Parameters
    ----------
    module : torch.nn.Module
        Takes counts ``(n, components, in_samples)``, returns ``(n, out_samples, labels)``.
    batch_size : int
        Windows a call takes at most.
    threads : int, optional
        Threads of one call, None for one a core.  Each takes a part of the batch:
        torch's own threads wait actively for each other, at the end of every layer.
        Until the runtime is closed, torch runs an operation in one thread.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.
    """

    kind: ClassVar[str] = "torch"

    def __init__(
        self, module: torch.nn.Module, *, batch_size: int, threads: int | None = None
    ) -> None:
        self.device = "cpu"
        self.batch_size = batch_size
        self.reason = ""
        self._module: torch.nn.Module | None = module.eval()
        self._pool = _own_threads.open(min(threads or available_cores(), batch_size))

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        if self._module is None:
            raise RuntimeError("this runtime was closed")
        bounds = slice_bounds(len(windows), min(TORCH_SLICE, self.batch_size))
        parts = [windows[start:stop] for start, stop in bounds]
        return np.concatenate(list(self._pool.map(self._run, parts)))

    def _run(self, windows: Float32) -> Float32:
        assert self._module is not None
        count, full = len(windows), min(TORCH_SLICE, self.batch_size)
        if count < full:
            filled = np.zeros((full, *windows.shape[1:]), dtype=np.float32)
            filled[:count] = windows
            windows = filled
        with torch.inference_mode():
            curves: Float32 = self._module(torch.from_numpy(windows)).numpy()
        return np.ascontiguousarray(curves[:count])

    def close(self) -> None:
        """Release the network and its threads."""
        if self._module is not None:
            _own_threads.close(self._pool)
        self._module = None
