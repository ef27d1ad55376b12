"""Spans of time, in nanoseconds since 1970."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["ALWAYS", "FOREVER_NS", "Span", "joined_spans"]

# All that 64 bits hold, so that no time of a record lies beyond it.
FOREVER_NS = 2**63 - 1


class Span(NamedTuple):
    """Half-open span of time; without bounds by default."""

    start_ns: int = -FOREVER_NS
    end_ns: int = FOREVER_NS

    def holds(self, time_ns: int) -> bool:
        """True if a time lies in the span, whose end is exclusive."""
        return self.start_ns <= time_ns < self.end_ns

    def overlaps(self, other: Span) -> bool:
        """True if two spans have some time in common."""
        return max(self.start_ns, other.start_ns) < min(self.end_ns, other.end_ns)

    def within(self, other: Span) -> Span:
        """The part that lies in another span."""
        return Span(max(self.start_ns, other.start_ns), min(self.end_ns, other.end_ns))


#: All of time.
ALWAYS = Span()


def joined_spans(spans: Iterable[tuple[int, int]], gap_ns: int) -> list[tuple[int, int]]:
    """Spans in the order of their starts, those joined that are no further apart than a gap."""
    joined: list[tuple[int, int]] = []
    for start, end in spans:
        if joined and start - joined[-1][1] <= gap_ns:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined
