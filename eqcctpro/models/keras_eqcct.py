"""Conversion of EQCCT's Keras weights, of the P or S network, to a SeisBench state dict."""

from __future__ import annotations

import re
from typing import Any, Literal

from eqcctpro.errors import WeightsError
from eqcctpro.models.keras_file import KerasFile
from eqcctpro.models.keras_layers import State, batch_norm, conv1d, linear

__all__ = ["Branch", "branch_of", "convert_eqcct", "is_eqcct"]

Branch = Literal["P", "S"]

# Saad et al. (2023), https://doi.org/10.1109/TGRS.2023.3319440.
_KERNEL = 11
# Channels (in, out) of the three blocks that begin both networks.
_STEM = ((3, 10), (10, 20), (20, 40))
_FEATURES = 40
_HEADS = 4
_PATCHES, _PATCH_SIZE = 150, 1600
_LAYERS = 4
_LAST_KERNEL = 15

#: Prefix of the network's names in SeisBench's class.
_ROOT = "_eqcct_backbone"

#: The channels of the first convolution, in the order in which the authors fill them.
_TRAINED_ORDER = "ENZ"


def is_eqcct(file: KerasFile) -> bool:
    """True if a file contains one of EQCCT's networks, complete or not."""
    return file.has("patch_encoder") or file.has("multi_head_attention")


def branch_of(file: KerasFile) -> Branch:
    """Return which of EQCCT's networks a file contains: P or S.

    Raises
    ------
    WeightsError
        If its last layer is neither ``picker_P`` nor ``picker_S``.
    """
    found: list[Branch] = [b for b in ("P", "S") if file.has(f"picker_{b}")]
    if len(found) == 1:
        return found[0]
    what = "both last layers" if found else "no last layer:"
    shape = (_LAST_KERNEL, 1, 1)
    raise WeightsError(
        f"{file.path}: EQCCT has {what} 'picker_P' or 'picker_S', kernel {shape}",
        hint="give a file of one network each for P and S",
    )


def convert_eqcct(file: KerasFile) -> tuple[Branch, State, dict[str, Any]]:
    """Convert one of the authors' two networks.

    Returns
    -------
    branch : {"P", "S"}
    state : dict of str to numpy.ndarray
        Tensors of :class:`seisbench.models.EQCCTP` or ``EQCCTS``.
    model_args : dict
        Arguments of that class.

    Raises
    ------
    WeightsError
        If a layer is missing or has another shape; names it, and the shape or shapes.
    """
    branch = branch_of(file)
    layers = _Layers(file, branch)
    state: State = {}
    for i, (inputs, outputs) in enumerate(_STEM):
        state |= layers.block(f"{_ROOT}.conv{i + 1}", inputs, outputs)
    encoder = f"{_ROOT}.encoder"
    state |= linear(file, "patch_encoder/dense", f"{encoder}.projection", (_PATCH_SIZE, _FEATURES))
    position = file.take("patch_encoder/embedding/embeddings", (_PATCHES, _FEATURES))
    state[f"{encoder}.position_embedding.weight"] = position
    for i in range(_LAYERS):
        if branch == "S":
            state |= layers.block(f"{_ROOT}.extra_pre.{i}", _FEATURES, _FEATURES)
            state |= layers.block(f"{_ROOT}.extra_post.{i}", _FEATURES, _FEATURES)
        name = "transformer" if branch == "P" else "transformers"
        state |= layers.transformer(f"{_ROOT}.{name}.{i}")
    state |= layers.layer_norm(f"{_ROOT}.norm")
    picker = f"picker_{branch}"
    state |= conv1d(file, picker, f"{_ROOT}.head.conv", (_LAST_KERNEL, 1, 1))
    model_args = {"component_order": _TRAINED_ORDER, "norm": "std", "sampling_rate": 100}
    return branch, state, model_args


class _Layers:
    """Reader of a file's layers of each kind, in the order of their creation."""

    def __init__(self, file: KerasFile, branch: Branch) -> None:
        self._file = file
        blocks = len(_STEM) + (2 * _LAYERS if branch == "S" else 0)
        counts = {
            "conv1d": 3 * blocks,
            "batch_normalization": 3 * blocks,
            "layer_normalization": 2 * _LAYERS + 1,
            "multi_head_attention": _LAYERS,
            "dense": 2 * _LAYERS,
        }
        self._names = {kind: iter(_numbered(file, kind, n)) for kind, n in counts.items()}

    def block(self, prefix: str, inputs: int, outputs: int) -> State:
        """Three convolutions, each followed by batch normalisation."""
        state: State = {}
        for i, channels in enumerate((inputs, inputs, outputs), 1):
            shape = (_KERNEL, inputs, channels)
            state |= conv1d(self._file, next(self._names["conv1d"]), f"{prefix}.conv{i}", shape)
            norm = next(self._names["batch_normalization"])
            state |= batch_norm(self._file, norm, f"{prefix}.bn{i}", channels)
        return state

    def transformer(self, prefix: str) -> State:
        """Attention and two dense layers, each after a layer normalisation."""
        state = self.layer_norm(f"{prefix}.norm1")
        state |= self._attention(f"{prefix}.attn")
        state |= self.layer_norm(f"{prefix}.norm2")
        for i in (1, 2):
            dense, sizes = next(self._names["dense"]), (_FEATURES, _FEATURES)
            state |= linear(self._file, dense, f"{prefix}.mlp.fc{i}", sizes)
        return state

    def layer_norm(self, prefix: str) -> State:
        """``LayerNormalization`` over the features."""
        layer = next(self._names["layer_normalization"])
        return {
            f"{prefix}.weight": self._file.take(f"{layer}/gamma", (_FEATURES,)),
            f"{prefix}.bias": self._file.take(f"{layer}/beta", (_FEATURES,)),
        }

    def _attention(self, prefix: str) -> State:
        """``MultiHeadAttention``; heads and their features are one axis in PyTorch."""
        layer = next(self._names["multi_head_attention"])
        inner = _HEADS * _FEATURES
        state: State = {}
        for name in ("query", "key", "value"):
            kernel = self._file.take(f"{layer}/{name}/kernel", (_FEATURES, _HEADS, _FEATURES))
            bias = self._file.take(f"{layer}/{name}/bias", (_HEADS, _FEATURES))
            state[f"{prefix}.{name[0]}.weight"] = kernel.reshape(_FEATURES, inner).T
            state[f"{prefix}.{name[0]}.bias"] = bias.reshape(inner)
        output = f"{layer}/attention_output"
        kernel = self._file.take(f"{output}/kernel", (_HEADS, _FEATURES, _FEATURES))
        state[f"{prefix}.o.weight"] = kernel.reshape(inner, _FEATURES).T
        state[f"{prefix}.o.bias"] = self._file.take(f"{output}/bias", (_FEATURES,))
        return state


def _numbered(file: KerasFile, kind: str, count: int) -> list[str]:
    """Names of the layers of a kind in the order in which they were created.

    Where one is missing, the names that an intact file would have: taking the weights
    then says which one.
    """
    pattern = re.compile(rf"({kind}(?:_(\d+))?)(?:/.*)?")
    matches = [match for match in map(pattern.fullmatch, file.layers) if match]
    names = {int(match[2] or 0): match[1] for match in matches}
    if len(names) > count:
        raise WeightsError(
            f"{file.path}: {len(names)} layers {kind!r} found, the network has {count}"
        )
    if len(names) == count:
        return [names[number] for number in sorted(names)]
    # The authors' files count from zero, but for the layer inside the patch encoder.
    first = 1 if kind == "dense" else 0
    if names and min(names) > first:
        first = max(max(names) - count + 1, 0)
    return [f"{kind}_{number}" if number else kind for number in range(first, first + count)]
