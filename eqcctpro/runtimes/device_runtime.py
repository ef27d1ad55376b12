"""Execution by torch on a GPU, from samples that are sent once to predictions that stay there.

The same code runs on the CPU, where it is tested.  Imports torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from eqcctpro.errors import ResourceError
from eqcctpro.resources.devices import resolve
from eqcctpro.runtimes.base import Float32, Runtime
from eqcctpro.runtimes.lanes import Lane, Queue, queue_for
from eqcctpro.runtimes.shrinking import is_exhaustion

__all__ = ["DeviceRuntime"]

_MULTIPLYING = (
    torch.nn.Conv1d,
    torch.nn.Conv2d,
    torch.nn.ConvTranspose1d,
    torch.nn.ConvTranspose2d,
    torch.nn.Linear,
)
_SHORT = {"fp16": torch.float16, "bf16": torch.bfloat16}


class DeviceRuntime(Runtime):
    """Runs a torch module on a device, with several batches under way.

    The network always sees parts of one size, the last one filled up: with another number of
    windows libraries may add up in another order, and a window's predictions would depend on what
    shares its batch.

    Parameters
    ----------
    module : torch.nn.Module
        Takes counts ``(n, components, in_samples)``, returns ``(n, out_samples, labels)``.
    components, in_samples : int
        Of a window.
    batch_size : int
        Windows a call takes at most.
    device : str
        As `eqcctpro.resources.devices.resolve` takes it.
    part : int, optional
        Windows that the network sees at once; the whole batch by default.  Halved when memory is
        exhausted, and left so.
    vram_mb : float, optional
        GPU memory that torch may allocate until the runtime is closed, MB of 2**20 bytes.
    precision : {"f32", "tf32", "fp16", "bf16"}
        Arithmetic of layers that are convolutions or linear; the rest is done in f32, for values
        that mask others are too large for fp16.
    ahead : int
        Batches that may be under way, at least 2 for a device that works by itself.
    graphs : bool
        Whether the network's kernels are recorded once and then launched together, as a CUDA
        graph.
    queue : Queue, optional
        Of the device; another one for tests.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.
    part : int

    Raises
    ------
    RuntimeUnavailableError
        Torch cannot use the device.
    ResourceError
        The network does not fit the device's memory.
    """

    kind: ClassVar[str] = "torch"
    on_device: ClassVar[bool] = True

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        components: int,
        in_samples: int,
        batch_size: int,
        device: str = "cpu",
        part: int | None = None,
        vram_mb: float | None = None,
        precision: str = "f32",
        ahead: int = 2,
        graphs: bool = False,
        queue: Queue | None = None,
    ) -> None:
        self.device = resolve(device).text
        self.batch_size, self.ahead = batch_size, ahead
        self.part = min(part or batch_size, batch_size)
        self.precision = precision
        self.reason = ""
        self._notes: list[str] = []
        self._graphs = graphs
        self._graph: _Graph | None = None
        self._target = torch.device(self.device)
        self._limited = self._target.type == "cuda" and vram_mb is not None
        if self._limited:
            _limit_memory(self._target, vram_mb)
        if self._target.type == "cuda":
            # TF32 convolutions differ from a CPU's by 1e-3, more than picks can bear unasked.
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            torch.backends.cudnn.deterministic = True
            torch.backends.cudnn.benchmark = False
        try:
            self.queue = queue or queue_for(self._target)
            self._module: torch.nn.Module | None = module.eval().to(self._target)
            if precision in _SHORT:
                _shorten(self._module, _SHORT[precision])
            self.lanes = [
                Lane(self.queue, components, in_samples, batch_size) for _ in range(ahead)
            ]
        except RuntimeError as error:
            if not is_exhaustion(error):
                raise
            raise ResourceError(
                f"the network does not fit the memory of {self.device}: {error}",
                hint="raise vram_mb, free GPU memory, or use fewer workers for each GPU",
            ) from error

    def run(self, lane: Lane) -> Callable[[], torch.Tensor]:
        """Begin to execute the network on what a lane holds.

        Returns
        -------
        callable
            Waits for the predictions, on the device, of shape (windows, out_samples, labels);
            the lane may be filled again then.
        """
        windows = lane.windows
        begun = self.queue.submit(lambda: self._predictions(lane, windows))

        def predictions() -> torch.Tensor:
            waited = begun
            while True:
                try:
                    return waited()
                except RuntimeError as error:
                    self._shrink(error)
                # Here the error is gone, whose traceback holds what it was working on.
                self.queue.release()
                waited = self.queue.submit(lambda: self._predictions(lane, windows))

        return predictions

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        lane = self.lanes[0]
        lane.clear()
        for window in windows:
            lane.add(window, (0,))
        curves: Float32 = self.run(lane)().cpu().numpy()
        return curves

    def arena(self, components: int, in_samples: int) -> list[Float32]:  # noqa: ARG002
        """No arrays: windows are cut on the device."""
        return []

    def take_notes(self) -> list[str]:
        """Parts that were made smaller because they did not fit the device."""
        notes, self._notes = self._notes, []
        return notes

    def close(self) -> None:
        """Release the network and its buffers."""
        if self._module is None:
            return
        self.queue.close()
        self._module, self._graph, self.lanes = None, None, []
        self.queue.release()
        if self._limited:
            _limit_memory(self._target, None)

    def _predictions(self, lane: Lane, windows: int) -> torch.Tensor:
        if self._module is None:
            raise RuntimeError("this runtime was closed")
        with torch.inference_mode():
            parts = [self._forward(part) for part in lane.windows_there(windows, self.part)]
            joined = parts[0] if len(parts) == 1 else torch.cat(parts)
            return joined[:windows]

    def _forward(self, windows: torch.Tensor) -> torch.Tensor:
        assert self._module is not None
        if self._graphs and self._target.type == "cuda":
            if self._graph is None or self._graph.shape != windows.shape:
                self._graph = _Graph(self._module, windows)
            return self._graph(windows)
        curves: torch.Tensor = self._module(windows)
        return curves

    def _shrink(self, error: RuntimeError) -> None:
        """Halve what the network sees at once, if an error means that memory was exhausted."""
        if not is_exhaustion(error):
            raise error
        if self.part == 1:
            raise ResourceError(
                f"one window does not fit the memory: {error}",
                hint="raise vram_mb, use fewer workers for each GPU, or use the device cpu",
            ) from error
        self._graph = None
        before, self.part = self.part, self.part // 2
        self._notes.append(f"memory was exhausted by {before} windows at once, now {self.part}")


class _Graph:
    """A network's kernels for one shape, recorded and launched together."""

    def __init__(self, module: torch.nn.Module, windows: torch.Tensor) -> None:
        self.shape = windows.shape
        self._windows = windows.clone()
        for _ in range(2):  # libraries choose their kernels
            module(self._windows)
        torch.cuda.current_stream().synchronize()
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, stream=torch.cuda.current_stream()):
            self._curves = module(self._windows)

    def __call__(self, windows: torch.Tensor) -> torch.Tensor:
        self._windows.copy_(windows)
        self._graph.replay()
        return self._curves.clone()


def _shorten(module: torch.nn.Module, kind: torch.dtype) -> None:
    """Have convolutions and linear layers compute with short numbers, and give back long ones."""
    # Their projections are used without being called.
    inner = {
        id(layer)
        for attention in module.modules()
        if isinstance(attention, torch.nn.MultiheadAttention)
        for layer in attention.modules()
    }

    def shortened(_: Any, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(tensor.to(kind) for tensor in inputs)

    def lengthened(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        return output.float()

    for layer in module.modules():
        if isinstance(layer, _MULTIPLYING) and id(layer) not in inner:
            layer.to(kind)
            layer.register_forward_pre_hook(shortened)
            layer.register_forward_hook(lengthened)


def _limit_memory(device: torch.device, vram_mb: float | None) -> None:
    """Bound what torch allocates on a GPU in this process; None lifts the bound."""
    total = torch.cuda.get_device_properties(device.index).total_memory / 2**20
    fraction = 1.0 if vram_mb is None else min(1.0, vram_mb / total)
    torch.cuda.set_per_process_memory_fraction(fraction, device.index)
