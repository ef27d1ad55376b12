"""Times of samples by the time stamps of their records, where these leave the nominal rate.

Records that follow each other within half a sample are one segment, however far their stamps run
away from the nominal sampling rate in the end: by the drift of a clock without GPS, by a
correction of the clock, or by a leap second.  A segment of such records carries a *clock*: an
integer array of shape (n, 2), each row the nanoseconds from the first sample to the beginning of a
record at the nominal rate, and what is to be added to them to have its time stamp.  Between two
rows the correction changes evenly, behind the last one it stays; the first row is (0, 0).  At a
leap second two rows lie a nanosecond apart.
"""

from __future__ import annotations

import datetime
import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pymseed import MiniSEEDError, MS3TraceList
from pymseed.mstracelist import MS3TraceSeg

from eqcctpro.codes import Code
from eqcctpro.miniseed.headers import (
    LEAST_DRIFT_TICKS,
    LEAST_RECORD_BYTES,
    TICKS_PER_S,
    nominal_rate,
)
from eqcctpro.miniseed.salvage import usual_record_length, whole_records
from eqcctpro.miniseed.unusual_codes import trace_code
from eqcctpro.times import NS_PER_S

__all__ = [
    "LEAP_SECONDS_NS",
    "Clock",
    "RecordRun",
    "correction_at",
    "corrections_at",
    "largest_correction",
    "leap_second_within",
    "nominal_behind",
    "one_clock",
    "record_runs",
    "stamps_wander",
    "stretch",
]

Clock = NDArray[np.int64]

DAY_NS = 86_400 * NS_PER_S

# Years with a leap second (IERS Bulletin C) at the end of June and of December.
_LEAP_JUNE = (1972, 1981, 1982, 1983, 1985, 1992, 1993, 1994, 1997, 2012, 2015)
_LEAP_DECEMBER = (
    *(1972, 1973, 1974, 1975, 1976, 1977, 1978, 1979, 1987, 1989, 1990, 1995, 1998),
    *(2005, 2008, 2016),
)
#: Midnights (UTC, nanoseconds since 1970) that follow a leap second.
LEAP_SECONDS_NS = tuple(
    (date - datetime.date(1970, 1, 1)).days * DAY_NS
    for date in sorted(
        [datetime.date(year, 7, 1) for year in _LEAP_JUNE]
        + [datetime.date(year + 1, 1, 1) for year in _LEAP_DECEMBER]
    )
)

# Fields of a record's header (SEED 2.4, chapter 8), big-endian.
_HEADER = {
    "codes": ("S12", 8),
    "year": (">u2", 20),
    "day": (">u2", 22),
    "hour": ("u1", 24),
    "minute": ("u1", 25),
    "second": ("u1", 26),
    "fraction": (">u2", 28),
    "samples": (">u2", 30),
    "factor": (">i2", 32),
    "multiplier": (">i2", 34),
    "exponent": ("u1", 54),
}


def correction_at(clock: Clock, offset_ns: float) -> int:
    """Correction of the nominal time at an offset behind the first sample; both in ns."""
    # Of a long clock, only the rows around that time are looked at.
    first = int(clock[0, 0])
    row = bisect_right(clock[:, 0], math.floor(offset_ns))
    near = clock[max(row - 2, 0) : row + 2]
    behind = np.interp(offset_ns - first, near[:, 0] - first, near[:, 1])
    return int(np.round(behind))


def corrections_at(
    clock: Clock, offsets_ns: NDArray[Any], *, relative: bool = False
) -> NDArray[np.int64]:
    """`correction_at` of many; `relative`: offsets are from the first row."""
    first = int(clock[0, 0])
    # Times since 1970 would lose digits as floats.
    behind = offsets_ns if relative else offsets_ns - first
    corrections = np.interp(behind, clock[:, 0] - first, clock[:, 1])
    return np.round(corrections).astype(np.int64)


def nominal_behind(clock: Clock, time_ns: int) -> float:
    """Nominal nanoseconds from a clock's first row to a true time; also outside of the rows."""
    true = clock.sum(axis=1)
    # A leap second makes stamps go back.
    latest = np.maximum.accumulate(true)
    row = max(int(np.searchsorted(latest, time_ns, side="right")) - 1, 0)
    return _nominal_behind(
        clock[row : row + 2].tolist(), latest[row : row + 2].tolist(), time_ns
    ) + (int(clock[row, 0] - clock[0, 0]))


def _nominal_behind(rows: Sequence[Sequence[int]], latest: Sequence[int], time_ns: int) -> float:
    """`nominal_behind` of rows, and of the latest true time up to each of them."""
    row = max(bisect_right(latest, time_ns) - 1, 0)
    behind = float(time_ns - sum(rows[row]))
    if behind > 0 and row + 1 < len(rows):
        later, lasted = rows[row + 1][0] - rows[row][0], sum(rows[row + 1]) - sum(rows[row])
        if lasted > 0:
            behind *= later / lasted
    return rows[row][0] - rows[0][0] + behind


def stretch(clock: Clock, first_ns: int, last_ns: int) -> Clock:
    """Rows of a clock between two nominal times, and rows at both, in the same nominal times."""
    times = clock[:, 0]
    inside = slice(bisect_right(times, first_ns), bisect_left(times, last_ns))
    ends = [[[time, correction_at(clock, time)]] for time in (first_ns, last_ns)]
    return np.concatenate([np.array(ends[0]), clock[inside], np.array(ends[1])])


def largest_correction(clock: Clock) -> int:
    """Largest absolute correction of the nominal times, ns."""
    return int(np.abs(clock[:, 1]).max())


def leap_second_within(start_ns: int, end_ns: int) -> int | None:
    """The midnight behind a leap second in a span, ends included, or None."""
    if start_ns > LEAP_SECONDS_NS[-1]:  # as of all data since 2017
        return None
    at = bisect_left(LEAP_SECONDS_NS, start_ns)
    return LEAP_SECONDS_NS[at] if LEAP_SECONDS_NS[at] <= end_ns else None


def _changes(rows: Clock) -> Clock:
    """Rows whose correction is another one than before or after them."""
    differs = np.diff(rows[:, 1]) != 0
    return rows[np.append(True, differs) | np.append(differs, False)]


def one_clock(
    starts_ns: Sequence[int], lengths_ns: Sequence[int], clocks: Sequence[Clock | None]
) -> tuple[list[int], Clock]:
    """Bring pieces of several channels, each with a clock of its own, to one nominal time.

    Parameters
    ----------
    starts_ns, lengths_ns : sequence of int
        True start of each piece, and its length at the nominal rate.
    clocks : sequence of ndarray or None

    Returns
    -------
    starts_ns : list of int
        Nominal start of each piece: that of the samples of other pieces at the same true time.
    clock : ndarray of int64, shape (n, 2)
        Nominal times, ascending, and what is to be added to them from there on to have true ones.
    """
    nominal = list(starts_ns)
    rows: list[tuple[int, int]] = []
    # Of each row the true time, or the latest one before it: a leap second makes stamps go back.
    latest: list[int] = []
    covered = None
    for index in sorted(range(len(nominal)), key=starts_ns.__getitem__):
        start = starts_ns[index]
        if rows:
            nominal[index] = rows[0][0] + round(_nominal_behind(rows, latest, start))
        end = nominal[index] + lengths_ns[index]
        if covered is not None and end <= covered:
            continue
        own = clocks[index]
        own = np.zeros((1, 2), dtype=np.int64) if own is None else own
        shift = np.array([nominal[index], start - nominal[index]], dtype=np.int64)
        for time_ns, correction in (stretch(own, 0, lengths_ns[index]) + shift).tolist():
            if covered is None or time_ns > covered:
                rows.append((time_ns, correction))
                latest.append(max(latest[-1] if latest else time_ns + correction, sum(rows[-1])))
        covered = end
    return nominal, np.array(rows, dtype=np.int64).reshape(-1, 2)


@dataclass(frozen=True, slots=True)
class RecordRun:
    """Records that follow each other, by their headers.

    Attributes
    ----------
    interval_ns : float
        Between samples, at the nominal rate.
    starts_ns : ndarray of int64
        Time stamp of each record.
    firsts : ndarray of int64
        Samples of the run before each record.
    ends_ns : ndarray of int64
        Time of each record's last sample, leap seconds regarded.
    n_samples : int
    """

    interval_ns: float
    starts_ns: NDArray[np.int64]
    firsts: NDArray[np.int64]
    ends_ns: NDArray[np.int64]
    n_samples: int

    def precedes_by_leap_second(self, other: RecordRun) -> bool:
        """True if another run continues this one after a leap second in the last record."""
        start, following = int(self.starts_ns[-1]), int(self.ends_ns[-1]) + self.interval_ns
        late = following - NS_PER_S - int(other.starts_ns[0])
        known = leap_second_within(start - NS_PER_S + 1, start) is not None
        alike = self.interval_ns == other.interval_ns
        return known and alike and abs(late) <= self.interval_ns / 2

    def clock(self, record: int, n_samples: int) -> Clock | None:
        """Clock of so many samples from a record on, or None where the nominal rate is right."""
        behind = int(np.searchsorted(self.firsts, self.firsts[record] + n_samples))
        # With the record behind the last one, up to which the correction changes.
        records = slice(record, behind + 1)
        firsts, starts = self.firsts[records], self.starts_ns[records]
        offsets = np.round((firsts - firsts[0]) * self.interval_ns).astype(np.int64)
        rows = np.stack([offsets, starts - starts[0] - offsets], axis=1)
        leaps = [row for at in self._with_leap(records) for row in self._leap(at, record, rows)]
        if leaps:
            rows = np.concatenate([rows, np.array(leaps, dtype=np.int64)])
            rows = rows[np.argsort(rows[:, 0], kind="stable")]
        return _changes(rows) if self._drifts() else None

    def _drifts(self) -> bool:
        """True if stamps leave the nominal rate by half a sample anywhere.

        All parts of such a run have a clock, and no part of others, whatever else is in a file.
        """
        nominal = np.round(self.firsts * self.interval_ns).astype(np.int64)
        late = self.starts_ns - self.starts_ns[0] - nominal
        leaps = self._with_leap(slice(0, len(self.firsts)))
        return bool(late.max() - late.min() > self.interval_ns / 2) or bool(leaps)

    def _with_leap(self, records: slice) -> list[int]:
        """Records whose end shows that there is a leap second in them."""
        ends = self.firsts[records.start + 1 : records.stop + 1]
        if records.stop >= len(self.firsts):
            ends = np.append(ends, self.n_samples)
        counts = ends - self.firsts[records]
        nominal = self.starts_ns[records] + np.round((counts - 1) * self.interval_ns)
        late = nominal - self.ends_ns[records] > self.interval_ns / 2
        return (np.flatnonzero(late) + records.start).tolist()

    def _leap(self, at: int, record: int, rows: Clock) -> list[tuple[int, int]]:
        """The rows at the end of a record's leap second, before and behind it."""
        start = int(self.starts_ns[at])
        # The second itself has the times of the one after the midnight.
        behind = ((start - NS_PER_S) // DAY_NS + 1) * DAY_NS + NS_PER_S
        sample = int(np.ceil((behind - start) / self.interval_ns - 1e-6))
        first = int(self.firsts[at]) + sample - int(self.firsts[record])
        offset = round(first * self.interval_ns)
        correction = int(rows[at - record, 1])
        return [(offset - 1, correction), (offset, correction - NS_PER_S)]


def record_runs(content: bytes, names: dict[Code, Code]) -> dict[tuple[Code, int], list[RecordRun]]:
    """Runs of the records in memory, by codes and version, from the headers alone.

    Parameters
    ----------
    content : bytes
    names : dict
        From `eqcctpro.miniseed.unusual_codes.with_placeholders`.
    """
    runs: dict[tuple[Code, int], list[RecordRun]] = {}
    for trace in _headers(content):
        with suppress(ValueError):  # reported when it was decoded
            key = trace_code(trace, names), trace.pubversion
            found = [_run(piece) for piece in trace if piece.samprate > 0]
            found = _joined_at_leap_seconds(found)
            starts = np.array([run.starts_ns[0] for run in found], dtype=np.int64)
            runs[key] = [_as_its_clock(run, starts) for run in found]
    return runs


def _joined_at_leap_seconds(runs: list[RecordRun]) -> list[RecordRun]:
    """Join runs where a record begins in a leap second, for which libmseed makes no allowance."""
    joined: list[RecordRun] = []
    for run in sorted(runs, key=lambda run: int(run.starts_ns[0])):
        last = joined[-1] if joined else None
        if last is None or not last.precedes_by_leap_second(run):
            joined.append(run)
            continue
        ends = np.append(last.ends_ns[:-1], last.ends_ns[-1] - NS_PER_S)
        joined[-1] = RecordRun(
            last.interval_ns,
            np.concatenate([last.starts_ns, run.starts_ns]),
            np.concatenate([last.firsts, run.firsts + last.n_samples]),
            np.concatenate([ends, run.ends_ns]),
            last.n_samples + run.n_samples,
        )
    return joined


def _as_its_clock(run: RecordRun, starts_ns: NDArray[np.int64]) -> RecordRun:
    """A run without the leap second in its last record that the next records do not know of."""
    last = int(run.n_samples - run.firsts[-1])
    start = int(run.starts_ns[-1])
    nominal = start + round((last - 1) * run.interval_ns)
    late = nominal - int(run.ends_ns[-1]) > run.interval_ns / 2
    following = start + round(last * run.interval_ns)
    # The starts are in order.
    at = bisect_left(starts_ns, following - run.interval_ns / 2)
    if not late or at == len(starts_ns) or starts_ns[at] > following + run.interval_ns / 2:
        return run
    return replace(run, ends_ns=np.append(run.ends_ns[:-1], nominal))


def _headers(content: bytes) -> MS3TraceList:
    def add(buffer: bytes) -> None:
        traces.add_buffer(buffer, skip_not_data=True, record_list=True, split_version=True)

    traces = MS3TraceList()
    try:
        add(content)
    except (MiniSEEDError, ValueError):  # reported when it was decoded
        traces = MS3TraceList()
        for record in whole_records(content):
            with suppress(MiniSEEDError, ValueError):
                add(record)
    return traces


def _run(piece: MS3TraceSeg) -> RecordRun:
    found = [
        (entry.record.starttime, entry.record.samplecnt, entry.endtime)
        for entry in piece.recordlist or ()
    ]
    starts, counts, ends = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return RecordRun(
        NS_PER_S / float(piece.samprate),
        starts,
        np.cumsum(counts) - counts,
        ends,
        int(counts.sum()),
    )


def stamps_wander(content: bytes, rate: float | None = None) -> bool:
    """True if contiguous records leave their nominal rate by half a sample anywhere.

    A fast check of miniSEED 2 in records of one length; False where these are others.  A drift
    that is still there at the end of a segment shows in the segment's end, too.

    Parameters
    ----------
    content : bytes
    rate : float, optional
        Hz, of all records; by default that of each channel's first header.
    """
    length = usual_record_length(content)
    if length < LEAST_RECORD_BYTES or len(content) < 3 * length or len(content) % length:
        return False
    little = content[48:50] == b"\xe8\x03"
    records = np.frombuffer(content, dtype=_header_dtype(length, little=little))
    exponents = records["exponent"]
    if (exponents != exponents[0]).any():
        return False
    return any(_wanders(channel, rate) for channel in _by_channel(records))


@lru_cache(maxsize=16)
def _header_dtype(length: int, *, little: bool) -> np.dtype[np.void]:
    """Fields of the headers of records of one length."""
    formats = [kind.replace(">", "<" if little else ">") for kind, _ in _HEADER.values()]
    offsets = [offset for _, offset in _HEADER.values()]
    return np.dtype(
        {"names": list(_HEADER), "formats": formats, "offsets": offsets, "itemsize": length}
    )


def _by_channel(records: NDArray[np.void]) -> Iterator[NDArray[np.void]]:
    codes = records["codes"]
    if (codes == codes[0]).all():
        yield records
        return
    for code in np.unique(codes):
        yield records[codes == code]


def _wanders(records: NDArray[np.void], rate: float | None) -> bool:
    if rate is None:
        rate = nominal_rate(int(records["factor"][0]), int(records["multiplier"][0]))
    if rate <= 0 or len(records) < 3:
        return False
    days = records["day"].astype(np.int64)
    years = records["year"]
    if years[0] != years[-1]:
        years = years.astype(np.int64)
        days += years * 365 + (years - 1) // 4
    minutes = (days * 24 + records["hour"]) * 60 + records["minute"]
    ticks = (minutes * 60 + records["second"]) * TICKS_PER_S + records["fraction"]
    steps = np.diff(ticks) - records["samples"][:-1] * (TICKS_PER_S / rate)
    half = 0.5 * TICKS_PER_S / rate
    gaps = np.abs(steps) > half
    drift = np.append(0.0, np.cumsum(np.where(gaps, 0.0, steps)))
    runs = np.append(0, np.flatnonzero(gaps) + 1)  # from a gap on time is counted anew
    ranges = np.maximum.reduceat(drift, runs) - np.minimum.reduceat(drift, runs)
    return float(ranges.max()) > max(half, LEAST_DRIFT_TICKS)
