"""HTTP of a live run: status, health, metrics, and picks as server-sent events."""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from eqcctpro.errors import OutboxError, SettingsError
from eqcctpro.live.outbox import Outbox, Sends

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

__all__ = ["LiveServer", "address_of"]

# Readers of picks; each costs a little memory and a look into the outbox for each pick.
_MOST_READERS = 100
_MOST_CONNECTIONS = 300
_EVENTS = 200
_PING_S = 15.0
_START_S = 30.0
# Without a word of the picker for so long, something hangs.
_SILENCE_S = 60.0
_LOOK_S = 0.5

Endpoint = Callable[["Request"], Awaitable["Response"]]


def address_of(text: str, key: str = "") -> tuple[str, int]:
    """Host and port of ``HOST:PORT`` or ``PORT``; the host is this machine by default.

    Parameters
    ----------
    text : str
    key : str
        That readers must know; it is needed where other machines can connect.

    Raises
    ------
    SettingsError
        It is no address, or one that others reach, and there is no key; or the libraries of
        the service are not installed.
    """
    host, _, port_text = text.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        port = int(port_text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise SettingsError(
            f"http: {text!r} is no address", hint="HOST:PORT, such as 127.0.0.1:8080, or PORT"
        )
    if not key and not _is_loopback(host):
        raise SettingsError(
            f"http: {host} is reached by other machines, and there is no key",
            hint="give one (http_key), or listen at 127.0.0.1",
        )
    for module in ("uvicorn", "starlette", "prometheus_client"):
        if find_spec(module) is None:
            raise SettingsError(
                f"http: {module}, which it needs, is not installed",
                hint="pip install 'eqcctpro[serve]'",
            )
    return host, port


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class LiveServer:
    """HTTP server of a live run, in threads of its own; a context manager.

    ``/health/live`` and ``/health/ready`` are open; everything else needs the key, if there is
    one, as ``Authorization: Bearer KEY``.

    Parameters
    ----------
    address : str
        ``HOST:PORT``; port 0 is any free one.
    status : callable
        Returns `eqcctpro.live.status.LiveStatus` as a mapping; called by other threads.
    outbox : Outbox
    key : str

    Attributes
    ----------
    port : int
    address : str
        ``http://HOST:PORT``

    Raises
    ------
    SettingsError
        As in `address_of`; or something else listens there.
    """

    def __init__(
        self,
        address: str,
        status: Callable[[], Mapping[str, Any]],
        outbox: Outbox,
        *,
        key: str = "",
    ) -> None:
        import uvicorn

        from eqcctpro.live.metrics import LiveMetrics

        host, port = address_of(address, key)
        self._status, self._outbox, self._key = status, outbox, key
        self._metrics = LiveMetrics(status, outbox)
        self._socket = _listen(host, port)
        self.port = int(self._socket.getsockname()[1])
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self.port}"
        self._readers = 0
        self._ending = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._news: asyncio.Condition | None = None
        config = uvicorn.Config(
            self._app(host),
            log_config=None,
            access_log=False,
            lifespan="off",
            loop="asyncio",
            ws="none",
            limit_concurrency=_MOST_CONNECTIONS,
            timeout_keep_alive=10,
            timeout_graceful_shutdown=1,
            server_header=False,
        )
        self._server = uvicorn.Server(config)
        self._threads = [
            threading.Thread(target=work, name=f"eqcctpro-live-{name}", daemon=True)
            for name, work in (("http", self._serve), ("news", self._watch))
        ]

    def __enter__(self) -> LiveServer:
        for thread in self._threads:
            thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._threads[0].is_alive() or time.monotonic() > deadline:
                raise SettingsError("http: the server does not start")
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End readers and connections; a second call does nothing."""
        self._ending.set()
        self._server.should_exit = True
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(5.0)
        self._socket.close()

    # Threads.

    def _serve(self) -> None:
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._news = asyncio.Condition()
        self._loop = asyncio.get_running_loop()
        await self._server.serve(sockets=[self._socket])

    def _watch(self) -> None:
        """Note what is new in the outbox, and wake readers."""
        seen = self._outbox.last
        while not self._ending.is_set():
            if self._outbox.wait(seen, _LOOK_S):
                try:
                    entries, seen = self._outbox.follow(seen, _EVENTS)
                except OutboxError:  # the picker tells of it
                    self._ending.wait(_LOOK_S)
                    continue
                self._metrics.note(entry.message for entry in entries)
                self._wake()
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.is_closed():
            asyncio.run_coroutine_threadsafe(self._tell(), loop)

    async def _tell(self) -> None:
        assert self._news is not None
        async with self._news:
            self._news.notify_all()

    # Answers.

    def _app(self, host: str) -> Starlette:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware
        from starlette.routing import Route

        # A page elsewhere cannot have a browser take its own name for this machine's.
        names = ["localhost", "127.0.0.1", "::1", "[::1]", host] if _is_loopback(host) else ["*"]
        return Starlette(
            routes=[
                Route("/health/live", self._live),
                Route("/health/ready", self._ready),
                Route("/status", partial(self._guarded, self._state)),
                Route("/metrics", partial(self._guarded, self._numbers)),
                Route("/picks", partial(self._guarded, self._picks)),
            ],
            middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=names)],
        )

    async def _guarded(self, endpoint: Endpoint, request: Request) -> Response:
        from starlette.responses import JSONResponse

        if self._key:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self._key.encode()):
                return JSONResponse(
                    {"error": "a key is needed: Authorization: Bearer KEY"},
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
        return await endpoint(request)

    async def _live(self, _request: Request) -> Response:
        """200 while the picker gives signs of life."""
        from starlette.responses import JSONResponse

        silent_s = time.time() - float(self._status().get("updated", 0.0))
        alive = silent_s < _SILENCE_S
        return JSONResponse({"alive": alive, "silent_s": round(silent_s, 1)}, 200 if alive else 503)

    async def _ready(self, _request: Request) -> Response:
        """200 while picks are made and reach the outbox."""
        from starlette.responses import JSONResponse

        status = self._status()
        problems = list(status.get("alarms", ()))
        if status.get("state") != "running":
            problems.insert(0, f"the run is {status.get('state', 'starting')}")
        return JSONResponse({"ready": not problems, "problems": problems}, 503 if problems else 200)

    async def _state(self, _request: Request) -> Response:
        from starlette.responses import JSONResponse

        return JSONResponse(dict(self._status()))

    async def _numbers(self, _request: Request) -> Response:
        from starlette.responses import Response

        from eqcctpro.live.metrics import CONTENT_TYPE_LATEST

        text = await asyncio.to_thread(self._metrics.text)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def _picks(self, request: Request) -> Response:
        """Server-sent events: the picks to come, or those behind ``Last-Event-ID``."""
        from starlette.responses import JSONResponse, StreamingResponse

        sends = request.query_params.get("send", "all")
        if sends not in ("first", "final", "all"):
            return JSONResponse({"error": f"send={sends} is not first, final or all"}, 400)
        try:
            after = max(self._outbox.last - int(request.query_params.get("last", "0")), 0)
            identity, _, number = request.headers.get("last-event-id", "").partition(":")
            if identity:  # one of another outbox has seen nothing of this one
                after = int(number) if identity == self._outbox.identity else 0
        except ValueError:
            return JSONResponse({"error": "last is a number, and Last-Event-ID one of ours"}, 400)
        if self._readers >= _MOST_READERS:
            return JSONResponse({"error": f"{_MOST_READERS} readers are here already"}, 503)
        return StreamingResponse(
            self._events(after, sends),  # type: ignore[arg-type]
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    async def _events(self, after: int, sends: Sends) -> AsyncIterator[str]:
        self._readers += 1
        try:
            yield "retry: 2000\n\n"
            while not self._ending.is_set():
                entries, after = await asyncio.to_thread(self._outbox.follow, after, _EVENTS, sends)
                for number, message in entries:
                    marks = f"id: {self._outbox.identity}:{number}\nevent: pick\n"
                    yield f"{marks}data: {message.as_json()}\n\n"
                if not entries and not await self._is_news(after):
                    yield ": still here\n\n"
        finally:
            self._readers -= 1

    async def _is_news(self, after: int) -> bool:
        """Wait for a message behind a number, or for the end."""
        assert self._news is not None
        try:
            async with asyncio.timeout(_PING_S), self._news:
                await self._news.wait_for(
                    lambda: self._outbox.last > after or self._ending.is_set()
                )
        except TimeoutError:
            return False
        return True


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise SettingsError(
            f"http: {host} is no address of this machine: {error.strerror or error}",
            hint="127.0.0.1 for this machine alone",
        ) from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise SettingsError(
            f"http: cannot listen at {host}:{port}: {error.strerror or error}",
            hint="choose another port, or end what listens there",
        ) from error
    return listening
