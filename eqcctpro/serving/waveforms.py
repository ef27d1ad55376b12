"""Bodies of requests to segments: miniSEED, arrays in msgpack or JSON, Arrow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from eqcctpro.archive.index import LOWEST_RATE_HZ
from eqcctpro.errors import DecodeError, SettingsError
from eqcctpro.serving.problems import InvalidProblem, MalformedProblem, MediaTypeProblem
from eqcctpro.times import NS_PER_S, parse_utc
from eqcctpro.waveform.decode import DecodedFile, decode_records
from eqcctpro.waveform.segments import ChannelCode, Segment

__all__ = ["ARROW", "BODY_TYPES", "MINISEED", "ArrayBody", "ArrayStation", "Options", "read_body"]

MINISEED = "application/vnd.fdsn.mseed"
ARROW = "application/vnd.apache.arrow.stream"

# What curl says of `--data-binary @FILE` unless it is told otherwise.
_CURL = "application/x-www-form-urlencoded"

# Codes are part of identifiers and names of files later.
_CODE = re.compile(r"^[A-Za-z0-9_-]*$")
_LONGEST_CODE = 8
# Between the years 1678 and 2261, what nanoseconds can say, with a year's room for arithmetic.
_TIME_LIMIT_NS = 2**63 - 366 * 86_400 * NS_PER_S
_HIGHEST_RATE_HZ = 100_000.0


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a request may ask for beside its waveforms.

    Attributes
    ----------
    model : str
    p_threshold, s_threshold, detection_threshold : float
        In place of the model's.
    waveforms : bool
        Whether ``/v1/annotate`` also gives the waveforms, for the eye.
    private : bool
        Keep the picks out of the stream.
    """

    model: str | None = None
    p_threshold: float | None = None
    s_threshold: float | None = None
    detection_threshold: float | None = None
    waveforms: bool = False
    private: bool = False


class ArrayStation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Waveforms of one instrument that begin together.

    Attributes
    ----------
    network, station, location : str
    channels : list of str
        Such as ``["HHZ", "HHN", "HHE"]``, one for each row.
    start : str, int or float
        ISO-8601 text, nanoseconds (integer) or seconds (float) since 1970, UTC.
    sampling_rate : float
        Hz.
    samples : list of list of float, or bytes
        Rows in the order of the channels; bytes are `dtype`, little-endian, row after row, in JSON
        as base64.
    dtype : str
    """

    network: str = ""
    station: str
    location: str = ""
    channels: list[str]
    start: str | int | float
    sampling_rate: float
    samples: bytes | list[list[float]]
    dtype: Literal["int16", "int32", "float32", "float64"] = "float32"


class ArrayBody(Options, kw_only=True, forbid_unknown_fields=True):
    """A request with arrays."""

    stations: list[ArrayStation]


class _JsonStation(ArrayStation, kw_only=True, forbid_unknown_fields=True):
    samples: str | list[list[float]]  # type: ignore[assignment]


class _JsonBody(Options, kw_only=True, forbid_unknown_fields=True):
    stations: list[_JsonStation]


@dataclass(frozen=True, slots=True)
class Waveforms:
    """What a body holds."""

    decoded: DecodedFile
    options: Options | None = None


_MSGPACK = msgspec.msgpack.Decoder(ArrayBody)
_JSON = msgspec.json.Decoder(_JsonBody)


def read_body(content: bytes, media_type: str, name: str = "the body") -> Waveforms:
    """Decode a body by its media type.

    Parameters
    ----------
    content : bytes
    media_type : str
        Without parameters, in small letters; empty is miniSEED.
    name : str
        What messages call it.

    Raises
    ------
    MalformedProblem
        The content is not of this type.
    InvalidProblem
        It is, and says something impossible.
    MediaTypeProblem
        Such bodies are not read.
    """
    read = BODY_TYPES.get(media_type)
    if read is None:
        named = ", ".join(kind for kind in BODY_TYPES if kind not in ("", _CURL))
        raise MediaTypeProblem(
            f"bodies of the type {media_type[:100]!r} are not read",
            hint=f"send {named} or multipart/form-data",
        )
    if not content:
        raise MalformedProblem(f"{name} is empty", hint="send miniSEED records or arrays")
    return read(content, name)


def _read_miniseed(content: bytes, name: str) -> Waveforms:
    try:
        decoded = decode_records(content, name)
    except DecodeError as error:
        raise MalformedProblem(error.message, hint=error.hint) from error
    return Waveforms(decoded)


def _read_msgpack(content: bytes, name: str) -> Waveforms:
    return _read_arrays(_MSGPACK.decode, content, name)


def _read_json(content: bytes, name: str) -> Waveforms:
    return _read_arrays(_JSON.decode, content, name)


def _read_arrays(decode: Callable[[bytes], Any], content: bytes, name: str) -> Waveforms:
    try:
        body = decode(content)
    except msgspec.ValidationError as error:
        raise InvalidProblem(f"{name}: {error}", hint="/docs describes what is read") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedProblem(
            f"{name} cannot be read: {error}", hint="/docs describes what is read"
        ) from error
    segments: list[Segment] = []
    for index, station in enumerate(body.stations):
        segments.extend(_segments(station, f"stations[{index}]"))
    if not segments:
        raise InvalidProblem(f"{name} holds no station", hint="/docs describes what is read")
    return Waveforms(DecodedFile(segments), body)


def _segments(station: ArrayStation, where: str) -> list[Segment]:
    samples = _samples(station, where)
    start_ns = _start_ns(station.start, f"{where}.start")
    codes = (station.network, station.station, station.location)
    return [
        _segment((*codes, channel), start_ns, station.sampling_rate, row, where)
        for channel, row in zip(station.channels, samples, strict=True)
    ]


def _segment(
    codes: tuple[str, str, str, str],
    start_ns: int,
    rate: float,
    samples: NDArray[Any],
    where: str,
) -> Segment:
    for code in codes:
        if not _CODE.match(code) or len(code) > _LONGEST_CODE:
            raise InvalidProblem(
                f"{where}: {code[:40]!r} is no code", hint="at most 8 letters of A-Za-z0-9_-"
            )
    if not codes[1] or not codes[3]:
        raise InvalidProblem(f"{where}: a station and a channel code are needed")
    if not LOWEST_RATE_HZ <= rate <= _HIGHEST_RATE_HZ:
        raise InvalidProblem(
            f"{where}.sampling_rate: {rate} Hz is not picked",
            hint=f"between {LOWEST_RATE_HZ:g} and {_HIGHEST_RATE_HZ:g} Hz",
        )
    if not len(samples):
        raise InvalidProblem(f"{where}: {codes[3]} has no samples")
    end_ns = start_ns + len(samples) / rate * NS_PER_S
    if not -_TIME_LIMIT_NS < start_ns <= end_ns < _TIME_LIMIT_NS:
        raise InvalidProblem(f"{where}.start: the time is out of range")
    return Segment(ChannelCode(*codes), start_ns, rate, samples)


def _samples(station: ArrayStation, where: str) -> NDArray[Any]:
    """Rows of samples, one for each channel."""
    rows = len(station.channels)
    if not rows:
        raise InvalidProblem(f"{where}.channels: there is none")
    given: bytes | str | list[list[float]] = station.samples
    if isinstance(given, str):
        given = _from_base64(given, where)
    if isinstance(given, bytes):
        kind = np.dtype(station.dtype).newbyteorder("<")
        if len(given) % (kind.itemsize * rows):
            raise InvalidProblem(
                f"{where}.samples: {len(given)} bytes are not {rows} rows of {station.dtype}",
                hint="all channels of an entry have the same length",
            )
        return np.frombuffer(given, dtype=kind).reshape(rows, -1)
    if len(given) != rows:
        raise InvalidProblem(
            f"{where}.samples: {len(given)} rows for {rows} channels", hint="one row for each"
        )
    if len({len(row) for row in given}) > 1:
        raise InvalidProblem(
            f"{where}.samples: rows of different lengths", hint="send them as several entries"
        )
    return np.array(given, dtype=np.float64).astype(np.float32)


def _from_base64(text: str, where: str) -> bytes:
    import base64
    import binascii

    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidProblem(f"{where}.samples: no base64: {error}") from error


def _start_ns(start: str | int | float, where: str) -> int:
    if isinstance(start, str):
        try:
            return parse_utc(start, where)
        except (SettingsError, OverflowError) as error:
            raise InvalidProblem(f"{where}: {start[:60]!r} is no time") from error
    value = start if isinstance(start, int) else start * NS_PER_S
    if not -_TIME_LIMIT_NS < value < _TIME_LIMIT_NS:  # also for what is not a number
        raise InvalidProblem(f"{where}: {start} is out of range")
    return round(value)


_ARROW_COLUMNS = ("network", "station", "location", "channel", "start", "sampling_rate", "samples")


def _read_arrow(content: bytes, name: str) -> Waveforms:
    """One row for each piece of a channel; `start` is a timestamp or nanoseconds."""
    import pyarrow as pa

    try:
        table = pa.ipc.open_stream(content).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise MalformedProblem(f"{name} is no Arrow stream: {error}") from error
    missing = [column for column in _ARROW_COLUMNS if column not in table.column_names]
    if missing:
        raise InvalidProblem(
            f"{name}: columns missing: {', '.join(missing)}",
            hint=f"columns are {', '.join(_ARROW_COLUMNS)}",
        )
    try:
        table.validate(full=True)
        segments = [
            _arrow_segment(table, row, f"{name}, row {row}") for row in range(table.num_rows)
        ]
    except (pa.ArrowException, TypeError, AttributeError) as error:
        raise InvalidProblem(f"{name}: a column is of another type: {error}") from error
    if not segments:
        raise InvalidProblem(f"{name} holds no row")
    return Waveforms(DecodedFile(segments))


def _arrow_segment(table: Any, row: int, where: str) -> Segment:
    import pyarrow as pa

    values = [table[column][row] for column in _ARROW_COLUMNS]
    codes = tuple(str(value.as_py() or "") for value in values[:4])
    start, rate, samples = values[4:]
    if not (start.is_valid and rate.is_valid and samples.is_valid):
        raise InvalidProblem(f"{where}: a value is missing")
    if pa.types.is_timestamp(start.type):
        start = start.cast(pa.timestamp("ns", tz=start.type.tz)).cast(pa.int64())
    numbers = samples.values
    if numbers.null_count:
        raise InvalidProblem(f"{where}: a sample is missing", hint="send gaps as several rows")
    if not (pa.types.is_integer(numbers.type) or pa.types.is_floating(numbers.type)):
        raise InvalidProblem(f"{where}: samples are numbers, not {numbers.type}")
    array = numbers.to_numpy(zero_copy_only=False)
    return _segment(codes, int(start.as_py()), float(rate.as_py()), array, where)  # type: ignore[arg-type]


BODY_TYPES: dict[str, Callable[[bytes, str], Waveforms]] = {
    MINISEED: _read_miniseed,
    "application/octet-stream": _read_miniseed,
    _CURL: _read_miniseed,
    "": _read_miniseed,
    "application/msgpack": _read_msgpack,
    "application/x-msgpack": _read_msgpack,
    "application/json": _read_json,
    ARROW: _read_arrow,
}
"""Readers by media type; an empty one is miniSEED."""
