"""Data coverage of stations: stretches without a gap, from the headers of records."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pymseed import MiniSEEDError, MS3TraceList

from eqcctpro.codes import Code
from eqcctpro.miniseed.index import IndexedFile
from eqcctpro.miniseed.unusual_codes import trace_code, with_placeholders
from eqcctpro.places import is_address

__all__ = ["Coverage", "measure_coverage"]

#: Headers of archives up to this size are all read; of larger ones the first and last.
MOST_BYTES = 8 * 2**30

Span = tuple[int, int]


@dataclass(frozen=True)
class Coverage:
    """Data coverage of one station.

    Attributes
    ----------
    spans : tuple of (int, int)
        Beginning and end of each stretch in which some component has data, in nanoseconds
        since 1970, ascending.
    """

    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """Length of all stretches."""
        return sum(end - start for start, end in self.spans) / 1e9

    @property
    def gaps(self) -> int:
        """Interruptions between the first and the last sample."""
        return max(len(self.spans) - 1, 0)

    @property
    def gap_seconds(self) -> float:
        """Length of all interruptions."""
        if not self.spans:
            return 0.0
        return (self.spans[-1][1] - self.spans[0][0]) / 1e9 - self.seconds


def measure_coverage(files: Sequence[IndexedFile]) -> tuple[dict[str, Coverage], bool]:
    """Data of every station in some files.

    Returns
    -------
    dict of str to Coverage
        By ``NET.STA``.
    bool
        Whether gaps within files are known; in a large archive only those between them are.
    """
    whole = sum(file.size for file in files) <= MOST_BYTES
    # Nor is every object of a store fetched for this.
    whole = whole and not any(is_address(file.path) for file in files)
    spans: dict[str, list[Span]] = defaultdict(list)
    for file in files:
        for station, span in _scanned(Path(file.path)) if whole else _indexed(file):
            spans[station].append(span)
    return {name: Coverage(_joined(found)) for name, found in sorted(spans.items())}, whole


def _indexed(file: IndexedFile) -> Iterable[tuple[str, Span]]:
    for extent in file.channels:
        yield f"{extent.code[0]}.{extent.code[1]}", (extent.start_ns, extent.end_ns)


def _scanned(path: Path) -> Iterable[tuple[str, Span]]:
    traces = MS3TraceList()
    names: dict[Code, Code] = {}
    # What is damaged is among the files that failed.
    with suppress(MiniSEEDError, ValueError, OSError):
        content, names = with_placeholders(path.read_bytes())
        traces.add_buffer(content, skip_not_data=True)
    for trace in traces:
        try:
            network, station, *_ = trace_code(trace, names)
        except ValueError:
            continue
        for piece in trace:
            if piece.samprate > 0:
                # A sample stands for the time until the next one.
                end = piece.endtime + round(1e9 / piece.samprate)
                yield f"{network}.{station}", (piece.starttime, end)


def _joined(spans: Iterable[Span]) -> tuple[Span, ...]:
    joined: list[Span] = []
    for start, end in sorted(spans):
        # Channels that begin a little apart, and rounded times, are no gap.
        if joined and start <= joined[-1][1] + 50_000_000:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((start, end))
    return tuple(joined)
