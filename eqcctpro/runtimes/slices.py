"""How a batch is cut up for a CPU: slices that threads take one after the other.

A thread of its own for each slice beats all threads working on the same slice: nothing
waits at the end of every layer, a core that is busy elsewhere holds up only its slice,
and a batch that is not full costs only the slices that it fills.
"""

from __future__ import annotations

from collections.abc import Sequence

from eqcctpro.resources.hardware import usable_cores

__all__ = ["available_cores", "halving_sizes", "shared_bounds", "slice_bounds", "slice_size"]

#: Samples of one component in a slice.  Fewer, and a layer's fixed costs show; more, and
#: activations leave the cache: from 8 to 64 windows PhaseNetLight slows down by a third.
SLICE_SAMPLES = 49_000

#: More windows than this in a slice gain nothing for any model.
MAX_SLICE = 64


def slice_size(in_samples: int, batch_size: int) -> int:
    """Windows in a slice; a power of two unless the batch is smaller."""
    size = max(1, min(SLICE_SAMPLES // in_samples, MAX_SLICE))
    return min(1 << (size.bit_length() - 1), batch_size)


def slice_bounds(windows: int, size: int) -> list[tuple[int, int]]:
    """First and last (exclusive) window of each slice of a batch."""
    return [(start, min(start + size, windows)) for start in range(0, windows, size)]


def halving_sizes(largest: int) -> list[int]:
    """Powers of two up to a size, the largest first."""
    return [1 << power for power in reversed(range(largest.bit_length()))]


def shared_bounds(windows: int, sizes: Sequence[int], threads: int) -> list[tuple[int, int]]:
    """Slices that keep all threads busy and are never filled up.

    A small batch is cut into small slices, so that it takes as little time as possible; each
    begins at a multiple of its size.

    Parameters
    ----------
    windows : int
    sizes : sequence of int
        Powers of two down to 1, the largest first.
    threads : int
    """
    share = -(-windows // threads)
    bounds, start = [], 0
    for size in sizes:
        while size <= share and windows - start >= size:
            bounds.append((start, start + size))
            start += size
    return bounds


def available_cores() -> int:
    """Cores that this process may keep busy."""
    return usable_cores()
