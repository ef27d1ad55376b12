"""Hard-sigmoid recurrence as one kernel of a GPU.  Imports torch and triton.

Step by step, EQTransformer's recurrences are more than two thousand small kernels, between which
a GPU waits for the host.  Here a group of windows goes through all steps in one.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

__all__ = ["LEAST_WIDTH", "recurrence_on_gpu"]

#: Windows that a program takes, and the smallest matrix that `tl.dot` multiplies.
_GROUP = LEAST_WIDTH = 16


@triton.jit
def _steps(  # type: ignore[no-untyped-def]  # pragma: no cover (compiled for the GPU)
    projected,
    weights,
    states,
    windows,
    steps,
    WIDTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    rows = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    columns = tl.arange(0, WIDTH)
    there = rows[:, None] < windows
    at = tl.arange(0, WIDTH)[:, None] * (4 * WIDTH) + columns[None, :]
    to_input = tl.load(weights + at)
    to_forget = tl.load(weights + at + WIDTH)
    to_output = tl.load(weights + at + 2 * WIDTH)
    to_cell = tl.load(weights + at + 3 * WIDTH)
    h = tl.zeros((GROUP, WIDTH), dtype=tl.float32)
    c = tl.zeros((GROUP, WIDTH), dtype=tl.float32)
    for step in range(steps):
        row = step * windows + rows[:, None]
        gates = projected + row * (4 * WIDTH) + columns[None, :]
        i = tl.load(gates, mask=there, other=0.0)
        f = tl.load(gates + WIDTH, mask=there, other=0.0)
        o = tl.load(gates + 2 * WIDTH, mask=there, other=0.0)
        g = tl.load(gates + 3 * WIDTH, mask=there, other=0.0)
        i = tl.minimum(tl.maximum(i + tl.dot(h, to_input, input_precision="ieee"), 0.0), 1.0)
        f = tl.minimum(tl.maximum(f + tl.dot(h, to_forget, input_precision="ieee"), 0.0), 1.0)
        o = tl.minimum(tl.maximum(o + tl.dot(h, to_output, input_precision="ieee"), 0.0), 1.0)
        g = g + tl.dot(h, to_cell, input_precision="ieee")
        # Triton has no tangent of its own: tanh(x) = 2 sigmoid(2 x) - 1.
        c = f * c + i * (2.0 * tl.sigmoid(2.0 * g) - 1.0)
        h = o * (2.0 * tl.sigmoid(2.0 * c) - 1.0)
        tl.store(states + row * WIDTH + columns[None, :], h, mask=there)


def recurrence_on_gpu(projected: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """States of a recurrence from zero states.

    Parameters
    ----------
    projected : torch.Tensor of float32, shape (steps, windows, 4 * width)
        What the inputs contribute to the gates: input, forget, output, cell.
    weights : torch.Tensor of float32, shape (width, 4 * width)
        The width is a power of two, at least `LEAST_WIDTH`.

    Returns
    -------
    torch.Tensor of float32, shape (steps, windows, width)
    """
    steps, windows, _ = projected.shape
    width = weights.shape[0]
    states = projected.new_empty((steps, windows, width))
    grid: Any = (triton.cdiv(windows, _GROUP),)
    _steps[grid](
        projected.contiguous(), weights.contiguous(), states, windows, steps,
        WIDTH=width, GROUP=_GROUP,
    )  # fmt: skip
    return states
