"""``eqcctpro live``: real-time data."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.ending import told_by_signals
from eqcctpro.cli.errors import reporting
from eqcctpro.cli.help import HelpfulApp
from eqcctpro.cli.lists import names_of
from eqcctpro.errors import SettingsError

__all__ = ["live_app"]

Option = typer.Option

live_app = HelpfulApp(name="live", help="Real-time data.", no_args_is_help=True)

_TOLD_EVERY_S = 10.0


@live_app.callback()
def live() -> None:
    """Real-time data: a server to rehearse with."""


@live_app.command()
def rehearse(
    archive: Annotated[
        list[Path], typer.Argument(metavar="ARCHIVE...", help="Folders or files of miniSEED.")
    ],
    port: Annotated[int, Option(min=0, max=65535, help="To listen at; 0 is any free one.")] = 18000,
    host: Annotated[str, Option(help="Address to listen at.")] = "127.0.0.1",
    speed: Annotated[
        float, Option(help="1 is real time, 20 twenty times as fast, 0 as fast as possible.")
    ] = 1.0,
    loop: Annotated[
        bool, Option("--loop", help="Begin again at the end, with times that go on behind it.")
    ] = False,
    retime: Annotated[
        str, Option(metavar="keep|now", help="Keep the records' times, or shift them to now.")
    ] = "keep",
    wait: Annotated[
        bool, Option("--wait/--no-wait", help="Begin when the first client asks for data.")
    ] = True,
    stations: Annotated[
        list[str] | None, Option(help="Patterns such as 'NC.*,TX.PB01,TX.*.*.HH?'.")
    ] = None,
    exclude: Annotated[list[str] | None, Option(help="What to leave out of these.")] = None,
    history: Annotated[
        int, Option(min=1, help="MB of records that are kept for clients that come back.")
    ] = 256,
    fault: Annotated[
        list[str] | None,
        Option(
            metavar="NAME[:VALUE]",
            help="Fault to make: damage, length, duplicate, flood, disconnect, silence, reset, "
            "gap, disorder or delay; several with commas, or given several times.",
        ),
    ] = None,
    seed: Annotated[int, Option(help="The same faults for the same number.")] = 0,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Show no progress.")] = False,
) -> None:
    """Serve an archive as a SeedLink server (versions 3 and 4), as if its data arrived now.

    Records are sent in the order in which they would have been completed. Ends when all were
    sent and the clients have gone, or at Ctrl-C.
    """
    with reporting():
        from eqcctpro.live.faults import Faults
        from eqcctpro.live.packets import StationChoice
        from eqcctpro.live.rehearse import Rehearsal
        from eqcctpro.live.rehearse import rehearse as run
        from eqcctpro.live.replay import Archive
        from eqcctpro.live.server import SeedLinkServer

        if retime not in ("keep", "now"):
            raise SettingsError(f"--retime {retime!r}: neither keep nor now")
        settings = Rehearsal(speed, loop, retime == "now", wait)
        faults = Faults(names_of(fault), seed)
        served = Archive(archive, StationChoice(names_of(stations), names_of(exclude)))
        for problem in served.problems[:10]:
            typer.echo(f"not served: {problem}", err=True)
        if len(served.problems) > 10:
            typer.echo(f"and {len(served.problems) - 10} more files", err=True)
        server = SeedLinkServer(host, port, faults=faults, history_bytes=history * 2**20)
        try:
            # On standard output, as programs read the port there.
            typer.echo(f"{served.stations} stations at seedlink://{host}:{server.port}")
            if wait:
                typer.echo("waits for its first client", err=True)
            sys.stdout.flush()
            with told_by_signals() as ended:
                count = run(served, server, settings, faults, ended, None if quiet else _Progress())
                while server.clients and not ended.wait(0.1):
                    pass
            typer.echo(f"{count} records were published, {server.sent} packets sent", err=True)
            if server.dropped:
                typer.echo(
                    f"clients were too slow for {server.dropped} packets; use a larger --history",
                    err=True,
                )
        finally:
            server.close()


class _Progress:
    """A line now and then."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _TOLD_EVERY_S

    def __call__(self, count: int, last_ns: int) -> None:
        """Say how far it is."""
        from eqcctpro.times import format_utc

        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _TOLD_EVERY_S
            typer.echo(f"{count} records, up to {format_utc(last_ns, 'seconds')}", err=True)
