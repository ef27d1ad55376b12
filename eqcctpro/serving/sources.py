"""Sources of settings: options, environment variables, a file, in order of precedence."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)
from pydantic_settings import (
    SettingsError as VariableError,
)

from eqcctpro.config import sentences
from eqcctpro.config_files import load_config_file, parse_yaml
from eqcctpro.errors import SettingsError
from eqcctpro.notices import OldNameWarning, warn_user
from eqcctpro.serving.settings import ServeSettings

__all__ = ["PREFIX", "gather_settings"]

#: ``EQCCTPRO_SERVE_HTTP__PORT=8001`` is ``http.port``.
PREFIX = "EQCCTPRO_SERVE_"
_OLD_PREFIX = "EQCCTPRO_SERVE__"
_NESTED = "__"

_NAME = re.compile(r"[\w-]+(\.[\w-]+)*")
_BEGIN = re.compile(r"[\w.-]*")


class _Environment(EnvSettingsSource):
    """Variables with values as YAML, none of which is passed over."""

    def __init__(
        self, settings_cls: type[BaseSettings], environment: Mapping[str, str] | None
    ) -> None:
        super().__init__(settings_cls)
        given = os.environ if environment is None else environment
        found: dict[str, tuple[str, str]] = {}  # names as given, and values
        # Old names last, so that they are held against the current ones.
        for name in sorted(given, key=lambda name: (name.upper().startswith(_OLD_PREFIX), name)):
            new = name.upper()
            if not new.startswith(PREFIX):
                continue
            if not given[name].strip():
                raise SettingsError(f"{name} is empty", hint="give it a value, or unset it")
            if new.startswith(_OLD_PREFIX):
                new = PREFIX + new.removeprefix(_OLD_PREFIX)
                warn_user(f"{name} is the old name of a variable; write {new}", OldNameWarning)
                _require_alone(name, new, found)
            if new in found and found[new][1] != given[name]:
                raise SettingsError(
                    f"{found[new][0]} and {name} say two things of one setting",
                    hint=f"leave {name} out",
                )
            found.setdefault(new, (name, given[name]))
        self.env_vars = {name.lower(): text for name, (_, text) in found.items()}

    def decode_complex_value(self, field_name: str, field: Any, value: Any) -> Any:  # noqa: ARG002
        """A value that is no single text or number."""
        names = (name for name, text in self.env_vars.items() if text == value)
        return _typed(value, next(names, field_name).upper())

    def __call__(self) -> dict[str, Any]:
        """The values, and those of names that nobody knows, for the model to name."""
        found = super().__call__()
        for name, value in self.env_vars.items():
            first, _, part = name.removeprefix(PREFIX.lower()).partition(_NESTED)
            if first not in ServeSettings.model_fields:
                found[first] = value
            elif part and not _is_section(first):
                raise SettingsError(
                    f"{name.upper()}: {first} has no parts",
                    hint=f"write all of it in {PREFIX}{first.upper()}",
                )
        return found


def _require_alone(old: str, name: str, found: Mapping[str, tuple[str, str]]) -> None:
    """Refuse a variable of an old name where a current one holds its whole section."""
    for known, (current, _) in found.items():
        if name.startswith(f"{known}{_NESTED}"):
            raise SettingsError(
                f"{current} and {old} say two things of one setting", hint=f"leave {old} out"
            )


def gather_settings(
    config: Path | Mapping[str, Any] | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> ServeSettings:
    """Read and validate the settings of the service.

    Parameters
    ----------
    config : Path or mapping, optional
        TOML, YAML or JSON, or what such a file would hold.
    flags : mapping, optional
        Values by their dotted names, such as ``{"http.port": 8001}``; None is not given.
    assignments : sequence of str
        ``NAME=VALUE`` with dotted names, which count more than flags; values are read as YAML.
    environment : mapping, optional
        In place of the process's own.

    Raises
    ------
    SettingsError
        The file cannot be read, or a setting is unknown or wrong.
    """
    file = load_config_file(config) if isinstance(config, Path) else deepcopy(dict(config or {}))
    given: dict[str, Any] = {}
    for name, value in (flags or {}).items():
        if value is not None:
            _place(given, name, value)
    for text in assignments:
        name, equals, value = text.partition("=")
        if not equals or not _NAME.fullmatch(name.strip()):
            # No more of it: it may hold a password.
            begin = _BEGIN.match(text.strip())
            raise SettingsError(
                f"--set {begin[0] if begin else ''}: no name with a value",
                hint="write --set http.port=8001",
            )
        name = name.strip().replace("-", "_")
        _place(given, name, _typed(value, name))

    class Gathered(ServeSettings, BaseSettings):
        model_config = SettingsConfigDict(env_prefix=PREFIX, env_nested_delimiter=_NESTED)

        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            *_: PydanticBaseSettingsSource,
            **__: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return (
                init_settings,
                _Environment(settings_cls, environment),
                InitSettingsSource(settings_cls, file),
            )

    try:
        gathered = Gathered(**given)
    except VariableError as error:  # ours says more than what was made of it
        raise error.__cause__ or error from None
    except ValidationError as error:
        raise SettingsError("; ".join(sentences(error, ServeSettings))) from error
    return ServeSettings.checked(gathered.model_dump(exclude_unset=True))


def _is_section(name: str) -> bool:
    kind = ServeSettings.model_fields[name].annotation
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _place(values: dict[str, Any], name: str, value: Any) -> None:
    """Set a value inside nested tables; a table adds to what is given of it."""
    *sections, last = name.split(".")
    inner = values
    for section in sections:
        inner = inner.setdefault(section, {})
        if not isinstance(inner, dict):
            raise SettingsError(f"{name}: {section} is given as a whole already")
    if last.isdigit() or any(part.isdigit() for part in sections):
        whole = name.split(".")[0]
        raise SettingsError(
            f"{name}: items of a list are not set one by one",
            hint=f"write all of {whole}, such as --set 'models=[{{name: PhaseNet/original, "
            "p_threshold: 0.4}]'",
        )
    if isinstance(value, dict) and isinstance(inner.get(last), dict):
        for part, its in value.items():
            _place(values, f"{name}.{part}", its)
    else:
        inner[last] = value


def _typed(text: str, name: str) -> Any:
    try:
        return parse_yaml(text)
    except ValueError as error:
        raise SettingsError(f"{name} cannot be read: {error}") from None
