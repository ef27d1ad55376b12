"""Memory for waveforms: how much station tasks need, and which need more than there is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.plan import Plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError
from eqcctpro.orchestration.placement import place_workers
from eqcctpro.pipeline.prepare import failed_record
from eqcctpro.pipeline.records import TaskRecord

__all__ = ["tasks_without_room", "waveforms_mb"]

# What a sample takes from decoding to curves, with the next station waiting, in bytes, and
# what of it the footprint of a worker covers, in MB (docs/resources.md).
BYTES_A_SAMPLE = 30
COVERED_MB = 5.0
# Where less than this is missing, it is not the waveforms that are too large.
LARGE_MB = 64.0


def waveforms_mb(plan: Plan) -> NDArray[np.float64]:
    """Memory that each station task takes beyond short ones, MB, from the records' headers."""
    taken = plan.tasks.table.samples_in_memory() * BYTES_A_SAMPLE / 2**20
    return np.maximum(0.0, taken - COVERED_MB)


def tasks_without_room(
    config: PickConfig, plan: Plan, needed_mb: NDArray[np.float64]
) -> list[TaskRecord]:
    """Records of the station tasks for which this machine has too little memory.

    Parameters
    ----------
    config : PickConfig
    plan : Plan
    needed_mb : ndarray, shape (tasks,)
        From `waveforms_mb`.

    Raises
    ------
    ResourceError
        There is not enough for any of them.
    """
    largest = float(needed_mb.max(initial=0.0))
    # A cluster's nodes tell by themselves.
    if config.address is not None or largest < LARGE_MB or _fits(config, largest) is None:
        return []
    sizes = np.unique(needed_mb)
    low, high = -1, len(sizes) - 1  # the last one is known to be too large
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(config, sizes[middle]) is None else (low, middle)
    if low < 0:
        error = _fits(config, sizes[0])
        assert error is not None
        task = plan.tasks[int(needed_mb.argmax())]
        raise ResourceError(
            f"{error.message} Waveforms of {task.name} take {largest:.0f} MB of it.",
            hint=f"{error.hint}, or cut time into chunks (timechunk)",
        )
    return [
        failed_record(
            plan.tasks[int(index)],
            ResourceError(
                f"its waveforms need {needed_mb[index]:.0f} MB, more than a worker can have",
                hint="cut time into chunks (timechunk), or give the run more memory",
            ),
        )
        for index in np.flatnonzero(needed_mb > sizes[low])
    ]


def _fits(config: PickConfig, waveforms: float) -> ResourceError | None:
    """Why there is no room for a worker with so much of waveforms; None if there is."""
    try:
        place_workers(config, waveforms_mb=waveforms)
    except ResourceError as error:
        return error
    return None
