"""miniSEED files to segments.

The codes, times and sampling rates come from the records; file names mean nothing.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from pymseed import MiniSEEDError, MS3Record, MS3TraceList
from pymseed.clib import clibmseed
from pymseed.logging import get_error_messages
from pymseed.mstracelist import MS3TraceID, MS3TraceSeg

from eqcctpro.codes import HEADER_FIELDS, Code, instrument_of, is_tidy, printable
from eqcctpro.errors import DecodeError
from eqcctpro.miniseed.compressed import decompress, is_compressed
from eqcctpro.miniseed.headers import steady_rate
from eqcctpro.miniseed.index import LOWEST_RATE_HZ, hidden_codes
from eqcctpro.miniseed.ordering import in_order
from eqcctpro.miniseed.salvage import control_bytes, incomplete_bytes, whole_records
from eqcctpro.miniseed.sparse_files import is_sparse, read_blocks
from eqcctpro.miniseed.unusual_codes import trace_code, with_placeholders
from eqcctpro.times import NS_PER_S, format_utc
from eqcctpro.waveform.clock import Clock, RecordRun, leap_second_within, record_runs, stamps_wander
from eqcctpro.waveform.segments import ChannelCode, Segment

__all__ = ["NOT_PICKED", "DecodedFile", "decode_file", "decode_records"]


#: Notes that begin with this are on data that nobody picks; they are shown on a terminal.
NOT_PICKED = "not picked: "

# Bytes by which libmseed lets the samples of a segment grow.  A megabyte, as pymseed has it, is
# mapped into memory and out of it again for each segment, which takes longer than to decode a
# minute; with few bytes a day would be moved often.
clibmseed.libmseed_prealloc_block_size = 64 * 1024


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """Decoded content of a file.

    Attributes
    ----------
    segments : list of Segment
    warnings : list of str
        What could not be used, in sentences that name the file.
    spans : dict of ChannelCode to list of tuple of int
        First and last sample of all that the file holds without a gap, where only a part of it
        was decoded; nanoseconds.
    """

    segments: list[Segment]
    warnings: list[str] = field(default_factory=list)
    spans: dict[ChannelCode, list[tuple[int, int]]] = field(default_factory=dict)

    def held(self) -> dict[ChannelCode, list[tuple[int, int]]]:
        """`spans`, also where all of the file was decoded."""
        if self.spans:
            return self.spans
        held: dict[ChannelCode, list[tuple[int, int]]] = {}
        for segment in self.segments:
            held.setdefault(segment.code, []).append((segment.start_ns, segment.end_ns))
        return held


def decode_file(
    path: str | Path,
    start_ns: int | None = None,
    end_ns: int | None = None,
    content: bytes | None = None,
) -> DecodedFile:
    """Decode a miniSEED file, or the records of it that touch a span.

    Parameters
    ----------
    path : path
    start_ns, end_ns : int, optional
        Only records with samples in this span are decoded.  Whole records are
        returned: what lies outside the span is not cut off.
    content : bytes, optional
        What the file holds, when it has been read already.

    Raises
    ------
    DecodeError
        The file cannot be read, is empty, or holds no miniSEED record.
    """
    holes = 0
    if content is None:
        content, holes = _read(path)
    decoded = decode_records(content, path, start_ns, end_ns)
    if holes:
        name = printable(str(path))
        decoded.warnings.append(
            f"{NOT_PICKED}{holes} bytes of {name} to which nothing was ever written; fetch it again"
        )
    return decoded


def decode_records(
    content: bytes, path: str | Path, start_ns: int | None = None, end_ns: int | None = None
) -> DecodedFile:
    """Decode miniSEED records in memory; see `decode_file`.

    Parameters
    ----------
    content : bytes
    path : path
        What messages call them.
    start_ns, end_ns : int, optional

    Raises
    ------
    DecodeError
        There is nothing, or no miniSEED record.
    """
    path = printable(str(path))
    if not content:
        raise DecodeError(f"{path} is empty (0 bytes)", hint="remove it or fetch it again")
    if is_compressed(content):
        content = decompress(content, path)
    warnings: list[str] = []
    original = content
    steady = steady_rate(content)
    names: dict[Code, Code] = {}
    if steady is None or not is_tidy(content[HEADER_FIELDS]):
        content, names = with_placeholders(original)
    content = in_order(content)
    span = (_time_text(start_ns), _time_text(end_ns))
    traces, lost, details = _unpack(content, span)
    if lost == len(content):
        raise DecodeError(
            f"{path} is not readable as miniSEED: {_one_line(details)}",
            hint="only miniSEED 2 and 3 can be picked",
        )
    if lost:
        warnings.append(
            f"{NOT_PICKED}{lost} of {len(content)} bytes of {path}, which is only partly readable "
            f"({_one_line(details)})"
        )
    cut = start_ns is not None or end_ns is not None
    found = _pieces_of(traces)
    everything = _pieces_of(_without_samples(content)) if cut else found
    drifts = _drifts(everything, content, steady)
    stamps = _Stamps(content, everything, names, drifts=drifts) if cut or drifts else None
    segments = _collect(found, names, path, warnings, stamps)
    if len(segments) > 1:
        warnings += _hidden(original, path, segments)
    if not segments and not warnings and not cut:
        raise DecodeError(
            f"{path} holds no miniSEED record", hint="only miniSEED 2 and 3 can be picked"
        )
    spans = stamps.spans() if cut and stamps is not None else {}
    return DecodedFile(segments, warnings, spans)


def _hidden(content: bytes, path: str | Path, segments: list[Segment]) -> list[str]:
    """A sentence on instruments of which the plan does not know, as they lie in between others."""
    codes = {(c.network, c.station, c.location, c.channel) for c in (s.code for s in segments)}
    if len({(*code[:3], instrument_of(code[3])) for code in codes}) == 1:
        return []
    names = hidden_codes(content, codes)
    if not names:
        return []
    return [
        f"{NOT_PICKED}{', '.join(names)} in {path}, whose first and last records are of another "
        "instrument; sort its records by channel, or cut it"
    ]


def _read(path: str | Path) -> tuple[bytes, int]:
    """Contents of a file, and the bytes of its holes, which are left out."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
            if not is_sparse(file):
                return file.readall(), 0
            content = b"".join(read_blocks(file))
            return content, os.fstat(file.fileno()).st_size - len(content)
    except MemoryError as error:
        raise DecodeError(
            f"{path} needs more memory to be read than there is", hint="cut it into smaller files"
        ) from error
    except OSError as error:
        raise DecodeError(
            f"cannot read {path}: {error.strerror or error}",
            hint="check that the file exists and may be read",
        ) from error


def _unpack(content: bytes, span: tuple[str | None, str | None]) -> tuple[MS3TraceList, int, str]:
    """Traces, bytes that could not be used, and why."""
    traces = MS3TraceList()
    try:
        _add(traces, content, span)
    except (MiniSEEDError, ValueError) as error:
        details = "; ".join(get_error_messages()) or str(error)
        return *_unpack_records(content, span), details
    return traces, incomplete_bytes(content), "the last record is incomplete"


def _unpack_records(
    content: bytes, span: tuple[str | None, str | None]
) -> tuple[MS3TraceList, int]:
    """Unpack the intact records of a damaged file; return them and the bytes that are lost."""
    traces = MS3TraceList()
    lost = len(content) - control_bytes(content)
    for record in whole_records(content):
        with suppress(MiniSEEDError, ValueError):  # counted as lost
            MS3Record.parse(record)  # a trace list passes over a record without a length
            _add(traces, record, span)
            lost -= len(record)
    return traces, lost


def _add(traces: MS3TraceList, content: bytes, span: tuple[str | None, str | None]) -> None:
    start, end = span
    # Versions (qualities) apart, as ObsPy has them: a better one overrules the others.
    traces.add_buffer(content, unpack_data=True, starttime=start, endtime=end, split_version=True)


class _Piece(NamedTuple):
    """A continuous stretch of samples; each attribute of libmseed's object is read once."""

    samples: MS3TraceSeg
    rate: float
    start_ns: int
    end_ns: int
    n_samples: int

    def drift(self) -> float:
        """By how much of itself it is longer than by its nominal rate."""
        if self.rate <= 0 or self.n_samples < 2:
            return 0.0
        nominal = (self.n_samples - 1) * NS_PER_S / self.rate
        return (self.end_ns - self.start_ns - nominal) / nominal

    def needs_clock(self) -> bool:
        """True if it has a leap second, or ends half a sample off its nominal rate."""
        _, rate, start, end, n = self
        if rate <= 0:
            return False
        interval = NS_PER_S / rate
        if abs(end - start - (n - 1) * interval) > interval / 2:
            return True
        return leap_second_within(start - NS_PER_S, end + NS_PER_S) is not None


# Each trace with its pieces.
_Traces = list[tuple[MS3TraceID, list[_Piece]]]


def _pieces_of(traces: MS3TraceList) -> _Traces:
    return [
        (
            trace,
            [_Piece(seg, seg.samprate, seg.starttime, seg.endtime, seg.samplecnt) for seg in trace],
        )
        for trace in traces
    ]


def _without_samples(content: bytes) -> MS3TraceList:
    """Traces of all records, from their headers."""
    traces = MS3TraceList()
    # What cannot be read has been reported when it was decoded.
    with suppress(MiniSEEDError, ValueError):
        traces.add_buffer(content, skip_not_data=True, split_version=True)
    return traces


def _drifts(traces: _Traces, content: bytes, steady: float | None) -> bool:
    """True if time stamps leave the nominal sampling rate by half a sample anywhere in a file.

    They do not leave the rate `steady`, from `steady_rate`.
    """
    rates = set()
    for _, pieces in traces:
        for piece in pieces:
            if piece.needs_clock():
                return True
            rates.add(piece.rate)
    if rates == {steady}:  # as of most small files
        return False
    return stamps_wander(content, rates.pop() if len(rates) == 1 else None)


class _Stamps:
    """Start times of records and the times of their samples, from the record headers.

    The headers are read one by one only where the stamps leave the nominal sampling rate.

    Parameters
    ----------
    content : bytes
    traces : list of (MS3TraceID, list of _Piece)
        All that is in it.
    names : dict
        From `with_placeholders`.
    drifts : bool
        Whether stamps leave the nominal rate.
    """

    def __init__(
        self, content: bytes, traces: _Traces, names: dict[Code, Code], *, drifts: bool
    ) -> None:
        self._spans: dict[tuple[Code, int], _Spans] = {}
        self._runs: dict[tuple[Code, int], _Runs] = {}
        if drifts:
            runs = record_runs(content, names)
            self._runs = {key: _Runs(found) for key, found in runs.items()}
        else:
            spans: dict[tuple[Code, int], list[_Piece]] = {}
            for trace, found in traces:
                with suppress(ValueError):  # reported when it was decoded
                    key = trace_code(trace, names), trace.pubversion
                    spans.setdefault(key, []).extend(found)
            self._spans = {key: _Spans(found) for key, found in spans.items()}

    def spans(self) -> dict[ChannelCode, list[tuple[int, int]]]:
        """First and last sample of what a file holds without a gap, if it was looked for."""
        spans: dict[ChannelCode, list[tuple[int, int]]] = {}
        for known in (self._spans, self._runs):
            for (code, _), found in known.items():
                spans.setdefault(ChannelCode(*code), []).extend(found.spans)
        return spans

    def of(
        self, key: tuple[Code, int], start_ns: int, n: int
    ) -> tuple[int | None, int, Clock | None]:
        """Find the start of a piece's continuous record, the samples behind it, and its clock.

        Parameters
        ----------
        key : tuple of Code and int
            Codes and version.
        start_ns, n : int
            First sample of the piece, and number of samples.

        Returns
        -------
        origin_ns : int or None
            None where it is not known.
        samples_behind : int
        clock : ndarray of int64 or None
            Of the piece.
        """
        runs = self._runs.get(key)
        found = None if runs is None else runs.find(start_ns, n)
        if found is not None:
            run, record = found
            before = int(run.firsts[record])
            origin = start_ns - round(before * run.interval_ns)
            return origin, run.n_samples - before - n, run.clock(record, n)
        spans = self._spans.get(key)
        return (None, 0, None) if spans is None else (*spans.around(start_ns, n), None)


class _Runs:
    """Runs of one channel, found by the times of their records."""

    def __init__(self, runs: list[RecordRun]) -> None:
        self.spans = [(int(run.starts_ns[0]), int(run.ends_ns[-1])) for run in runs]
        # Of records that begin together, those with more samples behind them than any before.
        self._found: dict[int, list[tuple[int, RecordRun, int]]] = {}
        for run in runs:
            left = (run.n_samples - run.firsts).tolist()
            seen: set[int] = set()
            for record, start in enumerate(run.starts_ns.tolist()):
                others = self._found.setdefault(start, [])
                if start not in seen and (not others or left[record] > others[-1][0]):
                    others.append((left[record], run, record))
                seen.add(start)

    def find(self, start_ns: int, n: int) -> tuple[RecordRun, int] | None:
        """The first run with a record that begins at a time and `n` samples from there on."""
        found = self._found.get(start_ns, [])
        at = bisect_left(found, n, key=itemgetter(0))
        return found[at][1:] if at < len(found) else None


class _Spans:
    """Continuous records of one channel, which may overlap."""

    def __init__(self, pieces: list[_Piece]) -> None:
        self._pieces = sorted(pieces, key=lambda piece: (piece.start_ns, piece.end_ns))
        self.spans = [(piece.start_ns, piece.end_ns) for piece in self._pieces]
        self._latest = list(accumulate((end for _, end in self.spans), max))

    def around(self, start_ns: int, n: int) -> tuple[int | None, int]:
        """Start of the earliest one that a piece lies in, and its samples behind the piece."""
        at = bisect_left(self._latest, start_ns)
        if at == len(self.spans) or self.spans[at][0] > start_ns:
            return None, 0
        record = self._pieces[at]
        before = round((start_ns - record.start_ns) * record.rate / NS_PER_S)
        return record.start_ns, max(record.n_samples - before - n, 0)


def _collect(
    traces: _Traces,
    names: dict[Code, Code],
    path: str | Path,
    warnings: list[str],
    stamps: _Stamps | None,
) -> list[Segment]:
    segments: list[Segment] = []
    for trace, pieces in traces:
        try:
            code = ChannelCode(*trace_code(trace, names))
        except ValueError as error:
            warnings.append(f"{path}: records left out: {error}")
            continue
        version = trace.pubversion
        for piece in pieces:
            samples, rate = piece.samples.take_np_datasamples(), float(piece.rate)
            n = len(samples)
            if rate <= 0 or n == 0 or samples.dtype.kind == "S":
                warnings.append(f"{path}: {code} holds no time series (log or event records)")
                continue
            if rate < LOWEST_RATE_HZ:
                warnings.append(
                    f"{path}: {n} samples of {code} at {rate:.3g} Hz "
                    f"left out: nothing below {LOWEST_RATE_HZ:g} Hz is picked"
                )
                continue
            start = piece.start_ns
            origin, behind, clock = (
                (None, 0, None) if stamps is None else stamps.of((code, version), start, n)
            )
            segment = Segment(
                code, start, rate, samples, origin, version, clock, behind, drift=piece.drift()
            )
            segments.append(segment)
    return segments


def _time_text(time_ns: int | None) -> str | None:
    if time_ns is None:
        return None
    seconds, nanoseconds = divmod(time_ns, NS_PER_S)
    return f"{format_utc(seconds * NS_PER_S, 'seconds')[:-1]}.{nanoseconds:09d}Z"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
