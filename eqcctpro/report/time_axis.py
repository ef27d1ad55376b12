"""Round times to label an axis with."""

from __future__ import annotations

from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["time_ticks"]

_S, _DAY = NS_PER_S, 86_400 * NS_PER_S
_STEPS_NS = (
    *(digit * 10**power for power in range(3, 9) for digit in (1, 2, 5)),
    *(seconds * _S for seconds in (1, 2, 5, 10, 15, 30)),
    *(minutes * 60 * _S for minutes in (1, 2, 5, 10, 15, 30)),
    *(hours * 3600 * _S for hours in (1, 2, 3, 6, 12)),
    *(days * 10**power * _DAY for power in range(5) for days in (1, 2, 5)),
)


def time_ticks(start_ns: int, end_ns: int, at_most: int) -> list[tuple[int, str]]:
    """Round times in a span, as close to each other as their number allows.

    Parameters
    ----------
    start_ns, end_ns : int
        Nanoseconds since 1970, UTC.
    at_most : int

    Returns
    -------
    list of (int, str)
        Times, and what is written at them: the time of the day, and the date where a day begins.
    """
    longest = _STEPS_NS[-1]
    step = next((s for s in _STEPS_NS if (end_ns - start_ns) // s < at_most), longest)
    first = -(-start_ns // step) * step
    return [(time, _label(time, step)) for time in range(first, end_ns + 1, step)][:at_most]


def _label(time_ns: int, step_ns: int) -> str:
    text = format_utc(time_ns)
    date, clock = text[:10], text[11:19]
    if time_ns % _DAY == 0:
        return date
    if time_ns % (60 * _S) == 0:
        return clock[:5]
    if step_ns >= _S:
        return clock
    digits = len(str(_S // step_ns - 1))
    return clock + text[19 : 20 + digits]
