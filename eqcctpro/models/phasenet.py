"""PhaseNet with grouped samples in its layers at the full sampling rate.  Imports torch.

These layers have 8 channels, and took more than half of the time: for arithmetic with half-filled
vector registers, and for moving records between memory layouts.  Layers at lower rates are
SeisBench's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from eqcctpro.models.grouped import (
    Kernel,
    curves_of_groups,
    groups_in,
    groups_to_groups,
    groups_to_short,
    real_samples,
    samples_to_groups,
    short_to_groups,
)

__all__ = ["GroupedPhaseNet", "GroupedPhaseNetLight"]

# Zero padding of SeisBench's PhaseNet before each downsampling, by level.
_ZEROS = {1: (2, 3), 2: (1, 3), 3: (2, 3)}

# Samples that are cropped at both ends after its transposed convolutions.
_CUT = (1, 2)


class _Grouped(nn.Module):
    """Base class with the interface that :class:`eqcctpro.models.curves.CurveModule` needs.

    Parameters
    ----------
    module : seisbench.models.PhaseNet
        In evaluation mode.  Its inner layers may be replaced later.
    """

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module
        self.samples = self.in_samples = int(module.in_samples)
        self.component_order = module.component_order
        self.default_args = module.default_args
        self.output_type = module.output_type

    def annotate_batch_pre(self, windows: torch.Tensor, argdict: dict[str, Any]) -> torch.Tensor:
        """Normalise."""
        normalised: torch.Tensor = self.module.annotate_batch_pre(windows, argdict=argdict)
        return normalised

    def annotate_batch_post(self, curves: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return curves unchanged: labels are the last axis already."""
        return curves


def _shortened(samples: int, down: nn.Conv1d) -> int:
    """Output length of a strided convolution."""
    return (samples + 2 * int(down.padding[0]) - down.kernel_size[0]) // down.stride[0] + 1


class GroupedPhaseNet(_Grouped):
    """``seisbench.models.PhaseNet``; see `_Grouped`."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        groups = groups_in(self.samples)
        same, norm, down, norm_down = module.down_branch[0]
        short = _shortened(self.samples, down)
        up, norm_up, joined, norm_joined = module.up_branch[-1]
        grown = (short - 1) * up.stride[0] + up.kernel_size[0] - sum(_CUT)
        cut = _CUT[0] + (grown - self.samples) // 2
        last = Kernel.of(joined, norm_joined)
        channels = same.out_channels

        self.first = samples_to_groups(
            Kernel.of(module.inc, module.in_bn), -(module.inc.kernel_size[0] // 2), self.samples
        )
        centred = -(same.kernel_size[0] // 2)
        self.same = groups_to_groups(Kernel.of(same, norm), centred)
        self.down = groups_to_short(Kernel.of(down, norm_down), -down.padding[0], groups, short)
        self.up = short_to_groups(Kernel.of(up, norm_up), cut, short, groups)
        # A convolution of two concatenated records is the sum of two convolutions.
        self.of_skip = groups_to_groups(last.of_inputs(0, channels, biased=True), centred)
        rest = last.of_inputs(channels, last.weight.shape[1], biased=False)
        self.of_up = groups_to_groups(rest, centred)
        self.out = groups_to_groups(Kernel.of(module.out), 0)
        self.register_buffer("real", real_samples(channels, self.samples))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Curves of shape (n, samples, labels) from windows of shape (n, components, samples)."""
        x = torch.relu(self.first(x)) * self.real
        skip = torch.relu(self.same(x)) * self.real
        x = self._inner(torch.relu(self.down(skip)))
        x = torch.relu(self.up(x)) * self.real
        x = torch.relu(self.of_skip(skip) + self.of_up(x))
        return curves_of_groups(self.out(x), self.samples)

    def _inner(self, x: torch.Tensor) -> torch.Tensor:
        """SeisBench's layers between the first downsampling and the last upsampling."""
        skips: list[torch.Tensor] = []
        for level, (same, norm, down, norm_down) in enumerate(self.module.down_branch[1:], 1):
            x = torch.relu(norm(same(x)))
            if down is not None:
                skips.append(x)
                x = nn.functional.pad(x, _ZEROS[level])
                x = torch.relu(norm_down(down(x)))
        for (up, norm, joined, norm_joined), skip in zip(
            self.module.up_branch[:-1], reversed(skips), strict=True
        ):
            x = torch.relu(norm(up(x)))[:, :, _CUT[0] : -_CUT[1]]
            samples = int(skip.shape[2])
            offset = (int(x.shape[2]) - samples) // 2
            x = torch.cat([skip, x[:, :, offset : offset + samples]], dim=1)
            x = torch.relu(norm_joined(joined(x)))
        return x


class GroupedPhaseNetLight(_Grouped):
    """``seisbench.models.PhaseNetLight``; see `_Grouped`."""

    def __init__(self, module: Any) -> None:
        super().__init__(module)
        groups = groups_in(self.samples)
        down, up = module.conv1.conv, module.up4
        short = _shortened(self.samples, down)
        out = Kernel.of(module.out)
        channels = module.inc.out_channels

        self.first = samples_to_groups(Kernel.of(module.inc, module.in_bn), 0, self.samples)
        self.down = groups_to_short(Kernel.of(down, module.bnd1), -down.padding[0], groups, short)
        self.up = short_to_groups(Kernel.of(up, module.bnu4), up.padding[0], short, groups)
        inputs = out.weight.shape[1]
        self.of_up = groups_to_groups(out.of_inputs(0, inputs - channels, biased=True), 0)
        rest = out.of_inputs(inputs - channels, inputs, biased=False)
        self.of_first = groups_to_groups(rest, 0)
        self.register_buffer("real", real_samples(channels, self.samples))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Curves of shape (n, samples, labels) from windows of shape (n, components, samples)."""
        inner = self.module
        first = torch.relu(self.first(x)) * self.real
        x1 = torch.relu(self.down(first))
        x2 = torch.relu(inner.bnd2(inner.conv2(x1)))
        x3 = torch.relu(inner.bnd3(inner.conv3(x2)))
        x = torch.relu(inner.bnd4(inner.conv4(x3)))
        x = torch.cat([torch.relu(inner.bnu1(inner.up1(x))), x3], dim=1)
        x = torch.cat([torch.relu(inner.bnu2(inner.up2(x))), x2], dim=1)
        x = torch.cat([torch.relu(inner.bnu3(inner.up3(x))), x1], dim=1)
        x = torch.relu(self.up(x))
        return curves_of_groups(self.of_up(x) + self.of_first(first), self.samples)
