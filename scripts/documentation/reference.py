"""Parts of the documentation that are made from the program; a hook of MkDocs.

Decisions get into the navigation by themselves.  A line ``<!-- made: KIND NAME -->`` of a page is
replaced:

- ``commands``: every command of the command line with its options,
- ``settings MODULE:CLASS``: the fields of a pydantic model,
- ``sections MODULE:CLASS``: the same, and then the fields of the models that it holds,
- ``errors``: exit codes and the errors behind them.

Run as a program with the name of a page, it renews tables that are kept in the page itself, between
``<!-- table: serve used -->`` or ``<!-- table: serve advanced -->`` and ``<!-- table: end -->``.
"""

from __future__ import annotations

import inspect
import re
import sys
import types
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

_KEPT = re.compile(
    r"(?<=^<!-- table: serve )(used|advanced)( -->\n).*?(?=^<!-- table: end -->)",
    re.MULTILINE | re.DOTALL,
)
_MADE = re.compile(r"^<!-- made: (\w+)(?: (\S+))? -->$", re.MULTILINE)


def on_config(config: Any) -> Any:
    """MkDocs calls this first: the section of decisions gets all there are."""
    folder = Path(config.docs_dir) / "decisions"
    (section,) = [entry for entry in config.nav if "Decisions" in entry]
    pages = sorted(path.name for path in folder.glob("[0-9]*.md"))
    section["Decisions"] = ["decisions/README.md", *(f"decisions/{name}" for name in pages)]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """MkDocs calls this with the text of each page."""
    return _MADE.sub(lambda found: "\n".join(_MAKERS[found[1]](found[2])), markdown)


def _load(name: str) -> Any:
    module, _, attribute = name.partition(":")
    return getattr(import_module(module), attribute)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


# Commands


def _commands(_: str | None) -> Iterator[str]:
    from typer.main import get_command

    from eqcctpro.cli import app

    for words, command in walk(get_command(app), ("eqcctpro",)):
        yield from _command(words, command)


def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Commands below a command, each with the words that call it.

    Groups are left out, unless they do something by themselves.
    """
    below = getattr(command, "commands", {})
    if not below or command.invoke_without_command:
        yield words, command
    for name, one in below.items():
        yield from walk(one, (*words, name))


def _command(words: tuple[str, ...], command: Any) -> Iterator[str]:
    arguments = [item for item in command.params if item.param_type_name == "argument"]
    options = [item for item in command.params if item.param_type_name == "option"]
    usage = [*words, *(_shown_argument(item) for item in arguments), "[OPTIONS]"]
    yield f"## {' '.join(words)}"
    yield ""
    yield from ("```text", " ".join(usage), "```", "")
    yield from (*_paragraphs(command.help), "")
    from eqcctpro.cli.help import EXAMPLES

    yield from ("```sh", *EXAMPLES[" ".join(words[1:])], "```", "")
    if arguments:
        rows = [(f"`{_shown_argument(item)}`", item.help or "") for item in arguments]
        yield from _table(("argument", "what"), rows)
    if options:
        kinds = get_type_hints(inspect.unwrap(command.callback))
        shown = [item for item in options if item.name != "help"]
        rows = [_option_row(item, _kind(kinds[item.name])) for item in shown]
        yield from _table(("option", "default", "what"), rows)


def _paragraphs(text: str | None) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", (text or "").strip()):
        yield from (" ".join(line.strip() for line in paragraph.splitlines()), "")


def _shown_argument(item: Any) -> str:
    shown = (item.metavar or item.name.upper()).strip("[]")
    return shown if item.required else f"[{shown}]"


def _option_row(item: Any, kind: str) -> tuple[str, str, str]:
    names = ", ".join(f"`{name}`" for name in item.opts)
    if item.secondary_opts:
        names += " / " + ", ".join(f"`{name}`" for name in item.secondary_opts)
    elif not item.is_flag:
        names += f" {item.metavar or kind.upper()}"
    if item.is_flag:
        default = {True: "on", False: "off"}.get(item.default, "")
    else:
        default = "" if item.default in (None, (), []) else f"`{item.default}`"
    return names, default, item.help or ""


# Settings


def _settings(name: str | None) -> Iterator[str]:
    return _fields(_load(name or ""))


def _sections(name: str | None) -> Iterator[str]:
    model = _load(name or "")
    yield from _fields(model)
    for field_name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            yield from (f"### {field_name}", "", *_paragraphs(inspect.getdoc(inner)))
            yield from _fields(inner)


def _models_in(annotation: Any) -> list[Any]:
    """Pydantic models that a type mentions."""
    if isinstance(annotation, type) and hasattr(annotation, "model_fields"):
        return [annotation]
    return [model for inside in get_args(annotation) for model in _models_in(inside)]


def _fields(model: Any) -> Iterator[str]:
    yield from _table(("setting", "kind", "default", "what"), _rows(model.model_fields))


def _rows(fields: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for field_name, field in fields.items():
        limits = [_limit(item) for item in field.metadata]
        kind = ", ".join([_kind(field.annotation), *filter(None, limits)])
        default = "required" if field.is_required() else _default(field)
        if isinstance(field.annotation, type) and _models_in(field.annotation):
            default = "required" if field.is_required() else ""
        rows.append((f"`{field_name}`", kind, default, field.description or ""))
    return rows


def with_tables(text: str) -> str:
    """The text of a page with the tables that it keeps as they should be."""

    def table(found: re.Match[str]) -> str:
        from eqcctpro.serving.settings import ServeSettings

        rows = list(_serve_rows(ServeSettings, "", advanced=found[1] == "advanced"))
        lines = "\n".join(_table(("setting", "kind", "default", "what"), rows))
        return f"{found[1]}{found[2]}\n{lines}\n"

    return _KEPT.sub(table, text)


def _serve_rows(model: Any, prefix: str, *, advanced: bool) -> Iterator[tuple[str, str, str, str]]:
    """Settings of the service, those that people use or the others."""
    from eqcctpro.serving.sections import is_advanced

    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and hasattr(field.annotation, "model_fields"):
            yield from _serve_rows(field.annotation, f"{prefix}{name}.", advanced=advanced)
        elif is_advanced(field) == advanced:
            (row,) = _rows({f"{prefix}{name}": field})
            yield row


def _default(field: Any) -> str:
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), {}, ""):
        return ""
    if isinstance(value, (tuple, list)):
        return f"`{','.join(str(getattr(item, 'name', item)) for item in value)}`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(annotation: Any) -> str:
    """A type in words."""
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inside[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in inside if one is not type(None))
    if origin in (tuple, list):
        if len(inside) == 2 and inside[1] is not Ellipsis:
            return " and ".join(_kind(one) for one in inside)
        return f"list of {_kind(inside[0])}"
    if origin is not None:
        return "table"
    words = {str: "text", int: "whole number", float: "number", bool: "yes or no", Path: "path"}
    return words.get(annotation, "table" if _models_in(annotation) else str(annotation))


def _limit(constraint: Any) -> str:
    words = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
    words["min_length"] = "at least"
    for name, word in words.items():
        value = getattr(constraint, name, None)
        if value is not None:
            return f"{word} {value:g}" if name != "min_length" else f"{word} {value} of them"
    return ""


# Errors


def _errors(_: str | None) -> Iterator[str]:
    from eqcctpro import errors

    kinds: dict[int, list[type[errors.EQCCTProError]]] = {}
    for name in errors.__all__:
        kind = getattr(errors, name)
        kinds.setdefault(kind.exit_code, []).append(kind)
    for code, found in sorted(kinds.items()):
        rows = [(f"`{kind.__name__}`", (kind.__doc__ or "").split("\n\n")[0]) for kind in found]
        yield f"## Exit code {code}"
        yield ""
        yield from _table(("error", "what"), rows)


_MAKERS: dict[str, Callable[[str | None], Iterator[str]]] = {
    "commands": _commands,
    "settings": _settings,
    "sections": _sections,
    "errors": _errors,
}


if __name__ == "__main__":
    for path in map(Path, sys.argv[1:]):
        path.write_text(with_tables(path.read_text(encoding="utf-8")), encoding="utf-8")
