"""Execution by torch: the reference on a CPU, and the runtime for GPUs.  Imports torch."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar

import numpy as np
import torch

from eqcctpro.errors import ResourceError
from eqcctpro.resources.devices import resolve
from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.runtimes.shrinking import ShrinkingBatch, is_exhaustion
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
    """Runs a torch module from raw windows to curves.

    On a CPU it works on slices of one size, and fills the last one up with zeros: torch adds
    up in another order for another number of windows, and a window's curves would depend on
    what shares its batch.

    Parameters
    ----------
    module : torch.nn.Module
        Takes counts ``(n, components, in_samples)``, returns ``(n, out_samples, labels)``.
    batch_size : int
        Windows a call takes at most.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    threads : int, optional
        Threads of one call on a CPU, None for one a core.  Each takes a part of the batch:
        torch's own threads wait actively for each other, at the end of every layer.
        Until the runtime is closed, torch runs an operation in one thread.
    vram_mb : float, optional
        GPU memory that torch may allocate until the runtime is closed, MB of 2**20 bytes.
        A batch that exceeds it is executed in smaller parts from then on.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.

    Raises
    ------
    RuntimeUnavailableError
        If torch cannot use the device.
    ResourceError
        If the network does not fit the GPU's memory.
    """

    kind: ClassVar[str] = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        batch_size: int,
        device: str = "cpu",
        threads: int | None = None,
        vram_mb: float | None = None,
    ) -> None:
        self.device = resolve(device).text
        self.batch_size = batch_size
        self.reason = ""
        self._target = torch.device(self.device)
        self._limited = self._target.type == "cuda" and vram_mb is not None
        if self._limited:
            _limit_memory(self._target, vram_mb)
        self._module: torch.nn.Module | None = _moved(module.eval(), self._target)
        self._pinned: dict[str, torch.Tensor] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._batch = ShrinkingBatch(
            self._run_on_gpu, batch_size, is_exhaustion, torch.cuda.empty_cache
        )
        if self._target.type == "cuda":
            # TF32 convolutions differ from a CPU's by 1e-3, more than picks can bear.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False
        else:
            self._workers = min(threads or available_cores(), batch_size)
            self._pool = _own_threads.open(self._workers)

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        if self._module is None:
            raise RuntimeError("this runtime was closed")
        if self._pool is None:
            return self._batch.predict(windows)
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

    def _run_on_gpu(self, windows: Float32) -> Float32:
        assert self._module is not None
        with torch.inference_mode():
            staged = self._staged("in", windows.shape)
            staged.numpy()[...] = windows
            curves = self._module(staged.to(self._target, non_blocking=True))
            result = self._staged("out", tuple(curves.shape))
            result.copy_(curves, non_blocking=True)
            torch.cuda.current_stream(self._target).synchronize()
            on_host: Float32 = result.numpy()
        return on_host

    def take_notes(self) -> list[str]:
        """Batches that were made smaller because they did not fit the GPU."""
        notes, self._batch.notes = self._batch.notes, []
        return notes

    def close(self) -> None:
        """Release the network, its threads and its buffers."""
        if self._limited and self._module is not None:
            _limit_memory(self._target, None)
        if self._pool is not None and self._module is not None:
            _own_threads.close(self._pool)
        self._module = None
        self._pinned.clear()

    def _staged(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A page-locked buffer, from which and to which a GPU copies by itself."""
        held = self._pinned.get(name)
        if held is None:
            full = (self.batch_size, *shape[1:])
            held = self._pinned[name] = torch.empty(full, dtype=torch.float32, pin_memory=True)
        return held[: shape[0]]


def _limit_memory(device: torch.device, vram_mb: float | None) -> None:
    """Bound what torch allocates on a GPU in this process; None lifts the bound."""
    total = torch.cuda.get_device_properties(device).total_memory / 2**20
    fraction = 1.0 if vram_mb is None else min(1.0, vram_mb / total)
    torch.cuda.set_per_process_memory_fraction(fraction, device)


def _moved(module: torch.nn.Module, device: torch.device) -> torch.nn.Module:
    try:
        return module.to(device)
    except RuntimeError as error:
        if not is_exhaustion(error):
            raise
        raise ResourceError(
            f"the network does not fit the memory of {device}: {error}",
            hint="raise vram_mb, free GPU memory, or use fewer workers for each GPU",
        ) from error
