"""Convolutions on grouped samples, stored as additional channels.  Imports torch.

A layer with few channels and many samples uses only half of a vector register, and interleaving
the phases of an upsampled record moves it in memory several times.  With groups of four samples,
``(n, channels, samples)`` becomes ``(n, 4 * channels, groups)``, the sample being the slower
index, and a convolution with stride 4, or transposed with stride 4, is an ordinary one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from eqcctpro.models.polyphase import in_sequence, spread, spread_transposed

__all__ = [
    "GROUP",
    "GroupedConvolution",
    "Kernel",
    "curves_of_groups",
    "groups_in",
    "groups_to_groups",
    "groups_to_short",
    "real_samples",
    "samples_to_groups",
    "short_to_groups",
]

#: Samples in a group: the stride of PhaseNet.
GROUP = 4


class Kernel(NamedTuple):
    """A convolution fused with the batch normalisation after it, in double precision.

    Attributes
    ----------
    weight : torch.Tensor, shape (outputs, inputs, length)
    bias : torch.Tensor, shape (outputs,)
    """

    weight: torch.Tensor
    bias: torch.Tensor

    @classmethod
    def of(
        cls, layer: nn.Conv1d | nn.ConvTranspose1d, norm: nn.BatchNorm1d | None = None
    ) -> Kernel:
        """The kernel of a layer in evaluation mode."""
        weight = layer.weight.detach().double()
        if isinstance(layer, nn.ConvTranspose1d):
            weight = weight.transpose(0, 1)
        bias = torch.zeros(len(weight)) if layer.bias is None else layer.bias.detach()
        bias = bias.double()
        if norm is None:
            return cls(weight, bias)
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
        bias = (bias - norm.running_mean.double()) * scale + norm.bias.detach().double()
        return cls(weight * scale[:, None, None], bias)

    def of_inputs(self, first: int, last: int, *, biased: bool) -> Kernel:
        """Kernel of a range of inputs, `last` excluded, with or without the bias."""
        bias = self.bias if biased else torch.zeros_like(self.bias)
        return Kernel(self.weight[:, first:last], bias)


class GroupedConvolution(nn.Module):
    """Convolution of groups, with zero padding before and after the record.

    Parameters
    ----------
    weight, bias : torch.Tensor
    before, after : int
        Number of zeros; a negative number crops.
    stride : int
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor, before: int, after: int, stride: int = 1
    ) -> None:
        super().__init__()
        outputs, inputs, length = weight.shape
        self.convolution = nn.Conv1d(inputs, outputs, length, stride=stride)
        self.padding = (before, after)
        with torch.no_grad():
            self.convolution.weight.copy_(weight)
            assert self.convolution.bias is not None
            self.convolution.bias.copy_(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Convolve ``x`` of shape (n, channels, groups)."""
        if any(self.padding):
            x = nn.functional.pad(x, self.padding)
        convolved: torch.Tensor = self.convolution(x)
        return convolved


def groups_in(samples: int) -> int:
    """Number of groups that a number of samples fills, rounded up."""
    return -(-samples // GROUP)


def samples_to_groups(kernel: Kernel, first: int, samples: int) -> GroupedConvolution:
    """Make a convolution of an ungrouped record with grouped output.

    Parameters
    ----------
    kernel : Kernel
    first : int
        Position of the first tap, relative to the output sample.
    samples : int
        Length of the record.
    """
    outputs, inputs, length = kernel.weight.shape
    reach = length + GROUP - 1
    weight = kernel.weight.new_zeros(GROUP, outputs, inputs, reach)
    for position in range(GROUP):
        weight[position, :, :, position : position + length] = kernel.weight
    after = GROUP * (groups_in(samples) - 1) + reach + first - samples
    return GroupedConvolution(
        weight.flatten(0, 1), kernel.bias.repeat(GROUP), -first, after, stride=GROUP
    )


def groups_to_groups(kernel: Kernel, first: int) -> GroupedConvolution:
    """Make a convolution of a grouped record with grouped output; see `samples_to_groups`."""
    weight, before, after = spread(kernel.weight, first, GROUP, GROUP)
    return GroupedConvolution(weight, kernel.bias.repeat(GROUP), before, after)


def groups_to_short(kernel: Kernel, first: int, groups: int, outputs: int) -> GroupedConvolution:
    """Make a convolution with stride 4: one output sample for each group.

    Parameters
    ----------
    kernel : Kernel
    first : int
        As in `samples_to_groups`.
    groups : int
        Length of the input.
        outputs : int
        Number of output samples.
    """
    weight, before, after = spread(kernel.weight, first, GROUP, 1)
    return GroupedConvolution(weight, kernel.bias, before, after + outputs - groups)


def short_to_groups(kernel: Kernel, cut: int, inputs: int, groups: int) -> GroupedConvolution:
    """Make a transposed convolution with stride 4: one group for each input sample.

    Parameters
    ----------
    kernel : Kernel
    cut : int
        Samples cropped at the beginning of the output.
        inputs : int
        Number of input samples.
        groups : int
        Length of the output.
    """
    weight, before, after = spread_transposed(kernel.weight, GROUP, cut)
    bias = kernel.bias.repeat(GROUP)
    return GroupedConvolution(weight, bias, before, after + groups - inputs)


def real_samples(channels: int, samples: int) -> torch.Tensor:
    """Mask of groups: 1 for samples of the record, 0 beyond its end.

    Returns
    -------
    torch.Tensor of float32, shape (1, 4 * channels, groups)
    """
    there = torch.zeros(groups_in(samples) * GROUP)
    there[:samples] = 1
    return there.reshape(1, -1, GROUP).transpose(1, 2).repeat_interleave(channels, dim=1)


def curves_of_groups(x: torch.Tensor, samples: int) -> torch.Tensor:
    """Apply the softmax over labels and ungroup the samples.

    Parameters
    ----------
    x : torch.Tensor, shape (n, 4 * labels, groups)
    samples : int

    Returns
    -------
    torch.Tensor, shape (n, samples, labels)
    """
    # Constants, since tracing would record how they are computed.
    channels, groups = int(x.shape[1]), int(x.shape[2])
    # Over an axis that is not the last one, which runtimes vectorise.
    curves = torch.softmax(x.reshape(-1, GROUP, channels // GROUP, groups), dim=2)
    return in_sequence(curves.reshape(-1, channels, groups), GROUP)[:, :samples]
