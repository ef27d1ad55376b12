"""Base of all sinks, which take messages, may fail, and may be sent the same ones again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, NamedTuple

from eqcctpro.errors import SettingsError, SinkError
from eqcctpro.live.outbox import Entry, Outbox, Sends
from eqcctpro.live.sinks.target import Target

__all__ = ["NotYetError", "Place", "RejectedError", "Sink", "require_library"]


class RejectedError(SinkError):
    """A sink refuses a message for what it holds; sending it again does not help."""


class NotYetError(SinkError):
    """A sink waits for another one; it is no failure."""


class Place(NamedTuple):
    """What sinks know of the run that they belong to.

    Attributes
    ----------
    output : Path
        Folder of the run.
    outbox : Outbox
    """

    output: Path
    outbox: Outbox


class Sink(ABC):
    """Receiver of messages; a thread of its own calls it.

    Parameters
    ----------
    target : Target
        Checked when the sink is made, without a connection.

    Attributes
    ----------
    place : Place
        The run, known before the first `open`.
    send_usually : {"first", "final", "all"}
        What it is sent if its URL does not say it.
    batch : int
        Largest number of messages of one call.
    pause_s : float
        Shortest time between two calls.
    """

    schemes: ClassVar[tuple[str, ...]]
    options: ClassVar[tuple[str, ...] | None] = ()
    extra: ClassVar[str] = ""
    library: ClassVar[str] = ""
    send_usually: ClassVar[Sends] = "all"
    place: Place
    batch: int = 500
    pause_s: float = 0.0

    def __init__(self, target: Target) -> None:
        self.target = target
        if self.library:
            require_library(self.library, self.extra, target.name)
        self.check()

    @property
    def sends(self) -> Sends:
        """What it is sent."""
        if self.target.send is None and self.target.options.get("format", "json") != "json":
            return "final"  # other programs' formats have no versions
        return self.target.send or self.send_usually

    def check(self) -> None:
        """Check the address, before work begins.

        Raises
        ------
        SettingsError
            A part of it is missing or wrong.
        """

    @abstractmethod
    def open(self) -> None:
        """Connect; also after a failure, for which `close` was called.

        Messages behind the cursor may have been sent already, in whole or in part.
        """

    @abstractmethod
    def send(self, entries: Sequence[Entry]) -> str | None:
        """Send messages in their order, and return when the receiver has them for good.

        Returns
        -------
        str or None
            Note to be kept with the cursor; see `eqcctpro.live.outbox.Outbox.advance`.

        Raises
        ------
        RejectedError
            A message is refused for what it holds.
        Exception
            Any other failure; the same messages are sent again later.
        """

    @abstractmethod
    def close(self) -> None:
        """Disconnect; never fails, and may be called again."""


def require_library(module: str, extra: str, name: str) -> None:
    """Check that the client library of a sink is installed.

    Raises
    ------
    SettingsError
        It is not.
    """
    if find_spec(module) is None:
        raise SettingsError(
            f"sink {name}: {module}, which it needs, is not installed",
            hint=f"pip install 'eqcctpro[{extra}]'",
        )
