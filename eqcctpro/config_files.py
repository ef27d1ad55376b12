"""Settings as text: TOML, YAML or JSON.

Errors say where a text is wrong and quote nothing of it: it may hold passwords.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eqcctpro.errors import SettingsError

__all__ = ["load_config_file", "parse_yaml"]

_SUFFIXES = (".toml", ".yaml", ".yml", ".json")
_TOML_TWICE = "Cannot overwrite a value"
_TOML_LINE = re.compile(r"\(at line (\d+),")


def load_config_file(path: Path, name: str = "config") -> dict[str, Any]:
    """Settings from a TOML, YAML or JSON file, as keyword arguments of `PickConfig`.

    Parameters
    ----------
    path : Path
    name : str
        The option or setting that names the file, for errors.

    Raises
    ------
    SettingsError
        The file is missing, unreadable, or not a table of settings.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{name}: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{name}: cannot read {path}: byte {error.start} is no UTF-8", hint="save it as UTF-8"
        ) from None
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise SettingsError(f"{name}: {path}: the name must end in .toml, .yaml or .json")
    try:
        values = _parse(text, suffix)
    except ValueError as error:
        raise SettingsError(f"{name}: {path} cannot be parsed: {error}") from None
    except RecursionError:
        raise SettingsError(f"{name}: {path} cannot be parsed: it is nested too deeply") from None
    if not isinstance(values, Mapping):
        raise SettingsError(
            f"{name}: {path} is not a table of settings", hint="write lines such as model = ..."
        )
    try:
        return _each_once([(str(key).replace("-", "_"), value) for key, value in values.items()])
    except ValueError as error:  # with - and with _
        raise SettingsError(f"{name}: {path}: {error}") from None


def _parse(text: str, suffix: str) -> Any:
    if suffix == ".json":
        return json.loads(text, object_pairs_hook=_each_once)
    if suffix != ".toml":
        values = parse_yaml(text)
        return {} if values is None else values  # nothing but comments
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        said = str(error)
        if said.startswith(_TOML_TWICE) and (line := _TOML_LINE.search(said)):
            key = text.split("\n")[int(line[1]) - 1].partition("=")[0].strip()
            said = f"{key} is given twice{said.removeprefix(_TOML_TWICE)}"
        raise ValueError(said) from None


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{twice} is given twice")
    return values


def parse_yaml(text: str) -> Any:
    """A value in YAML.

    Raises
    ------
    ValueError
        It is no YAML, or a key is given twice; the message has line and column.
    """
    import yaml

    try:
        _require_keys_once(yaml.compose(text, yaml.SafeLoader), set())
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        raise ValueError(f"{_place(error.problem_mark)}{_problem(error)}") from None
    except yaml.reader.ReaderError as error:
        raise ValueError(f"character {error.position + 1} is not allowed in YAML") from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except _TwiceError as error:
        raise ValueError(str(error)) from None
    except (ValueError, OverflowError, TypeError, KeyError):  # of a date or number that is none
        raise ValueError("a date or number in it does not exist; put quotes around texts") from None


class _TwiceError(Exception):
    """A key is given twice."""


def _require_keys_once(node: Any, seen: set[int]) -> None:
    import yaml

    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _require_keys_once(item, seen)
    elif isinstance(node, yaml.MappingNode):
        names = set()
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if (key.tag, key.value) in names:
                    raise _TwiceError(f"{_place(key.start_mark)}{key.value} is given twice")
                names.add((key.tag, key.value))
            _require_keys_once(value, seen)


def _place(mark: Any) -> str:
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _problem(error: Any) -> str:
    """Message of a YAML parser, where it cannot contain values from the file."""
    import yaml

    own = isinstance(error, (yaml.scanner.ScannerError, yaml.parser.ParserError))
    if not own or "tag handle" in (error.problem or ""):
        return "no plain YAML: an alias, anchor, tag or key that cannot be used"
    return f"no YAML: {error.problem}"
