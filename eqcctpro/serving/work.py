"""``/v1/pick`` and ``/v1/annotate`` as an ASGI application of their own.

A framework's routing and validation would take longer than everything that is done for a request of
one station but the network.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from starlette.types import Receive, Scope, Send

from eqcctpro.serving.answers import ANSWER_TYPES, choose_type
from eqcctpro.serving.bodies import Received, read_options, read_waveforms
from eqcctpro.serving.problems import GoneProblem, MethodProblem
from eqcctpro.serving.service import Service

__all__ = ["WORK", "Work"]

#: Paths, and whether the answer holds curves.
WORK = {"/v1/pick": False, "/v1/annotate": True}

_QUICK = ("application/json", "application/msgpack", "application/x-msgpack")


class Work:
    """Reads a request, has it picked, and writes the answer.

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
        received = Received(receive, headers, self._service.settings.limits)
        with self._service.room(received.size):
            body = await received.body()
            exchange.received = len(body)
            started = time.perf_counter()
            waveforms = await read_waveforms(headers, body)
            del body
            self._decode.observe(time.perf_counter() - started)
            async with _Present(receive):
                answer = await self._service.pick(
                    waveforms,
                    options,
                    exchange.request_id,
                    with_curves=with_curves,
                    who=exchange.identity,
                )
            del waveforms
        started = time.perf_counter()
        write = ANSWER_TYPES[media_type]
        quick = media_type in _QUICK and not with_curves
        content = write(answer) if quick else await asyncio.to_thread(write, answer)
        self._encode.observe(time.perf_counter() - started)
        await respond(send, content, media_type)


async def respond(send: Send, content: bytes, media_type: str) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", media_type.encode()),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


class _Present:
    """Cancels what is done inside when the client leaves."""

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
