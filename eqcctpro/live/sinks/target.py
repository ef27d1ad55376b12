"""Addresses of sinks: read from URLs, checked, and shown without their secrets."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from typing import get_args
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from eqcctpro.errors import SettingsError
from eqcctpro.live.outbox import Sends

__all__ = ["Target", "fill_variables", "read_target"]

_SENDS = get_args(Sends)
_VARIABLE = re.compile(r"\$\{([A-Za-z_]\w*)\}")
_HIDDEN = "***"
#: Options of every sink.
_COMMON = ("send", "name")


@dataclass(frozen=True)
class Target:
    """Address of a sink.

    Attributes
    ----------
    scheme : str
        ``redis``, ``https``, ``jsonl`` and so on.
    host : str
    port : int or None
    user, password : str
    path : str
        Behind host and port, without the slash before it.
    options : dict of str to str
        Of the sink's own kind.
    send : {"first", "final", "all", ""}
        Empty if the URL does not say it.
    url : str
        Without `send` and `name`; it holds the secrets.
    name : str
        Unique among the sinks of a run, without secrets.
    """

    scheme: str
    host: str = ""
    port: int | None = None
    user: str = ""
    password: str = field(default="", repr=False)
    path: str = ""
    options: dict[str, str] = field(default_factory=dict, repr=False)
    send: Sends | None = None
    url: str = field(default="", repr=False)
    name: str = ""

    def number(self, option: str, default: float, least: float, most: float) -> float:
        """An option that is a number.

        Raises
        ------
        SettingsError
            It is none, or lies outside its limits.
        """
        text = self.options.get(option)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = float("nan")
        if not least <= value <= most:
            raise SettingsError(
                f"sink {self.name}: {option}={text} is no number from {least:g} to {most:g}"
            )
        return value

    def require(self, what: str, value: str) -> str:
        """A part of the address that may not be missing.

        Raises
        ------
        SettingsError
            It is missing.
        """
        if not value:
            raise SettingsError(
                f"sink {self.name}: the {what} is missing",
                hint="docs/live-sinks.md shows the addresses of sinks",
            )
        return value

    def hide(self, text: str) -> str:
        """A text without the secrets of this address, which messages of libraries may show."""
        secrets = {self.url, self.password, *self.options.values()}
        if self.scheme in ("http", "https"):  # such addresses are keys themselves
            parts = urlsplit(self.url)
            secrets |= {parts.path, parts.query, f"{parts.path}?{parts.query}"}
        for secret in sorted(secrets, key=len, reverse=True):
            for form in (secret, unquote(secret)):
                # What is too short to be a secret would make other words unreadable.
                if len(form) > 3 or (form and form == self.password):
                    text = text.replace(form, _HIDDEN)
        return text


def read_target(
    url: str, options: tuple[str, ...] | None = (), *, schemes: tuple[str, ...] = ()
) -> Target:
    """Read the address of a sink.

    ``${NAME}`` is replaced by the variable of the environment, so that secrets need not be in
    the command.

    Parameters
    ----------
    url : str
        ``SCHEME://USER:PASSWORD@HOST:PORT/PATH?OPTION=VALUE``, ``SCHEME:PATH`` or ``SCHEME``.
    options : tuple of str, optional
        That the kind of sink knows, besides ``send`` and ``name``; with None, all others belong
        to the URL.
    schemes : tuple of str
        For the message, where the text has no scheme at all.

    Raises
    ------
    SettingsError
        It is no URL, or has an option that is unknown or wrong.
    """
    filled = fill_variables(url.strip(), "sink")
    scheme, mark, rest = filled.partition(":")
    scheme, query_mark, query = scheme.partition("?") if not mark else (scheme, "", "")
    scheme = scheme.lower()
    if not re.fullmatch(r"[a-z][a-z0-9+]*", scheme):
        raise SettingsError(
            f"sink {_shown(url)}: this is no address of a sink",
            hint=f"begin it with {', '.join(schemes)}" if schemes else None,
        )
    if "#" in filled:  # everything behind it would be left out
        raise SettingsError(
            f"sink {_shown(url)}: an address holds no #", hint="write %23, also in a password"
        )
    try:
        parts = urlsplit(f"{scheme}:{rest}" if mark else f"{scheme}:{query_mark}{query}")
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise SettingsError(f"sink {_shown(url)}: {error}") from error
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    send, own_name = given.pop("send", None), given.pop("name", "")
    path = unquote(parts.path.removeprefix("/") if parts.netloc else parts.path)
    name = own_name or _name(scheme, host, port, path, parts.query)
    if send is not None and send not in _SENDS:
        raise SettingsError(
            f"sink {name}: send={send} is unknown", hint=f"one of {', '.join(_SENDS)}"
        )
    if options is not None and (unknown := sorted(given.keys() - set(options))):
        raise SettingsError(
            f"sink {name}: the option {unknown[0]!r} is unknown",
            hint=f"it has {', '.join((*_COMMON, *options))}",
        )
    return Target(
        scheme=scheme,
        host=host,
        port=port,
        user=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        path=path,
        options=given,
        send=send,  # type: ignore[arg-type]
        url=parts._replace(query=urlencode(given), fragment="").geturl(),
        name=name,
    )


def fill_variables(text: str, setting: str) -> str:
    """A text with the values of the environment's variables in place of ``${NAME}``.

    Raises
    ------
    SettingsError
        A variable is not set; the message names `setting`.
    """

    def value_of(found: re.Match[str]) -> str:
        value = os.environ.get(found[1])
        if value is None:
            raise SettingsError(
                f"{setting}: the variable {found[1]} is not set in the environment",
                hint=f"set it, or write its value in place of ${{{found[1]}}}",
            )
        return value

    return _VARIABLE.sub(value_of, text)


def _name(scheme: str, host: str, port: int | None, path: str, query: str) -> str:
    if not host:
        return f"{scheme}:{path}" if path else scheme
    host = f"[{host}]" if ":" in host else host
    place = f"{scheme}://{host}" + (f":{port}" if port is not None else "")
    if scheme in ("http", "https"):
        # The path of a webhook is often its key.
        mark = hashlib.sha256(f"{path}?{query}".encode()).hexdigest()[:6]
        return f"{place}/#{mark}"
    return f"{place}/{path}" if path else place


def _shown(url: str) -> str:
    """The beginning of what may hold a secret."""
    return repr(url.partition("@")[2] or url.partition("?")[0])[:60]
