"""Who may use the service: settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = ["ApiKey", "People", "SecuritySettings", "User"]

_SHA256 = re.compile(r"[0-9a-f]{64}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ApiKey(_Section):
    """A key that a client sends; only its hash is known here."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")
    sha256: str = Field(description="Of the key; eqcctpro serve key makes one")
    requests_per_s: float | None = Field(None, gt=0, description="In place of the common rate")

    @field_validator("sha256")
    @classmethod
    def _is_hash(cls, value: str) -> str:
        if not _SHA256.fullmatch(value):
            raise ValueError("64 letters of 0-9a-f are wanted; eqcctpro serve key makes a key")
        return value


class User(_Section):
    """Somebody who logs in with a password."""

    name: str = Field(pattern=r"^[A-Za-z0-9_.@-]{1,64}$")
    password_hash: str = Field(
        pattern=r"^scrypt\$[0-9a-f]{32}\$[0-9a-f]{64}$",
        description="eqcctpro serve password makes one",
    )


class People(_Section):
    """Keys and users."""

    api_keys: tuple[ApiKey, ...] = ()
    users: tuple[User, ...] = ()

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        for kind in ("api_keys", "users"):
            names = [item.name for item in getattr(self, kind)]
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}: each name once")
        return self


class SecuritySettings(People):
    """Who may use the service; by default everybody who reaches it, and only this machine does."""

    people_file: Path | None = Field(
        None, description="A file with more api_keys and users, read again whenever it changes"
    )
    authenticator: str | None = Field(
        None,
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
        description="module:function(name, password) -> bool, in place of users",
    )
    required: bool | None = Field(None, description="None: as soon as there are keys or users")
    session_s: float = Field(3600.0, gt=0)
    secret_file: Path | None = Field(
        None, description="What tokens are signed with; made anew at each start if not given"
    )
    open_metrics: bool = Field(True, description="Whether metrics need no key")
    open_page: bool = Field(True, description="Whether the page and the API's description do not")
    requests_per_s: float | None = Field(None, gt=0, description="Of each key or address")
    burst: float = Field(10.0, ge=1, description="Requests that may come at once")
    headers: bool = Field(True, description="Security headers in answers")
    same_site: Literal["lax", "strict", "none"] = "strict"

    @property
    def can_authenticate(self) -> bool:
        """Whether there is anybody to be known."""
        return bool(self.api_keys or self.users or self.authenticator or self.people_file)

    @property
    def closed(self) -> bool:
        """Whether requests must show who they are from."""
        return self.can_authenticate if self.required is None else self.required

    @model_validator(mode="after")
    def _somebody_is_known(self) -> SecuritySettings:
        if self.required and not self.can_authenticate:
            raise ValueError("required: give api_keys, users, people_file or an authenticator")
        return self
