"""A SeisBench model as a function from arrays to arrays.  Imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from seisbench.models import WaveformModel

__all__ = ["CurveModule"]


class CurveModule(nn.Module):
    """Raw windows in, probability curves out, through SeisBench's own stages.

    Blinding is left to the pipeline, which applies it when curves are joined, so
    that the curves of finite windows are finite.

    Parameters
    ----------
    module : seisbench.models.WaveformModel
        In evaluation mode.
    """

    def __init__(self, module: WaveformModel) -> None:
        super().__init__()
        self.module = module
        self.arguments: dict[str, Any] = {**module.default_args, "blinding": (0, 0)}

    @torch.no_grad()
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalise and predict.

        Parameters
        ----------
        windows : torch.Tensor of float32, shape (n, components, in_samples)
            Counts.

        Returns
        -------
        torch.Tensor of float32, shape (n, out_samples, labels)
            Probabilities; ``out_samples`` is 1 for models that yield one value per label.
        """
        prepared = self.module.annotate_batch_pre(windows, argdict=self.arguments)
        piggyback = None
        if isinstance(prepared, tuple):
            prepared, piggyback = prepared
        raw = self.module(prepared)
        if type(self.module).__name__ == "BasicPhaseAE":
            # Its annotate_batch_post blinds samples that cannot be asked back.
            return torch.transpose(raw, -1, -2)
        curves: torch.Tensor = self.module.annotate_batch_post(
            raw, piggyback=piggyback, argdict=self.arguments
        )
        if curves.ndim == 2:
            axis = 1 if self.module.output_type == "point" else 2
            curves = curves.unsqueeze(axis)
        return curves
