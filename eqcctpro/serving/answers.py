"""Encoding of results as JSON, msgpack, CSV, QuakeML or Arrow."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from eqcctpro.archive.selection import Key
from eqcctpro.models.picker import Picker
from eqcctpro.picks.raw import RawPicks, TaskPicks
from eqcctpro.picks.table import pick_table
from eqcctpro.pipeline.records import PickOutcome, PickResult
from eqcctpro.serving.problems import NotAcceptableProblem
from eqcctpro.serving.waveforms import ARROW
from eqcctpro.times import format_utc
from eqcctpro.waveform.segments import Segment

__all__ = [
    "ANSWER_TYPES",
    "CURVE_TYPES",
    "Answer",
    "CurveAnswer",
    "CurvePiece",
    "PickAnswer",
    "PickRow",
    "StationRow",
    "WaveformPiece",
    "choose_type",
]

# Values of a waveform that a screen can tell apart.
_MOST_SHOWN = 8000

# What a value of a curve, and a row, take while they are written.
_BYTES_OF_VALUE, _BYTES_OF_ROW = 30, 2000
_NUMBERS_AT_ONCE = 65_536


class _ChannelRow(msgspec.Struct, frozen=True):
    network: str
    station: str
    location: str
    channel: str


class PickRow(_ChannelRow, frozen=True):
    """A pick, with the columns of the pick table."""

    phase: str
    time: str
    start_time: str
    end_time: str
    probability: float
    model: str
    weights: str
    timechunk: str
    run_id: str


class StationRow(_ChannelRow, frozen=True):
    """Outcome of a station: done, empty (with a reason) or failed (with an error)."""

    status: str
    reason: str
    error: str
    notes: list[str]
    windows: int
    samples: int


class CurvePiece(_ChannelRow, frozen=True):
    """Probability curves of a stretch of data without a gap.

    Attributes
    ----------
    start : str
        Time of the first value.
    sampling_rate : float
        Hz, of the curves.
    labels : list of str
    values : list of list of float, or bytes
        A row for each label; None where no window reaches.  In msgpack float32, little-endian, row
        after row, with NaN.
    """

    start: str
    sampling_rate: float
    labels: list[str]
    values: Any


class WaveformPiece(_ChannelRow, frozen=True):
    """Waveforms for display: minimum and maximum of every few samples.

    Attributes
    ----------
    start : str
        Time of the first sample.
    sampling_rate : float
        Hz, of the pairs.
    low, high : list of float
        Equal where every sample is given.
    """

    start: str
    sampling_rate: float
    low: list[float]
    high: list[float]


class PickAnswer(msgspec.Struct, frozen=True):
    """The answer to ``/v1/pick``."""

    request_id: str
    model: str
    served_name: str
    picks: list[PickRow]
    detections: list[PickRow]
    stations: list[StationRow]
    notes: list[str]


class CurveAnswer(msgspec.Struct, frozen=True):
    """The answer to ``/v1/annotate``."""

    request_id: str
    model: str
    served_name: str
    curves: list[CurvePiece]
    waveforms: list[WaveformPiece]
    picks: list[PickRow]
    detections: list[PickRow]
    stations: list[StationRow]
    notes: list[str]


@dataclass(slots=True)
class Answer:
    """Result of a request, in all forms that a client may ask for.

    Attributes
    ----------
    request_id : str
    picker : Picker
    stations : list of tuple of str
        Network, station, location, and band and instrument code of each.
    results : list of PickResult
        One for each station.
    timechunk : str
        Name of the span of all samples.
    notes : list of str
    with_curves : bool
    segments : list of Segment
        Those that are to be shown.
    served_name : str
        What clients call the model.
    """

    request_id: str
    picker: Picker
    stations: list[Key]
    results: list[PickResult]
    timechunk: str
    notes: list[str] = field(default_factory=list)
    with_curves: bool = False
    segments: list[Segment] = field(default_factory=list)
    served_name: str = ""
    _rows: list[PickRow] | None = None

    @property
    def n_picks(self) -> int:
        """Picks of all stations."""
        return sum(len(result.picks) for result in self.results)

    @property
    def most_bytes(self) -> int:
        """Memory that writing the answer may take."""
        values = sum(piece.values.size for result in self.results for piece in result.curves)
        shown = sum(min(len(segment.samples), _MOST_SHOWN) for segment in self.segments)
        rows = self.n_picks + sum(len(result.detections) for result in self.results)
        return (
            _BYTES_OF_VALUE * (values + 2 * shown)
            + _BYTES_OF_ROW * (rows + len(self.results))
            + 2 * sum(map(len, self.notes))
        )

    def rows(self) -> list[PickRow]:
        """Picks as rows, in the order of the pick table."""
        if self._rows is None:
            self._rows = self._rows_of([result.picks for result in self.results])
        return self._rows

    def table(self) -> pa.Table:
        """The pick table."""
        picks = TaskPicks.of([(at, result.picks) for at, result in enumerate(self.results)])
        named = _Named(self.stations, self.timechunk)
        return pick_table(picks, named, self.picker, self.request_id)

    def _rows_of(self, found: Sequence[RawPicks]) -> list[PickRow]:
        """Rows of the pick table of some picks of each station, without the table."""
        picker, rows = self.picker, []
        for codes, raw in zip(self.stations, found, strict=True):
            columns = [column.tolist() for column in raw.columns()]
            for label, time_ns, start_ns, end_ns, value in zip(*columns, strict=True):
                order = ((time_ns + 500) // 1000, codes, picker.labels[label])
                row = PickRow(
                    *codes,
                    picker.labels[label],
                    *(_text(time_ns), _text(start_ns), _text(end_ns)),
                    value,
                    *(picker.model, picker.weights, self.timechunk, self.request_id),
                )
                rows.append((order, row))
        rows.sort(key=lambda item: item[0])
        return [row for _, row in rows]

    def structure(self, *, binary: bool) -> PickAnswer | CurveAnswer:
        """The answer as JSON and msgpack hold it."""
        common = {
            "request_id": self.request_id,
            "model": self.picker.name,
            "served_name": self.served_name,
            "picks": self.rows(),
            "detections": self._rows_of([result.detections for result in self.results]),
            "stations": [
                _station(result.outcome, codes)
                for result, codes in zip(self.results, self.stations, strict=True)
            ],
            "notes": self.notes,
        }
        if not self.with_curves:
            return PickAnswer(**common)  # type: ignore[arg-type]
        return CurveAnswer(
            curves=self._curves(binary=binary),
            waveforms=[_shown(segment) for segment in self.segments],
            **common,  # type: ignore[arg-type]
        )

    def _curves(self, *, binary: bool) -> list[CurvePiece]:
        # Noise and what else is not picked is left out.
        shown = {
            row: label
            for row, label in enumerate(self.picker.labels)
            if label in self.picker.phases or label == self.picker.detection_label
        }
        labels, rows = list(shown.values()), list(shown)
        return [
            CurvePiece(
                *codes,
                format_utc(piece.start_ns),
                round(1e9 / piece.interval_ns, 6),
                labels,
                piece.values[rows].astype("<f4").tobytes()
                if binary
                else _plain(piece.values[rows]),
            )
            for codes, result in zip(self.stations, self.results, strict=True)
            for piece in result.curves
        ]


def _shown(segment: Segment) -> WaveformPiece:
    """Reduce a segment to as many values as a picture can show."""
    samples = np.nan_to_num(segment.samples.astype(np.float64), posinf=0.0, neginf=0.0)
    together = -(-len(samples) // _MOST_SHOWN)
    whole = np.pad(samples, (0, -len(samples) % together), mode="edge").reshape(-1, together)
    code = segment.code
    return WaveformPiece(
        *(code.network, code.station, code.location, code.channel),
        format_utc(segment.start_ns),
        segment.sampling_rate / together,
        whole.min(axis=1).tolist(),
        whole.max(axis=1).tolist(),
    )


def _plain(values: NDArray[np.float32]) -> list[msgspec.Raw]:
    """Rows of numbers as JSON has them: six decimals, null for what is not known."""
    return [msgspec.Raw(b"[" + b",".join(_texts(row)) + b"]") for row in values]


def _texts(row: NDArray[np.float32]) -> Iterator[bytes]:
    """Numbers with commas between them, of some at a time: objects take more than their texts."""
    for at in range(0, len(row), _NUMBERS_AT_ONCE):
        rounded = np.round(row[at : at + _NUMBERS_AT_ONCE].astype(np.float64), 6).tolist()
        known = [None if value != value else value for value in rounded]
        yield msgspec.json.encode(known)[1:-1]


def _station(record: PickOutcome, codes: Key) -> StationRow:
    return StationRow(
        *codes,
        record.status,
        record.reason,
        record.error,
        list(record.notes),
        record.n_windows,
        record.n_samples,
    )


def _text(time_ns: int) -> str:
    # Rounded as in the table, which keeps microseconds.
    return format_utc((time_ns + 500) // 1000 * 1000)


@dataclass(frozen=True)
class _Named:
    """Headings of a request's stations, as the pick table needs them."""

    stations: list[Key]
    timechunk: str

    def names(self, positions: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
        """Codes and time chunk of each."""
        return ((*self.stations[position], self.timechunk) for position in positions)


def _json(answer: Answer) -> bytes:
    return msgspec.json.encode(answer.structure(binary=False))


def _msgpack(answer: Answer) -> bytes:
    return msgspec.msgpack.encode(answer.structure(binary=True))


def _csv(answer: Answer) -> bytes:
    return _written(answer, "csv", "picks.csv")


def _quakeml(answer: Answer) -> bytes:
    return _written(answer, "quakeml", "picks.quakeml")


def _written(answer: Answer, kind: str, name: str) -> bytes:
    """Content of the file that a run writes in this format."""
    from eqcctpro.picks.formats.registry import write_picks

    table = answer.table()
    with tempfile.TemporaryDirectory(prefix="eqcctpro-answer-") as folder:
        path = Path(folder) / name
        write_picks(table, path, kind)
        return path.read_bytes()


def _arrow(answer: Answer) -> bytes:
    table = answer.table()
    metadata = {**(table.schema.metadata or {}), b"served_name": answer.served_name.encode()}
    table = table.replace_schema_metadata(metadata)
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, table.schema) as writer:
        writer.write_table(table)
    return buffer.getvalue()


ANSWER_TYPES: dict[str, Callable[[Answer], bytes]] = {
    "application/json": _json,
    "application/msgpack": _msgpack,
    "application/x-msgpack": _msgpack,
    "text/csv": _csv,
    "application/quakeml+xml": _quakeml,
    "application/xml": _quakeml,
    ARROW: _arrow,
}
"""Writers of picks by media type; curves are written as JSON and msgpack only."""

CURVE_TYPES = ("application/json", "application/msgpack", "application/x-msgpack")


def choose_type(accept: str, *, curves: bool = False) -> str:
    """The media type of an answer, from the request's ``Accept``.

    Raises
    ------
    NotAcceptableProblem
        The client takes none of ours.
    """
    offered = CURVE_TYPES if curves else tuple(ANSWER_TYPES)
    if not accept or accept in ("*/*", "application/json"):
        return "application/json"
    wanted: list[tuple[float, int, str]] = []
    for position, part in enumerate(accept.split(",")):
        media_type, *parameters = [piece.strip().lower() for piece in part.split(";")]
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if quality > 0:
            wanted.append((-quality, position, media_type))
    for _, _, media_type in sorted(wanted):
        if media_type in offered:
            return media_type
        if media_type in ("*/*", "application/*"):
            return "application/json"
        if media_type == "text/*" and "text/csv" in offered:
            return "text/csv"
    raise NotAcceptableProblem(
        f"none of {accept[:200]} can be given", hint=f"accept {', '.join(offered)}"
    )
