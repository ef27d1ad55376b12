"""Peak amplitudes of picks, from the waveforms they were made on."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from eqcctpro.amplitudes.ground import GroundMotion, moves
from eqcctpro.archive.pieces import equal_pieces
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.errors import DecodeError, InputError, SettingsError
from eqcctpro.picks.table import AMPLITUDE_FIELDS
from eqcctpro.places import Place, as_place
from eqcctpro.roots import Roots
from eqcctpro.sources.files import LARGEST_KEPT, FileCache
from eqcctpro.sources.task_waveforms import load_segments, pieces_of
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.segments import Segment, trim

__all__ = ["measure_amplitudes"]

_log = logging.getLogger("eqcctpro")

# How long after a pick its own phase is the strongest; the next pick ends it earlier.
_WINDOW_S = {"P": 5.0, "S": 15.0}
# The offset of a component is the median of what comes before the pick.
_BEFORE_S = 2.0
# Removing a response needs this much more on both sides, to fade in and out.
_MARGIN_S = 20.0
_CHUNK_MIN = 60.0
# Samples that are decoded at once, of all channels of the files of a station: 64 MB.
_MOST_SAMPLES = 16 * 2**20
# Channels that a warning lists.
_MOST_NAMES = 10
_CONTEXT_NS = round((_MARGIN_S + max(_WINDOW_S.values()) + 1) * NS_PER_S)


def measure_amplitudes(
    picks: pa.Table,
    archive: Place | Sequence[Place],
    response: str | Path | None = None,
    *,
    layout: str = "auto",
    input_roots: tuple[Place, ...] = (),
) -> pa.Table:
    """Add the peak amplitude of each pick's window.

    The window begins at the pick and ends 5 s after a P and 15 s after an S, or at the next pick of
    the same instrument.

    Parameters
    ----------
    picks : pyarrow.Table
        Rows of `eqcctpro.picks.table.PICK_SCHEMA`.
    archive : path, address, or sequence of these
        The waveforms: what `eqcctpro pick` was given.
    response : path, optional
        StationXML or another inventory that ObsPy reads.
    layout : str
        Of the archive.
    input_roots : tuple of Path or str
        Folders and addresses that every file must lie in; none allows all.

    Returns
    -------
    pyarrow.Table
        The picks in their order, with `AMPLITUDE_FIELDS`: the largest deviation of any component
        in counts; with a response, the largest ground velocity of any component, and half the
        peak-to-peak amplitude of a Wood-Anderson seismometer (magnification 2080, mm) on the
        horizontal components, the larger of the two.  Components are those that record ground
        motion: by the input units of the response in the epoch of the pick, else by their codes.
        Null where there are no samples or no response; a warning names the channels without one.

    Raises
    ------
    InputError
        The archive or the inventory cannot be read, or no pick is on any of its records.
    """
    given = (archive,) if isinstance(archive, (str, Path)) else tuple(archive)
    paths = tuple(as_place(place) for place in given)
    # Chunks of our own: a record of any length takes the memory of an hour.
    plan = make_plan(
        InputSettings(
            paths,
            layout,
            timechunk_min=_CHUNK_MIN,
            context_ns=_CONTEXT_NS,
            input_roots=input_roots,
        )
    )
    ground = GroundMotion.read(Path(response)) if response is not None else None
    names = pc.binary_join_element_wise(
        *(pc.fill_null(picks[n], "") for n in ("network", "station", "location", "channel")), "."
    ).to_pylist()
    times = picks["time"].cast(pa.timestamp("us")).cast(pa.int64()).to_numpy() * 1000
    ends = _window_ends(picks, names, times)
    by_name: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        by_name.setdefault(name, []).append(row)
    values = np.full((3, picks.num_rows), np.nan)
    files = FileCache(roots=Roots(input_roots))
    _cut(plan, by_name)
    wanted = [task for task in plan.tasks if task.name in by_name]
    if not wanted and picks.num_rows:
        raise InputError(
            f"no pick is at an instrument of {', '.join(map(str, paths))}",
            hint=f"the picks are at {names[0]} ..., the records of {plan.tasks[0].name} ...",
        )
    for task, following in zip(wanted, [*wanted[1:], None], strict=True):
        for part in [piece.task for piece in pieces_of(task)] or [task]:
            rows = [r for r in by_name[task.name] if part.chunk.own.holds(int(times[r]))]
            if not rows:
                continue
            try:
                # Of pieces nothing is kept for the next one: it would be all that a file holds.
                decoded = files.read(part, None if task.pieces else following, _CONTEXT_NS)
            except DecodeError as error:
                _log.warning("no amplitudes of %s: %s", task.name, error)
                break
            segments = load_segments(part, decoded, _CONTEXT_NS)
            for row in rows:
                values[:, row] = _measure(segments, int(times[row]), int(ends[row]), ground)
    if ground is not None:
        _warn(ground)
    for field, column in zip(AMPLITUDE_FIELDS, values, strict=True):
        picks = picks.append_column(field, pa.array(column, pa.float64(), mask=np.isnan(column)))
    return picks


def _cut(plan: Plan, by_name: Mapping[str, list[int]]) -> None:
    """Have station tasks be read in pieces that hold more than is decoded at once."""
    table = plan.tasks.table
    samples = table.files.expected_samples()
    cut = {}
    for number, heading in enumerate(plan.tasks.headings()):
        if heading.name not in by_name:
            continue
        row = np.array([number], dtype=np.int64)
        read = table.read_extents(row, _CONTEXT_NS)
        # Of small files all is decoded, once for all chunks of a station.
        small = table.files.sizes()[read.file] <= LARGEST_KEPT
        held = float((samples[read.extent] * np.where(small, 1.0, read.share)).sum())
        if held > _MOST_SAMPLES:
            wanted = float((samples[read.extent] * read.share).sum())
            count = max(1, int(np.ceil(wanted / _MOST_SAMPLES)))
            cut[number] = equal_pieces(table, number, count, _CONTEXT_NS)
    table.cut(cut)


def _window_ends(picks: pa.Table, names: list[str], times: NDArray[np.int64]) -> NDArray[np.int64]:
    """End of each pick's window, in ns."""
    letters = pc.utf8_upper(pc.utf8_slice_codeunits(picks["phase"], 0, 1)).to_pylist()
    if unknown := sorted(set(letters) - set(_WINDOW_S)):
        raise SettingsError(f"picks of the phases {', '.join(unknown)} have no window")
    length = np.array([_WINDOW_S[letter] * NS_PER_S for letter in letters], np.int64)
    ends = times + length
    place = pa.array(names, pa.string()).dictionary_encode().indices.to_numpy()
    order = np.lexsort((times, place))
    follows = (place[order][1:] == place[order][:-1]) & (np.diff(times[order]) > 0)
    earlier, later = order[:-1][follows], order[1:][follows]
    ends[earlier] = np.minimum(ends[earlier], times[later])
    return ends


def _warn(ground: GroundMotion) -> None:
    """Say once of which channels the ground motion is not known, and why."""
    for reason, names in sorted(ground.problems.items()):
        listed = ", ".join(sorted(names)[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        _log.warning("no velocity of %s%s: %s", listed, more, reason)


def _measure(
    segments: Sequence[Segment], start_ns: int, end_ns: int, ground: GroundMotion | None
) -> tuple[float, float, float]:
    counts, velocity, wood_anderson = [], [], []
    for segment in segments:
        code = segment.code
        window = trim(segment, start_ns, end_ns)
        if window is None or segment.start_ns > start_ns:
            continue
        if moves(code) if ground is None else ground.measures_motion(code, start_ns):
            before = trim(segment, start_ns - round(_BEFORE_S * NS_PER_S), start_ns)
            offset = np.median((before or window).samples)
            counts.append(float(np.abs(window.samples - offset).max()))
        if ground is None:
            continue
        margin = round(_MARGIN_S * NS_PER_S)
        wider = trim(segment, start_ns - margin, end_ns + margin)
        found = ground.peaks(wider, start_ns, end_ns) if wider is not None else None
        if found is not None:
            velocity.append(found[0])
            if ground.is_horizontal(code, start_ns):
                wood_anderson.append(found[1])
    return (
        max(counts, default=np.nan),
        max(velocity, default=np.nan),
        max(wood_anderson, default=np.nan),
    )
