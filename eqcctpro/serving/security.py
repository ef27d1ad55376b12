"""Who asks, and how often they may."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module

from itsdangerous import BadSignature, URLSafeTimedSerializer

from eqcctpro.errors import SettingsError
from eqcctpro.serving.problems import BusyProblem, UnauthorizedProblem
from eqcctpro.serving.security_settings import SecuritySettings

__all__ = [
    "COOKIE",
    "Guard",
    "Identity",
    "Session",
    "find_authenticator",
    "hash_password",
    "make_key",
    "read_secret",
]

COOKIE = "eqcctpro_session"

# As RFC 7914 proposes for logins, half of it: 16 MB and some 30 ms for each try.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1

# Whoever asks from more addresses than this is forgotten, the longest silent first.
_REMEMBERED = 10_000

Authenticator = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks.

    Attributes
    ----------
    name : str
        Of a key, a user, or an address.
    kind : {"key", "user", "anybody"}
    requests_per_s : float or None
        How often; None is as often as they like.
    """

    name: str
    kind: str
    requests_per_s: float | None = None

    @property
    def owner(self) -> str:
        """What jobs and picks are kept under: a key and a user of one name are two."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Session:
    """A token that stands for a name and a password.

    Attributes
    ----------
    token : str
    name : str
    expires_in_s : float
    """

    token: str
    name: str
    expires_in_s: float


class Guard:
    """Tells who asks, and refuses who asks too often.

    Parameters
    ----------
    settings : SecuritySettings
    secret : str
        What tokens are signed with; the same in all replicas.
    """

    def __init__(self, settings: SecuritySettings, secret: str) -> None:
        self._settings = settings
        self._keys = [(bytes.fromhex(key.sha256), key) for key in settings.api_keys]
        self._signer = URLSafeTimedSerializer(
            secret, salt="eqcctpro-session", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._authenticate = find_authenticator(settings)
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def identify(self, headers: Mapping[bytes, bytes], address: str) -> Identity:
        """Who sends these headers.

        Raises
        ------
        UnauthorizedProblem
            The service is closed to those whom nobody knows, or a key or token is wrong.
        """
        rate = self._settings.requests_per_s
        key = headers.get(b"x-api-key", b"").decode("latin-1")
        scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        token = bearer or _cookie(headers.get(b"cookie", b"").decode("latin-1"))
        if (key or bearer) and self._keys:
            found = self._known_key(key or bearer)
            if found is not None:
                return found
        if token and (name := self._known_token(token)) is not None:
            return Identity(name, "user", rate)
        if not self._settings.closed:
            return Identity(address, "anybody", rate)
        if key or token:
            raise _unauthorized("the key or token is wrong or has expired", self._settings)
        raise _unauthorized("a key is needed", self._settings)

    def _known_key(self, given: str) -> Identity | None:
        digest = hashlib.sha256(given.encode("utf-8", "surrogateescape")).digest()
        found = None
        for known, key in self._keys:  # all of them, so that time tells nothing
            if hmac.compare_digest(digest, known):
                found = key
        if found is None:
            return None
        return Identity(found.name, "key", found.requests_per_s or self._settings.requests_per_s)

    def _known_token(self, token: str) -> str | None:
        try:
            content = self._signer.loads(token, max_age=int(self._settings.session_s))
        except BadSignature:
            return None
        name = content.get("name") if isinstance(content, dict) else None
        return name if isinstance(name, str) else None

    def log_in(self, headers: Mapping[bytes, bytes]) -> Session:
        """A token for a name and a password in HTTP's Basic authentication.

        Raises
        ------
        UnauthorizedProblem
            They are missing or wrong.
        """
        scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        try:
            text = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            text = ""
        name, colon, password = text.partition(":")
        if scheme.lower() != "basic" or not colon:
            raise _unauthorized(
                "a name and a password are needed", self._settings, scheme='Basic realm="eqcctpro"'
            )
        if not self._authenticate(name, password):
            raise _unauthorized(
                "the name or the password is wrong",
                self._settings,
                scheme='Basic realm="eqcctpro"',
            )
        token = self._signer.dumps({"name": name, "nonce": secrets.token_hex(8)})
        return Session(str(token), name, self._settings.session_s)

    def count(self, identity: Identity) -> None:
        """Count a request.

        Raises
        ------
        BusyProblem
            There were too many.
        """
        rate = identity.requests_per_s
        if rate is None:
            return
        who = (identity.kind, identity.name)
        now = time.monotonic()
        left, since = self._buckets.pop(who, (self._settings.burst, now))
        left = min(left + (now - since) * rate, self._settings.burst)
        self._buckets[who] = (left - 1 if left >= 1 else left, now)
        if len(self._buckets) > _REMEMBERED:
            self._buckets.popitem(last=False)
        if left < 1:
            wait = max(1, round((1 - left) / rate + 0.5))
            raise BusyProblem(
                f"{identity.name} may ask {rate:g} times a second",
                hint=f"ask again in {wait} s",
                headers={"Retry-After": str(wait)},
            )


def _unauthorized(
    message: str, settings: SecuritySettings, *, scheme: str = "Bearer"
) -> UnauthorizedProblem:
    ways = ["the header X-API-Key"] if settings.api_keys else []
    if settings.users or settings.authenticator:
        ways.append("a token from POST /v1/session")
    return UnauthorizedProblem(
        message, hint=f"send {' or '.join(ways)}", headers={"WWW-Authenticate": scheme}
    )


def _cookie(header: str) -> str:
    for part in header.split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE:
            return value
    return ""


def find_authenticator(settings: SecuritySettings) -> Authenticator:
    """The function that tells whether a name and a password belong together.

    Raises
    ------
    SettingsError
        The settings name a function that is not there.
    """
    if settings.authenticator is None:
        known = {user.name: user.password_hash for user in settings.users}
        nobody = hash_password(secrets.token_hex(8)) if known else ""
        return lambda name, password: (
            bool(known) and _right(password, known.get(name, nobody)) and name in known
        )
    module, _, name = settings.authenticator.partition(":")
    try:
        function: Authenticator = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(
            f"security.authenticator: {settings.authenticator}: {error}",
            hint="name a function as module:function",
        ) from error
    return function


def hash_password(password: str, salt: bytes | None = None) -> str:
    """How a password is kept in the settings."""
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = hashlib.scrypt(
        password.encode(), salt=salt, n=_SCRYPT_N, r=_SCRYPT_R, p=_SCRYPT_P, dklen=32
    )
    return f"scrypt${salt.hex()}${digest.hex()}"


def _right(password: str, kept: str) -> bool:
    salt = bytes.fromhex(kept.split("$")[1])
    return hmac.compare_digest(hash_password(password, salt), kept)


def make_key() -> tuple[str, str]:
    """A new key, and the hash that the settings keep of it."""
    key = f"eqp_{secrets.token_urlsafe(32)}"
    return key, hashlib.sha256(key.encode()).hexdigest()


def read_secret(settings: SecuritySettings) -> str:
    """What tokens are signed with: a file's content, or something new.

    Raises
    ------
    SettingsError
        The file cannot be read or says too little.
    """
    if settings.secret_file is None:
        return secrets.token_hex(32)
    try:
        secret = settings.secret_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"security.secret_file: {error}") from error
    if len(secret) < 32:
        raise SettingsError(
            f"security.secret_file: {settings.secret_file} holds less than 32 letters",
            hint="openssl rand -hex 32 makes a good one",
        )
    return secret
