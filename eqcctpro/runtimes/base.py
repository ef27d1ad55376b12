"""The contract between the pipeline and whatever executes a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

__all__ = ["Runtime"]

Float32 = NDArray[np.float32]


class Runtime(ABC):
    """Turns batches of raw windows into probability curves.

    Normalisation is part of what a runtime executes: it takes counts.

    Attributes
    ----------
    kind : str
        ``"torch"``, ``"onnxruntime"``, ``"openvino"`` or ``"tensorflow"``.
    device : str
        ``"cpu"`` or for example ``"cuda:0"``.
    batch_size : int
        Windows that one call of :meth:`predict` takes at most.
    ahead : int
        Batches that may be under way at a time.
    on_device : bool
        Whether predictions can stay on the device, as `eqcctpro.pipeline.device_engine` wants.
    behind : bool
        Whether what is submitted next may wait for others, where several share the network.
    """

    kind: ClassVar[str]
    on_device: ClassVar[bool] = False
    device: str
    batch_size: int
    ahead: int = 1
    behind: bool = False

    @abstractmethod
    def predict(self, windows: Float32) -> Float32:
        """Execute the network on one batch.

        Parameters
        ----------
        windows : ndarray of float32, shape (n, components, in_samples)
            Waveforms in counts, ``1 <= n <= batch_size``, C-contiguous.

        Returns
        -------
        ndarray of float32, shape (n, out_samples, labels)
            Probabilities in 0..1.  The array belongs to the caller until the next
            call of ``predict`` on the same runtime.
        """

    def submit(self, windows: Float32) -> Callable[[], Float32]:
        """Begin to execute the network on one batch.

        Parameters
        ----------
        windows : ndarray of float32
            As for :meth:`predict`; not to be changed until the result has been taken.

        Returns
        -------
        callable
            Waits for the result and returns it.  The array belongs to the caller until
            `ahead` more batches have been submitted.  Results are taken in the order of
            submission; one that is not taken is lost.
        """
        curves = self.predict(windows)
        return lambda: curves

    def arena(self, components: int, in_samples: int) -> list[Float32]:
        """Arrays for `ahead` batches, which :meth:`submit` executes without copying them.

        Returns
        -------
        list of ndarray of float32, shape (batch_size, components, in_samples)
            To be used in turn.
        """
        shape = (self.batch_size, components, in_samples)
        return [np.empty(shape, dtype=np.float32) for _ in range(self.ahead)]

    def hurry(self) -> None:
        """Have what was submitted wait for no others any more; may be called from any thread."""

    def take_notes(self) -> list[str]:
        """Return, once, the changes the runtime has made to its execution since the last call."""
        return []

    def close(self) -> None:
        """Release what the runtime holds; a second call does nothing."""
