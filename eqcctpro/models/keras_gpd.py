"""GPD's Keras weights as a SeisBench state dict."""

from __future__ import annotations

from typing import Any

from eqcctpro.models.keras_file import KerasFile
from eqcctpro.models.keras_layers import (
    COMPONENT_ORDER,
    State,
    batch_norm,
    conv1d,
    linear,
    reorder_inputs,
)

__all__ = ["convert_gpd"]

# Ross et al. (2018), https://doi.org/10.1785/0120180080: (kernel, channels in, out).
_CONVOLUTIONS = ((21, 3, 32), (15, 32, 64), (11, 64, 128), (9, 128, 256))
# 400 samples halved four times, 256 channels each.
_DENSE = ((25 * 256, 200), (200, 200), (200, 3))
# The authors' predictor fills its input array in this order.
_TRAINED_ORDER = "NEZ"


def convert_gpd(file: KerasFile) -> tuple[State, dict[str, Any]]:
    """Convert the authors' model.

    Returns
    -------
    state : dict of str to numpy.ndarray
        Tensors of :class:`seisbench.models.GPD`.
    model_args : dict
        Arguments of that class.

    Raises
    ------
    WeightsError
        If a layer is missing or has another shape.
    """
    convs = file.numbered("conv1d", len(_CONVOLUTIONS))
    dense = file.numbered("dense", len(_DENSE))
    norms = file.numbered("batch_normalization", len(_CONVOLUTIONS) + len(_DENSE) - 1)
    state: State = {}
    for i, shape in enumerate(_CONVOLUTIONS):
        state |= conv1d(file, convs[i], f"conv{i + 1}", shape)
        state |= batch_norm(file, norms[i], f"bn{i + 1}", shape[2])
    for i, sizes in enumerate(_DENSE):
        state |= linear(file, dense[i], f"fc{i + 1}", sizes)
        if i < len(_DENSE) - 1:
            position = len(_CONVOLUTIONS) + i
            state |= batch_norm(file, norms[position], f"bn{position + 1}", sizes[1])
    reorder_inputs(state, "conv1.weight", _TRAINED_ORDER)
    model_args = {
        "component_order": COMPONENT_ORDER,
        "phases": "PSN",
        # Flattens sample by sample, as Keras does, before the first dense layer.
        "original_compatible": True,
        "sampling_rate": 100,
    }
    return state, model_args
