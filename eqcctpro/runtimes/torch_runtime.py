"""Execution by torch: the reference on a CPU, and the runtime for GPUs.  Imports torch."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from eqcctpro.errors import RuntimeUnavailableError
from eqcctpro.runtimes.base import Float32, Runtime

__all__ = ["TorchRuntime", "check_device"]


class TorchRuntime(Runtime):
    """Runs a torch module from raw windows to curves.

    Parameters
    ----------
    module : torch.nn.Module
        Takes counts ``(n, components, in_samples)``, returns ``(n, out_samples, labels)``.
    batch_size : int
        Windows a call takes at most.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    threads : int, optional
        Threads on a CPU, set for this process; None leaves torch's choice.

    Attributes
    ----------
    reason : str
        Why this runtime was chosen, for a run's log.

    Raises
    ------
    RuntimeUnavailableError
        If torch cannot use the device.
    """

    kind: ClassVar[str] = "torch"

    def __init__(
        self,
        module: torch.nn.Module,
        *,
        batch_size: int,
        device: str = "cpu",
        threads: int | None = None,
    ) -> None:
        self.device = check_device(device)
        self.batch_size = batch_size
        self.reason = ""
        if threads is not None:
            torch.set_num_threads(threads)
        self._target = torch.device(self.device)
        self._module: torch.nn.Module | None = module.eval().to(self._target)
        self._pinned: dict[str, torch.Tensor] = {}
        if self._target.type == "cuda":
            # TF32 convolutions differ from a CPU's by 1e-3, more than picks can bear.
            torch.backends.cudnn.allow_tf32 = False
            torch.backends.cuda.matmul.allow_tf32 = False

    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch; see :meth:`Runtime.predict`."""
        if self._module is None:
            raise RuntimeError("this runtime was closed")
        with torch.inference_mode():
            if self._target.type == "cpu":
                return _array(self._module(torch.from_numpy(windows)))
            staged = self._staged("in", windows.shape)
            staged.numpy()[...] = windows
            curves = self._module(staged.to(self._target, non_blocking=True))
            result = self._staged("out", tuple(curves.shape))
            result.copy_(curves, non_blocking=True)
            torch.cuda.current_stream(self._target).synchronize()
            return _array(result)

    def close(self) -> None:
        """Release the network and its buffers."""
        self._module = None
        self._pinned.clear()

    def _staged(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """A page-locked buffer, from which and to which a GPU copies by itself."""
        held = self._pinned.get(name)
        if held is None:
            full = (self.batch_size, *shape[1:])
            held = self._pinned[name] = torch.empty(full, dtype=torch.float32, pin_memory=True)
        return held[: shape[0]]


def check_device(device: str) -> str:
    """Return ``device`` if torch can use it.

    Raises
    ------
    RuntimeUnavailableError
        If it cannot, naming what torch has.
    """
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise RuntimeUnavailableError(
            f"there is no device {device!r}", hint="devices are cpu, cuda and cuda:N"
        ) from error
    if asked.type not in ("cpu", "cuda"):
        raise RuntimeUnavailableError(
            f"device {device!r} is not supported", hint="devices are cpu, cuda and cuda:N"
        )
    if asked.type == "cuda":
        if not torch.cuda.is_available():
            raise RuntimeUnavailableError(
                f"torch {torch.__version__} finds no CUDA device for {device!r}",
                hint="use the device cpu, or install a CUDA build of torch and its driver",
            )
        count = torch.cuda.device_count()
        if asked.index is not None and asked.index >= count:
            raise RuntimeUnavailableError(
                f"there is no {device!r}: torch finds {count} CUDA device(s), numbered from 0"
            )
    return device


def _array(tensor: Any) -> Float32:
    array: Float32 = np.ascontiguousarray(tensor.numpy())
    return array
