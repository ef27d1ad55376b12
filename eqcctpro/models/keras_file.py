"""Reader of weights in Keras's HDF5 format, without Keras and without executing code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import WeightsError

__all__ = ["KerasFile"]

Array = NDArray[np.float32]


class KerasFile:
    """An open Keras model or weight file.

    Parameters
    ----------
    path : pathlib.Path
        A file written by ``model.save`` or ``model.save_weights`` of Keras 2.

    Attributes
    ----------
    layers : tuple of str
        Names of the innermost layers that own weights, for example ``"conv1d_1"`` or
        ``"bidirectional_1/forward_lstm_1"``.

    Raises
    ------
    WeightsError
        If the file is not HDF5, or contains no Keras layers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = h5py.File(path, "r")
        except OSError as error:
            raise WeightsError(
                f"{path} is not an HDF5 file, or is damaged ({error})",
                hint="Keras weights end in .h5 or .hdf5; download the file again",
            ) from error
        try:
            self._datasets = self._index()
        except WeightsError:
            self._file.close()
            raise
        self.layers = tuple(dict.fromkeys(name.rpartition("/")[0] for name in self._datasets))

    def __enter__(self) -> KerasFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def _index(self) -> dict[str, h5py.Dataset]:
        """Map from the name of a weight, without Keras's ``:0``, to its dataset."""
        datasets: dict[str, h5py.Dataset] = {}
        try:
            root = self._file.get("model_weights", self._file)
            for layer in _texts(root.attrs["layer_names"]):
                for weight in _texts(root[layer].attrs["weight_names"]):
                    datasets[weight.removesuffix(":0")] = root[layer][weight]
        except (KeyError, OSError, RuntimeError, ValueError) as error:
            raise WeightsError(
                f"{self.path} holds no complete set of Keras layers: {error}",
                hint="save it with Keras 2's model.save or model.save_weights",
            ) from error
        return datasets

    def take(self, name: str, shape: tuple[int, ...]) -> Array:
        """Read one weight as float32.

        Raises
        ------
        WeightsError
            If it is missing, has another shape, cannot be read or is not finite.
        """
        dataset = self._datasets.get(name)
        if dataset is None:
            raise WeightsError(f"{self.path}: weight {name!r} is missing; its shape is {shape}")
        # Checked before reading, so that a file cannot cause any allocation it likes.
        if dataset.shape != shape:
            raise WeightsError(
                f"{self.path}: weight {name!r} has the shape {dataset.shape}, not {shape}"
            )
        try:
            array = np.asarray(dataset[()], dtype=np.float32)
        except (OSError, RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{self.path}: weight {name!r} cannot be read: {error}") from error
        if not np.isfinite(array).all():
            raise WeightsError(f"{self.path}: weight {name!r} holds NaN or infinity")
        return array

    def numbered(self, kind: str, count: int) -> list[str]:
        """Name the layers ``<kind>_<number>`` in the order in which they were created.

        Keras counts layers of a kind over a whole session, so the first one of a model
        may have any number.

        Raises
        ------
        WeightsError
            If there are not exactly ``count`` of them.
        """
        pattern = re.compile(rf"(?:.*/)?{kind}(?:_(\d+))?(?:_\d+)?")
        matches = [(int(m[1] or 0), m[0]) for m in map(pattern.fullmatch, self.layers) if m]
        if len(matches) != count:
            raise WeightsError(
                f"{self.path}: {len(matches)} layers {kind!r} found, the model has {count}"
            )
        return [name for _, name in sorted(matches)]

    def has(self, kind: str) -> bool:
        """True if any layer is called ``kind`` or ``kind_<number>``."""
        pattern = re.compile(rf"(?:.*/)?{kind}(?:_\d+)*(?:/.*)?")
        return any(map(pattern.fullmatch, self.layers))

    def recurrent_activation(self) -> str | None:
        """Gate activation of the first LSTM, if the file contains the model's description."""
        text = self._file.attrs.get("model_config")
        if text is None:
            return None
        try:
            return _first_value(json.loads(text), "recurrent_activation")
        except (ValueError, RecursionError) as error:
            raise WeightsError(
                f"{self.path}: the attribute model_config is no valid JSON: {error}"
            ) from error


def _texts(values: Any) -> list[str]:
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values]


def _first_value(node: Any, key: str) -> str | None:
    """Find the first text stored under ``key`` in nested JSON."""
    if isinstance(node, dict):
        if isinstance(node.get(key), str):
            return str(node[key])
        children: Any = node.values()
    else:
        children = node if isinstance(node, list) else ()
    return next((v for v in (_first_value(child, key) for child in children) if v), None)
