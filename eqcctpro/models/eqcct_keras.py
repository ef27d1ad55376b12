"""EQCCT's two networks in Keras, as published.  Imports TensorFlow inside functions.

The layers follow Saad et al. (2023), https://doi.org/10.1109/TGRS.2023.3319440, and the
authors' weight files.  Dropout and stochastic depth act in training only and are left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eqcctpro.models.eqcct import IN_SAMPLES
from eqcctpro.models.keras_eqcct import Branch
from eqcctpro.models.keras_layers import State

__all__ = ["build_network"]

Array = NDArray[Any]

_KERNEL = 11
_STEM = (10, 20, 40)
_FEATURES, _HEADS, _LAYERS = 40, 4, 4
_PATCH = 40
_LAST_KERNEL = 15
# Keras's own defaults at the time of the authors' training.
_BATCH_NORM_EPSILON, _LAYER_NORM_EPSILON = 1e-3, 1e-6


def build_network(branch: Branch, state: State) -> Any:
    """Build one network and give it its weights.

    Parameters
    ----------
    branch : {"P", "S"}
    state : dict of str to numpy.ndarray
        As :func:`eqcctpro.models.eqcct.branch_state` returns it.

    Returns
    -------
    keras.Model
        From normalised windows, shape (n, 6000, 3), to probabilities, shape (n, 6000, 1).
    """
    import keras

    builder = _Builder(keras.layers, branch)
    inputs = keras.Input((IN_SAMPLES, 3))
    network = keras.Model(inputs, builder.network(inputs), name=f"eqcct_{branch.lower()}")
    for layer, prefix in builder.weighted:
        layer.set_weights(list(_weights(state, f"_eqcct_backbone.{prefix}", layer)))
    network.trainable = False
    return network


class _Builder:
    """Chains layers, and remembers which tensors each of them takes its weights from."""

    def __init__(self, layers: Any, branch: Branch) -> None:
        self._layers = layers
        self._branch = branch
        self.weighted: list[tuple[Any, str]] = []

    def _add(self, layer: Any, prefix: str, *inputs: Any) -> Any:
        self.weighted.append((layer, prefix))
        return layer(*inputs)

    def _gelu(self, x: Any) -> Any:
        import keras

        return keras.activations.gelu(x, approximate=False)

    def network(self, x: Any) -> Any:
        """The whole network."""
        layers = self._layers
        for i, channels in enumerate(_STEM, 1):
            x = self._block(x, f"conv{i}", channels)
        x = layers.Reshape((IN_SAMPLES // _PATCH, _PATCH * _STEM[-1]))(x)
        x = self._add(layers.Dense(_FEATURES), "encoder.projection", x)
        x = self._add(_position_layer()(name="position"), "encoder.position_embedding", x)
        name = "transformer" if self._branch == "P" else "transformers"
        for i in range(_LAYERS):
            x = self._transformer(x, i, f"{name}.{i}")
        x = self._norm(x, "norm")
        x = layers.Reshape((IN_SAMPLES, 1))(x)
        last = layers.Conv1D(1, _LAST_KERNEL, padding="same", activation="sigmoid")
        return self._add(last, "head.conv", x)

    def _block(self, x: Any, prefix: str, channels: int) -> Any:
        """Three convolutions with batch normalisation; a skip around the first two."""
        first = self._convolution(x, f"{prefix}.conv1", f"{prefix}.bn1", x.shape[-1])
        second = self._convolution(first, f"{prefix}.conv2", f"{prefix}.bn2", x.shape[-1])
        joined = self._layers.Add()([second, x])
        return self._convolution(joined, f"{prefix}.conv3", f"{prefix}.bn3", channels)

    def _convolution(self, x: Any, convolution: str, norm: str, channels: int) -> Any:
        layers = self._layers
        x = self._add(layers.Conv1D(channels, _KERNEL, padding="same"), convolution, x)
        x = self._add(layers.BatchNormalization(epsilon=_BATCH_NORM_EPSILON), norm, x)
        return layers.Activation(self._gelu)(x)

    def _transformer(self, x: Any, index: int, prefix: str) -> Any:
        layers = self._layers
        with_blocks = self._branch == "S"
        if with_blocks:
            x = self._block(x, f"extra_pre.{index}", _FEATURES)
        normed = self._norm(x, f"{prefix}.norm1")
        attention = layers.MultiHeadAttention(num_heads=_HEADS, key_dim=_FEATURES)
        attended = self._add(attention, f"{prefix}.attn", normed, normed)
        if with_blocks:
            attended = self._block(attended, f"extra_post.{index}", _FEATURES)
        x = layers.Add()([attended, x])
        mixed = self._norm(x, f"{prefix}.norm2")
        for name in ("fc1", "fc2"):
            dense = layers.Dense(_FEATURES, activation=self._gelu)
            mixed = self._add(dense, f"{prefix}.mlp.{name}", mixed)
        return layers.Add()([mixed, x])

    def _norm(self, x: Any, prefix: str) -> Any:
        return self._add(self._layers.LayerNormalization(epsilon=_LAYER_NORM_EPSILON), prefix, x)


def _position_layer() -> Any:
    """A Keras layer that adds a learned vector to every patch."""
    import keras

    class Position(keras.layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.embedding = self.add_weight(shape=tuple(input_shape[1:]), name="embedding")

        def call(self, patches: Any) -> Any:
            return patches + self.embedding

    return Position


def _weights(state: State, prefix: str, layer: Any) -> Iterator[Array]:
    """A layer's weights in Keras's order and shapes."""
    kind = type(layer).__name__
    if kind == "Conv1D":
        yield state[f"{prefix}.weight"].transpose(2, 1, 0)
        yield state[f"{prefix}.bias"]
    elif kind == "Dense":
        yield state[f"{prefix}.weight"].T
        yield state[f"{prefix}.bias"]
    elif kind in ("BatchNormalization", "LayerNormalization"):
        names = ["weight", "bias", "running_mean", "running_var"]
        yield from (state[f"{prefix}.{name}"] for name in names[: len(layer.weights)])
    elif kind == "Position":
        yield state[f"{prefix}.weight"]
    else:
        for name in ("q", "k", "v"):
            yield state[f"{prefix}.{name}.weight"].T.reshape(_FEATURES, _HEADS, _FEATURES)
            yield state[f"{prefix}.{name}.bias"].reshape(_HEADS, _FEATURES)
        yield np.ascontiguousarray(state[f"{prefix}.o.weight"].T).reshape(
            _HEADS, _FEATURES, _FEATURES
        )
        yield state[f"{prefix}.o.bias"]
