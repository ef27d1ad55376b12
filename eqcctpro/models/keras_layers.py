"""Single Keras layers as the tensors of their PyTorch counterparts.

Every function returns a dict of tensor name, below ``prefix``, to float32 array.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.keras_file import KerasFile

__all__ = ["COMPONENT_ORDER", "State", "batch_norm", "conv1d", "linear", "lstm", "reorder_inputs"]

State = dict[str, NDArray[Any]]

#: Order of the components that converted models expect, SeisBench's own.
COMPONENT_ORDER = "ZNE"


def conv1d(file: KerasFile, layer: str, prefix: str, shape: tuple[int, int, int]) -> State:
    """``Conv1D``; ``shape`` is Keras's (samples, channels in, channels out)."""
    kernel = file.take(f"{layer}/kernel", shape)
    return {
        f"{prefix}.weight": kernel.transpose(2, 1, 0),
        f"{prefix}.bias": file.take(f"{layer}/bias", shape[2:]),
    }


def reorder_inputs(state: State, weight: str, trained_order: str) -> None:
    """Permute a first convolution's inputs from ``trained_order`` to ``COMPONENT_ORDER``."""
    rows = [trained_order.index(component) for component in COMPONENT_ORDER]
    state[weight] = state[weight][:, rows]


def linear(file: KerasFile, layer: str, prefix: str, shape: tuple[int, int]) -> State:
    """``Dense``; ``shape`` is Keras's (features in, features out)."""
    return {
        f"{prefix}.weight": file.take(f"{layer}/kernel", shape).T,
        f"{prefix}.bias": file.take(f"{layer}/bias", shape[1:]),
    }


def batch_norm(file: KerasFile, layer: str, prefix: str, channels: int) -> State:
    """``BatchNormalization`` with its running moments."""
    return {
        f"{prefix}.weight": file.take(f"{layer}/gamma", (channels,)),
        f"{prefix}.bias": file.take(f"{layer}/beta", (channels,)),
        f"{prefix}.running_mean": file.take(f"{layer}/moving_mean", (channels,)),
        f"{prefix}.running_var": file.take(f"{layer}/moving_variance", (channels,)),
        f"{prefix}.num_batches_tracked": np.zeros((), dtype=np.int64),
    }


def lstm(
    file: KerasFile, layer: str, prefix: str, shape: tuple[int, int], suffix: str = ""
) -> State:
    """``LSTM``; ``shape`` is (inputs, units).

    Both frameworks order the gates input, forget, cell, output.  PyTorch adds two bias
    vectors where Keras has one: each gets half, which is exact in binary arithmetic.
    """
    inputs, units = shape
    half = file.take(f"{layer}/bias", (4 * units,)) * np.float32(0.5)
    return {
        f"{prefix}.weight_ih{suffix}": file.take(f"{layer}/kernel", (inputs, 4 * units)).T,
        f"{prefix}.weight_hh{suffix}": file.take(f"{layer}/recurrent_kernel", (units, 4 * units)).T,
        f"{prefix}.bias_ih{suffix}": half,
        f"{prefix}.bias_hh{suffix}": half,
    }
