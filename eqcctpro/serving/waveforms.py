"""Decoding of request bodies into segments: miniSEED, arrays in msgpack or JSON, Arrow.

What a body says of its size is counted before anything is made of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from eqcctpro.codes import is_code
from eqcctpro.errors import DecodeError, SettingsError
from eqcctpro.miniseed.index import LOWEST_RATE_HZ
from eqcctpro.miniseed.salvage import EXPONENT_AT, usual_record_length
from eqcctpro.serving.inflate import inflate, kind_of_file
from eqcctpro.serving.memory import Share, unlimited
from eqcctpro.serving.problems import (
    InvalidProblem,
    MalformedProblem,
    MediaTypeProblem,
    TooLargeProblem,
)
from eqcctpro.times import NS_PER_S, parse_utc
from eqcctpro.waveform.decode import DecodedFile, decode_records
from eqcctpro.waveform.segments import ChannelCode, Segment

__all__ = [
    "ARROW",
    "BODY_TYPES",
    "MINISEED",
    "MOST_STATIONS",
    "Allowance",
    "ArrayBody",
    "ArrayStation",
    "Options",
    "Waveforms",
    "read_at_once",
    "read_body",
]

MINISEED = "application/vnd.fdsn.mseed"
ARROW = "application/vnd.apache.arrow.stream"

# What curl says of `--data-binary @FILE` unless it is told otherwise.
_CURL = "application/x-www-form-urlencoded"

_LONGEST_CODE = 8
# Between the years 1678 and 2261, what nanoseconds can say, with a year's room for arithmetic.
_TIME_LIMIT_NS = 2**63 - 366 * 86_400 * NS_PER_S
_HIGHEST_RATE_HZ = 100_000.0

#: Stations of a request.
MOST_STATIONS = 10_000
_MOST_CHANNELS = 100
# Letters that separate values, in JSON without lists of numbers.
_SEPARATORS_OF_A_STATION = 30
# What a value becomes at most for each of its bytes: a number, or a list of nothing.
_BYTES_OF_JSON, _BYTES_OF_MSGPACK = 24, 32
# Steim-2 has seven samples of 32 bits in four bytes.
_BYTES_OF_STEIM = 7

# What takes less than a millisecond, or not much more, is done at once.
_FEW_BYTES, _FEW_ARRAY_BYTES, _FEW_RECORDS = 8 * 1024, 128 * 1024, 128
_FEW_RECORD_BYTES = 64 * 1024


@dataclass(frozen=True)
class Allowance:
    """Limits of the decoding of a request's body.

    Attributes
    ----------
    max_bytes : int
        Once it is decompressed.
    max_list_bytes : int
        Of JSON and msgpack whose samples are lists of numbers.
    max_pieces : int
        Stretches without a gap, of all channels.
    share : Share
        Of the memory.
    """

    max_bytes: int = 2**62
    max_list_bytes: int = 2**62
    max_pieces: int = 2**62
    share: Share = field(default_factory=unlimited)

    def require_few_pieces(self, n: int) -> None:
        """Refuse more pieces than are taken at once.

        Raises
        ------
        TooLargeProblem
        """
        if n > self.max_pieces:
            raise TooLargeProblem(
                f"the data has {n} pieces with gaps between them, and {self.max_pieces} are "
                "taken at once",
                hint="send fewer stations or less time in a request",
            )

    def decompressed(self, parts: list[bytes], kind: str) -> bytes:
        """A compressed content as a whole; see `inflate`.

        Raises
        ------
        TooLargeProblem
            It has more than `max_bytes`.
        """
        whole = BytesIO()  # joined pieces would be in memory twice for a moment
        for piece in inflate(parts, kind, self.counter("the body")):
            whole.write(piece)
        return whole.getvalue()

    def counter(self, name: str) -> Callable[[int], None]:
        """Counter of decompressed bytes, which reserves memory before it is allocated.

        The callable that is returned raises `TooLargeProblem` once there are more than `max_bytes`.
        """
        size = 0

        def count(n_bytes: int) -> None:
            nonlocal size
            size += n_bytes
            if size > self.max_bytes:
                raise TooLargeProblem(
                    f"{name} has more than {self.max_bytes / 2**20:g} MB once it is decompressed",
                    hint="send fewer stations or less time in a request",
                )
            self.share.take(n_bytes)

        return count


class Options(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Options of a request beside its waveforms.

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
    channels: Annotated[list[str], msgspec.Meta(max_length=_MOST_CHANNELS)]
    start: str | int | float
    sampling_rate: float
    samples: bytes | Annotated[list[list[float]], msgspec.Meta(max_length=_MOST_CHANNELS)]
    dtype: Literal["int16", "int32", "float32", "float64"] = "float32"


class ArrayBody(Options, kw_only=True, forbid_unknown_fields=True):
    """A request with arrays."""

    stations: Annotated[list[ArrayStation], msgspec.Meta(max_length=MOST_STATIONS)]


class _PackedStation(ArrayStation, kw_only=True, forbid_unknown_fields=True):
    samples: bytes


class _PackedBody(Options, kw_only=True, forbid_unknown_fields=True):
    stations: Annotated[list[_PackedStation], msgspec.Meta(max_length=MOST_STATIONS)]


class _JsonStation(ArrayStation, kw_only=True, forbid_unknown_fields=True):
    samples: str | list[list[float]]  # type: ignore[assignment]


class _JsonBody(Options, kw_only=True, forbid_unknown_fields=True):
    stations: list[_JsonStation]


class _PackedJsonStation(ArrayStation, kw_only=True, forbid_unknown_fields=True):
    samples: str  # type: ignore[assignment]


class _PackedJsonBody(Options, kw_only=True, forbid_unknown_fields=True):
    stations: list[_PackedJsonStation]


@dataclass(frozen=True, slots=True)
class Waveforms:
    """Decoded waveforms and options of a request's body."""

    decoded: DecodedFile
    options: Options | None = None


_MSGPACK, _PACKED = (msgspec.msgpack.Decoder(kind) for kind in (ArrayBody, _PackedBody))
_JSON, _PACKED_JSON = (msgspec.json.Decoder(kind) for kind in (_JsonBody, _PackedJsonBody))


def read_body(
    content: bytes, media_type: str, name: str = "the body", allowance: Allowance | None = None
) -> Waveforms:
    """Decode a body by its media type.

    Parameters
    ----------
    content : bytes
    media_type : str
        Without parameters, in small letters; empty is miniSEED.
    name : str
        What messages call it.
    allowance : Allowance, optional
        How much may be made of it; by default as much as it asks for.

    Raises
    ------
    MalformedProblem
        The content is not of this type.
    InvalidProblem
        It is, and says something impossible.
    MediaTypeProblem
        Such bodies are not read.
    TooLargeProblem, BusyProblem
        It is more than is allowed.
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
    allowance = allowance or Allowance()
    found = read(content, name, allowance)
    allowance.require_few_pieces(len(found.decoded.segments))
    allowance.share.take(sum(segment.samples.nbytes for segment in found.decoded.segments))
    return found


def read_at_once(content: bytes, media_type: str, allowance: Allowance) -> Waveforms | None:
    """Decode a body that is certain to be cheap, or return None; see `read_body`."""
    few = len(content) <= _FEW_BYTES
    read = BODY_TYPES.get(media_type)
    if read is _read_miniseed and len(content) <= _FEW_RECORD_BYTES:
        few = _has_few_records(content)
    elif read is None or read is _read_arrow:
        return None
    elif read is _read_msgpack and not few and len(content) <= _FEW_ARRAY_BYTES:
        try:
            body: Any = _PACKED.decode(content)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None  # it has lists, or is wrong
        if len(body.stations) > _FEW_RECORDS:
            return None
        found = _waveforms(body, "the body")
        allowance.share.take(len(content))
        return found
    return read_body(content, media_type, allowance=allowance) if few else None


def _has_few_records(content: bytes) -> bool:
    """True if the content is a few records of miniSEED 2 of equal length with valid headers."""
    length = usual_record_length(content)
    if not length or len(content) > _FEW_RECORDS * length:
        return False
    qualities, lengths = content[6::length], content[EXPONENT_AT::length]
    return not qualities.strip(b"DRQM") and not lengths.strip(lengths[:1])


def _read_miniseed(content: bytes, name: str, allowance: Allowance) -> Waveforms:
    kind = kind_of_file(content)
    if kind is not None:
        content = allowance.decompressed([content], kind)
    try:
        with allowance.share.for_a_while(_bytes_of_samples(content)):
            decoded = decode_records(content, name)
    except DecodeError as error:
        raise MalformedProblem(error.message, hint=error.hint) from error
    return Waveforms(decoded)


def _bytes_of_samples(content: bytes) -> int:
    """Upper bound of the memory for the decoded samples of miniSEED, bytes."""
    length = usual_record_length(content)
    n = len(content) // length if length > EXPONENT_AT else 0
    lengths = content[EXPONENT_AT : n * length : length] if n else b""
    if not n or lengths.strip(lengths[:1]):
        return _BYTES_OF_STEIM * len(content)
    order = "<" if content[48:50] == b"\xe8\x03" else ">"
    fields: Any = {
        "names": ["samples"],
        "formats": [f"{order}u2"],
        "offsets": [30],
        "itemsize": length,
    }
    counts = np.frombuffer(content, np.dtype(fields), n)["samples"]
    # Numbers of 64 bits are as long in records as in memory.
    return min(4 * int(counts.sum(dtype=np.int64)) + len(content), _BYTES_OF_STEIM * len(content))


def _read_msgpack(content: bytes, name: str, allowance: Allowance) -> Waveforms:
    if len(content) > allowance.max_list_bytes:
        return _read_arrays(_PACKED.decode, content, name, allowance, len(content))
    cost = _BYTES_OF_MSGPACK * len(content)
    return _read_arrays(_MSGPACK.decode, content, name, allowance, cost)


def _read_json(content: bytes, name: str, allowance: Allowance) -> Waveforms:
    stations = _count(content, b"{") - 1
    if stations > MOST_STATIONS:
        raise TooLargeProblem(
            f"{name} has {stations} stations, and {MOST_STATIONS} are taken at once",
            hint="send fewer in a request",
        )
    if len(content) <= allowance.max_list_bytes:
        cost = _BYTES_OF_JSON * len(content)
        return _read_arrays(_JSON.decode, content, name, allowance, cost)
    if _count(content, b",") > _SEPARATORS_OF_A_STATION * MOST_STATIONS:
        raise _too_many_numbers(name, allowance)
    return _read_arrays(_PACKED_JSON.decode, content, name, allowance, 2 * len(content))


def _count(content: bytes, letter: bytes) -> int:
    """Count a byte, block by block, so that other threads may run in between."""
    step = 2**20
    return sum(content.count(letter, at, at + step) for at in range(0, len(content), step))


def _too_many_numbers(name: str, allowance: Allowance) -> TooLargeProblem:
    return TooLargeProblem(
        f"{name} has more than {allowance.max_list_bytes / 2**20:g} MB, with samples as lists of "
        "numbers",
        hint="send samples as bytes of a dtype, in JSON as base64",
    )


def _read_arrays(
    decode: Callable[[bytes], Any], content: bytes, name: str, allowance: Allowance, cost: int
) -> Waveforms:
    with allowance.share.for_a_while(cost):
        try:
            body = decode(content)
        except msgspec.ValidationError as error:
            if len(content) > allowance.max_list_bytes and "got `array`" in str(error):
                raise _too_many_numbers(name, allowance) from error
            raise InvalidProblem(f"{name}: {error}", hint="/docs describes what is read") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
            raise MalformedProblem(
                f"{name} cannot be read: {str(error)[:300]}", hint="/docs describes what is read"
            ) from error
        return _waveforms(body, name)


def _waveforms(body: Any, name: str) -> Waveforms:
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
        if not is_code(code, _LONGEST_CODE):
            raise InvalidProblem(
                f"{where}: {code[:40]!r} is no code",
                hint="at most 8 letters of printable ASCII, the first one none of = + - @",
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
    import binascii

    # By pieces, for other threads wait meanwhile; only the last one may be filled up.
    step = 2**20
    pieces = [text[at : at + step] for at in range(0, len(text), step)]
    try:
        if any("=" in piece for piece in pieces[:-1]):
            raise binascii.Error("there is padding inside")
        return b"".join(binascii.a2b_base64(piece, strict_mode=True) for piece in pieces)
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


def _read_arrow(content: bytes, name: str, allowance: Allowance) -> Waveforms:
    from eqcctpro.serving.arrow import read_stream

    segments: list[Segment] = []
    counter = allowance.counter(name)
    for row, (codes, start_ns, rate, samples) in enumerate(read_stream(content, name, counter)):
        allowance.require_few_pieces(row)
        segments.append(_segment(codes, start_ns, rate, samples, f"{name}, row {row}"))
    if not segments:
        raise InvalidProblem(f"{name} holds no row")
    return Waveforms(DecodedFile(segments))


BODY_TYPES: dict[str, Callable[[bytes, str, Allowance], Waveforms]] = {
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
