"""``eqcctpro live``: real-time data."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.ending import told_by_signals
from eqcctpro.cli.errors import INTERRUPTED, Interrupted, reporting
from eqcctpro.cli.help import HelpfulApp, HelpfulGroup
from eqcctpro.cli.lists import joined, names_of
from eqcctpro.cli.options import SettingsCommand, name_and_value, options_of
from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from eqcctpro.live.status import LiveStatus

__all__ = ["live_app"]

Option = typer.Option

_TOLD_EVERY_S = 10.0
# What the help says only with all options.
_DETAILS = """
After a restart, the servers send again what is needed. eqcctpro live status OUT shows how a run is;
OUT/live.log has its log.

Exit codes: 0 the data have ended, or the time that was set; 2 wrong settings; 3 unusable input;
4 model, weights or runtime; 5 the folder cannot be written; 130 stopped by Ctrl-C or SIGTERM, with
all picks written.
"""
# Of `SourceCounts`, what is shown of a source.
_FAULTS = ("failures", "stalls", "damaged", "rejected")


class _LiveGroup(HelpfulGroup):
    """Commands of ``eqcctpro live``; what is none of them is picked.

    Attributes
    ----------
    usual : str
        The command whose name may be left out.
    """

    usual = "pick"

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put in the name of the usual command."""
        if args and args[0] not in {*self.commands, "-h", "--help"}:
            args = [self.usual, *args]
        return super().parse_args(ctx, args)


class _LiveApp(HelpfulApp):
    """Commands of which one may be called without its name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.info.cls = _LiveGroup


live_app = _LiveApp(name="live", help="Real-time data.", no_args_is_help=True)


@live_app.callback()
def live() -> None:
    """Pick real-time data: eqcctpro live SOURCE... -o OUT; and a server to rehearse with."""


def _settings() -> Iterator[Parameter]:
    from eqcctpro.config import ModelConfig
    from eqcctpro.live.settings import LiveConfig

    panels: dict[str, type[BaseModel]] = {"Model": ModelConfig, "Real time": LiveConfig}
    return options_of(
        LiveConfig,
        panels,
        own=frozenset({"sources", "output", "window_grid", "p_model", "s_model", "bandpass"}),
        spelled={"run_for": ("--for",), "sinks": ("--sink",), "model_arguments": ("--set",)},
        taken={"sinks": "URL", "model_arguments": "NAME=VALUE", "run_for": "SECONDS"},
    )


def _everyday() -> frozenset[str]:
    names = ("sources", "output", "quiet", "model", "stations", "p_threshold", "s_threshold")
    return frozenset({*names, "patience", "backfill", "run_for", "until", "sinks", "help_all"})


class _PickCommand(SettingsCommand):
    """The command with an option for each setting of `LiveConfig`."""

    details = _DETAILS
    settings = staticmethod(_settings)
    everyday = staticmethod(_everyday)


@live_app.command("pick", cls=_PickCommand)
def pick(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE...",
            help="seedlink://HOST:18000, seedlinks://HOST:18500 or replay:ARCHIVE?speed=20.",
        ),
    ] = None,
    output: Annotated[
        Path | None, Option("-o", "--output", help="Folder for picks and the state.")
    ] = None,
    config: Annotated[
        Path | None, Option(help="Settings from a TOML, YAML or JSON file; options win.")
    ] = None,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only errors.")] = False,
    verbose: Annotated[bool, Option("-v", "--verbose", help="Show the log.")] = False,
    **given: Any,
) -> None:
    """Pick real-time data; the word pick may be left out.

    Picks are written to OUT: picks/DATE/HOUR.jsonl, picks.parquet and picks.sqlite. A run that was
    killed or stopped goes on where it was when the same command is given again.
    """
    with reporting(warn=not quiet):
        from eqcctpro.config_files import load_config_file
        from eqcctpro.live.run import run_live
        from eqcctpro.live.settings import LiveConfig

        settings = load_config_file(config) if config is not None else {}
        options = {name: _value(name, value) for name, value in given.items() if value is not None}
        options |= {"sources": tuple(sources)} if sources else {}
        options |= {"output": output} if output is not None else {}
        if "model_arguments" in options:
            before = settings.get("model_arguments", {})
            options["model_arguments"] = {**before, **options["model_arguments"]}
        for alias, name in (("for", "run_for"), ("sink", "sinks"), ("source", "sources")):
            if alias in settings:
                settings[name] = settings.pop(alias)
        settings.update(options)
        for name, how in (("sources", "SOURCE"), ("output", "-o OUT")):
            if name not in settings:
                raise SettingsError(
                    f"{name} is missing", hint=f"eqcctpro live SOURCE -o OUT; add {how}"
                )
        asked = LiveConfig.checked(**settings)
        if verbose:
            logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
        else:
            logging.getLogger("eqcctpro").propagate = False
        with told_by_signals() as stop:
            shows = not quiet and sys.stderr.isatty()
            status = run_live(asked, stop=stop, told=_progress if shows else None)
            if shows:
                typer.echo(err=True)
            if not quiet:
                _told_at_the_end(status)
            if stop.is_set():
                raise Interrupted(INTERRUPTED)


def _value(name: str, given: Any) -> Any:
    """A setting from what options say."""
    if name == "model_arguments":
        return dict(name_and_value(text) for text in given)
    if name == "sinks":
        return tuple(given)
    return joined(given) if isinstance(given, list) else given


def _progress(status: LiveStatus) -> None:
    """One line, which is written over."""
    delay = f", {status.delay_s['p50']:.1f} s after their data" if status.delay_s else ""
    behind = f", {status.behind_s:.0f} s behind" if status.behind_s else ""
    line = f"{_stations(status)}, {status.picks.get('final', 0)} picks{delay}{behind}"
    sys.stderr.write(f"\r{line[:110]:<110}")
    sys.stderr.flush()


def _stations(status: LiveStatus) -> str:
    total = sum(status.stations.values())
    states = ", ".join(f"{count} {name}" for name, count in sorted(status.stations.items()))
    return f"{total} stations" + (f" ({states})" if states else "")


def _told_at_the_end(status: LiveStatus) -> None:
    counts = ", ".join(f"{count} {name}" for name, count in sorted(status.picks.items()))
    typer.echo(f"{status.reason}: {counts or 'no picks'}, {_stations(status)}")
    if status.left_out:
        first = [f"{code} ({why})" for code, why in sorted(status.left_out.items())[:3]]
        more = f" and {len(status.left_out) - 3} more" if len(status.left_out) > 3 else ""
        typer.echo(f"not picked: {', '.join(first)}{more}", err=True)
    for text in status.unread[:3]:
        typer.echo(f"not picked: {text}", err=True)
    if len(status.unread) > 3:
        typer.echo(f"not picked: {len(status.unread) - 3} more files", err=True)
    if status.late_samples:
        typer.echo(f"not picked: {status.late_samples} samples that came too late", err=True)
    for sink in status.sinks:
        if sink["behind"]:
            error = f": {sink['last_error']}" if sink["last_error"] else ""
            waits = f"{sink['behind']} messages wait for the next run"
            typer.echo(f"sink {sink['name']}: {waits}{error}", err=True)
    for source in status.sources:
        faults = [f"{source[name]} {name}" for name in _FAULTS if source.get(name)]
        if faults:
            typer.echo(f"{source['address']}: {', '.join(faults)}", err=True)


@live_app.command()
def status(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of a live run.")],
    as_json: Annotated[bool, Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show how the live run in a folder is: running, ended, or dead; its sources and sinks."""
    with reporting():
        from eqcctpro.live.status import read_status
        from eqcctpro.times import format_utc

        found = read_status(output)
        if as_json:
            import json

            typer.echo(json.dumps(found.as_dict(), indent=2))
            return
        last = format_utc(round(found.updated * 1e9), "seconds")
        where = f"process {found.pid} on {found.host}"
        states = {
            "dead": f"dead: it ended without a word ({where}, last heard of at {last})",
            "ended": f"ended at {last}: {found.reason}",
        }
        typer.echo(states.get(found.state, f"{found.state} ({where})"))
        typer.echo(f"{found.model} on {found.runtime}: {found.windows} windows")
        typer.echo(_stations(found))
        counts = ", ".join(f"{count} {name}" for name, count in sorted(found.picks.items()))
        delay = found.delay_s
        after = (
            f"; {delay['p50']} s after their data, 99 % within {delay['p99']} s" if delay else ""
        )
        typer.echo(f"picks: {counts or 'none'}{after}")
        for source in found.sources:
            error = f": {source['last_error']}" if source["last_error"] else ""
            typer.echo(
                f"{source['address']}: {source['state']}, {source['packets']} packets{error}"
            )
        for sink in found.sinks:
            error = f": {sink['last_error']}" if sink["last_error"] else ""
            typer.echo(f"sink {sink['name']}: {sink['state']}, {sink['sent']} sent{error}")
        for code, why in sorted(found.left_out.items())[:20]:
            typer.echo(f"not picked: {code}: {why}")
        for text in found.unread[:20]:
            typer.echo(f"not picked: {text}")
        if found.late_samples:
            typer.echo(f"not picked: {found.late_samples} samples that came too late")
        for alarm in found.alarms:
            typer.echo(f"alarm: {alarm}")


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
