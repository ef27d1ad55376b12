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
MOMENT_S = 0.5


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
        self._stream = stream or sys.stderr
        # A process without a terminal may have no standard error at all.
        self._quiet = quiet or self._stream is None
        self._live = not self._quiet and self._stream.isatty()
        self._shown = time.monotonic() + MOMENT_S - self._interval

    @property
    def _interval(self) -> float:
        return LIVE_INTERVAL_S if self._live else PLAIN_INTERVAL_S

    def __call__(self, count: int) -> None:
        """Show the number of files."""
        now = time.monotonic()
        if self._quiet or now - self._shown < self._interval:
            return
        self._shown = now
        line = f"planning: {count} files"
        _write(self._stream, f"\r\x1b[2K{line}" if self._live else f"{line}\n")


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
        self._stream = stream or sys.stderr
        # A process without a terminal may have no standard error at all.
        self._quiet = quiet or self._stream is None
        self._live = not self._quiet and self._stream.isatty()
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
        if not self._quiet and self._live:
            _write(self._stream, f"\r\x1b[2K{self.line()}\n")

    def add(self, *, done: int, picks: int, failed: int) -> None:
        """Count the tasks and picks of a bundle."""
        self.done += done
        self.picks += picks
        self.failed += failed
        now = time.monotonic()
        interval = LIVE_INTERVAL_S if self._live else PLAIN_INTERVAL_S
        if self._quiet or now - self._shown < interval:
            return
        self._shown = now
        _write(self._stream, f"\r\x1b[2K{self.line()}" if self._live else f"{self.line()}\n")

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
