"""``eqcctpro pick``: an archive in, a table of picks out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.help import HelpfulCommand, show_help_all, with_short_names
from eqcctpro.cli.lists import device_of, joined
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
# Words of more letters are in the sentence, and not in a column beside it.
_MOST_LETTERS = 30
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


class PickCommand(HelpfulCommand):
    """The command `pick` with an option for each setting of `eqcctpro.PickConfig`.

    The options are made when they are asked for: settings take longer to import than many other
    commands take to run.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._made: list[Any] | None = None
        super().__init__(*args, **kwargs)
        self.help = f"{self.help}\n\n\f{_DETAILS}"

    @property
    def params(self) -> list[Any]:
        """Arguments and options."""
        if self._made is None:
            command = typer.main.get_command_from_info(
                typer.models.CommandInfo(callback=_with_settings(), name="pick"),
                pretty_exceptions_short=False,
                rich_markup_mode=self.rich_markup_mode,
            )
            made: list[Any] = command.params
            self._made, self.callback = made, command.callback
            everyday = _everyday()
            with_short_names(made)
            for param in made:
                param.advanced = param.name not in everyday
        return self._made

    @params.setter
    def params(self, given: list[Any]) -> None:
        """Those that Typer finds in the signature of `pick`, and finds again with the others."""


_HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=show_help_all,
        is_eager=True,
        help="Show all options, and exit codes.",
    ),
]


def _with_settings() -> Callable[..., None]:
    """`pick` with a parameter for each setting in its signature, which Typer reads."""
    own = [
        one.replace(kind=Parameter.KEYWORD_ONLY)
        for one in signature(pick, eval_str=True).parameters.values()
        if one.name != "given"
    ]

    def command(*, help_all: bool = False, **values: Any) -> None:
        del help_all  # it has ended the command, if it was given
        pick(**values)

    kind = Parameter.KEYWORD_ONLY
    help_all = Parameter("help_all", kind, default=False, annotation=_HelpAll)
    parameters = [own[0], own[1], *_settings(), *own[2:], help_all]
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    command.__doc__ = pick.__doc__
    return command


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
    for name, field in PickConfig.model_fields.items():
        if name in _OWN:
            continue
        kind = _kind(name, field.annotation)
        words = _choices(field.annotation)
        few = sum(map(len, words)) < _MOST_LETTERS
        usual = name.replace("_", "-")
        spelled = _SPELLED.get(name, (f"--{usual}/--no-{usual}" if kind is bool else f"--{usual}",))
        option = typer.Option(
            *spelled,
            help=f"{field.description}." if few else f"{field.description}: {', '.join(words)}.",
            metavar=_TAKEN.get(name, "|".join(words) if few and words else None),
            show_default=_default_in_words(spelled[0], field.default),
            rich_help_panel=next(
                title for title, part in panels.items() if name in part.model_fields
            ),
        )
        yield Parameter(
            name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
        )


def _everyday() -> frozenset[str]:
    """Names of the arguments and options that the help shows."""
    from eqcctpro.config import EVERYDAY, PickConfig

    fields = PickConfig.model_fields.items()
    marked = {name for name, field in fields if EVERYDAY in field.metadata}
    return frozenset({"inputs", "output", "fresh", "config", "quiet", "help_all"} | marked)


def _kind(name: str, annotation: Any) -> Any:
    """Type that the command line takes for a setting; values are checked with all others."""
    if name == "device":  # may be given several times
        return list[str]
    inside = set(get_args(annotation)) or {annotation}
    for plain in (bool, int, float, Path):
        if plain in inside:
            return plain
    lists = {get_origin(one) or one for one in (annotation, *inside)} & {tuple, dict}
    return list[str] if lists and name != "bandpass" else str


def _choices(annotation: Any) -> tuple[str, ...]:
    """All that a setting may be, where that is one of few words."""
    inside = [one for one in (annotation, *get_args(annotation)) if get_origin(one) is Literal]
    words = tuple(str(word) for one in inside for word in get_args(one))
    return words if len(words) > 1 else ()


def _default_in_words(spelled: str, default: Any) -> str | bool:
    from pydantic_core import PydanticUndefined

    if default is PydanticUndefined:  # made anew for each run
        return False
    if isinstance(default, bool):
        return spelled.split("/")[not default].removeprefix("--")
    if isinstance(default, tuple):
        return ",".join(map(str, default)) or False
    return f"{default:g}" if isinstance(default, float) else str(default or "") or False


def _value(name: str, given: Any) -> Any:
    """A setting from what options say."""
    if name == "storage":
        words = {"true": True, "false": False}
        pairs = (_name_and_value(text, "--storage", "anon=true") for text in given)
        return {key: words.get(value.lower(), value) for key, value in pairs}
    if name == "model_arguments":
        return dict(_name_and_value(text) for text in given)
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


def _name_and_value(
    text: str, option: str = "--set", example: str = "overlap=0.5"
) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(f"{option} {text!r} is not NAME=VALUE", hint=f"{option} {example}")
    return name.strip(), value.strip()


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
