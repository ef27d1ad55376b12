"""Split of a station task into pieces in time, with about equal numbers of samples."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from eqcctpro.archive.tasks import Piece, TaskTable
from eqcctpro.spans import FOREVER_NS

__all__ = ["equal_pieces"]


def equal_pieces(table: TaskTable, row: int, count: int, context_ns: int) -> tuple[Piece, ...]:
    """Split the station task in a row of a table into pieces, in the order of time.

    Parameters
    ----------
    table : TaskTable
    row : int
    count : int
        Number of pieces; fewer may be returned.
    context_ns : int
        Data to read on either side of a piece, in nanoseconds.
    """
    read = table.read_extents(np.array([row], dtype=np.int64), context_ns)
    samples = table.files.expected_samples()[read.extent] * read.share
    first, last = read.first_ns.astype(np.float64), read.last_ns.astype(np.float64) + 1
    edges = np.unique(np.concatenate([first, last]))
    # Samples before each edge: those of every extent are spread evenly over its time.
    before = np.zeros(len(edges))
    for start, end, number in zip(first, last, samples, strict=True):
        before += np.clip((edges - start) / (end - start), 0, 1) * number
    inner = np.interp(np.arange(1, count) / count * before[-1], before, edges)
    own_start, own_end = table.owned(np.array([row], dtype=np.int64))[0].tolist()
    borders = [int(time) for time in np.unique(inner) if own_start < int(time) < own_end]
    bounds = [own_start, *borders, own_end]
    numbers = table.file_numbers(row)
    pieces = []
    for start_ns, end_ns in pairwise(bounds):
        reaches = (read.first_ns < min(end_ns, FOREVER_NS - context_ns) + context_ns) & (
            read.last_ns >= max(start_ns, context_ns - FOREVER_NS) - context_ns
        )
        touched = set(read.file[reaches].tolist())
        files = tuple(at for at, number in enumerate(numbers) if number in touched)
        pieces.append(Piece(start_ns, end_ns, files))
    return tuple(pieces)
