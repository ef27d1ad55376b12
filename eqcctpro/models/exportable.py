"""Rewrites of SeisBench models into what runtimes execute well.  Imports torch.

Each rewrite computes what the original computes, up to the order of float32 sums;
the export is checked against the original afterwards.  ``docs/performance.md`` says
what each one gains.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from eqcctpro.models.curves import CurveModule, varying
from eqcctpro.models.lstm import exportable_lstm
from eqcctpro.models.phasenet import GroupedPhaseNet, GroupedPhaseNetLight
from eqcctpro.models.polyphase import (
    PolyphaseDecoder,
    WideConvolution,
    transposed_as_convolution,
)

if TYPE_CHECKING:
    from seisbench.models import WaveformModel

    from eqcctpro.models.eqcct_curves import EqcctCurves
__all__ = ["exportable"]

#: Phases that EQTransformer's last convolutions, from 8 channels to 1, are spread over.
_LAST_PHASES = 16


def exportable(module: WaveformModel | EqcctCurves) -> nn.Module:
    """Return a module from raw windows to curves that can be exported.

    Parameters
    ----------
    module : seisbench.models.WaveformModel or EqcctCurves
        In evaluation mode; it is left as it is.
    """
    import seisbench.models as sbm

    from eqcctpro.models.eqcct_curves import EqcctCurves

    if isinstance(module, EqcctCurves):
        return module

    copied = copy.deepcopy(module).eval()
    grouped = {sbm.PhaseNet: GroupedPhaseNet, sbm.PhaseNetLight: GroupedPhaseNetLight}
    if type(copied) in grouped:  # not what is derived from them
        rewritten = grouped[type(copied)](copied)
        _replace_layers(copied)
        return _TwiceCentred(rewritten)
    _replace_layers(copied)
    if isinstance(copied, sbm.EQTransformer):
        _widen_last_convolutions(copied)
        copied.annotate_batch_post = _stack_curves
    if isinstance(copied, sbm.EQTransformer | sbm.EQCCTP | sbm.EQCCTS):
        _replace_method(copied, "annotate_batch_pre", _TaperedNormalisation(copied))
    if isinstance(copied, sbm.DKPN):
        copied.annotate_batch_pre = _scaled_features
    if isinstance(copied, sbm.CRED):
        _replace_method(copied, "waveforms_to_spectrogram", _Spectrogram())
    return _TwiceCentred(copied)


class _TwiceCentred(CurveModule):
    """Takes the mean off before the model does so once more.

    What the rounding of one mean leaves over depends on the runtime, and goes with the second.
    """

    def centred(self, windows: torch.Tensor) -> torch.Tensor:
        """Windows without their mean, where the model takes it off, and without constants."""
        if not self.removes_mean:
            return windows
        return (windows - windows.mean(dim=-1, keepdim=True)) * varying(windows)


def _replace_layers(module: nn.Module) -> None:
    """Replace layers that export badly or run slowly, wherever they are."""
    from seisbench.models.base import CustomLSTM
    from seisbench.models.eqtransformer import Decoder

    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            replacement: nn.Module | None = None
            if isinstance(child, CustomLSTM):
                replacement = exportable_lstm(child)
            elif isinstance(child, Decoder):
                replacement = PolyphaseDecoder(child)
            elif isinstance(child, nn.ConvTranspose1d):
                replacement = transposed_as_convolution(child)
            if replacement is not None:
                setattr(parent, name, replacement)


def _replace_method(module: nn.Module, name: str, replacement: nn.Module) -> None:
    """Put a module in the place of a method, so that it follows to other devices."""
    module.add_module(f"our_{name}", replacement)
    module.__dict__[name] = replacement  # before the method, which the class has


def _widen_last_convolutions(module: Any) -> None:
    """Spread the convolutions that end EQTransformer's branches over phases."""
    for branches in ("pick_convs", "pol_convs"):
        for index, convolution in enumerate(getattr(module, branches, [])):
            getattr(module, branches)[index] = WideConvolution(convolution, _LAST_PHASES)
    if hasattr(module, "conv_d"):
        module.conv_d = WideConvolution(module.conv_d, _LAST_PHASES)


def _stack_curves(curves: tuple[torch.Tensor, ...], **_: Any) -> torch.Tensor:
    """``annotate_batch_post`` of EQTransformer: labels joined first, then moved last."""
    return torch.stack(curves, dim=1).transpose(1, 2)


class _TaperedNormalisation(nn.Module):
    """``annotate_batch_pre`` of EQTransformer and EQCCT without writing in place.

    The taper of six samples at both ends is one multiplication.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        ramp = 0.5 * (1 + torch.cos(torch.linspace(math.pi, 2 * math.pi, 6)))
        taper = torch.ones(int(module.in_samples))
        taper[:6] *= ramp
        taper[-6:] *= ramp.flip(0)
        self.taper: torch.Tensor
        self.register_buffer("taper", taper)
        self.detrend = bool(module.norm_detrend)
        self.norm = "component" if module.norm_amp_per_comp else module.norm

    def forward(self, batch: torch.Tensor, **_: Any) -> torch.Tensor:
        """Normalise windows of shape (n, components, samples)."""
        import seisbench.util as sbu

        batch = batch - batch.mean(dim=-1, keepdim=True)
        if self.detrend:
            batch = sbu.torch_detrend(batch)
        if self.norm in ("component", "peak"):
            batch = batch / (batch.abs().amax(dim=-1, keepdim=True) + 1e-10)
        elif self.norm == "std":
            batch = batch / (batch.std(dim=(-1, -2), keepdim=True) + 1e-10)
        return batch * self.taper


def _scaled_features(batch: torch.Tensor, **_: Any) -> torch.Tensor:
    """``annotate_batch_pre`` of DKPN without writing in place: all but the incidence."""
    scale = batch.std(dim=-1, keepdim=True) + 1e-10
    functions, modulus = batch[:, :3] / scale[:, :3], batch[:, 4:] / scale[:, 4:]
    return torch.cat([functions, batch[:, 3:4], modulus], dim=1)


class _Spectrogram(nn.Module):
    """CRED's short-time Fourier transform as one convolution with the basis."""

    length, hop = 80, 40

    def __init__(self) -> None:
        super().__init__()
        n = torch.arange(self.length, dtype=torch.float64)
        k = torch.arange(self.length // 2 + 1, dtype=torch.float64)[:, None]
        window = torch.hann_window(self.length, dtype=torch.float64)
        angle = 2 * math.pi * torch.remainder(k * n, self.length) / self.length
        basis = torch.cat([torch.cos(angle), -torch.sin(angle)]) * window * 0.025
        self.basis: torch.Tensor
        self.register_buffer("basis", basis.unsqueeze(1).float())

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Spectrograms of windows of shape (n, components, samples)."""
        components = batch.shape[1]
        flat = batch.reshape(-1, 1, batch.shape[2])
        z = nn.functional.conv1d(flat, self.basis, stride=self.hop, padding=self.length // 2)
        real, imaginary = z.chunk(2, dim=1)
        power = torch.sqrt(real * real + imaginary * imaginary)
        shaped = power.reshape(-1, components, power.shape[1], power.shape[2])
        return shaped.transpose(2, 3)
