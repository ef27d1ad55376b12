"""UTC times: int64 nanoseconds inside, ISO-8601 text outside."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from eqcctpro.errors import SettingsError

__all__ = ["NS_PER_S", "chunk_name", "format_utc", "parse_chunk_name", "parse_utc"]

NS_PER_S = 1_000_000_000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK_NAME = re.compile(r"^(\d{8}T\d{6}Z)_+(\d{8}T\d{6}Z)$")


def format_utc(time_ns: int, precision: str = "microseconds") -> str:
    """ISO-8601 text in UTC, ending in ``Z``.

    Parameters
    ----------
    time_ns : int
        Nanoseconds since 1970.
    precision : {"seconds", "milliseconds", "microseconds"}
    """
    seconds, nanoseconds = divmod(time_ns, NS_PER_S)
    moment = _EPOCH + timedelta(seconds=seconds, microseconds=round(nanoseconds / 1000))
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def parse_utc(text: str, parameter: str = "time") -> int:
    """Nanoseconds since 1970 of ISO-8601 text; without an offset it is UTC.

    Raises
    ------
    SettingsError
        The text is not a time; the message names `parameter`.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, AttributeError) as error:
        raise SettingsError(
            f"{parameter}: {text!r} is not a time",
            hint="write it as 2024-12-15T12:00:00 (UTC)",
        ) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    span = moment - _EPOCH
    return (span.days * 86_400 + span.seconds) * NS_PER_S + span.microseconds * 1000


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
            datetime.strptime(text, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) for text in match.groups()
        )
    except ValueError:
        return None
    return parse_utc(start.isoformat()), parse_utc(end.isoformat())


def _compact(time_ns: int) -> str:
    moment = _EPOCH + timedelta(seconds=time_ns // NS_PER_S)
    return moment.strftime("%Y%m%dT%H%M%SZ")
