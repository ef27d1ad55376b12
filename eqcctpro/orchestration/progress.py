"""Progress of a run: a live line on a terminal, periodic plain lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO

from eqcctpro.resources.sampler import tree_rss_mb
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["PartitionProgress", "PlanningProgress", "Progress"]

LIVE_INTERVAL_S = 0.1
PLAIN_INTERVAL_S = 10.0
NOTEBOOK_INTERVAL_S = 0.5
MOMENT_S = 0.5
# Seconds between lines in the log of a long run.
HEARTBEAT_S = 600.0

logger = logging.getLogger("eqcctpro")


class _Lines:
    """Lines of progress: one that is written over, on a terminal and in a notebook, or many.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    stream : text file, optional
        Standard error by default, which leaves standard output to results.
    """

    def __init__(self, *, quiet: bool, stream: TextIO | None) -> None:
        # A process without a terminal may have no standard error at all.
        given = stream or sys.stderr
        self._stream = None if quiet else given
        # A cell of a notebook writes over a line, but knows no terminal's codes.
        self._notebook = type(given).__module__.partition(".")[0] == "ipykernel"
        terminal = not self._notebook and given is not None and given.isatty()
        self.live = self._stream is not None and (terminal or self._notebook)
        self.interval = LIVE_INTERVAL_S if terminal else PLAIN_INTERVAL_S
        if self._notebook:
            self.interval = NOTEBOOK_INTERVAL_S
        self._length = 0

    @property
    def quiet(self) -> bool:
        """True if nothing is shown."""
        return self._stream is None

    def write(self, line: str, *, last: bool = False) -> None:
        """Show a line in place of the last one, or below it."""
        if self._stream is None:
            return
        if self._notebook:
            text, self._length = f"\r{line:<{self._length}}", len(line)
        else:
            text = f"\r\x1b[2K{line}" if self.live else line
        _write(self._stream, text if self.live and not last else f"{text}\n")


class PlanningProgress:
    """Progress of planning: number of files read, shown after a moment.

    Parameters
    ----------
    quiet : bool
        Show nothing.
    stream : text file, optional
        Standard error by default.
    """

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._lines = _Lines(quiet=quiet, stream=stream)
        self._shown = time.monotonic() + MOMENT_S - self._lines.interval

    def __call__(self, count: int) -> None:
        """Show the number of files."""
        now = time.monotonic()
        if self._lines.quiet or now - self._shown < self._lines.interval:
            return
        self._shown = now
        self._lines.write(f"planning: {count} files")


class Progress:
    """Progress of picking: counts and shows finished station tasks and picks.

    Parameters
    ----------
    total : int
        Station tasks of the run.
    quiet : bool
        Show nothing.
    already : int
        Station tasks that an earlier run had done.
    stream : text file, optional
        Where lines go; standard error by default, which leaves standard output to results.
    """

    def __init__(
        self,
        total: int,
        *,
        quiet: bool = False,
        already: int = 0,
        stream: TextIO | None = None,
    ) -> None:
        self._total = total
        self._lines = _Lines(quiet=quiet, stream=stream)
        self._started = time.monotonic()
        self._shown = self._logged = self._started
        self._already = already
        self.done = already
        self.picks = 0
        self.failed = 0
        self.data_ns = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lines.live:
            self._lines.write(self.line(), last=True)

    def add(self, *, done: int, picks: int, failed: int, data_ns: int = 0) -> None:
        """Count the tasks and picks of a bundle, and the time with data that it has."""
        self.done += done
        self.picks += picks
        self.failed += failed
        self.data_ns += data_ns
        now = time.monotonic()
        if now - self._logged > HEARTBEAT_S:
            self._logged = now
            logger.info("at work: %s", self.line())
        if self._lines.quiet or now - self._shown < self._lines.interval:
            return
        self._shown = now
        self._lines.write(self.line())

    def line(self) -> str:
        """Stations done, rate, picks, failures, memory and time left."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._already) / elapsed
        parts = [
            f"{self.done}/{self._total} stations",
            f"{rate:.1f}/s",
            f"{self.picks} picks",
        ]
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{tree_rss_mb():.0f} MB")
        if rate > 0 and self.done < self._total:
            parts.append(f"{_duration((self._total - self.done) / rate)} left")
        return "  ".join(parts)


class PartitionProgress(Progress):
    """Progress of a run in partitions, whose number of station tasks is an estimate."""

    def __init__(self, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        super().__init__(0, quiet=quiet, stream=stream)
        self._reached_ns: int | None = None
        self._to_ns: int | None = None

    def reach(self, reached_ns: int | None, to_ns: int, done: int, left: int) -> None:
        """Note what is finished.

        Parameters
        ----------
        reached_ns : int or None
            Last time with data of which everything is picked.
        to_ns : int
            End of the archive.
        done, left : int
            Station tasks, with those of an earlier process, and an estimate of the rest.
        """
        if self._reached_ns is None:
            self._already = done - self.done
            self.done = done
        self._reached_ns, self._to_ns = reached_ns, to_ns
        self._total = max(done + left, self.done)

    def line(self) -> str:
        """Time reached, stations done and left, rate, picks, failures, memory and time left."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        rate, left = (self.done - self._already) / elapsed, max(self._total - self.done, 0)
        parts = []
        if self._reached_ns is not None and self._to_ns is not None:
            parts.append(f"{format_utc(self._reached_ns)[:10]} of {format_utc(self._to_ns)[:10]}")
        parts.append(f"{self.done} stations" + (f", about {left} left" if self._total else ""))
        parts += [f"{rate:.1f}/s", f"{self.data_ns / NS_PER_S / elapsed:.3g} times real time"]
        parts.append(f"{self.picks} picks")
        if self.failed:
            parts.append(f"{self.failed} failed")
        parts.append(f"{tree_rss_mb():.0f} MB")
        if rate > 0 and left:
            parts.append(f"{_duration(left / rate)} left")
        return "  ".join(parts)


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):  # full, or closed meanwhile: no reason to stop picking
        stream.write(text)
        stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
