"""What all models of the service's settings have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Paths", "Section", "Texts", "advanced", "is_advanced", "is_secret", "secret"]


class Section(BaseModel):
    """Settings that are checked together, and do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def advanced(default: Any, **named: Any) -> Any:
    """A field that few people need; pages and the reference list it by itself."""
    return Field(default, json_schema_extra={"advanced": True}, **named)


def secret(**named: Any) -> Any:
    """A field whose value is never shown."""
    return Field(json_schema_extra={"secret": True}, **named)


def is_advanced(field: Any) -> bool:
    """Whether a field was made by `advanced`."""
    return bool((field.json_schema_extra or {}).get("advanced"))


def is_secret(field: Any) -> bool:
    """Whether a field was made by `secret`."""
    return bool((field.json_schema_extra or {}).get("secret"))


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


#: Several texts, of which one alone may be given by itself.
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
#: Several paths, likewise.
Paths = Annotated[tuple[Path, ...], BeforeValidator(_one_or_many)]
