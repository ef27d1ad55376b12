"""Waveform memory of station tasks: large ones are cut into pieces, or left out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.pieces import equal_pieces
from eqcctpro.archive.plan import Plan
from eqcctpro.archive.tasks import AT_A_TIME, Piece, ReadExtents
from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError
from eqcctpro.models.picker import Picker
from eqcctpro.orchestration import placement
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.sources.files import LARGEST_KEPT
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.sources.task_waveforms import why_whole
from eqcctpro.spans import FOREVER_NS
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.gaps import MOST_ADDED
from eqcctpro.waveform.resampling import LONGEST_RECORD

__all__ = ["WaveformMemory", "fit_into_memory", "waveform_memory"]

Float64 = NDArray[np.float64]

# What a sample takes from decoding to curves, with the next station waiting, in bytes, and
# what of it the footprint of a worker covers, in MB (docs/resources.md).
BYTES_A_SAMPLE = 30
COVERED_MB = 5.0
# What a sample of a channel takes while all of it is resampled in the Fourier domain, beyond that.
FOURIER_BYTES = 50
# What a sample takes that is decoded and waits, and one of a curve that waits to be written.
DECODED_BYTES, CURVE_BYTES = 4, 4
# Where less than this is missing, it is not the waveforms that are too large.
LARGE_MB = 64.0
# Pieces of station tasks that are cut have so much of waveforms, or less where there is less room:
# some hours of three components.  Shorter ones would mostly be what pieces share.
PIECE_MB, SMALLEST_PIECE_MB = 128.0, 4.0
# What a node of a cluster has room for, as far as is known before it is asked.
NODE_MB = 4096.0
# What a worker takes of which no footprint is known.
UNKNOWN_WORKER_MB = 700.0


@dataclass(frozen=True)
class WaveformMemory:
    """Memory for the waveforms of station tasks, MB of 2**20 bytes; all of shape (tasks,).

    Attributes
    ----------
    needed : ndarray
        Beyond what short tasks take.
    in_pieces : ndarray
        What stays of that however short the pieces are that a task is picked in; NaN where it
        must be picked at once.
    """

    needed: Float64
    in_pieces: Float64


def waveform_memory(plan: Plan, settings: TaskSettings, picker: Picker) -> WaveformMemory:
    """Estimate the waveform memory of each station task from the headers of records."""
    table = plan.tasks.table
    parts = [np.empty((2, 0))]
    for at in range(0, len(table), AT_A_TIME):
        rows = np.arange(at, min(at + AT_A_TIME, len(table)), dtype=np.int64)
        read = table.read_extents(rows, settings.context_ns)
        parts.append(_of_some(plan, read, len(rows), settings, picker))
    needed, in_pieces = np.concatenate(parts, axis=1)
    return WaveformMemory(needed, in_pieces)


def _of_some(
    plan: Plan, read: ReadExtents, n_tasks: int, settings: TaskSettings, picker: Picker
) -> Float64:
    files = plan.files
    rates = files.rates()[read.extent]
    held = files.expected_samples()[read.extent]
    samples = held * read.share
    target = picker.sampling_rate
    larger = np.ones(len(rates)) if target is None else np.maximum(1.0, target / rates)

    def total(values: Float64) -> Float64:
        return np.bincount(read.task, values, n_tasks).astype(np.float64)

    taken = samples * larger
    # All of a channel's pieces together, for what is done to continuous records.
    codes = files.codes()[read.extent].astype(np.int64)
    keys = np.stack([read.task, *codes.T], axis=1)
    channels, of_channel = np.unique(keys, axis=0, return_inverse=True)
    of_channel = of_channel.reshape(-1)
    task_of = channels[:, 0]
    in_channel = np.bincount(of_channel, taken, len(channels))
    rate = np.zeros(len(channels))
    np.maximum.at(rate, of_channel, rates * larger)
    added = np.zeros(len(channels))
    if settings.preparation.fill_gaps != "none":
        first, last = np.full(len(channels), FOREVER_NS), np.full(len(channels), -FOREVER_NS)
        np.minimum.at(first, of_channel, read.first_ns)
        np.maximum.at(last, of_channel, read.last_ns)
        seconds = (last.astype(np.float64) - first) / NS_PER_S
        missing = np.maximum(seconds * rate - in_channel, 0)
        added = np.minimum(missing, np.maximum(in_channel, MOST_ADDED))
    fourier = np.zeros(len(rates), dtype=bool)
    sharp = np.zeros(len(rates), dtype=bool)
    for value in np.unique(rates).tolist():
        same = rates == value
        fourier[same] = why_whole(settings, [value]) is not None
        sharp[same] = settings.needs_record(value)
    transformed = np.bincount(of_channel, np.where(fourier, taken, 0), len(channels))
    whole = np.bincount(of_channel, np.where(sharp, held * larger, 0), len(channels))
    cut = np.bincount(of_channel, np.where(sharp, read.share < 1, 0), len(channels)) > 0
    whole = np.where(cut & (whole <= LONGEST_RECORD), whole, 0)
    once = np.zeros((2, n_tasks))
    np.maximum.at(once[0], task_of, np.maximum(transformed, whole) * FOURIER_BYTES)
    np.maximum.at(once[1], read.task, files.sizes()[read.file].astype(np.float64))
    kept = files.sizes()[read.file] <= LARGEST_KEPT
    waiting = total(np.where(kept, held - samples, 0)) * DECODED_BYTES
    waiting += np.bincount(task_of, whole, n_tasks) * 2 * DECODED_BYTES
    bytes_ = (total(taken) + np.bincount(task_of, added, n_tasks)) * BYTES_A_SAMPLE
    curves = np.zeros(n_tasks)
    if settings.annotations is not None:
        curves = total(taken) / max(len(picker.components), 1) * len(picker.labels) * CURVE_BYTES
    partly = total((read.share < 1).astype(np.float64)) > 0
    needed = (bytes_ + once[0] + waiting + curves + np.where(partly, once[1], 0)) / 2**20
    around = 2 * settings.context_ns / NS_PER_S
    beside = np.bincount(task_of, rate * around, n_tasks) * BYTES_A_SAMPLE
    in_pieces = (once[1] + beside + curves) / 2**20
    must_be_whole = total(fourier.astype(np.float64)) > 0
    if picker.features is not None or why_whole(settings, []) is not None:
        must_be_whole[:] = True
    in_pieces[must_be_whole] = np.nan
    return np.stack([np.maximum(0.0, needed - COVERED_MB), in_pieces])


def fit_into_memory(
    config: PickConfig, plan: Plan, settings: TaskSettings, picker: Picker
) -> tuple[Float64, dict[int, PickOutcome]]:
    """Cut station tasks that exceed a worker's memory into pieces of time.

    Returns
    -------
    ndarray, shape (tasks,)
        What each then takes, MB; 0 for those without room.
    dict of int to PickOutcome
        Of tasks, by their rows, for which this machine has too little memory, in pieces too.

    Raises
    ------
    ResourceError
        There is not enough for any of them.
    """
    memory = waveform_memory(plan, settings, picker)
    needed = memory.needed
    plan.tasks.table.cut({})
    largest = float(needed.max(initial=0.0))
    if largest < LARGE_MB:
        return needed, {}
    room, error = _room(config, largest)
    if largest <= room:
        return needed, {}
    cut: dict[int, tuple[Piece, ...]] = {}
    too_large: list[int] = []
    for row in np.flatnonzero(needed > room).tolist():
        free = room - memory.in_pieces[row]  # NaN where it cannot be cut
        if not free >= SMALLEST_PIECE_MB:
            too_large.append(row)
            continue
        length = min(PIECE_MB, free)
        count = int(np.ceil(needed[row] / length))
        cut[row] = equal_pieces(plan.tasks.table, row, count, settings.context_ns)
        needed[row] = memory.in_pieces[row] + length
    if error is None:
        too_large = []  # a node may be larger than is known here
    elif len(too_large) == len(needed):
        row = int(needed.argmax())
        raise ResourceError(
            f"{error.message} Waveforms of {plan.tasks[row].name} take {needed[row]:.0f} MB of it.",
            hint=f"{error.hint}, or {_advice(settings, picker)}",
        )
    plan.tasks.table.cut(cut)
    failed = {
        row: PickOutcome.failure(
            ResourceError(
                f"its waveforms need {needed[row]:.0f} MB, more than a worker can have "
                f"({max(room, 0):.0f} MB){_why_not_cut(plan, row, settings, picker)}",
                hint=f"{_advice(settings, picker)}, or give the run more memory",
            ),
        )
        for row in too_large
    }
    needed[too_large] = 0.0
    return needed, failed


def _why_not_cut(plan: Plan, row: int, settings: TaskSettings, picker: Picker) -> str:
    """Reason why a station task cannot be picked in pieces, as the end of a sentence."""
    if picker.features is not None:
        return f", and {picker.model} looks at a record as a whole"
    read = plan.tasks.table.read_extents(np.array([row], dtype=np.int64), settings.context_ns)
    why = why_whole(settings, np.unique(plan.files.rates()[read.extent]).tolist())
    return "" if why is None else f", and {why}"


def _advice(settings: TaskSettings, picker: Picker) -> str:
    """Advice to users about station tasks that cannot be picked in pieces."""
    cut = "cut time into chunks (timechunk)"
    if picker.features is None and settings.grid == "trace" and why_whole(settings, []) is None:
        return f"pick on the absolute grid (--window-grid absolute), {cut}"
    return cut


def _room(config: PickConfig, largest: float) -> tuple[float, ResourceError | None]:
    """Waveform memory of a worker, MB, at most `largest`; and the error that explains a limit."""
    if config.address is not None:  # its nodes tell by themselves
        return min(largest, NODE_MB), None
    machine = placement.this_machine()

    def refused(waveforms: float) -> ResourceError | None:
        try:
            placed = placement.place_workers(config, waveforms_mb=waveforms, hardware=machine)
        except ResourceError as error:
            return error
        if placed.plan is not None or config.ignore_ram_cap:
            return None
        free = machine.ram_available_mb * config.ram_safety_cap - UNKNOWN_WORKER_MB
        return (
            None
            if waveforms <= free
            else ResourceError(
                f"There is room for {max(free, 0):.0f} MB of waveforms.", hint="free memory"
            )
        )

    error = refused(largest)
    if error is None:
        return largest, None
    low, high = -1.0, largest
    while high - low > 1:
        middle = (low + high) / 2
        why = refused(max(middle, 0.0))
        if why is None:
            low = middle
        else:
            high, error = middle, why
    return low, error
