"""Requests to a web service that may be slow, busy or cut off."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests

from eqcctpro.errors import InputError

__all__ = ["DataCentre", "DataCentreError", "NotThereError", "TooLargeError"]

# Statuses that another try may mend: too many requests, and trouble of the server.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# How long the first pause before another try is, and the longest, seconds; each is twice as long
# as the one before.
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
# Servers that ask for more are waited for no longer.
LONGEST_WAIT_S = 600.0
CONNECT_TIMEOUT_S = 15.0


class DataCentreError(InputError):
    """A web service refuses a request, or does not answer it in spite of retries."""


class NotThereError(DataCentreError):
    """A data centre has no such service."""


class TooLargeError(DataCentreError):
    """A request asks for more than the server sends at once."""


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    retry_after_s: float | None = None


class DataCentre:
    """A data centre's web services, asked no faster than is polite, by several threads.

    Parameters
    ----------
    root : str
        Address that ``/dataselect/1/query`` is appended to.
    rate : float
        Requests a second, at most, of all threads.
    retries : int
    timeout_s : float
        Seconds without a byte that end a request.
    """

    def __init__(self, root: str, *, rate: float, retries: int, timeout_s: float) -> None:
        self._root = root
        self._interval_s = 1.0 / rate
        self._retries = retries
        self._timeout = (min(CONNECT_TIMEOUT_S, timeout_s), timeout_s)
        self._lock = threading.Lock()
        self._next = 0.0
        self._local = threading.local()
        self._stopped = threading.Event()
        self.retried = 0

    def stop(self) -> None:
        """Let no further request begin, and end all pauses."""
        self._stopped.set()

    def post(self, service: str, body: str, check: Callable[[bytes], str]) -> bytes:
        """Post a request, and return the answer; empty if the service has no data.

        Parameters
        ----------
        service : str
            Such as ``dataselect``.
        body : str
        check : callable
            Says what is wrong with an answer, as with one that was cut off, or nothing; wrong
            answers are asked for again.

        Raises
        ------
        DataCentreError
            The service refuses, or every try failed.
        """
        address = f"{self._root}/{service}/1/query"
        problem = ""
        for attempt in range(self._retries + 1):
            if attempt:
                self.retried += 1
            self._wait_turn(address)
            try:
                answer = self._send(address, body)
            except requests.RequestException as error:
                problem = f"{type(error).__name__}: {_short(str(error))}"
                self._pause(attempt)
                continue
            if answer.status == 204:
                return b""
            if answer.status == 200:
                problem = check(answer.content)
                if not problem:
                    return answer.content
                self._pause(attempt)
                continue
            problem = f"status {answer.status}: {_short(answer.content.decode(errors='replace'))}"
            if answer.status not in _PASSING:
                raise _refusal(answer.status, address, problem)
            self._hold(answer.retry_after_s)
            self._pause(attempt)
        raise DataCentreError(
            f"{address}: {problem} (tried {self._retries + 1} times)",
            hint="the same command goes on from here later",
        )

    def _send(self, address: str, body: str) -> _Answer:
        response = self._session().post(
            address,
            data=body.encode(),
            headers={"Content-Type": "text/plain"},
            timeout=self._timeout,
        )
        wait = _retry_after(response.headers.get("Retry-After"))
        return _Answer(response.status_code, response.content, wait)

    def _session(self) -> requests.Session:
        """The thread's own session: they are not made to be shared."""
        if not hasattr(self._local, "session"):
            from eqcctpro import __version__

            session = requests.Session()
            session.headers["User-Agent"] = f"EQCCTPro/{__version__}"
            self._local.session = session
        own: requests.Session = self._local.session
        return own

    def _wait_turn(self, address: str) -> None:
        with self._lock:
            now = time.monotonic()
            turn = max(self._next, now)
            self._next = turn + self._interval_s
        if self._stopped.wait(max(turn - now, 0.0)):
            raise DataCentreError(f"{address}: not asked, for the download ends")

    def _hold(self, seconds: float | None) -> None:
        """Let all threads wait as long as the server asks."""
        if seconds is not None:
            with self._lock:
                until = time.monotonic() + min(seconds, LONGEST_WAIT_S)
                self._next = max(self._next, until)

    def _pause(self, attempt: int) -> None:
        if attempt < self._retries:
            longest = min(FIRST_PAUSE_S * 2**attempt, LONGEST_PAUSE_S)
            # Threads that failed together do not come back together.
            self._stopped.wait(longest * random.uniform(0.5, 1.0))


def _refusal(status: int, address: str, problem: str) -> DataCentreError:
    if status == 404:
        return NotThereError(f"{address}: {problem}", hint="check the host")
    if status == 413:
        return TooLargeError(f"{address}: {problem}", hint="use shorter chunks")
    hint = "the data are restricted" if status in (401, 403) else "check the host and the codes"
    return DataCentreError(f"{address}: {problem}", hint=hint)


def _retry_after(text: str | None) -> float | None:
    """Seconds to wait, of a header that holds seconds or a date."""
    if text is None:
        return None
    try:
        return max(float(text), 0.0)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:  # written as -0000
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)


def _short(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 200 else f"{words[:200]}..."
