"""Sources of packets by their addresses."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl, unquote

from eqcctpro.errors import SettingsError
from eqcctpro.live.client import SeedLinkSource
from eqcctpro.live.packets import Checkpoint, Source, StationChoice
from eqcctpro.live.replay import Archive, ReplaySource

__all__ = ["open_source"]

_REPLAY = "replay:"


def open_source(
    url: str,
    choice: StationChoice | None = None,
    selectors: Sequence[str] = (),
    checkpoint: Checkpoint | None = None,
    start_ns: int | None = None,
) -> Source:
    """Open ``seedlink://HOST:PORT``, ``seedlinks://HOST:PORT`` or ``replay:ARCHIVE?speed=20``.

    Parameters
    ----------
    url : str
    choice : StationChoice, optional
        Of stations; all by default.
    selectors : sequence of str
        Of channels, for SeedLink.
    checkpoint : Checkpoint, optional
        From which to resume.
    start_ns : int, optional
        From when on to ask a server for data that the checkpoint does not know.

    Raises
    ------
    SettingsError
        The address is none of these.
    InputError
        The archive holds no record of the chosen stations.
    """
    if not url.startswith(_REPLAY):
        return SeedLinkSource(url, choice, selectors, checkpoint, start_ns=start_ns)
    path, _, query = url.removeprefix(_REPLAY).partition("?")
    speed = 1.0
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            speed = float(value)
        except ValueError:
            speed = -1.0
        if name != "speed" or not 0 <= speed <= 1e6:
            raise SettingsError(
                f"{url!r}: {name}={value} is no speed between 0 and 1,000,000",
                hint="replay:ARCHIVE?speed=20; 1 is real time, 0 as fast as possible",
            )
    return ReplaySource(Archive([unquote(path)], choice), speed, checkpoint)
