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

__all__ = [
    "PolyphaseDecoder",
    "WideConvolution",
    "in_sequence",
    "spread",
    "spread_transposed",
    "transposed_as_convolution",
]


def in_sequence(x: torch.Tensor, phases: int) -> torch.Tensor:
    """Phases to time: (n, phases * channels, samples) to (n, phases * samples, channels)."""
    channels, samples = _fixed(x.shape[1]) // phases, _fixed(x.shape[2])
    return x.transpose(1, 2).reshape(-1, samples * phases, channels)


def interleave(x: torch.Tensor, phases: int) -> torch.Tensor:
    """Phases to time: (n, phases * channels, samples) to (n, channels, phases * samples)."""
    return x if phases == 1 else in_sequence(x, phases).transpose(1, 2)


def _fixed(size: int) -> int:
    """A size as a number, where tracing would write down how it is computed."""
    return int(size)


def deinterleave(x: torch.Tensor, phases: int) -> torch.Tensor:
    """Time to phases, the inverse of :func:`interleave`."""
    if phases == 1:
        return x
    channels, samples = _fixed(x.shape[1]), _fixed(x.shape[2]) // phases
    return x.transpose(1, 2).reshape(-1, samples, phases * channels).transpose(1, 2)


def spread(
    weight: torch.Tensor, first: int, phases: int, positions: int, upsampling: int = 1
) -> tuple[torch.Tensor, int, int]:
    """A convolution of samples as one of groups of them, phase by phase.

    Parameters
    ----------
    weight : torch.Tensor, shape (outputs, inputs, length)
    first : int
        Sample that the first tap falls on, counted from the one that comes out.
    phases : int
        Samples in a group of what goes in.
    positions : int
        Samples that come out of a group.
    upsampling : int
        How often each sample that goes in is repeated first.

    Returns
    -------
    wide : torch.Tensor, shape (positions * outputs, phases * inputs, taps)
    before, after : int
        Zeros around the record with which as many groups come out as go in.
    """
    outputs, inputs, length = weight.shape
    taps = [
        (position, tap, *divmod((position + first + tap) // upsampling, phases))
        for position in range(positions)
        for tap in range(length)
    ]
    before, after = -min(shift for *_, shift, _ in taps), max(shift for *_, shift, _ in taps)
    wide = weight.new_zeros(positions, outputs, phases, inputs, before + after + 1)
    for position, tap, shift, phase in taps:
        wide[position, :, phase, :, before + shift] += weight[:, :, tap]
    return wide.flatten(2, 3).flatten(0, 1), before, after


def spread_transposed(
    weight: torch.Tensor, phases: int, cut: int = 0
) -> tuple[torch.Tensor, int, int]:
    """A transposed convolution, whose stride is a group, as one that yields groups.

    Parameters
    ----------
    weight : torch.Tensor, shape (outputs, inputs, length)
    phases : int
        Stride, and samples in a group.
    cut : int
        Samples cut off at the beginning of what comes out.

    Returns
    -------
    wide, before, after
        As of `spread`.
    """
    outputs, inputs, length = weight.shape
    taps = [
        (position, tap, (position + cut - tap) // phases)
        for position in range(phases)
        for tap in range(length)
        if (position + cut - tap) % phases == 0
    ]
    before, after = -min(shift for *_, shift in taps), max(shift for *_, shift in taps)
    wide = weight.new_zeros(phases, outputs, inputs, before + after + 1)
    for position, tap, shift in taps:
        wide[position, :, :, before + shift] += weight[:, :, tap]
    return wide.flatten(0, 1), before, after


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
    wide, reach, _ = spread(weight, -(length // 2), phases, after, upsampling)
    result = nn.Conv1d(phases * inputs, after * outputs, 2 * reach + 1, padding=reach)
    with torch.no_grad():
        result.weight.copy_(wide)
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
        weight = transposed.weight.detach().transpose(0, 1)
        outputs, inputs, length = weight.shape
        self.stride: int = transposed.stride[0]
        self.first: int = transposed.padding[0]
        self.grown: int = length + transposed.output_padding[0] - 2 * self.first - self.stride
        wide, before, _ = spread_transposed(weight, self.stride)
        self.convolution = nn.Conv1d(inputs, self.stride * outputs, before + 1, padding=before)
        with torch.no_grad():
            self.convolution.weight.copy_(wide)
            bias = torch.zeros(outputs) if transposed.bias is None else transposed.bias
            self.convolution.bias.copy_(bias.repeat(self.stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        samples = _fixed(x.shape[2]) * self.stride + self.grown
        full = interleave(self.convolution(x), self.stride)
        return full[:, :, self.first : self.first + samples]
