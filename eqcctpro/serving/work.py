"""ASGI application of ``/v1/pick`` and ``/v1/annotate``.

A framework's routing and validation would take longer than everything that is done for a request of
one station but the network.
"""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from starlette.types import Receive, Scope, Send

from eqcctpro.serving.answers import ANSWER_TYPES, choose_type
from eqcctpro.serving.bodies import Received, read_options
from eqcctpro.serving.memory import Share
from eqcctpro.serving.problems import GoneProblem, MethodProblem
from eqcctpro.serving.service import Service
from eqcctpro.serving.tracing import spanned

__all__ = ["WORK", "Work"]

#: Paths, and whether the answer holds curves.
WORK = {"/v1/pick": False, "/v1/annotate": True}

_PIECE_BYTES = 256 * 1024
# An answer that takes a millisecond to compress, and how much it is compressed.
_FEW_BYTES, _LEVEL = 16 * 1024, 5
_QUICK = ("application/json", "application/msgpack", "application/x-msgpack")


class Work:
    """Endpoint that reads a request, has it picked, and writes the answer.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._decode = service.metrics.stage_seconds.labels("decode")
        self._encode = service.metrics.stage_seconds.labels("encode")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request.

        Raises
        ------
        Problem
        """
        if scope["method"] != "POST":
            raise MethodProblem(f"{scope['method']} is not for this", headers={"Allow": "POST"})
        exchange = scope["state"]["exchange"]
        headers: dict[bytes, bytes] = exchange.received_headers
        with_curves = WORK[exchange.path]
        accept = headers.get(b"accept", b"").decode("latin-1")
        media_type = choose_type(accept, curves=with_curves)
        options = read_options(scope["query_string"])
        service = self._service
        with service.share() as share:
            with spanned(exchange.trace, "receive"):
                body = await Received(receive, headers, service.settings.limits, share).body()
            exchange.received = body.size
            with service.place(batch=exchange.batch):
                async with _Present(receive):
                    started = time.perf_counter()
                    with spanned(exchange.trace, "read"):
                        waveforms = await service.reader.read(body, share)
                    del body
                    self._decode.observe(time.perf_counter() - started)
                    answer = await service.pick(
                        waveforms,
                        options,
                        exchange.request_id,
                        with_curves=with_curves,
                        who=exchange.identity,
                        share=share,
                        batch=exchange.batch,
                        trace=exchange.trace,
                    )
                    del waveforms
                    started = time.perf_counter()
                    write = ANSWER_TYPES[media_type]
                    quick = media_type in _QUICK
                    more = [(b"x-served-name", quote(answer.served_name, safe="/ ").encode())]
                    with spanned(exchange.trace, "answer"):
                        content = await service.encode(answer, write, quick=quick, share=share)
                        if self._is_compressed(headers, content):
                            content = await self._compressed(content, share)
                            more += [(b"content-encoding", b"gzip"), (b"vary", b"Accept-Encoding")]
                    self._encode.observe(time.perf_counter() - started)
            with spanned(exchange.trace, "send"):
                await respond(send, content, media_type, more)

    def _is_compressed(self, headers: Mapping[bytes, bytes], content: bytes) -> bool:
        http = self._service.settings.http
        asked = b"gzip" in headers.get(b"accept-encoding", b"")
        return asked and len(content) >= http.compress_from_bytes

    async def _compressed(self, content: bytes, share: Share) -> bytes:
        """Compress an answer by gzip, in a thread unless it is short."""

        def compressed() -> bytes:
            return gzip.compress(content, _LEVEL, mtime=0)

        if len(content) <= _FEW_BYTES:
            return compressed()
        share.take(len(content))
        return await self._service.reader.in_thread(compressed, len(content), share)


async def respond(
    send: Send, content: bytes, media_type: str, more: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    """Send a whole answer, with more headers."""
    headers = [
        *more,
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    # By pieces: what a client does not read yet is in memory once.
    for at in range(0, max(len(content), 1), _PIECE_BYTES):
        follows = at + _PIECE_BYTES < len(content)
        piece = content[at : at + _PIECE_BYTES]
        await send({"type": "http.response.body", "body": piece, "more_body": follows})


class _Present:
    """Cancels the work inside the block when the client disconnects."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._gone = False
        self._task: asyncio.Task[Any] | None = None

    async def __aenter__(self) -> None:
        self._task = asyncio.current_task()
        self._watch = asyncio.ensure_future(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._watch.cancel()
        if self._gone and kind is asyncio.CancelledError:
            if self._task is not None:
                self._task.uncancel()
            raise GoneProblem("the client left")
