"""EQCCT's two networks as one function from arrays to arrays.  Imports torch and SeisBench."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from eqcctpro.models.curves import varying
from eqcctpro.models.eqcct import IN_SAMPLES, branch_state

if TYPE_CHECKING:
    from eqcctpro.models.weight_files import WeightFiles

__all__ = ["EqcctCurves", "load_eqcct"]

#: Samples at either end of a window that SeisBench tapers.
_TAPER = 6


class EqcctCurves(nn.Module):
    """Raw windows in, P and S curves out.

    Parameters
    ----------
    networks : sequence of torch.nn.Module
        :class:`seisbench.models.EQCCTP` and ``EQCCTS``, in evaluation mode.
    variant : {"eqcctpro", "seisbench"}
        How windows are normalised.
    """

    def __init__(self, networks: list[Any], variant: str) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        for network in self.networks:
            network._eqcct_backbone.patch = _Patches()
        self.variant = variant
        ramp = 0.5 * (1 + torch.cos(torch.linspace(math.pi, 2 * math.pi, _TAPER)))
        taper = torch.ones(IN_SAMPLES)
        taper[:_TAPER] *= ramp
        taper[-_TAPER:] *= ramp.flip(0)
        self.register_buffer("taper", taper, persistent=False)

    @torch.no_grad()
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """Normalise and predict.

        Parameters
        ----------
        windows : torch.Tensor of float32, shape (n, 3, 6000)
            East, north and vertical in counts.

        Returns
        -------
        torch.Tensor of float32, shape (n, 6000, 2)
            Probabilities of P and S.
        """
        prepared = self._normalised(windows)
        curves = [network(prepared) for network in self.networks]
        return torch.cat(curves, dim=1).transpose(1, 2)

    def _normalised(self, windows: torch.Tensor) -> torch.Tensor:
        mean = windows.mean(dim=-1, keepdim=True)
        centred = windows - mean
        # What rounding left of the mean goes with a second one.
        centred = centred - centred.mean(dim=-1, keepdim=True)
        deviation = (centred * centred).mean(dim=-1, keepdim=True).sqrt()
        varies = varying(windows)
        if self.variant == "eqcctpro":
            return centred * (varies / (deviation + (1 - varies)))
        # SeisBench's deviation is over all components, with one degree of freedom less.
        square = (varies * deviation * deviation).mean(dim=1, keepdim=True)
        count = centred.shape[1] * IN_SAMPLES
        overall = (square * (count / (count - 1))).sqrt()
        return centred * (varies / (overall + 1e-10)) * self.taper


class _Patches(nn.Module):
    """Cuts (n, 6000, 1, 40) into patches of 40 samples; faster than SeisBench's unfolding."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        size = features.shape[-1]
        return features.reshape(features.shape[0], -1, size * size)


def load_eqcct(files: WeightFiles) -> EqcctCurves:
    """Load both networks, on the CPU.

    Parameters
    ----------
    files : WeightFiles
        As :func:`eqcctpro.models.eqcct.find_eqcct` returns it.

    Raises
    ------
    WeightsError
        If a file is damaged, is not EQCCT's, or holds the other network.
    """
    from eqcctpro.models.verify import load_into_class

    networks = []
    for part in files.parts:
        state = {name: torch.tensor(array) for name, array in branch_state(part).items()}
        metadata = {"model_args": {"sampling_rate": 100}}
        network = load_into_class(part.parent, metadata, state, part.weight_path)
        networks.append(network.eval())
    return EqcctCurves(networks, files.variant).eval()
