"""EQTransformer's Keras weights as a SeisBench state dict."""

from __future__ import annotations

from typing import Any

from eqcctpro.errors import WeightsError
from eqcctpro.models.keras_file import KerasFile
from eqcctpro.models.keras_layers import (
    COMPONENT_ORDER,
    State,
    batch_norm,
    conv1d,
    lstm,
    reorder_inputs,
)

__all__ = ["convert_eqtransformer"]

# Mousavi et al. (2020), https://doi.org/10.1038/s41467-020-17591-w, figure 1.
_FILTERS = (8, 16, 16, 32, 32, 64, 64)
_KERNELS = (11, 9, 7, 7, 5, 5, 3)
_RESIDUAL_KERNELS = (3, 3, 3, 3, 2, 3, 2)
_UNITS = 16
_ATTENTION_UNITS = 32
_FEED_FORWARD_UNITS = 128

# The authors' predictor fills its input array in this order.
_TRAINED_ORDER = "ENZ"

# Gate activation of the authors' two models, as Keras and as SeisBench name them.  The
# weights fit either, the curves do not.
_VARIANTS = {"hard_sigmoid": "conservative", "sigmoid": "non-conservative"}


def convert_eqtransformer(file: KerasFile) -> tuple[State, dict[str, Any]]:
    """Convert the authors' model.

    Parameters
    ----------
    file : KerasFile
        A full model file, that is, with its description: the gates' activation is
        not to be seen from the weights.

    Returns
    -------
    state : dict of str to numpy.ndarray
        Tensors of :class:`seisbench.models.EQTransformer`.
    model_args : dict
        Arguments of that class.

    Raises
    ------
    WeightsError
        If a layer is missing or has another shape, or the gates are of another kind.
    """
    activation = file.recurrent_activation()
    variant = _VARIANTS.get(activation or "")
    if variant is None:
        raise WeightsError(
            f"{file.path}: the LSTM gate activation is {activation!r}, "
            f"EQTransformer has {' or '.join(map(repr, _VARIANTS))}",
            hint="use the full model file (model.save), not the weights alone",
        )
    blocks = 3 if variant == "conservative" else 2
    state = _shared_layers(file, blocks) | _branches(file, blocks, variant)
    reorder_inputs(state, "encoder.convs.0.weight", _TRAINED_ORDER)
    model_args = {
        "component_order": COMPONENT_ORDER,
        "original_compatible": variant,
        "lstm_blocks": blocks,
        "norm": "std",
        "sampling_rate": 100,
    }
    return state, model_args


def _shared_layers(file: KerasFile, blocks: int) -> State:
    """Convert encoder, residual stack, LSTM stack and the two transformers."""
    convs = _convolutions(file, blocks)
    norms = file.numbered("batch_normalization", 2 * len(_RESIDUAL_KERNELS) + blocks)
    state: State = {}
    channels = 3
    for i, (size, filters) in enumerate(zip(_KERNELS, _FILTERS, strict=True)):
        state |= conv1d(file, convs[i], f"encoder.convs.{i}", (size, channels, filters))
        channels = filters
    position = len(_KERNELS)
    for i, size in enumerate(_RESIDUAL_KERNELS):
        for half in (1, 2):
            member = f"res_cnn_stack.members.{i}"
            norm = norms[2 * i + half - 1]
            state |= batch_norm(file, norm, f"{member}.norm{half}", channels)
            state |= conv1d(
                file, convs[position], f"{member}.conv{half}", (size, channels, channels)
            )
            position += 1
    forward = file.numbered("forward_lstm", blocks)
    backward = file.numbered("backward_lstm", blocks)
    for i in range(blocks):
        member = f"bi_lstm_stack.members.{i}"
        inputs = channels if i == 0 else _UNITS
        state |= lstm(file, forward[i], f"{member}.lstm.cell_f", (inputs, _UNITS))
        state |= lstm(file, backward[i], f"{member}.lstm.cell_b", (inputs, _UNITS))
        state |= conv1d(file, convs[position + i], f"{member}.conv", (1, 2 * _UNITS, _UNITS))
        state |= batch_norm(file, norms[2 * len(_RESIDUAL_KERNELS) + i], f"{member}.norm", _UNITS)
    return state | _transformers(file)


def _convolutions(file: KerasFile, blocks: int) -> list[str]:
    """Names of all ``Conv1D`` layers: encoder, residual, LSTM stack, then decoders."""
    layers = len(_KERNELS) + 2 * len(_RESIDUAL_KERNELS) + blocks + 3 * len(_KERNELS)
    return file.numbered("conv1d", layers)


def _transformers(file: KerasFile) -> State:
    norms = file.numbered("layer_normalization", 4)
    feeds = file.numbered("feed_forward", 2)
    state: State = {}
    for i, (attention, prefix) in enumerate(
        [("attentionD0", "transformer_d0"), ("attentionD", "transformer_d")]
    ):
        state |= _attention(file, attention, f"{prefix}.attention")
        state |= _layer_norm(file, norms[2 * i], f"{prefix}.norm1")
        state |= _feed_forward(file, feeds[i], f"{prefix}.ff")
        state |= _layer_norm(file, norms[2 * i + 1], f"{prefix}.norm2")
    return state


def _branches(file: KerasFile, blocks: int, variant: str) -> State:
    """Convert the detector's and the two pickers' own layers."""
    decoders = _convolutions(file, blocks)[-3 * len(_KERNELS) :]
    lstms = file.numbered("lstm", 2)
    # SeisBench has its own cell for hard-sigmoid gates and torch's LSTM otherwise.
    cell, suffix = (".cell_f", "") if variant == "conservative" else ("", "_l0")
    branches = [("decoder_d", "detector", "conv_d")]
    state: State = {}
    for i, phase in enumerate("PS"):
        shape = (_UNITS, _UNITS)
        state |= lstm(file, lstms[i], f"pick_lstms.{i}{cell}", shape, suffix)
        state |= _attention(file, f"attention{phase}", f"pick_attentions.{i}")
        branches.append((f"pick_decoders.{i}", f"picker_{phase}", f"pick_convs.{i}"))
    for i, (decoder, last, output) in enumerate(branches):
        channels = _UNITS
        for j, (size, filters) in enumerate(zip(_KERNELS[::-1], _FILTERS[::-1], strict=True)):
            layer = decoders[i * len(_KERNELS) + j]
            state |= conv1d(file, layer, f"{decoder}.convs.{j}", (size, channels, filters))
            channels = filters
        state |= conv1d(file, last, output, (_KERNELS[0], channels, 1))
    return state


def _attention(file: KerasFile, layer: str, prefix: str) -> State:
    shapes: dict[str, tuple[int, ...]] = {
        "Wx": (_UNITS, _ATTENTION_UNITS),
        "Wt": (_UNITS, _ATTENTION_UNITS),
        "bh": (_ATTENTION_UNITS,),
        "Wa": (_ATTENTION_UNITS, 1),
        "ba": (1,),
    }
    return {
        f"{prefix}.{name}": file.take(f"{layer}/{layer}_Add_{name}", shape)
        for name, shape in shapes.items()
    }


def _layer_norm(file: KerasFile, layer: str, prefix: str) -> State:
    return {
        f"{prefix}.{name}": file.take(f"{layer}/{name}", (_UNITS,))[:, None]
        for name in ("gamma", "beta")
    }


def _feed_forward(file: KerasFile, layer: str, prefix: str) -> State:
    sizes = (_UNITS, _FEED_FORWARD_UNITS, _UNITS)
    state: State = {}
    for i in (1, 2):
        shape = sizes[i - 1 : i + 1]
        state[f"{prefix}.lin{i}.weight"] = file.take(f"{layer}/{layer}_W{i}", shape).T
        state[f"{prefix}.lin{i}.bias"] = file.take(f"{layer}/{layer}_b{i}", shape[1:])
    return state
