"""The contract between the pipeline and whatever executes a network."""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    """

    kind: ClassVar[str]
    device: str
    batch_size: int

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

    def take_notes(self) -> list[str]:
        """What the runtime has changed about its way of working since it was last asked."""
        return []

    def close(self) -> None:
        """Release what the runtime holds; a second call does nothing."""
