"""Execution by OpenVINO on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from eqcctpro.errors import ExportError, RuntimeUnavailableError
from eqcctpro.runtimes.base import Float32, Runtime

__all__ = ["OpenVinoRuntime"]


class OpenVinoRuntime(Runtime):
    """Runs an exported model by OpenVINO, compiled for one batch size.

    Batches that are not full are filled up with zeros, which no window's result
    depends on.

    Parameters
    ----------
    path : pathlib.Path
        ONNX file from :mod:`eqcctpro.models.export`.
    batch_size : int
        Windows a call takes at most.
    threads : int, optional
        Threads of one call; None for one a core.
    compiled_cache : pathlib.Path, optional
        Folder that keeps compiled networks between runs.
    precision : str
        Precision of the arithmetic.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.

    Raises
    ------
    RuntimeUnavailableError
        If the package openvino is missing.
    """

    kind: ClassVar[str] = "openvino"

    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        threads: int | None = None,
        compiled_cache: Path | None = None,
        precision: str = "f32",
    ) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"the runtime openvino is not installed ({error})",
                hint="pip install 'eqcctpro[openvino]'",
            ) from error
        self.device = "cpu"
        self.batch_size = batch_size
        self.reason = ""
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": precision,
        }
        if threads is not None:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            core = openvino.Core()
            if compiled_cache is not None:
                core.set_property({"CACHE_DIR": str(compiled_cache)})
            model = core.read_model(str(path))
            components, samples = list(model.input(0).partial_shape)[1:]
            shape = (batch_size, components.get_length(), samples.get_length())
            model.reshape(list(shape))
            self._request: Any = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot load {path}: {error}") from error
        self._input: Float32 = np.zeros(shape, np.float32)
        self._request.set_input_tensor(openvino.Tensor(self._input, shared_memory=True))
        self._filled = 0

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        if self._request is None:
            raise RuntimeError("this runtime was closed")
        count = len(windows)
        self._input[:count] = windows
        # What an earlier batch left behind must not slow this one down with NaNs.
        self._input[count : self._filled] = 0
        self._filled = count
        self._request.infer()
        curves: Float32 = self._request.get_output_tensor(0).data
        return curves[:count]

    def close(self) -> None:
        """Release the compiled network."""
        self._request = None
