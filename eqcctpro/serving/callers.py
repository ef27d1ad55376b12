"""Origin of requests: the host name they use, the web page behind them, the client's address.

A page in a browser may ask whatever its user's machine reaches.  It does so under a name that its
author has pointed here, or from an origin that the browser names.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import Scope

from eqcctpro.serving.problems import ForbiddenProblem
from eqcctpro.serving.settings import HttpSettings

__all__ = ["Callers"]

# What changes nothing, and what browsers ask before they send anything.
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

Headers = Iterable[tuple[bytes, bytes]]


class Callers:
    """Protection from DNS rebinding and cross-site requests.

    Parameters
    ----------
    http : HttpSettings
    behind_proxy : bool
        Whether Ray Serve's proxy takes requests.
    """

    def __init__(self, http: HttpSettings, *, behind_proxy: bool = False) -> None:
        self._own = {http.host.lower()}
        if not http.local:
            self._own.add(socket.gethostname().lower())
        self._named = tuple(map(_name, http.hosts))
        self._origins = frozenset(http.cors_origins)
        # Ray Serve's proxy believes what comes from loopback unless its environment says otherwise.
        self._undo = behind_proxy and not http.trusted_proxies

    def check(self, scope: Scope) -> None:
        """Refuse a request with a foreign host name, or a foreign page's request that has effects.

        Raises
        ------
        ForbiddenProblem
        """
        hosts = _values(scope["headers"], b"host")
        for host in hosts:
            if not self._is_name(_name(host), scope.get("server")):
                raise ForbiddenProblem(
                    f"{host[:100]!r} is no name of this service",
                    hint="the service's setting http.hosts adds names",
                )
        if scope["method"] in _SAFE:
            return
        for origin in _values(scope["headers"], b"origin"):
            if not self._may_ask(origin, hosts):
                raise ForbiddenProblem(
                    f"pages of {origin[:100]!r} may not ask this service",
                    hint="the service's settings http.cors_origins and http.hosts name who may",
                )

    def _is_name(self, name: str, server: tuple[str, int | None] | None) -> bool:
        if name in self._own or self._is_named(name) or _is_loopback(name):
            return True
        return server is not None and _same(name, server[0])

    def _is_named(self, name: str) -> bool:
        """True if the settings list a name; ``.example.org`` means its subdomains, ``*`` any."""
        return any(
            known in ("*", name) or (known.startswith(".") and name.endswith(known))
            for known in self._named
        )

    def _may_ask(self, origin: str, hosts: list[str]) -> bool:
        if origin in self._origins or "*" in self._origins:
            return True
        try:
            asking = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        if not asking:  # of a file, or one that the browser keeps for itself
            return False
        named = "*" not in self._named and self._is_named(_name(asking))
        return named or [asking] == [host.lower() for host in hosts]

    def address(self, scope: Scope) -> str:
        """The client's address: of the connection, or what a trusted proxy says."""
        client = scope.get("client")
        address = str(client[0]) if client else ""
        if self._undo:
            forwarded = ",".join(_values(scope["headers"], b"x-forwarded-for"))
            if address in (_name(part) for part in forwarded.split(",")):
                return "127.0.0.1"
        return address


def _values(headers: Headers, wanted: bytes) -> list[str]:
    return [value.decode("latin-1").strip() for name, value in headers if name == wanted]


def _name(host: str) -> str:
    """Host name without its port, in lower case."""
    text = host.strip().lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.rpartition(":")[0] if text.count(":") == 1 else text


def _is_loopback(name: str) -> bool:
    if name.rstrip(".") == "localhost" or name.rstrip(".").endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _same(left: str, right: str) -> bool:
    if left == right.lower():
        return True
    try:
        return ipaddress.ip_address(left) == ipaddress.ip_address(right)
    except ValueError:
        return False
