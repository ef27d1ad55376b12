"""Options of a command from the fields of its validated settings."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_args, get_origin

import typer

from eqcctpro.cli.help import HelpfulCommand, show_help_all, with_short_names
from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import BaseModel

__all__ = ["SettingsCommand", "name_and_value", "options_of"]

# Words of more letters are in the sentence, and not in a column beside it.
_MOST_LETTERS = 30


_HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        callback=show_help_all,
        is_eager=True,
        help="Show all options, and exit codes.",
    ),
]


class SettingsCommand(HelpfulCommand):
    """A command with an option for each setting, besides those in its function's signature.

    The function takes settings as ``**given``.  The options are made when they are asked for:
    settings take longer to import than many other commands take to run.

    Attributes
    ----------
    details : str
        What the help says only with all options.
    settings : callable
        Makes an optional parameter for each setting.
    everyday : callable
        Names of the arguments and options that the help shows.
    """

    details: ClassVar[str]
    settings: ClassVar[Callable[[], Iterator[Parameter]]]
    everyday: ClassVar[Callable[[], Collection[str]]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._made: list[Any] | None = []  # none are asked for before it is complete
        super().__init__(*args, **kwargs)
        self._made = None
        self.help = f"{self.help}\n\n\f{self.details}"

    @property
    def params(self) -> list[Any]:
        """Arguments and options."""
        if self._made is None:
            function: Any = self.callback
            command = typer.main.get_command_from_info(
                typer.models.CommandInfo(
                    callback=self._with_settings(function.__wrapped__), name=self.name
                ),
                pretty_exceptions_short=False,
                rich_markup_mode=self.rich_markup_mode,
            )
            made: list[Any] = command.params
            self._made, self.callback = made, command.callback
            everyday = type(self).everyday()
            with_short_names(made)
            for param in made:
                param.advanced = param.name not in everyday
        return self._made

    @params.setter
    def params(self, given: list[Any]) -> None:
        """Those that Typer finds in the function's signature, and finds again with the others."""

    def _with_settings(self, function: Callable[..., None]) -> Callable[..., None]:
        """The function with a parameter for each setting in its signature, which Typer reads."""
        own = [
            one.replace(kind=Parameter.KEYWORD_ONLY)
            for one in signature(function, eval_str=True).parameters.values()
            if one.name != "given"
        ]

        def command(*, help_all: bool = False, **values: Any) -> None:
            del help_all  # it has ended the command, if it was given
            function(**values)

        kind = Parameter.KEYWORD_ONLY
        help_all = Parameter("help_all", kind, default=False, annotation=_HelpAll)
        parameters = [own[0], own[1], *type(self).settings(), *own[2:], help_all]
        command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters}
        command.__doc__ = function.__doc__
        return command


def options_of(
    model: type[BaseModel],
    panels: Mapping[str, type[BaseModel]],
    *,
    own: Collection[str] = (),
    spelled: Mapping[str, tuple[str, ...]],
    taken: Mapping[str, str],
) -> Iterator[Parameter]:
    """An optional parameter for each setting.

    Parameters
    ----------
    model : type of BaseModel
    panels : mapping of str to type of BaseModel
        Titles of panels of the help; a setting is in the first one whose model has it.
    own : collection of str
        Settings that have arguments and options of their own.
    spelled : mapping of str to tuple of str
        Options of settings that have other names.
    taken : mapping of str to str
        What an option takes, where the kind of the setting does not say it.
    """
    for name, field in model.model_fields.items():
        if name in own:
            continue
        kind = _kind(name, field.annotation)
        words = _choices(field.annotation)
        few = sum(map(len, words)) < _MOST_LETTERS
        usual = name.replace("_", "-")
        options = spelled.get(name, (f"--{usual}/--no-{usual}" if kind is bool else f"--{usual}",))
        option = typer.Option(
            *options,
            help=f"{field.description}." if few else f"{field.description}: {', '.join(words)}.",
            metavar=taken.get(name, "|".join(words) if few and words else None),
            show_default=_default_in_words(options[0], field.default),
            rich_help_panel=next(
                title for title, part in panels.items() if name in part.model_fields
            ),
        )
        yield Parameter(
            name, Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, option]
        )


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


def name_and_value(
    text: str, option: str = "--set", example: str = "overlap=0.5"
) -> tuple[str, str]:
    """Name and value in ``NAME=VALUE``.

    Raises
    ------
    SettingsError
        It is none.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(f"{option} {text!r} is not NAME=VALUE", hint=f"{option} {example}")
    return name.strip(), value.strip()
