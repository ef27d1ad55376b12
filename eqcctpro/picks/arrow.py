"""Arrow columns from NumPy arrays and texts, and back.

Arrow's own conversions import pandas where it is installed, and its functions describe
themselves at length when they are first used: together a third of a second at the start
of a command.  Buffers need neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

__all__ = [
    "TextPool",
    "first_letters",
    "flag_column",
    "number_column",
    "numbers_of",
    "text_column",
    "texts_in",
    "texts_of_width",
]


def number_column(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """A column without nulls; `kind` is as wide as the array's type."""
    return pa.Array.from_buffers(kind, len(values), [None, pa.py_buffer(values)])


def flag_column(value: bool, length: int) -> pa.Array:
    """A column that is true, or false, everywhere."""
    bits = np.full(-(-length // 8), 255 if value else 0, dtype=np.uint8)
    return pa.Array.from_buffers(pa.bool_(), length, [None, pa.py_buffer(bits)])


def text_column(texts: Sequence[str]) -> pa.Array:
    """A column of these texts."""
    return TextPool(texts).column()


class TextPool:
    """Texts of which a column takes some, each as often as it likes.

    Parameters
    ----------
    texts : sequence of str
    """

    def __init__(self, texts: Sequence[str]) -> None:
        encoded = [text.encode() for text in texts]
        self._lengths = np.array([len(text) for text in encoded], dtype=np.int32)
        self._ends = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int32)
        self._bytes = np.frombuffer(b"".join(encoded), dtype=np.uint8)

    def __contains__(self, character: str) -> bool:
        return bool((self._bytes == ord(character)).any())

    def column(self, which: NDArray[np.integer[Any]] | None = None) -> pa.Array:
        """A column of all texts in their order, or of those that `which` names."""
        if which is None:
            return _text_array(self._ends, self._bytes)
        lengths = self._lengths[which]
        ends = np.zeros(len(which) + 1, dtype=np.int32)
        np.cumsum(lengths, out=ends[1:])
        width = int(self._lengths.max(initial=0))
        if np.all(self._lengths == width):
            rows = self._bytes.reshape(len(self._lengths), width)[which]
            return _text_array(ends, rows.reshape(-1))
        at = np.arange(ends[-1], dtype=np.int32)
        at += np.repeat(self._ends[which] - ends[:-1], lengths)
        return _text_array(ends, self._bytes[at])


def _text_array(ends: NDArray[np.int32], texts: NDArray[np.uint8]) -> pa.Array:
    return pa.StringArray.from_buffers(len(ends) - 1, pa.py_buffer(ends), pa.py_buffer(texts))


def texts_of_width(texts: NDArray[np.bytes_]) -> pa.Array:
    """A column of ASCII texts that all fill the width of their array."""
    ends = np.arange(len(texts) + 1, dtype=np.int32) * texts.dtype.itemsize
    return pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(ends), pa.py_buffer(texts.tobytes())
    )


def numbers_of(column: pa.ChunkedArray, kind: str) -> NDArray[Any]:
    """The values of a column as the NumPy type that Arrow keeps them in; nulls are no numbers."""
    if column.null_count:
        return np.asarray(column.to_numpy(), dtype=kind)
    parts = [
        np.frombuffer(chunk.buffers()[1], dtype=kind)[chunk.offset : chunk.offset + len(chunk)]
        for chunk in column.chunks
        if len(chunk)
    ]
    return np.concatenate(parts) if parts else np.empty(0, dtype=kind)


def first_letters(column: pa.ChunkedArray) -> NDArray[np.uint8]:
    """The first byte of each text of a column that has one."""
    parts = [np.empty(0, dtype=np.uint8)]
    for chunk in column.chunks:
        if len(chunk):
            _, ends, texts = chunk.buffers()
            edges = np.frombuffer(ends, dtype=np.int32)[
                chunk.offset : chunk.offset + len(chunk) + 1
            ]
            if texts is not None:
                starts = edges[:-1][edges[1:] > edges[:-1]]
                parts.append(np.frombuffer(texts, dtype=np.uint8)[starts])
    return np.concatenate(parts)


def texts_in(column: pa.ChunkedArray) -> bytes:
    """All texts of a column in sequence."""
    parts = []
    for chunk in column.chunks:
        if len(chunk):
            _, ends, texts = chunk.buffers()
            first = np.frombuffer(ends, dtype=np.int32)[chunk.offset :]
            if texts is not None:
                parts.append(texts.to_pybytes()[first[0] : first[len(chunk)]])
    return b"".join(parts)
