"""The command line."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Annotated, Any

import typer

from eqcctpro.cli.amplitudes import amplitudes
from eqcctpro.cli.analyze import analyze
from eqcctpro.cli.associate import associate
from eqcctpro.cli.calibrate import calibrate
from eqcctpro.cli.client import client, serve_check
from eqcctpro.cli.convert import convert
from eqcctpro.cli.dataset import dataset_app
from eqcctpro.cli.demo import demo
from eqcctpro.cli.doctor import doctor
from eqcctpro.cli.ending import end_at_signals, end_now, ignore_signals
from eqcctpro.cli.errors import INTERRUPTED, Interrupted
from eqcctpro.cli.evaluate import evaluate
from eqcctpro.cli.help import HelpfulApp, show_help_all
from eqcctpro.cli.live import live_app
from eqcctpro.cli.models import models_app
from eqcctpro.cli.optimal import optimal
from eqcctpro.cli.pick import PickCommand, pick
from eqcctpro.cli.plot import plot
from eqcctpro.cli.report import report
from eqcctpro.cli.score import score
from eqcctpro.cli.serve import serve_app
from eqcctpro.cli.show import show
from eqcctpro.cli.status import status
from eqcctpro.cli.streams import open_standard_streams, output_failure
from eqcctpro.cli.tune import tune
from eqcctpro.errors import OutputError
from eqcctpro.orchestration.interrupt import raise_interrupt

__all__ = ["app", "main"]

# Commands whose result is what they print; others write files.
_PRINTING = frozenset({"status", "optimal", "models", "doctor", "client", "--version"})

app = HelpfulApp(
    name="eqcctpro",
    help="P and S arrivals from the waveforms of whole seismic networks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

# Commands in the order of the help, each with a line that fits into a terminal.
_PICKING = "Pick"
app.command(cls=PickCommand, rich_help_panel=_PICKING, short_help="Pick an archive.")(pick)
app.command(rich_help_panel=_PICKING, short_help="How far a run is.")(status)
app.command(rich_help_panel=_PICKING, short_help="Pick a small synthetic network.")(demo)
app.add_typer(dataset_app, rich_help_panel=_PICKING)
app.add_typer(models_app, rich_help_panel=_PICKING)
app.command(rich_help_panel=_PICKING, short_help="What this machine has, and what to fix.")(doctor)
_AFTER = "After picking"
app.command(rich_help_panel=_AFTER, short_help="A web page on a run.")(report)
app.command(rich_help_panel=_AFTER, short_help="Draw one station, its curves and picks.")(show)
app.command(rich_help_panel=_AFTER, short_help="Write other programs' formats.")(convert)
app.command(rich_help_panel=_AFTER, short_help="Events of picks, as QuakeML and SCML.")(associate)
app.command(rich_help_panel=_AFTER, short_help="Peak amplitudes of picks.")(amplitudes)
app.command(rich_help_panel=_AFTER, short_help="Compare picks with labels or other picks.")(score)
_SERVICE = "As a service, and in real time"
app.add_typer(serve_app, rich_help_panel=_SERVICE)
app.command(rich_help_panel=_SERVICE, short_help="Have a service pick files.")(client)
app.command("serve-check", rich_help_panel=_SERVICE, short_help="Test a service.")(serve_check)
app.add_typer(live_app, rich_help_panel=_SERVICE)
_SPEED = "The fastest configuration of a machine"
app.command(rich_help_panel=_SPEED, short_help="Find it with few trials.")(tune)
app.command(rich_help_panel=_SPEED, short_help="Measure every configuration.")(evaluate)
app.command(rich_help_panel=_SPEED, short_help="The best of what was measured.")(optimal)
app.command(rich_help_panel=_SPEED, short_help="How well trials used the machine.")(analyze)
app.command(rich_help_panel=_SPEED, short_help="Draw trials as web pages.")(plot)
app.command(rich_help_panel=_SPEED, short_help="Measure the memory of workers.")(calibrate)


def _version(wanted: bool) -> None:
    if wanted:
        from eqcctpro import __version__

        typer.echo(f"eqcctpro {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
    help_all: Annotated[
        bool,
        typer.Option(
            "--help-all", callback=show_help_all, is_eager=True, help="List every command."
        ),
    ] = False,
) -> None:
    pass


def _code_of_output(code: str | int | None) -> str | int | None:
    """Exit code of a command, which has failed too where what it prints is its result."""
    failure = output_failure()
    if failure is None:
        return code
    typer.echo(f"error: standard output cannot be written: {failure}", err=True)
    result_is_output = sys.argv[1:2] and sys.argv[1] in _PRINTING
    return OutputError.exit_code if result_is_output and not code else code


def main(handlers: Mapping[int, Any] | None = None) -> None:
    """Run the command line, and end the process with its exit code.

    SIGTERM ends a command as Ctrl-C does.  Neither is the end of the process itself, which
    would leave files half written, and another exit code.

    Parameters
    ----------
    handlers : mapping of int to handler, optional
        Handlers of signals to be put back first.
    """
    code: str | int | None = INTERRUPTED
    told = False
    try:
        usual = {signal.SIGTERM: signal.getsignal(signal.SIGTERM), **(handlers or {})}
        with suppress(ValueError):  # not the main thread
            for number, handler in usual.items():
                ends = number == signal.SIGTERM and handler is signal.SIG_DFL
                if handler is not None:
                    signal.signal(number, raise_interrupt if ends else handler)
        open_standard_streams()
        atexit.register(ignore_signals)
        try:
            app()
        except SystemExit as ending:
            told = not _is_untold(ending)
            code = _code_of_output(ending.code)
        end_at_signals(code)
    except KeyboardInterrupt:
        pass
    if code == INTERRUPTED:
        if not told:
            with suppress(OSError):  # it may be closed
                os.write(2, b"interrupted\n")
        end_now(INTERRUPTED)
    sys.exit(code)


def _is_untold(ending: SystemExit) -> bool:
    """True if an interruption came where no command was there to say it.

    Typer then ends without a word.
    """
    end = ending.__context__
    interruption = None if end is None else end.__cause__
    return (
        isinstance(interruption, KeyboardInterrupt)
        and not isinstance(end, Interrupted)
        and not isinstance(interruption.__context__, KeyboardInterrupt)  # while it was being said
    )
