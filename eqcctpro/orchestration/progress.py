"""Progress of a run: a live line on a terminal, periodic plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TextIO

from eqcctpro.resources.sampler import tree_rss_mb

__all__ = ["PlanningProgress", "Progress"]

LIVE_INTERVAL_S = 0.1
PLAIN_INTERVAL_S = 10.0
NOTEBOOK_INTERVAL_S = 0.5
MOMENT_S = 0.5


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
        self._shown = self._started
        self._already = already
        self.done = already
        self.picks = 0
        self.failed = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._lines.live:
            self._lines.write(self.line(), last=True)

    def add(self, *, done: int, picks: int, failed: int) -> None:
        """Count the tasks and picks of a bundle."""
        self.done += done
        self.picks += picks
        self.failed += failed
        now = time.monotonic()
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


def _write(stream: TextIO, text: str) -> None:
    with suppress(OSError, ValueError):  # full, or closed meanwhile: no reason to stop picking
        stream.write(text)
        stream.flush()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
