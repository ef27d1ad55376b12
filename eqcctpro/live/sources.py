"""Sources of packets by their addresses."""

from __future__ import annotations

from collections.abc import Sequence

from eqcctpro.live.client import SeedLinkSource
from eqcctpro.live.packets import Checkpoint, Source, StationChoice
from eqcctpro.live.replay import Archive, ReplaySource
from eqcctpro.live.settings import REPLAY, replay_address

__all__ = ["open_source"]


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
    if not url.startswith(REPLAY):
        return SeedLinkSource(url, choice, selectors, checkpoint, start_ns=start_ns)
    path, speed = replay_address(url)
    return ReplaySource(Archive([path], choice), speed, checkpoint)
