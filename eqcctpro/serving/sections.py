"""Base class and field helpers of the service's settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
)

from eqcctpro.config import Settings

__all__ = [
    "Paths",
    "Section",
    "Texts",
    "advanced",
    "is_advanced",
    "is_secret",
    "matching",
    "secret",
]


class Section(Settings):
    """Settings that are checked together, and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def advanced(default: Any, **named: Any) -> Any:
    """A field that few people need; pages and the reference list it by itself."""
    return Field(default, json_schema_extra={"advanced": True}, **named)


def secret(**named: Any) -> Any:
    """A field whose value is never shown."""
    return Field(json_schema_extra={"secret": True}, **named)


def is_advanced(field: Any) -> bool:
    """True if a field was made by `advanced`."""
    return bool((field.json_schema_extra or {}).get("advanced"))


def is_secret(field: Any) -> bool:
    """True if a field was made by `secret`."""
    return bool((field.json_schema_extra or {}).get("secret"))


def matching(pattern: str, wanted: str) -> AfterValidator:
    """A check of a text as a whole, with a sentence that says what is wanted.

    Parameters
    ----------
    pattern : str
        Regular expression.
    wanted : str
        What to give, such as ``"give an address"``.
    """
    whole = re.compile(pattern)

    def check(value: str) -> str:
        if not whole.fullmatch(value):
            raise ValueError(wanted)
        return value

    return AfterValidator(check)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


#: Several texts, of which one alone may be given by itself.
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
#: Several paths, likewise.
Paths = Annotated[tuple[Path, ...], BeforeValidator(_one_or_many)]
