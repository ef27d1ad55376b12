"""Convolutions after upsampling, without the upsampled record.  Imports torch.

Repeating every sample and convolving multiplies the same input samples several times;
a transposed convolution is slow in CPU runtimes.  Both equal ordinary convolutions of
the short record that yield all samples between two inputs at once, as channels ("phases").
Phases are channels with the phase as the slower index, so that where runtimes keep
channels last, putting the phases one after the other in time moves no data.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

__all__ = ["PolyphaseDecoder", "WideConvolution", "transposed_as_convolution"]


def interleave(x: torch.Tensor, phases: int) -> torch.Tensor:
    """Phases to time: (n, phases * channels, samples) to (n, channels, phases * samples)."""
    if phases == 1:
        return x
    channels, samples = _fixed(x.shape[1]) // phases, _fixed(x.shape[2])
    return x.transpose(1, 2).reshape(-1, samples * phases, channels).transpose(1, 2)


def _fixed(size: int) -> int:
    """A size as a number, where tracing would write down how it is computed."""
    return int(size)


def deinterleave(x: torch.Tensor, phases: int) -> torch.Tensor:
    """Time to phases, the inverse of :func:`interleave`."""
    if phases == 1:
        return x
    channels, samples = _fixed(x.shape[1]), _fixed(x.shape[2]) // phases
    return x.transpose(1, 2).reshape(-1, samples, phases * channels).transpose(1, 2)


def phased(convolution: nn.Conv1d, phases: int, upsampling: int) -> nn.Conv1d:
    """A convolution of repeated samples, as one from phases to phases.

    Parameters
    ----------
    convolution : torch.nn.Conv1d
        Stride 1, of odd length, padded to keep the number of samples.
    phases : int
        Phases of the input.
    upsampling : int
        How often each input sample is repeated before ``convolution``.

    Returns
    -------
    torch.nn.Conv1d
        From ``phases * in_channels`` to ``phases * upsampling * out_channels``.
    """
    weight = convolution.weight.detach()
    outputs, inputs, length = weight.shape
    after = phases * upsampling
    padding = length // 2
    reach = -(-padding // after)
    wide = torch.zeros(after, outputs, phases, inputs, 2 * reach + 1)
    for phase_out in range(after):
        for tap in range(length):
            # Sample that the tap falls on, counted from the group's first one.
            sample = (phase_out + tap - padding) // upsampling
            shift, phase_in = divmod(sample, phases)
            wide[phase_out, :, phase_in, :, shift + reach] += weight[:, :, tap]
    result = nn.Conv1d(phases * inputs, after * outputs, 2 * reach + 1, padding=reach)
    with torch.no_grad():
        result.weight.copy_(wide.reshape(result.weight.shape))
        bias = torch.zeros(outputs) if convolution.bias is None else convolution.bias
        result.bias.copy_(bias.repeat(after))
    return result.eval()


class WideConvolution(nn.Module):
    """A convolution from and to few channels, as one of many channels and fewer samples.

    Parameters
    ----------
    convolution : torch.nn.Conv1d
        As for :func:`phased`.
    phases : int
        Samples in a group; records that are no multiple of it are convolved as they are.
    """

    def __init__(self, convolution: nn.Conv1d, phases: int) -> None:
        super().__init__()
        self.phases = phases
        self.narrow = convolution
        self.wide = phased(convolution, phases, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``x`` of shape (n, channels, samples)."""
        if x.shape[2] % self.phases:
            narrow: torch.Tensor = self.narrow(x)
            return narrow
        return interleave(self.wide(deinterleave(x, self.phases)), self.phases)


class PolyphaseDecoder(nn.Module):
    """EQTransformer's decoder: repeat, sometimes crop, convolve, seven times.

    Parameters
    ----------
    decoder : seisbench.models.eqtransformer.Decoder
        Its steps that crop are kept as they are, since a crop falls between the
        repetitions of one sample.
    """

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        steps: list[nn.Module] = []
        for index, convolution in enumerate(decoder.convs):
            if decoder.original_compatible:
                cropped = (1, -1) if index == 3 else None
            else:
                cropped = (0, -1) if index in decoder.crops else None
            steps.append(_Repeated(convolution, cropped) if cropped else _Phased(convolution))
        self.steps = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Decode ``x`` of shape (n, channels, samples)."""
        decoded: torch.Tensor = self.steps(x)
        return decoded


class _Phased(nn.Module):
    """Repeat twice, convolve, clip at zero; without repeating."""

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        self.convolution = phased(convolution, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return interleave(torch.relu(self.convolution(x)), 2)


class _Repeated(nn.Module):
    """Repeat twice, crop, convolve, clip at zero."""

    def __init__(self, convolution: nn.Conv1d, crop: tuple[int, int]) -> None:
        super().__init__()
        self.convolution = convolution
        self.crop = slice(*crop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        repeated = nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
        return torch.relu(self.convolution(repeated[:, :, self.crop]))


def transposed_as_convolution(transposed: nn.ConvTranspose1d) -> nn.Module | None:
    """A transposed convolution as an ordinary one, or None where it has no such form."""
    simple = transposed.groups == 1 and transposed.dilation == (1,)
    return _Transposed(transposed) if simple else None


class _Transposed(nn.Module):
    """``torch.nn.ConvTranspose1d`` by phases: one for each sample of a stride."""

    def __init__(self, transposed: nn.ConvTranspose1d) -> None:
        super().__init__()
        weight = transposed.weight.detach()
        inputs, outputs, length = weight.shape
        self.stride: int = transposed.stride[0]
        self.first: int = transposed.padding[0]
        self.grown: int = length + transposed.output_padding[0] - 2 * self.first - self.stride
        taps = -(-length // self.stride)
        wide = torch.zeros(self.stride, outputs, inputs, taps)
        for tap in range(length):
            shift, phase = divmod(tap, self.stride)
            wide[phase, :, :, taps - 1 - shift] = weight[:, :, tap].T
        self.convolution = nn.Conv1d(inputs, self.stride * outputs, taps, padding=taps - 1)
        with torch.no_grad():
            self.convolution.weight.copy_(wide.reshape(self.convolution.weight.shape))
            bias = torch.zeros(outputs) if transposed.bias is None else transposed.bias
            self.convolution.bias.copy_(bias.repeat(self.stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples = _fixed(x.shape[2]) * self.stride + self.grown
        full = interleave(self.convolution(x), self.stride)
        return full[:, :, self.first : self.first + samples]
