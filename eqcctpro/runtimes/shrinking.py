"""Batches that do not fit a device's memory, executed in parts that do."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np

from eqcctpro.errors import ResourceError
from eqcctpro.runtimes.base import Float32

__all__ = ["ShrinkingBatch", "is_exhaustion"]

# CUDA, cuDNN, cuBLAS, HIP, Metal and torch each have words of their own for it.
_EXHAUSTED = re.compile(
    r"out ?of ?memory|alloc(ation)?_failed|(memory|device)_?allocation|failed to allocate|"
    r"can('t|not) allocate memory|insufficient (device )?memory|not enough memory",
    re.IGNORECASE,
)


class ShrinkingBatch:
    """Halves what is executed at once whenever memory is exhausted, and stays there.

    Parameters
    ----------
    run : callable
        Executes the network on windows of shape (n, components, samples).
    batch_size : int
        Windows that are tried at once to begin with.
    exhausted : callable
        Whether an error of `run` means that memory was exhausted.
    release : callable
        Gives back what the failed attempt has left in memory.

    Attributes
    ----------
    size : int
        Windows that are executed at once now.
    notes : list of str
        What was made smaller.
    """

    def __init__(
        self,
        run: Callable[[Float32], Float32],
        batch_size: int,
        exhausted: Callable[[RuntimeError], bool],
        release: Callable[[], None],
    ) -> None:
        self.size = batch_size
        self.notes: list[str] = []
        self._run = run
        self._exhausted = exhausted
        self._release = release

    def predict(self, windows: Float32) -> Float32:
        """Execute a batch, in one part if it fits.

        Raises
        ------
        ResourceError
            Not even one window fits.
        """
        parts: list[Float32] = []
        done = 0
        while done < len(windows):
            count = min(self.size, len(windows) - done)
            part = self._attempt(windows[done : done + count])
            if part is None:
                self._shrink(count)
                continue
            done += count
            # The next part is written to the same buffer.
            parts.append(part if count == len(windows) else part.copy())
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _attempt(self, windows: Float32) -> Float32 | None:
        """Curves, or None when they did not fit."""
        try:
            return self._run(windows)
        except RuntimeError as error:
            if not self._exhausted(error):
                raise
            if len(windows) == 1:
                raise ResourceError(
                    f"one window does not fit the memory: {error}",
                    hint="raise vram_mb, use fewer workers for each GPU, or use the device cpu",
                ) from error
            return None

    def _shrink(self, count: int) -> None:
        # Called when the error is gone, whose traceback holds what it was working on.
        self._release()
        self.size = max(1, count // 2)
        self.notes.append(f"memory was exhausted by {count} windows at once, now {self.size}")


def is_exhaustion(error: BaseException) -> bool:
    """True if an error of torch means that memory ran out, whichever library says so."""
    return bool(_EXHAUSTED.search(f"{type(error).__name__} {error}"))
