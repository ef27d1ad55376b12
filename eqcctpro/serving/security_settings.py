"""Settings of authentication and authorisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from eqcctpro.serving.sections import Paths, Section, advanced, matching, secret

__all__ = ["ApiKey", "People", "SecuritySettings", "User"]

_SHA256 = re.compile(r"[0-9a-f]{64}")
_SCRYPT = re.compile(r"scrypt\$[0-9a-f]{32}\$[0-9a-f]{64}")


class ApiKey(Section):
    """A key that a client sends; only its hash is known here."""

    name: Annotated[
        str, matching("[A-Za-z0-9_.-]{1,64}", "give 1 to 64 letters, digits and signs of _.-")
    ] = Field(description="Name of the client that has the key.")
    sha256: str = secret(description="Hash of the key; eqcctpro serve key makes one.")
    requests_per_s: float | None = Field(
        None, gt=0, description="Requests a second with this key, in place of the common rate."
    )
    priority: Literal["interactive", "batch"] = Field(
        "interactive", description="batch: its requests stand behind all others."
    )
    role: Literal["client", "admin"] = Field(
        "client", description="admin may also load and unload models."
    )

    @field_validator("sha256")
    @classmethod
    def _is_hash(cls, value: str) -> str:
        if not _SHA256.fullmatch(value):
            raise ValueError("64 letters of 0-9a-f are wanted; eqcctpro serve key makes a key")
        return value


class User(Section):
    """A user who logs in with a password."""

    name: Annotated[
        str, matching("[A-Za-z0-9_.@-]{1,64}", "give 1 to 64 letters, digits and signs of _.@-")
    ] = Field(description="Name of the user.")
    password_hash: str = secret(
        description="Hash of the password; eqcctpro serve password makes one."
    )

    @field_validator("password_hash")
    @classmethod
    def _is_hash(cls, value: str) -> str:
        # The message names no value: it may be a password.
        if not _SCRYPT.fullmatch(value):
            raise ValueError("this is no hash; eqcctpro serve password makes one of a password")
        return value


class People(Section):
    """Keys and users."""

    api_keys: tuple[ApiKey, ...] = Field(
        (),
        description="Keys of clients: tables of name, sha256 and, if wanted, requests_per_s, "
        "priority and role.",
    )
    users: tuple[User, ...] = Field(
        (), description="People who sign in: tables of name and password_hash."
    )

    @model_validator(mode="after")
    def _each_name_once(self) -> Self:
        for kind in ("api_keys", "users"):
            names = [item.name for item in getattr(self, kind)]
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}: each name once")
        return self


class SecuritySettings(People):
    """Authentication; by default off, as only this machine reaches the service."""

    people_file: Path | None = Field(
        None,
        description="File with more api_keys and users, which is read again whenever it changes.",
    )
    requests_per_s: float | None = Field(
        None, gt=0, description="Requests a second of each key, user or address; none is no limit."
    )
    secret_file: Path | None = Field(
        None,
        description="File with what tokens are signed with; without one they end with the service.",
    )
    authenticator: (
        Annotated[
            str,
            matching(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "name a function as module:function"),
        ]
        | None
    ) = advanced(
        None,
        description="A function module:function(name, password) -> bool, in place of users.",
    )
    required: bool | None = advanced(
        None, description="Whether a key is needed; none: as soon as there are keys or users."
    )
    session_s: float = advanced(
        3600.0, gt=0, description="Seconds that a token lasts after signing in."
    )
    open_metrics: bool = advanced(True, description="Whether metrics need no key.")
    open_page: bool = advanced(
        True, description="Whether the page and the description of the interface need no key."
    )
    open_models: bool = advanced(
        False,
        description="Whether models are loaded and unloaded without an administrator's key, where "
        "nobody needs a key.",
    )
    model_roots: Paths = advanced(
        (), description="Folders from which files of weights may be loaded, links followed."
    )

    same_site: ClassVar[Literal["strict"]] = "strict"
    #: Requests that may come at once, at least.
    least_burst: ClassVar[float] = 10.0

    @property
    def can_authenticate(self) -> bool:
        """True if keys, users or an authenticator are configured."""
        return bool(self.api_keys or self.users or self.authenticator or self.people_file)

    @property
    def closed(self) -> bool:
        """True if requests must be authenticated."""
        return self.can_authenticate if self.required is None else self.required

    @model_validator(mode="after")
    def _somebody_is_known(self) -> SecuritySettings:
        if self.required and not self.can_authenticate:
            raise ValueError("required: give api_keys, users, people_file or an authenticator")
        return self
