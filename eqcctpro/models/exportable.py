"""Rewrites of SeisBench models into what runtimes execute well.  Imports torch.

Each rewrite computes what the original computes, up to the order of float32 sums;
the export is checked against the original afterwards.
"""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from eqcctpro.models.curves import CurveModule

if TYPE_CHECKING:
    from seisbench.models import WaveformModel

__all__ = ["RECURRENCE_OPERATOR", "exportable"]

#: Name of the operator that stands for a hard-sigmoid recurrence in the traced graph,
#: until :mod:`eqcctpro.models.recurrence` writes it out.
RECURRENCE_OPERATOR = "eqcctpro::HardSigmoidLSTM"

#: ``hard_sigmoid(x) = clip(0.2 x + 0.5, 0, 1)``, as in Keras, EQTransformer's framework.
_HARD_SLOPE, _HARD_OFFSET = 0.2, 0.5


def exportable(module: WaveformModel) -> CurveModule:
    """Return a copy of ``module`` as a :class:`CurveModule` that can be exported.

    Parameters
    ----------
    module : seisbench.models.WaveformModel
        In evaluation mode; it is left as it is.
    """
    import seisbench.models as sbm
    from seisbench.models.base import CustomLSTM

    copied = copy.deepcopy(module).eval()
    for parent in list(copied.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, CustomLSTM):
                setattr(parent, name, _recurrent(child))
    if isinstance(copied, sbm.EQTransformer | sbm.EQCCTP | sbm.EQCCTS):
        copied.annotate_batch_pre = _TaperedNormalisation(copied)
    if isinstance(copied, sbm.CRED):
        copied.waveforms_to_spectrogram = _Spectrogram()
    return CurveModule(copied)


def _recurrent(lstm: Any) -> nn.Module:
    """A hand-written LSTM of SeisBench as one operator."""
    from seisbench.models.base import hard_sigmoid

    cells = [lstm.cell_f, *([lstm.cell_b] if lstm.bidirectional else [])]
    gates = {cell.gate_activation for cell in cells}
    if gates == {hard_sigmoid}:
        return _HardSigmoidLSTM(cells)
    if gates == {torch.sigmoid}:
        return _plain_lstm(cells)
    raise NotImplementedError(f"LSTM gates {gates} have no exportable form")


def _plain_lstm(cells: list[Any]) -> nn.LSTM:
    lstm = nn.LSTM(cells[0].input_size, cells[0].hidden_size, bidirectional=len(cells) == 2)
    with torch.no_grad():
        for cell, suffix in zip(cells, ("", "_reverse"), strict=False):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(lstm, f"{name}_l0{suffix}").copy_(getattr(cell, name))
    return lstm.eval()


class _HardSigmoidLSTM(nn.Module):
    """An LSTM with hard-sigmoid gates, as weights of one recurrence.

    Both directions run as one recurrence on the record and its reverse: the states
    lie side by side, the recurrent weights on a block diagonal.  Gates are in the order
    input, forget, output, cell, and slope and offset of the hard sigmoid are part of
    the weights, so that a step clips the first three and takes tanh of the last.
    """

    def __init__(self, cells: list[Any]) -> None:
        super().__init__()
        directions, hidden, inputs = len(cells), cells[0].hidden_size, cells[0].input_size
        projection = torch.zeros(directions, inputs, 4, directions, hidden)
        recurrence = torch.zeros(directions, hidden, 4, directions, hidden)
        bias = torch.zeros(4, directions, hidden)
        for d, cell in enumerate(cells):
            for ours, theirs in enumerate((0, 1, 3, 2)):
                slope, offset = (_HARD_SLOPE, _HARD_OFFSET) if ours < 3 else (1.0, 0.0)
                rows = slice(theirs * hidden, (theirs + 1) * hidden)
                projection[d, :, ours, d] = slope * cell.weight_ih[rows].detach().T
                recurrence[d, :, ours, d] = slope * cell.weight_hh[rows].detach().T
                total = cell.bias_ih[rows] + cell.bias_hh[rows]
                bias[ours, d] = slope * total.detach() + offset
        width = directions * hidden
        self.directions, self.hidden = directions, hidden
        self.projection: torch.Tensor
        self.recurrence: torch.Tensor
        self.bias: torch.Tensor
        self.register_buffer("projection", projection.reshape(directions * inputs, 4 * width))
        self.register_buffer("recurrence", recurrence.reshape(width, 4 * width))
        self.register_buffer("bias", bias.reshape(4 * width))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Run over ``x`` of shape (time, batch, inputs)."""
        if self.directions == 2:
            x = torch.cat([x, x.flip(0)], dim=-1)
        projected = torch.matmul(x, self.projection) + self.bias
        states = _Recurrence.apply(projected, self.recurrence, int(projected.shape[0]))
        if self.directions == 2:
            forward, backward = states[..., : self.hidden], states[..., self.hidden :]
            states = torch.cat([forward, backward.flip(0)], dim=-1)
        return states, None


class _Recurrence(torch.autograd.Function):
    """The loop over time, traced as one operator instead of one set of nodes a step."""

    @staticmethod
    def forward(
        _ctx: Any, projected: torch.Tensor, recurrence: torch.Tensor, steps: int
    ) -> torch.Tensor:
        width = recurrence.shape[0]
        h = c = projected.new_zeros(projected.shape[1], width)
        states = []
        for step in range(steps):
            gates = projected[step] + h @ recurrence
            i, f, o = torch.clamp(gates[:, : 3 * width], 0, 1).chunk(3, dim=1)
            c = f * c + i * torch.tanh(gates[:, 3 * width :])
            h = o * torch.tanh(c)
            states.append(h)
        return torch.stack(states)

    @staticmethod
    def symbolic(g: Any, projected: Any, recurrence: Any, steps: int) -> Any:
        width = recurrence.type().sizes()
        states = g.op(RECURRENCE_OPERATOR, projected, recurrence)
        # Without a type the exporter warns on every operator that it does not know.
        states.setType(projected.type().with_sizes([steps, None, width[0] if width else None]))
        return states


class _TaperedNormalisation:
    """``annotate_batch_pre`` of EQTransformer and EQCCT without writing in place.

    The taper of six samples at both ends is one multiplication.
    """

    def __init__(self, module: Any) -> None:
        ramp = 0.5 * (1 + torch.cos(torch.linspace(math.pi, 2 * math.pi, 6)))
        self.taper = torch.ones(int(module.in_samples))
        self.taper[:6] *= ramp
        self.taper[-6:] *= ramp.flip(0)
        self.detrend = bool(module.norm_detrend)
        self.norm = "component" if module.norm_amp_per_comp else module.norm

    def __call__(self, batch: torch.Tensor, **_: Any) -> torch.Tensor:
        import seisbench.util as sbu

        batch = batch - batch.mean(dim=-1, keepdim=True)
        if self.detrend:
            batch = sbu.torch_detrend(batch)
        if self.norm in ("component", "peak"):
            batch = batch / (batch.abs().amax(dim=-1, keepdim=True) + 1e-10)
        elif self.norm == "std":
            batch = batch / (batch.std(dim=(-1, -2), keepdim=True) + 1e-10)
        return batch * self.taper.to(batch.device)


class _Spectrogram:
    """CRED's short-time Fourier transform as one convolution with the basis."""

    length, hop = 80, 40

    def __init__(self) -> None:
        n = torch.arange(self.length, dtype=torch.float64)
        k = torch.arange(self.length // 2 + 1, dtype=torch.float64)[:, None]
        window = torch.hann_window(self.length, dtype=torch.float64)
        angle = 2 * math.pi * torch.remainder(k * n, self.length) / self.length
        basis = torch.cat([torch.cos(angle), -torch.sin(angle)]) * window * 0.025
        self.basis = basis.unsqueeze(1).float()

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        components = batch.shape[1]
        flat = batch.reshape(-1, 1, batch.shape[2])
        z = nn.functional.conv1d(flat, self.basis, stride=self.hop, padding=self.length // 2)
        real, imaginary = z.chunk(2, dim=1)
        power = torch.sqrt(real * real + imaginary * imaginary)
        shaped = power.reshape(-1, components, power.shape[1], power.shape[2])
        return shaped.transpose(2, 3)
