"""Errors of requests, as HTTP statuses that tell client errors from server errors."""

from __future__ import annotations

import msgspec

from eqcctpro.errors import EQCCTProError

__all__ = [
    "PROBLEM_TYPE",
    "BusyProblem",
    "ConflictProblem",
    "ForbiddenProblem",
    "GoneProblem",
    "HeadersProblem",
    "InvalidProblem",
    "LateProblem",
    "MalformedProblem",
    "MediaTypeProblem",
    "MethodProblem",
    "NotAcceptableProblem",
    "NotFoundProblem",
    "Problem",
    "StoppingProblem",
    "TooLargeProblem",
    "UnauthorizedProblem",
    "UnavailableProblem",
    "problem_body",
]

PROBLEM_TYPE = "application/problem+json"


class Problem(EQCCTProError):  # noqa: N818 (the word of RFC 9457)
    """Base of all errors of requests.

    Attributes
    ----------
    status : int
        Of HTTP.
    title : str
        The kind of problem, always the same for a kind.
    headers : dict of str
        What else the answer carries.
    """

    status = 500
    title = "Internal error"

    def __init__(
        self, message: str, *, hint: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.headers = headers or {}

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.headers)


def _rebuild(
    kind: type[Problem], message: str, hint: str | None, headers: dict[str, str]
) -> Problem:
    return kind(message, hint=hint, headers=headers)


class MalformedProblem(Problem):
    """The body does not match its content type."""

    status, title = 400, "Malformed request"


class UnauthorizedProblem(Problem):
    """Credentials are missing or invalid."""

    status, title = 401, "Not authenticated"


class ForbiddenProblem(Problem):
    """The client is known, and not allowed to do this."""

    status, title = 403, "Not allowed"


class NotFoundProblem(Problem):
    """The path, model or job does not exist."""

    status, title = 404, "Not found"


class MethodProblem(Problem):
    """The path exists, but does not support this method."""

    status, title = 405, "Method not allowed"


class NotAcceptableProblem(Problem):
    """No supported format matches the client's ``Accept``."""

    status, title = 406, "Not acceptable"


class LateProblem(Problem):
    """The request exceeded its time limit."""

    status, title = 408, "Timed out"


class ConflictProblem(Problem):
    """The request conflicts with the present state."""

    status, title = 409, "Conflict"


class TooLargeProblem(Problem):
    """The request exceeds a size limit."""

    status, title = 413, "Too large"


class MediaTypeProblem(Problem):
    """The content type of the body is not supported."""

    status, title = 415, "Unsupported media type"


class InvalidProblem(Problem):
    """The body can be read, but a value is invalid."""

    status, title = 422, "Invalid request"


class BusyProblem(Problem):
    """The service is overloaded, or the client exceeds its rate."""

    status, title = 429, "Too many requests"


class HeadersProblem(Problem):
    """The headers or the URL exceed the size limit."""

    status, title = 431, "Request header fields too large"


class GoneProblem(Problem):
    """The client has disconnected; the status is for the log alone."""

    status, title = 499, "Client closed the request"


class StoppingProblem(Problem):
    """The service is shutting down."""

    status, title = 503, "Not available"


class UnavailableProblem(Problem):
    """A process that the request needs is being replaced."""

    status, title = 503, "Not available"


def problem_body(problem: Problem, request_id: str) -> bytes:
    """Problem details in JSON (RFC 9457)."""
    content = {
        "type": "about:blank",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.message,
        "hint": problem.hint,
        "request_id": request_id,
    }
    return msgspec.json.encode(content)
