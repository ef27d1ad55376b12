"""Authentication and rate limits of clients."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module

from itsdangerous import BadSignature, URLSafeTimedSerializer
from pydantic import ValidationError

from eqcctpro.config import sentences
from eqcctpro.config_files import load_config_file
from eqcctpro.errors import SettingsError
from eqcctpro.serving.problems import (
    BusyProblem,
    ForbiddenProblem,
    InvalidProblem,
    MalformedProblem,
    UnauthorizedProblem,
)
from eqcctpro.serving.security_settings import People, SecuritySettings

__all__ = [
    "COOKIE",
    "Guard",
    "Identity",
    "Session",
    "find_authenticator",
    "hash_password",
    "is_batch",
    "make_key",
    "read_people",
    "read_secret",
    "require_one_of_each",
]

COOKIE = "eqcctpro_session"

# As RFC 7914 proposes for logins, half of it: 16 MB and some 30 ms for each try.
_SCRYPT_N, _SCRYPT_R, _SCRYPT_P = 2**14, 8, 1

# Whoever asks from more addresses than this is forgotten, the longest silent first.
_REMEMBERED = 10_000

# How often a file of keys and users is looked at.
_LOOK_S = 1.0

_log = logging.getLogger("eqcctpro.serving")

Authenticator = Callable[[str, str], bool]


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a client.

    Attributes
    ----------
    name : str
        Of a key, a user, or an address.
    kind : {"key", "user", "anybody"}
    requests_per_s : float or None
        How often; None is as often as they like.
    admin : bool
        Whether it may load and unload models.
    batch : bool
        Whether all that it asks for stands behind what others ask for.
    """

    name: str
    kind: str
    requests_per_s: float | None = None
    admin: bool = False
    batch: bool = False

    @property
    def owner(self) -> str:
        """Key of a client's jobs and picks; an API key and a user of the same name differ."""
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Session:
    """Token that stands for a name and a password.

    Attributes
    ----------
    token : str
    name : str
    expires_in_s : float
    """

    token: str
    name: str
    expires_in_s: float


class _Known:
    """Keys and users: those of the settings, and those of a file that is reloaded on change.

    Parameters
    ----------
    settings : SecuritySettings

    Raises
    ------
    SettingsError
        The file cannot be read.
    """

    def __init__(self, settings: SecuritySettings) -> None:
        self._settings = settings
        self._looked = 0.0
        self._stamp = self._file_stamp()
        self._take(read_people(settings))

    def _take(self, people: People) -> None:
        self.keys = [(bytes.fromhex(key.sha256), key) for key in people.api_keys]
        self.users = {user.name: user.password_hash for user in people.users}

    def _file_stamp(self) -> tuple[int, ...] | None:
        path = self._settings.people_file
        try:
            status = path.stat() if path is not None else None
        except OSError:
            return None
        return None if status is None else (status.st_mtime_ns, status.st_size, status.st_ino)

    def refresh(self) -> None:
        """Reload the file if it has changed; an invalid file changes nothing."""
        now = time.monotonic()
        if self._settings.people_file is None or now - self._looked < _LOOK_S:
            return
        self._looked = now
        stamp = self._file_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._take(read_people(self._settings))
        except SettingsError as error:
            _log.error("keys and users stay what they were: %s", error)
        else:
            _log.info("%d keys and %d users are known now", len(self.keys), len(self.users))

    def mark(self, name: str) -> str | None:
        """Fingerprint of a user's password hash in tokens, which end with the user or password."""
        kept = self.users.get(name)
        return None if kept is None else hashlib.sha256(kept.encode()).hexdigest()[:16]


class Guard:
    """Authentication and rate limiting of clients.

    Parameters
    ----------
    settings : SecuritySettings
    secret : str
        What tokens are signed with; the same in all replicas.
    """

    def __init__(self, settings: SecuritySettings, secret: str) -> None:
        self._settings = settings
        self._known = _Known(settings)
        self._signer = URLSafeTimedSerializer(
            secret, salt="eqcctpro-session", signer_kwargs={"digest_method": hashlib.sha256}
        )
        self._authenticator = find_authenticator(settings)
        self._nobody = hash_password(secrets.token_hex(8)) if settings.can_authenticate else ""
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()

    def identify(self, headers: Mapping[bytes, bytes], address: str) -> Identity:
        """Authenticate the sender of these headers.

        Raises
        ------
        UnauthorizedProblem
            The service is closed to those whom nobody knows, or a key or token is wrong.
        """
        self._known.refresh()
        rate = self._settings.requests_per_s
        key = headers.get(b"x-api-key", b"").decode("latin-1")
        scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        bearer = credentials.strip() if scheme.lower() == "bearer" else ""
        token = bearer or _cookie(headers.get(b"cookie", b"").decode("latin-1"))
        if (key or bearer) and self._known.keys:
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
        for known, key in self._known.keys:  # all of them, so that time tells nothing
            if hmac.compare_digest(digest, known):
                found = key
        if found is None:
            return None
        rate = found.requests_per_s or self._settings.requests_per_s
        return Identity(
            found.name,
            "key",
            rate,
            admin=found.role == "admin",
            batch=found.priority == "batch",
        )

    def _known_token(self, token: str) -> str | None:
        try:
            content = self._signer.loads(token, max_age=int(self._settings.session_s))
        except BadSignature:
            return None
        if not isinstance(content, dict) or not isinstance(name := content.get("name"), str):
            return None
        return name if content.get("mark", "-") == self._mark(name) else None

    def _mark(self, name: str) -> str | None:
        """Fingerprint that a user's token must hold; None for an unknown user."""
        if self._authenticator is not None:
            return self._settings.authenticator
        return self._known.mark(name)

    def _authenticate(self, name: str, password: str) -> bool:
        if self._authenticator is not None:
            return self._authenticator(name, password)
        users = self._known.users
        # Also for nobody, so that time tells nothing.
        return bool(users) and _right(password, users.get(name, self._nobody)) and name in users

    def log_in(self, headers: Mapping[bytes, bytes]) -> Session:
        """A token for a name and a password in HTTP's Basic authentication.

        Raises
        ------
        UnauthorizedProblem
            They are missing or wrong.
        """
        self._known.refresh()
        scheme, _, credentials = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        try:
            text = base64.b64decode(credentials.strip(), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            text = ""
        name, colon, password = text.partition(":")
        # A browser that hears of Basic asks for a password itself, which a page does already.
        wanted = "Bearer" if b"x-requested-with" in headers else 'Basic realm="eqcctpro"'
        if scheme.lower() != "basic" or not colon:
            raise _unauthorized("a name and a password are needed", self._settings, scheme=wanted)
        if not self._authenticate(name, password):
            raise _unauthorized("the name or the password is wrong", self._settings, scheme=wanted)
        token = self._signer.dumps(
            {"name": name, "mark": self._mark(name), "nonce": secrets.token_hex(8)}
        )
        return Session(str(token), name, self._settings.session_s)

    def is_administrator(self, who: Identity | None) -> bool:
        """True if a client may load and unload models."""
        opened = self._settings.open_models and not self._settings.closed
        return opened or (who is not None and who.admin)

    def require_administrator(self, who: Identity | None) -> None:
        """Refuse a client that may not load and unload models.

        Raises
        ------
        ForbiddenProblem
        """
        settings = self._settings
        if not self.is_administrator(who):
            closed = "role: admin makes a key of security.api_keys an administrator's"
            raise ForbiddenProblem(
                "models are loaded and unloaded with an administrator's key",
                hint=closed if settings.closed else f"{closed}; security.open_models needs none",
            )

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
        burst = max(self._settings.least_burst, rate)
        left, since = self._buckets.pop(who, (burst, now))
        left = min(left + (now - since) * rate, burst)
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


def require_one_of_each(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuse several keys or tokens: what stands in front may have looked at another one.

    Raises
    ------
    MalformedProblem
    """
    times = Counter(name for name, _ in headers)
    for wanted in (b"x-api-key", b"authorization"):
        if times[wanted] > 1:
            raise MalformedProblem(f"{wanted.decode()}: given twice", hint="send it once")


def is_batch(headers: Iterable[tuple[bytes, bytes]], who: Identity) -> bool:
    """True if a request has low priority, by ``x-priority`` and its key.

    Raises
    ------
    MalformedProblem
        It is given twice.
    InvalidProblem
        There is no such priority.
    ForbiddenProblem
        The key's requests are batch requests.
    """
    given = [value.strip().lower() for name, value in headers if name == b"x-priority"]
    if len(given) > 1:
        raise MalformedProblem("x-priority: given twice", hint="send it once, or not at all")
    asked = given[0] if given else b"batch" if who.batch else b"interactive"
    if asked not in (b"interactive", b"batch"):
        said = asked[:60].decode("latin-1")
        raise InvalidProblem(f"x-priority: {said!r} is neither interactive nor batch")
    if who.batch and asked != b"batch":
        raise ForbiddenProblem(
            f"requests of {who.name} are batch requests", hint="send x-priority: batch, or nothing"
        )
    return asked == b"batch"


def _unauthorized(
    message: str, settings: SecuritySettings, *, scheme: str = "Bearer"
) -> UnauthorizedProblem:
    either = settings.people_file is not None
    ways = ["the header X-API-Key"] if settings.api_keys or either else []
    if settings.users or settings.authenticator or either:
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


def find_authenticator(settings: SecuritySettings) -> Authenticator | None:
    """Import the configured function that checks a name and a password, if there is one.

    Raises
    ------
    SettingsError
        The settings name a function that is not there.
    """
    if settings.authenticator is None:
        return None
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
    """Hash a password for the settings, by scrypt."""
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


def read_people(settings: SecuritySettings) -> People:
    """Keys and users of the settings, and of the file that these name.

    Raises
    ------
    SettingsError
        The file cannot be read, or a name is given twice.
    """
    path = settings.people_file
    if path is None:
        return People(api_keys=settings.api_keys, users=settings.users)
    given = load_config_file(path, "security.people_file")
    try:
        found = People(**given)
        return People(
            api_keys=(*settings.api_keys, *found.api_keys), users=(*settings.users, *found.users)
        )
    except (ValidationError, TypeError) as error:
        said = "; ".join(sentences(error, People)) if isinstance(error, ValidationError) else error
        raise SettingsError(f"security.people_file: {path}: {said}") from error


def read_secret(settings: SecuritySettings) -> str:
    """Read the secret that signs tokens from its file, or create one at random.

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
