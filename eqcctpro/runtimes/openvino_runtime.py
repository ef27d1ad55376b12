"""Execution by OpenVINO on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal

from eqcctpro.errors import ExportError, RuntimeUnavailableError
from eqcctpro.models.openvino_import import import_openvino
from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.runtimes.signal_stack import own_signal_stack
from eqcctpro.runtimes.slices import (
    available_cores,
    halving_sizes,
    shared_bounds,
    slice_bounds,
    slice_size,
)

__all__ = ["OpenVinoRuntime"]


class OpenVinoRuntime(Runtime):
    """Runs an exported model by OpenVINO, compiled for slices of one size.

    The last slice of a batch that is not full is filled up with zeros, which no other
    window's result depends on.

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
    slice_windows : int or "adaptive", optional
        Windows in a slice; None for what serves large batches best.  Adaptive slices suit batches
        of any size; the same window's curve may then differ in its last digits.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.

    Raises
    ------
    RuntimeUnavailableError
        If the package openvino is missing, or this CPU does not know the precision.
    ExportError
        If the file cannot be loaded.
    """

    kind: ClassVar[str] = "openvino"
    ahead = 2

    @own_signal_stack()
    def __init__(
        self,
        path: Path,
        *,
        batch_size: int,
        threads: int | None = None,
        compiled_cache: Path | None = None,
        precision: str = "f32",
        slice_windows: int | Literal["adaptive"] | None = None,
    ) -> None:
        try:
            openvino = import_openvino()
        except ImportError as error:
            raise RuntimeUnavailableError(
                f"the runtime openvino is not installed ({error})",
                hint="pip install 'eqcctpro[openvino]'",
            ) from error
        self.device = "cpu"
        self.batch_size = batch_size
        self.reason = ""
        streams = threads or available_cores()
        settings = {
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            "INFERENCE_PRECISION_HINT": precision,
            # Pinned, the streams of two workers would sit on the same cores.
            "ENABLE_CPU_PINNING": False,
        }
        try:
            core = openvino.Core()
            _check_precision(core, precision)
            if compiled_cache is not None:
                core.set_property({"CACHE_DIR": str(compiled_cache)})
            model = core.read_model(str(path))
            shape = model.input(0).partial_shape
            components, samples = (int(shape[axis].get_length()) for axis in (1, 2))
            largest = slice_size(samples, batch_size)
            sizes = (
                halving_sizes(largest)
                if slice_windows == "adaptive"
                else [min(slice_windows or largest, batch_size)]
            )
            compiled = {}
            for size in sizes:
                model.reshape([size, components, samples])
                compiled[size] = core.compile_model(model, "CPU", settings)
            self._lanes = [_Lane(openvino, compiled, batch_size, streams) for _ in range(2)]
            self._turn = 0
        except RuntimeError as error:
            raise ExportError(f"OpenVINO cannot load {path}: {error}") from error

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        return self.submit(windows)()

    def submit(self, windows: Float32) -> Callable[[], Float32]:
        """Begin to execute the network on one batch; see :meth:`Runtime.submit`."""
        if not self._lanes:
            raise RuntimeError("this runtime was closed")
        self._turn = next(
            (turn for turn, lane in enumerate(self._lanes) if lane.holds(windows)),
            (self._turn + 1) % len(self._lanes),
        )
        return self._lanes[self._turn].start(windows)

    def arena(self, components: int, in_samples: int) -> list[Float32]:
        """Input arrays of the network; see :meth:`Runtime.arena`."""
        arena = [lane.input[: self.batch_size] for lane in self._lanes]
        if any(batch.shape[1:] != (components, in_samples) for batch in arena):
            raise ValueError(f"windows of {self._lanes[0].input.shape[1:]} are executed")
        return arena

    def close(self) -> None:
        """Release the compiled network."""
        lanes, self._lanes = self._lanes, []
        for lane in lanes:
            lane.close()


def _check_precision(core: Any, precision: str) -> None:
    known = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") if precision != "f32" else ()
    if precision != "f32" and precision.upper() not in known:
        raise RuntimeUnavailableError(
            f"this CPU has no arithmetic in {precision}", hint="choose the precision f32"
        )


class _Lane:
    """Requests for the slices of one batch, each reading and writing its part of two arrays.

    OpenVINO owns the arrays, and a request holds the part that it works on: Ctrl-C may drop a
    lane, in any order, while threads of OpenVINO still execute its requests.
    """

    def __init__(
        self, openvino: Any, compiled: dict[int, Any], batch_size: int, threads: int
    ) -> None:
        self._openvino, self._compiled, self._threads = openvino, compiled, threads
        self._sizes = tuple(compiled)
        one = compiled[self._sizes[0]]
        full = -(-batch_size // self._sizes[0]) * self._sizes[0]
        self._tensors = [
            openvino.Tensor(openvino.Type.f32, [full, *list(port.shape)[1:]])
            for port in (one.input(0), one.output(0))
        ]
        self.input: Float32 = self._tensors[0].data
        self._output: Float32 = self._tensors[1].data
        self._requests: dict[tuple[int, int], Any] = {}
        self._started: list[Any] = []
        if len(compiled) == 1:
            for bounds in slice_bounds(full, self._sizes[0]):
                self._request(*bounds)

    def _request(self, start: int, stop: int) -> Any:
        """The request for a slice."""
        request = self._requests.get((start, stop))
        if request is None:
            request = self._compiled[stop - start].create_infer_request()
            part, result = (self._part(whole, start, stop) for whole in self._tensors)
            request.set_input_tensor(part)
            request.set_output_tensor(result)
            self._requests[start, stop] = request
        return request

    def _part(self, whole: Any, start: int, stop: int) -> Any:
        """The tensor of some windows, in the memory of all."""
        rest = list(whole.shape)[1:]
        return self._openvino.Tensor(whole, [start, *[0] * len(rest)], [stop, *rest])

    def close(self) -> None:
        """Let go of one thing at a time: all at once would keep other threads waiting."""
        self._started = []
        while self._requests:
            self._requests.popitem()
        while self._compiled:
            self._compiled.popitem()

    def holds(self, windows: Float32) -> bool:
        """True if a batch already lies in the lane's input array."""
        return windows.ctypes.data == self.input.ctypes.data

    def _bounds(self, count: int) -> list[tuple[int, int]]:
        if len(self._sizes) > 1:
            bounds = shared_bounds(count, self._sizes, self._threads)
        else:
            size = self._sizes[0]
            bounds = slice_bounds(-(-count // size) * size, size)
        # Leftovers of an earlier batch would be harmless, but NaNs among them slow.
        self.input[count : bounds[-1][1]] = 0
        return bounds

    def start(self, windows: Float32) -> Callable[[], Float32]:
        """Execute a batch; what this returns waits for the result."""
        count = len(windows)
        for request in self._started:
            request.wait()  # for a batch whose result nobody took
        if not self.holds(windows):
            self.input[:count] = windows
        requests = self._started = [self._request(*bounds) for bounds in self._bounds(count)]
        for request in requests:
            request.start_async()

        def result() -> Float32:
            for request in requests:
                request.wait()
            return self._output[:count]

        return result
