"""UTC times: int64 nanoseconds inside, ISO-8601 text outside."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from obspy import UTCDateTime

__all__ = [
    "NS_PER_S",
    "US_PER_S",
    "Time",
    "chunk_name",
    "epoch_text",
    "format_utc",
    "moment_of",
    "moment_text",
    "parse_chunk_name",
    "parse_utc",
    "rounded_ratio",
    "samples_in",
    "utc_text",
]

#: What is taken for a time.
Time: TypeAlias = "str | date | datetime | UTCDateTime | np.datetime64"

NS_PER_S = 1_000_000_000
US_PER_S = 1_000_000

# Parts of half a sample.  A time that lies less than one of them before the middle between two
# samples is rounded up; times are no whole multiples of them.
_PARTS = 1350
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Day of the year, with what follows; seven digits without a hyphen are one too.
_DAY_OF_YEAR = re.compile(r"^(\d{4})-?(\d{3})(?![\d-])(.*)$")
# Seconds and the letter Z may be left out.
_CHUNK_NAME = re.compile(r"^(\d{8}T\d{4})(\d\d)?Z?_+(\d{8}T\d{4})(\d\d)?Z?$")


def format_utc(time_ns: int, precision: str = "microseconds") -> str:
    """ISO-8601 text in UTC, ending in ``Z``.

    Parameters
    ----------
    time_ns : int
        Nanoseconds since 1970.
    precision : {"seconds", "milliseconds", "microseconds"}
    """
    moment = moment_of(rounded_ratio(time_ns, 1000))
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def rounded_ratio(value: int, divisor: int) -> int:
    """A ratio as the nearest integer, the later one of two, at any size and on both sides of 0."""
    return (2 * value + divisor) // (2 * divisor)


def samples_in(span_ns: int, sampling_rate: float) -> int:
    """The number of sampling intervals in a span, rounded.

    Of two that are equally near it is the later one, also where times are off by some hundred
    nanoseconds, so that what lies between samples is rounded alike everywhere in a record.
    """
    samples, of = sampling_rate.as_integer_ratio()
    parts = 2 * _PARTS
    return (parts * span_ns * samples + (_PARTS + 1) * of * NS_PER_S) // (parts * of * NS_PER_S)


def moment_of(time_us: int) -> datetime:
    """A time in microseconds since 1970, between the years 1 and 9999."""
    return _EPOCH + timedelta(microseconds=time_us)


def moment_text(moment: datetime, separator: str = "T") -> str:
    """ISO-8601 text with microseconds and without a zone; the year has four digits."""
    return moment.replace(tzinfo=None).isoformat(separator, "microseconds")


def epoch_text(time_us: int) -> str:
    """Seconds since 1970 with six decimals, of a time in microseconds."""
    seconds, microseconds = divmod(abs(time_us), US_PER_S)
    return f"{'-' if time_us < 0 else ''}{seconds}.{microseconds:06d}"


def parse_utc(value: Time, parameter: str = "time") -> int:
    """Nanoseconds since 1970 of a time, as SeisBench and ObsPy take times.

    Parameters
    ----------
    value : str, datetime, date, UTCDateTime or datetime64
        Text is ISO-8601, with the day of the month or of the year: ``2024-12-15T12:00``,
        ``2024-350``, ``2024-350T12:00Z``, ``2024-12-15 13:00+01:00``.  Without an offset it is
        UTC.  Objects are those of Python, ObsPy, NumPy and pandas.
    parameter : str
        What the time is of, for the message.

    Raises
    ------
    SettingsError
        It is not a time; the message names `parameter`.
    """
    given: Any = value
    kind = type(value).__name__  # without importing what a program may not use
    try:
        if isinstance(value, str):
            return _ns_of(_parsed(value.strip()))
        if isinstance(value, datetime):
            # Of pandas, which has nanoseconds.
            return _ns_of(value) + int(getattr(value, "nanosecond", 0))
        if isinstance(value, date):
            return _ns_of(datetime(value.year, value.month, value.day, tzinfo=UTC))
        if kind == "UTCDateTime":
            return int(given.ns)
        if kind == "datetime64":
            return _ns_of_numpy(given)
    except (ValueError, TypeError, OverflowError) as error:
        raise _no_time(value, parameter) from error
    raise _no_time(value, parameter)


def utc_text(value: Time, parameter: str = "time") -> str:
    """A time as text: what is text already as it is, once it is known to be a time.

    Raises
    ------
    SettingsError
        It is not a time; the message names `parameter`.
    """
    time_ns = parse_utc(value, parameter)
    if isinstance(value, str):
        return value
    return format_utc(time_ns, "microseconds" if time_ns % NS_PER_S else "seconds")


def _no_time(value: object, parameter: str) -> SettingsError:
    return SettingsError(
        f"{parameter}: {value!r} is not a time",
        hint="write it as 2024-12-15T12:00:00 or 2024-350T12:00:00 (UTC), or give a datetime",
    )


def _parsed(text: str) -> datetime:
    match = _DAY_OF_YEAR.match(text)
    if match is None:
        return datetime.fromisoformat(text)
    year, number, rest = int(match[1]), int(match[2]), match[3]
    day = date(year, 1, 1) + timedelta(days=number - 1)
    if not number or day.year != year:
        raise ValueError(f"{year} has no day {number}")
    return datetime.fromisoformat(f"{day.isoformat()}{rest}")


def _ns_of(moment: datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    span = moment - _EPOCH
    return (span.days * 86_400 + span.seconds) * NS_PER_S + span.microseconds * 1000


def _ns_of_numpy(value: Any) -> int:
    if str(value) == "NaT":
        raise ValueError("NaT")
    return int(value.astype("datetime64[ns]").astype("int64"))


def chunk_name(start_ns: int, end_ns: int) -> str:
    """Name of a time chunk, for example ``20241215T115800Z_20241215T123000Z``."""
    return f"{_compact(start_ns)}_{_compact(end_ns)}"


def parse_chunk_name(name: str) -> tuple[int, int] | None:
    """Start and end of a time chunk's folder, or None when the name is not one."""
    match = _CHUNK_NAME.match(name)
    if match is None:
        return None
    try:
        start, end = (
            datetime.strptime(match[at] + (match[at + 1] or "00"), "%Y%m%dT%H%M%S") for at in (1, 3)
        )
    except ValueError:
        return None
    return parse_utc(start.isoformat()), parse_utc(end.isoformat())


def _compact(time_ns: int) -> str:
    moment = _EPOCH + timedelta(seconds=time_ns // NS_PER_S)
    # strftime is slow, and %Y has fewer digits before the year 1000.
    day = f"{moment.year:04d}{moment.month:02d}{moment.day:02d}"
    return f"{day}T{moment.hour:02d}{moment.minute:02d}{moment.second:02d}Z"
