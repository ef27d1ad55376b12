"""Reading of request bodies, with limits of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Receive

from eqcctpro.serving.memory import Share, unlimited
from eqcctpro.serving.problems import (
    GoneProblem,
    InvalidProblem,
    LateProblem,
    MalformedProblem,
    MediaTypeProblem,
    Problem,
    TooLargeProblem,
)
from eqcctpro.serving.settings import LimitSettings
from eqcctpro.serving.waveforms import Allowance, Options, Waveforms, read_at_once, read_body
from eqcctpro.waveform.decode import DecodedFile

__all__ = ["Body", "Reader", "Received", "read_options", "receive_body"]

T = TypeVar("T")

_CODINGS = {"gzip": "gzip", "x-gzip": "gzip", "deflate": "deflate"}
# Bodies up to this size do not wait for those that take longer.
_SHORT_BYTES = 2**20
_LANE_THREADS = 2
# For the first bytes of a body, whatever the rate.
_FIRST_S = 5.0
# What a part takes beside its bytes.
_BYTES_OF_PART = 128
# What is asked for beside waveforms.
_MOST_REQUEST_BYTES = 2**20
_MOST_PARTS = 1000
_PART_BYTES = 64 * 1024

_OPTIONS = ("p_threshold", "s_threshold", "detection_threshold")


@dataclass(slots=True)
class Body:
    """A body that has been received.

    Attributes
    ----------
    parts : list of bytes
    size : int
    coding : str or None
        How it is compressed.
    media_type, content_type : str
        Without parameters, in small letters; and as it was sent.
    """

    parts: list[bytes]
    size: int
    coding: str | None
    media_type: str
    content_type: str


class Received:
    """A body that is being received.

    Parameters
    ----------
    receive : ASGI callable
    headers : dict of bytes
        Names in small letters.
    limits : LimitSettings
    share : Share
        Grows as the body comes.
    """

    def __init__(
        self,
        receive: Receive,
        headers: Mapping[bytes, bytes],
        limits: LimitSettings,
        share: Share,
        most: int | None = None,
    ) -> None:
        self._receive = receive
        self._headers = headers
        self._limits = limits
        self._share = share
        self._most = int(limits.max_body_mb * 2**20) if most is None else most

    async def body(self) -> Body:
        """Receive the whole body, as it was sent.

        Raises
        ------
        TooLargeProblem, LateProblem, MediaTypeProblem, GoneProblem, BusyProblem
        """
        announced = self._headers.get(b"content-length", b"")
        if announced.isdigit() and (len(announced) > 18 or int(announced) > self._most):
            raise self._too_large()
        given = self._headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        coding = None if given in ("identity", "") else _CODINGS.get(given, "")
        if coding == "":
            raise MediaTypeProblem(
                f"bodies in the coding {given[:40]!r} are not read",
                hint="send gzip, or as it is",
                headers={"Connection": "close"},
            )
        parts = await self._parts()
        content_type = self._headers.get(b"content-type", b"").decode("latin-1")
        media_type = content_type.partition(";")[0].strip().lower()
        return Body(parts, sum(map(len, parts)), coding, media_type, content_type)

    async def _parts(self) -> list[bytes]:
        """Receive the parts within the time limit and at the least rate."""
        limits, loop = self._limits, asyncio.get_running_loop()
        started = loop.time()
        end = started + limits.body_timeout_s
        first = min(_FIRST_S, limits.body_timeout_s)
        parts: list[bytes] = []
        size, more = 0, True
        try:
            async with asyncio.timeout_at(started + first) as timeout:
                while more:
                    message = await self._receive()
                    if message["type"] != "http.request":
                        raise GoneProblem("the client left while it sent the body")
                    part: bytes = message.get("body", b"")
                    more = message.get("more_body", False)
                    if not part:
                        continue
                    size += len(part)
                    if size > self._most:
                        raise self._too_large()
                    self._share.take(len(part) + _BYTES_OF_PART)
                    parts.append(part)
                    if more:
                        lasts = first + size / (limits.body_kb_per_s * 1000)
                        timeout.reschedule(min(end, started + lasts))
        except TimeoutError:
            seconds = loop.time() - started
            raise LateProblem(
                f"{size} bytes of the body came in {seconds:.3g} s, and it did not end",
                hint=f"send it faster than {limits.body_kb_per_s:g} kB/s, and in "
                f"{limits.body_timeout_s:g} s",
                headers={"Connection": "close"},
            ) from None
        return parts

    def _too_large(self) -> Problem:
        # The rest of the body is not read, so that the connection cannot be used again.
        return TooLargeProblem(
            f"the body has more than {self._most / 2**20:g} MB",
            hint="send fewer stations or less time in a request",
            headers={"Connection": "close"},
        )


async def receive_body(request: Request, limits: LimitSettings) -> bytes:
    """The body of a request to the framework's routes, which are never long.

    Raises
    ------
    TooLargeProblem, LateProblem, MediaTypeProblem, GoneProblem
    """
    headers = dict(request.scope["headers"])
    received = Received(request.receive, headers, limits, unlimited(), _MOST_REQUEST_BYTES)
    body = await received.body()
    allowance = Allowance(max_bytes=_MOST_REQUEST_BYTES)
    if body.coding is None:
        return b"".join(body.parts)
    coding = body.coding
    return await asyncio.to_thread(lambda: allowance.decompressed(body.parts, coding))


def read_options(query: bytes) -> Options | None:
    """Parse the options in a query string; None for an empty one.

    Raises
    ------
    InvalidProblem
        A parameter is unknown or no number.
    """
    if not query:
        return None
    values: dict[str, str | float] = {}
    for name, text in parse_qsl(query.decode("latin-1"), keep_blank_values=True):
        if name in values:
            raise InvalidProblem(f"{name[:60]}: given twice")
        if name == "model":
            values[name] = text
        elif name in ("waveforms", "private"):
            if text not in ("true", "false"):
                raise InvalidProblem(f"{name}: {text[:60]!r} is not true or false")
            values[name] = text == "true"
        elif name in _OPTIONS:
            try:
                values[name] = float(text)
            except ValueError:
                raise InvalidProblem(f"{name}: {text[:60]!r} is not a number") from None
        else:
            raise InvalidProblem(
                f"{name[:60]!r} is no parameter",
                hint=f"known are model, waveforms, private, {', '.join(_OPTIONS)}",
            )
    return Options(**values)  # type: ignore[arg-type]


class Reader:
    """Decompresses and decodes bodies: small ones at once, others in a few threads.

    Parameters
    ----------
    limits : LimitSettings
    """

    def __init__(self, limits: LimitSettings) -> None:
        self._limits = limits
        self._short, self._long = (
            ThreadPoolExecutor(_LANE_THREADS, f"eqcctpro-{name}") for name in ("short", "long")
        )

    async def read(self, body: Body, share: Share) -> Waveforms:
        """Read the waveforms of a body.

        Raises
        ------
        MalformedProblem, InvalidProblem, MediaTypeProblem, TooLargeProblem, BusyProblem
        """
        limits = self._limits
        allowance = Allowance(
            int(limits.max_body_mb * 2**20),
            int(limits.max_list_mb * 2**20),
            limits.max_pieces,
            share,
        )
        if body.coding is None and len(body.parts) == 1:
            found = read_at_once(body.parts[0], body.media_type, allowance)
            if found is not None:
                return found
        return await self.in_thread(lambda: _read(body, allowance), body.size, share)

    async def in_thread(self, function: Callable[[], T], cost: int, share: Share) -> T:
        """Call a slow function in a thread; large inputs have threads of their own.

        Parameters
        ----------
        function : callable
        cost : int
            Bytes that it works on.
        share : Share
            Of the request that it works for.
        """
        lane = self._short if cost <= _SHORT_BYTES else self._long
        return await asyncio.wrap_future(share.submit(lane, function))


def _read(body: Body, allowance: Allowance) -> Waveforms:
    """Decompress and decode a body; its parts are taken out."""
    if body.coding is not None:
        content = allowance.decompressed(body.parts, body.coding)
    else:
        allowance.share.take(body.size if len(body.parts) > 1 else 0)
        content = b"".join(body.parts)
    body.parts.clear()
    if body.media_type == "multipart/form-data":
        return _joined(_parts(body.content_type, content, allowance), allowance)
    return read_body(content, body.media_type, allowance=allowance)


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    media_type: str
    content: bytes


def _parts(content_type: str, body: bytes, allowance: Allowance) -> list[_Part]:
    """The files of a form."""
    allowance.share.take(len(body))

    async def stream() -> AsyncGenerator[bytes, None]:
        for at in range(0, len(body), _PART_BYTES):
            allowance.share.take(0)
            yield body[at : at + _PART_BYTES]
        yield b""

    async def parsed() -> list[_Part]:
        parser = MultiPartParser(
            Headers({"content-type": content_type}), stream(), max_files=_MOST_PARTS, max_fields=0
        )
        parser.spool_max_size = len(body) + 1  # nothing goes to the disk
        form = await parser.parse()
        parts: list[_Part] = []
        for name, value in form.multi_items():
            if isinstance(value, UploadFile):
                media_type = (value.content_type or "").partition(";")[0].strip().lower()
                parts.append(_Part(value.filename or name, media_type, await value.read()))
        await form.close()
        return parts

    try:
        parts = asyncio.run(parsed())
    except (MultiPartException, KeyError, ValueError) as error:
        raise MalformedProblem(
            f"the form cannot be read: {str(error)[:300]}",
            hint="send files; options go into the query",
        ) from error
    if not parts:
        raise MalformedProblem("the form holds no file", hint="add one or more files")
    return parts


def _joined(parts: list[_Part], allowance: Allowance) -> Waveforms:
    """All files of a form as one request; a file that cannot be read fails alone, with a note."""
    segments, warnings = [], []
    problems: list[Problem] = []
    options: Options | None = None
    for part in parts:
        media_type = "" if part.media_type in ("text/plain", "") else part.media_type
        try:
            found = read_body(part.content, media_type, part.name[:200], allowance)
        except MalformedProblem as problem:
            problems.append(problem)
            continue
        segments.extend(found.decoded.segments)
        warnings.extend(found.decoded.warnings)
        private = options is not None and options.private
        options = found.options or options
        if options is not None:
            options.private |= private
    if problems and not segments:
        raise problems[0]
    warnings.extend(problem.message for problem in problems)
    allowance.require_few_pieces(len(segments))
    return Waveforms(DecodedFile(segments, warnings), options)
