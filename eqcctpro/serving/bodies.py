"""Reading what a client sends, no more of it than is allowed, no longer than it may take."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Receive

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
from eqcctpro.serving.waveforms import Options, Waveforms, read_body
from eqcctpro.waveform.decode import DecodedFile

__all__ = ["Received", "read_options", "read_waveforms", "receive_body"]

# Above this, decoding leaves the event loop to others.
_INLINE_BYTES = 512 * 1024
_MOST_PARTS = 1000

_OPTIONS = ("p_threshold", "s_threshold", "detection_threshold")


class Received:
    """A body that is on its way.

    Parameters
    ----------
    receive : ASGI callable
    headers : dict of bytes
        Names in small letters.
    limits : LimitSettings
    """

    def __init__(
        self, receive: Receive, headers: Mapping[bytes, bytes], limits: LimitSettings
    ) -> None:
        self._receive = receive
        self._headers = headers
        self._limits = limits
        self._most = int(limits.max_body_mb * 2**20)

    @property
    def size(self) -> int:
        """How long it is said to be, or may be at most."""
        announced = self._headers.get(b"content-length", b"")
        return min(int(announced), self._most) if announced.isdigit() else self._most

    async def body(self) -> bytes:
        """The whole of it, decompressed.

        Raises
        ------
        TooLargeProblem, LateProblem, MalformedProblem, MediaTypeProblem, GoneProblem
        """
        limits = self._limits
        announced = self._headers.get(b"content-length", b"")
        if announced.isdigit() and int(announced) > self._most:
            raise _too_large(limits)
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                body = await self._whole()
        except TimeoutError:
            raise LateProblem(
                f"the body did not arrive in {limits.body_timeout_s:g} s", hint="send it faster"
            ) from None
        coding = self._headers.get(b"content-encoding")
        if coding is None:
            return body
        text = coding.decode("latin-1").strip().lower()
        return body if text in ("identity", "") else _decompressed(body, text, self._most, limits)

    async def _whole(self) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                raise GoneProblem("the client left while it sent the body")
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size > self._most:
                raise _too_large(self._limits)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


async def receive_body(request: Request, limits: LimitSettings) -> bytes:
    """The body of a request to the framework's routes; see `Received.body`."""
    return await Received(request.receive, dict(request.scope["headers"]), limits).body()


def _too_large(limits: LimitSettings) -> Problem:
    # The rest of the body is not read, so that the connection cannot be used again.
    return TooLargeProblem(
        f"the body has more than {limits.max_body_mb:g} MB",
        hint="send fewer stations or less time in a request",
        headers={"Connection": "close"},
    )


def _decompressed(body: bytes, coding: str, most: int, limits: LimitSettings) -> bytes:
    if coding not in ("gzip", "deflate", "x-gzip"):
        raise MediaTypeProblem(
            f"bodies in the coding {coding[:40]!r} are not read", hint="send gzip, or as it is"
        )
    inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | (32 if coding != "deflate" else 0))
    try:
        content = inflate.decompress(body, most + 1)
    except zlib.error as error:
        raise MalformedProblem(f"the body is not {coding}: {error}") from error
    if len(content) > most:
        raise _too_large(limits)
    if not inflate.eof:
        raise MalformedProblem(f"the body is {coding} that breaks off")
    return content


def read_options(query: bytes) -> Options | None:
    """What the query asks for.

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


@dataclass(frozen=True, slots=True)
class _Part:
    name: str
    media_type: str
    content: bytes


async def read_waveforms(headers: Mapping[bytes, bytes], body: bytes) -> Waveforms:
    """Decode a body, in a thread if it is long.

    Raises
    ------
    MalformedProblem, InvalidProblem, MediaTypeProblem
    """
    given = headers.get(b"content-type", b"").decode("latin-1")
    media_type = given.partition(";")[0].strip().lower()
    if media_type == "multipart/form-data":
        parts = await _parts(given, body)
        return await asyncio.to_thread(_joined, parts)
    if len(body) <= _INLINE_BYTES:
        return read_body(body, media_type)
    return await asyncio.to_thread(read_body, body, media_type)


async def _parts(content_type: str, body: bytes) -> list[_Part]:
    """The files of a form."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body
        yield b""

    parser = MultiPartParser(
        Headers({"content-type": content_type}), stream(), max_files=_MOST_PARTS, max_fields=0
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise MalformedProblem(
            f"the form cannot be read: {error}", hint="send files; options go into the query"
        ) from error
    parts: list[_Part] = []
    for name, value in form.multi_items():
        if isinstance(value, UploadFile):
            media_type = (value.content_type or "").partition(";")[0].strip().lower()
            parts.append(_Part(value.filename or name, media_type, await value.read()))
    await form.close()
    if not parts:
        raise MalformedProblem("the form holds no file", hint="add one or more files")
    return parts


def _joined(parts: list[_Part]) -> Waveforms:
    """All files of a form as one request; a file that cannot be read fails alone, with a note."""
    segments, warnings = [], []
    problems: list[Problem] = []
    options: Options | None = None
    for part in parts:
        media_type = "" if part.media_type in ("text/plain", "") else part.media_type
        try:
            found = read_body(part.content, media_type, part.name[:200])
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
    return Waveforms(DecodedFile(segments, warnings), options)
