"""Division of a batch for a CPU: slices that threads take one after the other.

A thread of its own for each slice beats all threads working on the same slice: nothing
waits at the end of every layer, a core that is busy elsewhere holds up only its slice,
and a batch that is not full costs only the slices that it fills.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

from eqcctpro.resources.hardware import usable_cores

__all__ = ["available_cores", "halving_sizes", "shared_bounds", "slice_bounds", "slice_size"]

#: Samples of one component in a slice.  Fewer, and a layer's fixed costs show; more, and
#: activations leave the cache: from 8 to 64 windows PhaseNetLight slows down by a third.
SLICE_SAMPLES = 49_000

#: More windows than this in a slice gain nothing for any model.
MAX_SLICE = 64


#: What a slice costs beyond its windows, in windows, and by what every further size of slices
#: that run at once slows all down.  Measured with PhaseNet in two threads (docs/performance.md).
SLICE_COST = 0.35
OTHER_SIZE_COST = 1.1

#: So many slices for each thread even out that its core does something else for a moment, which
#: gains more than larger slices where a service reads and picks on the same cores.
EVEN_SLICES = 4


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


@lru_cache(maxsize=1024)
def shared_bounds(windows: int, sizes: tuple[int, ...], threads: int) -> list[tuple[int, int]]:
    """Slices that keep all threads busy.

    Of many windows the largest slices of one size with which each thread gets a few.  Of few
    windows those that a batch is through with first: of one size, the last one filled up, or with
    smaller ones for what is left over.  Slices of different sizes that run at once slow each
    other down: 24 windows of PhaseNet in two threads take 5.9 ms as 8 + 8 + 4 + 4, and 4.4 ms as
    six times 4.

    Parameters
    ----------
    windows : int
    sizes : tuple of int
        Powers of two down to 1, the largest first.
    threads : int

    Returns
    -------
    list of tuple of int
        First and last (exclusive) window; each slice begins at a multiple of its size, and the
        last one may end beyond the windows.
    """
    filled_up = [[size] * -(-windows // size) for size in sizes]
    even = [slices for slices in filled_up[:-1] if len(slices) >= EVEN_SLICES * threads]
    if even:
        best = even[0]
    else:
        exact = [_slices_of(windows, sizes[first:]) for first in range(len(sizes))]
        best = min([*exact, *filled_up], key=lambda slices: _duration(slices, threads))
    ends = list(accumulate(best))
    return list(zip([0, *ends], ends, strict=False))


def _slices_of(windows: int, sizes: Sequence[int]) -> list[int]:
    """As many of the largest size as there are windows for, then of the next one."""
    slices = []
    for size in sizes:
        number, windows = divmod(windows, size)
        slices += [size] * number
    return slices


def _duration(slices: Sequence[int], threads: int) -> float:
    """Simulated time of a batch whose slices go to the next free thread; in windows."""
    busy = [0.0] * threads
    for size in slices:
        heapq.heapreplace(busy, busy[0] + size + SLICE_COST)
    return max(busy) * OTHER_SIZE_COST ** (len(set(slices)) - 1)


def available_cores() -> int:
    """Cores that this process may keep busy."""
    return usable_cores()
