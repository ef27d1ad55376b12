"""``eqcctpro pick``: an archive in, a table of picks out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from inspect import Parameter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.lists import device_of, joined
from eqcctpro.cli.options import SettingsCommand, name_and_value, options_of
from eqcctpro.errors import ReplaceError, SettingsError

if TYPE_CHECKING:
    from pydantic import BaseModel

    from eqcctpro.orchestration.result import RunResult

__all__ = ["PickCommand", "as_given", "pick"]

# Options of the command line that have other names than the settings; all others have theirs.
_SPELLED = {
    "filters": ("--filter",),
    "formats": ("--format",),
    "model_arguments": ("--set",),
    "retry_failed": ("--retry-failed/--keep-failed",),
    "stations_at_most": ("--stations-at-most", "--stations2use"),
}
# What an option takes, where the kind of the setting does not say it.
_TAKEN = {"filters": "FILTER", "storage": "NAME=VALUE", "model_arguments": "NAME=VALUE"}
# What the help says only with all options.
_DETAILS = """
Results are written to the output folder: picks.csv, picks.parquet, summary.json, run.log,
overview.png, and detections.csv and detections.parquet where the model yields detections.

eqcctpro status OUT shows how far a run is. The results of a finished run are replaced by those of
the same settings only; for others a terminal is asked, and --fresh discards them.

Options that take a list take commas, or are given several times; of --filter, each is one.

Exit codes: 0 all is well; 2 wrong settings; 3 unusable input; 4 model, weights or
runtime; 5 results cannot be written; 6 Ray; 7 not enough memory for a single worker; 10 the
run is complete, but stations or files in it failed (they are listed in summary.json); 130
interrupted (Ctrl-C once finishes what is under way, twice stops at once).
"""
# Settings that have arguments and options of their own, below.
_OWN = frozenset({"input", "output", "resume"})


def pick(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Folder of an archive, miniSEED files, a table of files, or s3://bucket/folder.",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for the results.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Insist on going on with the unfinished run in OUT.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard all that an earlier run left in OUT.")
    ] = False,
    config: Annotated[
        Path | None, typer.Option(help="Settings from a TOML, YAML or JSON file; options win.")
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going/--fail-fast", help="Go on when a station fails.")
    ] = True,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Only errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Show the log.")] = False,
    **given: Any,
) -> None:
    """Pick P and S arrivals on the waveforms of a network.

    Picks are in picks.csv of the output folder, and what was done in summary.json. A run that was
    interrupted goes on where it was when the same command is given again.
    """
    with reporting(warn=not quiet):
        if resume and fresh:
            raise SettingsError("--resume and --fresh exclude each other")
        options = {name: _value(name, value) for name, value in given.items() if value is not None}
        options |= {"input": tuple(inputs)} if inputs else {}
        options |= {"output": output} if output is not None else {}
        options |= {"resume": "require" if resume else "never"} if resume or fresh else {}
        result, folder = _run(options, config, keep_going, quiet, verbose)
        if not quiet:
            _report(result, folder)
        raise typer.Exit(result.exit_code)


def _settings() -> Iterator[Parameter]:
    """An optional parameter for each setting; the part that a setting is in is its panel."""
    from eqcctpro.config import (
        ExecutionConfig,
        InputConfig,
        ModelConfig,
        OutputConfig,
        PickConfig,
        PreparationConfig,
    )

    panels: dict[str, type[BaseModel]] = {
        "Input": InputConfig,
        "Preparation": PreparationConfig,
        "Model": ModelConfig,
        "Where it runs": ExecutionConfig,
        "Results": OutputConfig,
    }
    return options_of(PickConfig, panels, own=_OWN, spelled=_SPELLED, taken=_TAKEN)


def _everyday() -> frozenset[str]:
    """Names of the arguments and options that the help shows."""
    from eqcctpro.config import EVERYDAY, PickConfig

    fields = PickConfig.model_fields.items()
    marked = {name for name, field in fields if EVERYDAY in field.metadata}
    return frozenset({"inputs", "output", "fresh", "config", "quiet", "help_all"} | marked)


class PickCommand(SettingsCommand):
    """The command `pick` with an option for each setting of `eqcctpro.PickConfig`."""

    details = _DETAILS
    settings = staticmethod(_settings)
    everyday = staticmethod(_everyday)


def _value(name: str, given: Any) -> Any:
    """A setting from what options say."""
    if name == "storage":
        words = {"true": True, "false": False}
        pairs = (name_and_value(text, "--storage", "anon=true") for text in given)
        return {key: words.get(value.lower(), value) for key, value in pairs}
    if name == "model_arguments":
        return dict(name_and_value(text) for text in given)
    if name == "device":
        return device_of(given)
    if name in ("filters", "input_roots"):
        return tuple(given)
    return joined(given) if isinstance(given, list) else given


def _run(
    options: dict[str, Any], config_file: Path | None, keep_going: bool, quiet: bool, verbose: bool
) -> tuple[RunResult, Path]:
    """The result, and the output folder as it was given."""
    from eqcctpro.config import PickConfig
    from eqcctpro.config_files import load_config_file
    from eqcctpro.orchestration.run import run_picking

    settings = load_config_file(config_file) if config_file is not None else {}
    if "model_arguments" in options:
        before = settings.get("model_arguments", {})
        options["model_arguments"] = {**before, **options["model_arguments"]}
    settings.update(options)
    for name, how in (("input", "INPUT"), ("output", "-o OUT")):
        if name not in settings:
            raise SettingsError(f"{name} is missing", hint=f"eqcctpro pick INPUT -o OUT; add {how}")
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    else:
        # Packages that warn through the root logger have it print, then of all other loggers too.
        logging.getLogger("eqcctpro").propagate = False
    asked = PickConfig.checked(**settings)
    try:
        result = run_picking(asked, quiet=quiet, keep_going=keep_going)
    except ReplaceError as error:
        if quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        try:
            typer.confirm(f"{error.message}. Discard them and pick anew?", abort=True, err=True)
        except typer.Abort:  # no, Ctrl-C, or the end of the input
            raise error from None
        asked = asked.model_copy(update={"resume": "never"})
        result = run_picking(asked, quiet=quiet, keep_going=keep_going)
    return result, asked.output


def _report(result: RunResult, folder: Path) -> None:
    """The outcome in a few lines, failures first; `folder` is the output folder as given."""
    summary = result.summary
    for text in summary["weights"]["assumed"]:
        typer.echo(f"weights {text}", err=True)
    for line in result.problems:
        typer.echo(line, err=True)
    counts, picks = summary["tasks"], dict(summary["picks"])
    total = picks.pop("total")
    phases = ", ".join(f"{number} {phase}" for phase, number in picks.items())
    typer.echo(
        f"{total} picks"
        + (f" ({phases})" if phases else "")
        + f" on {sum(counts.values())} station tasks: {counts['done']} done, "
        f"{counts['empty']} empty, {counts['failed']} failed"
    )
    for kind in (
        "picks_csv",
        "picks_parquet",
        "amplitudes",
        "annotations",
        "detections_csv",
        "detections_parquet",
        "overview",
        "report",
        "tasks",
        "summary",
    ):
        if kind in summary["paths"]:
            typer.echo(as_given(summary["paths"][kind], folder))


def as_given(path: str, folder: Path) -> str:
    """A path below an absolute folder, as one below the folder as it was given."""
    return str(folder / Path(path).relative_to(folder.absolute()))
