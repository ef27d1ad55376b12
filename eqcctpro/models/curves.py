"""SeisBench models as functions from arrays to arrays.  Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from seisbench.models import WaveformModel

__all__ = ["RESOLUTION", "CurveModule", "varying"]

#: A component whose samples differ by no more than this fraction of the largest one is constant:
#: two steps of float32, about the rounding error of the mean.
RESOLUTION = 2.0**-22


def varying(windows: torch.Tensor) -> torch.Tensor:
    """Mask of components: one for a component that varies in its window, zero for a constant one.

    Constant means constant to the resolution of the samples: the rest after the mean is removed
    is rounding error, and normalising it would give a signal that looks like noise and differs
    between runtimes.  Extremes are exact in every runtime, and the factor is a power of two, so
    that all runtimes decide alike.

    Parameters
    ----------
    windows : torch.Tensor of float32, shape (n, components, in_samples)
        Counts.

    Returns
    -------
    torch.Tensor of float32, shape (n, components, 1)
        Zero also for a component with NaN or infinity; multiplied by it, the component is NaN.
    """
    highest, lowest = windows.amax(dim=-1, keepdim=True), windows.amin(dim=-1, keepdim=True)
    largest = torch.maximum(highest.abs(), lowest.abs())
    return (highest - lowest > RESOLUTION * largest).to(windows.dtype)


class CurveModule(nn.Module):
    """Module from raw windows to probability curves, with SeisBench's own stages.

    Blinding is left to the pipeline, which applies it when curves are stacked, so that the curves
    of finite windows are finite.

    Parameters
    ----------
    module : seisbench.models.WaveformModel
        In evaluation mode.
    """

    def __init__(self, module: WaveformModel) -> None:
        super().__init__()
        self.module = module
        self.arguments: dict[str, Any] = {**module.default_args, "blinding": (0, 0)}
        self.removes_mean = self._removes_mean()

    def _removes_mean(self) -> bool:
        """True if the model's normalisation makes a constant component zero."""
        shape = (1, len(self.module.component_order), int(self.module.in_samples or 100))
        # The mean of ones is one, without rounding.
        return not bool(self._prepared(torch.ones(shape))[0].any())

    def _prepared(self, windows: torch.Tensor) -> tuple[torch.Tensor, Any]:
        """Windows as SeisBench passes them to the network, and its piggyback data."""
        prepared = self.module.annotate_batch_pre(windows, argdict=self.arguments)
        return prepared if isinstance(prepared, tuple) else (prepared, None)

    def centred(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows with constant components set to zero, if the model removes the mean."""
        # A copy, since a model may modify its input.
        return windows * varying(windows) if self.removes_mean else windows.clone()

    @torch.no_grad()
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalise and predict.

        A component that is constant within its window (see :func:`varying`) is zero after
        normalisation.

        Parameters
        ----------
        windows : torch.Tensor of float32, shape (n, components, in_samples)
            Counts.

        Returns
        -------
        torch.Tensor of float32, shape (n, out_samples, labels)
            Probabilities; ``out_samples`` is 1 for models that yield one value per label.
        """
        prepared, piggyback = self._prepared(self.centred(windows))
        raw = self.module(prepared)
        if type(self.module).__name__ == "BasicPhaseAE":
            # Its annotate_batch_post blinds samples, which cannot be undone.
            return torch.transpose(raw, -1, -2)
        curves: torch.Tensor = self.module.annotate_batch_post(
            raw, piggyback=piggyback, argdict=self.arguments
        )
        if curves.ndim == 2:
            axis = 1 if self.module.output_type == "point" else 2
            curves = curves.unsqueeze(axis)
        return curves
