"""Execution by ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from eqcctpro.errors import ExportError, RuntimeUnavailableError
from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.runtimes.slices import available_cores, slice_bounds, slice_size

__all__ = ["OnnxRuntime"]


class OnnxRuntime(Runtime):
    """Runs an exported model by ONNX Runtime.

    Parameters
    ----------
    path : pathlib.Path
        ONNX file from :mod:`eqcctpro.models.export`.
    batch_size : int
        Windows a call takes at most.
    threads : int, optional
        Threads of one call; None for one a core.
    slice_windows : int or "adaptive", optional
        Windows in a slice; None for what serves large batches best, adaptive for small ones.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.

    Raises
    ------
    RuntimeUnavailableError
        If the package onnxruntime is missing.
    ExportError
        If the file cannot be loaded.
    """

    kind: ClassVar[str] = "onnxruntime"
    ahead = 2

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        threads: int | None = None,
        slice_windows: int | Literal["adaptive"] | None = None,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"the runtime onnxruntime is not installed ({error})",
                hint="pip install 'eqcctpro[onnx]'",
            ) from error
        self.device = "cpu"
        self.batch_size = batch_size
        self.reason = ""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # Idle threads that spin take the cores from those that decode and pick.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has an exception class for each status
            raise ExportError(f"ONNX Runtime cannot load {path}: {error}") from error
        _, _, samples = self._session.get_inputs()[0].shape
        self._adaptive = slice_windows == "adaptive"
        largest = slice_size(int(samples), batch_size)
        chosen = largest if slice_windows in (None, "adaptive") else int(slice_windows)
        self._slice = min(chosen, batch_size)
        needed = batch_size if self._adaptive else -(-batch_size // self._slice)
        self._workers = min(threads or available_cores(), needed)
        self._pool = ThreadPoolExecutor(self._workers, "onnxruntime")

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        return self.submit(windows)()

    def submit(self, windows: Float32) -> Callable[[], Float32]:
        """Begin to execute the network on one batch; see :meth:`Runtime.submit`."""
        if self._session is None:
            raise RuntimeError("this runtime was closed")
        size = self._slice
        if self._adaptive:
            size = min(size, -(-len(windows) // self._workers))
        parts = [
            self._pool.submit(self._run, windows[start:stop])
            for start, stop in slice_bounds(len(windows), size)
        ]
        return lambda: np.concatenate([part.result() for part in parts])

    def close(self) -> None:
        """Release the session and its threads."""
        self._pool.shutdown()
        self._session = None

    def _run(self, windows: Float32) -> Float32:
        curves: Float32 = self._session.run(None, {"windows": windows})[0]
        return curves
