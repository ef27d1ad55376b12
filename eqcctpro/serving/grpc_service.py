"""gRPC server of a replica, for the messages of ``picker.proto``."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import unquote

import grpc
import msgspec
from grpc_reflection.v1alpha import reflection

from eqcctpro.errors import SettingsError
from eqcctpro.serving.answers import Answer
from eqcctpro.serving.bodies import Body
from eqcctpro.serving.gate import request_facts, request_id_of
from eqcctpro.serving.grpc_messages import SERVICE, message
from eqcctpro.serving.problems import (
    GoneProblem,
    LateProblem,
    MalformedProblem,
    Problem,
)
from eqcctpro.serving.security import Identity, is_batch, require_one_of_each
from eqcctpro.serving.service import Service
from eqcctpro.serving.tracing import Trace, spanned
from eqcctpro.serving.waveforms import Options

__all__ = ["GrpcServer"]

PickRequest, PickReply = message("PickRequest"), message("PickReply")
ModelsRequest, ModelsReply = message("ModelsRequest"), message("ModelsReply")

_CODES = {
    200: grpc.StatusCode.OK,
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    499: grpc.StatusCode.CANCELLED,
    503: grpc.StatusCode.UNAVAILABLE,
}

# What a message holds beside the body.
_HEAD_BYTES = 2**16
# Messages are read as they are: 400 kB of a compressed one may be 400 MB.
_UNCOMPRESSED = (
    ("grpc.compression_enabled_algorithms_bitset", 1),
    ("grpc.per_message_decompression", 0),
)

_log = logging.getLogger("eqcctpro.serving.access")


@dataclass(slots=True)
class _Call:
    """One call and its outcome."""

    name: str
    request_id: str
    started: float
    identity: Identity | None = None
    batch: bool = False
    problem: Problem | None = None
    trace: Trace | None = None
    received: int = 0
    sent: int = 0


_Answer = Callable[[Any, _Call], Awaitable[Any]]


class GrpcServer:
    """Answers gRPC requests with a replica's service, at a port that the replicas share.

    Keys are looked at before a message is read, and nothing is read that is larger than
    `limits.max_body_mb`.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        limits = service.settings.limits
        together = int(limits.bodies_mb / limits.max_body_mb)
        self._reading = asyncio.Semaphore(max(1, together))
        self._server: Any = None

    async def start(self) -> None:
        """Begin to listen, in the event loop that is running.

        Raises
        ------
        SettingsError
            It cannot listen there.
        """
        settings = self._service.settings
        limits, http = settings.limits, settings.http
        self._server = server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", int(limits.max_body_mb * 2**20) + _HEAD_BYTES),
                ("grpc.server_handshake_timeout_ms", int(limits.headers_timeout_s * 1000)),
                *_UNCOMPRESSED,
            ),
            maximum_concurrent_rpcs=limits.capacity + 64,
        )
        methods: dict[str, tuple[_Answer, Any, Any]] = {
            "Pick": (partial(self._pick, with_curves=False), PickRequest, PickReply),
            "Annotate": (partial(self._pick, with_curves=True), PickRequest, PickReply),
            "Models": (self._models, ModelsRequest, ModelsReply),
        }
        handlers = {
            # A stream of one message is the same to clients, and ours to read, or not.
            name: grpc.stream_unary_rpc_method_handler(
                partial(self._handle, name, answer),
                request_deserializer=request.FromString,
                response_serializer=reply.SerializeToString,
            )
            for name, (answer, request, reply) in methods.items()
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if settings.security.open_page:
            reflection.enable_server_reflection((SERVICE, reflection.SERVICE_NAME), server)
        host = f"[{http.host}]" if ":" in http.host else http.host
        where = f"{host}:{settings.grpc.port}"
        try:
            if http.tls is None:
                server.add_insecure_port(where)
            else:
                server.add_secure_port(where, _credentials(http.tls))
        except (RuntimeError, OSError) as error:
            raise SettingsError(
                f"grpc.port: cannot listen at {where}: {error}",
                hint="choose another port, or end what listens there",
            ) from error
        await server.start()

    async def stop(self, timeout_s: float) -> None:
        """Accept nothing more, and wait until what was accepted is answered."""
        if self._server is not None:
            await self._server.stop(timeout_s)

    async def _handle(
        self, name: str, answer: _Answer, requests: AsyncIterator[Any], context: Any
    ) -> Any:
        """Answer a call; errors get a status code and are logged."""
        service = self._service
        metadata = [
            (str(key).lower().encode(), value if isinstance(value, bytes) else value.encode())
            for key, value in context.invocation_metadata()
        ]
        headers = dict(metadata)
        call = _Call(name, request_id_of(headers), time.perf_counter())
        limit = service.settings.limits.request_timeout_s
        reply = None
        trailing: tuple[tuple[str, str], ...] = (("x-request-id", call.request_id),)
        if service.tracer is not None:
            call.trace = service.tracer.begin(f"{SERVICE}/{name}", headers)
            trailing += (("traceparent", call.trace.traceparent),)
        try:
            require_one_of_each(metadata)
            call.identity = service.guard.identify(headers, _address(context.peer()))
            service.guard.count(call.identity)
            call.batch = is_batch(metadata, call.identity)
            service.require_place(batch=call.batch)
            async with asyncio.timeout(limit):
                with spanned(call.trace, "receive"):
                    request = await self._read(requests)
                call.received = request.ByteSize()
                with service.place(batch=call.batch):
                    reply = await answer(request, call)
                call.sent = reply.ByteSize()
        except Problem as problem:
            call.problem = problem
        except TimeoutError:
            call.problem = LateProblem(f"there was no answer in {limit:g} s")
        except asyncio.CancelledError:
            service.metrics.abandoned.inc()
            call.problem = GoneProblem("the client left")
            raise
        except Exception:  # whatever it is, the log has all of it and the client an answer
            _log.exception("request %s failed", call.request_id)
            call.problem = Problem("the service failed", hint="its log says more")
        finally:
            self._note(call)
        if call.problem is None:
            context.set_trailing_metadata(trailing)
            return reply
        code = _CODES.get(call.problem.status, grpc.StatusCode.INTERNAL)
        again = call.problem.headers.get("Retry-After")
        more = () if again is None else (("retry-after", again),)
        await context.abort(code, str(call.problem), trailing + more)

    async def _read(self, requests: AsyncIterator[Any]) -> Any:
        """The message of a call."""
        limit = self._service.settings.limits.body_timeout_s
        try:
            async with asyncio.timeout(limit), self._reading:
                async for request in requests:
                    return request
        except TimeoutError as error:
            raise LateProblem(f"the message did not come in {limit:g} s") from error
        raise MalformedProblem("there is no message")

    async def _pick(self, request: Any, call: _Call, *, with_curves: bool) -> Any:
        service = self._service
        stages = service.metrics.stage_seconds
        with service.share() as share:
            started = time.perf_counter()
            share.take(len(request.body))
            kind = request.media_type
            body = Body([request.body], len(request.body), None, kind, kind)
            with spanned(call.trace, "read"):
                waveforms = await service.reader.read(body, share)
            stages.labels("decode").observe(time.perf_counter() - started)
            options = Options(model=request.model or None, private=request.private)
            for name in ("p_threshold", "s_threshold", "detection_threshold"):
                if request.HasField(name):
                    setattr(options, name, getattr(request, name))
            answer = await service.pick(
                waveforms,
                options,
                call.request_id,
                with_curves=with_curves,
                who=call.identity,
                share=share,
                batch=call.batch,
                trace=call.trace,
            )
            del waveforms
            started = time.perf_counter()
            cost = answer.most_bytes
            share.take(cost)
            with spanned(call.trace, "answer"):
                reply = await service.reader.in_thread(lambda: _reply(answer), cost, share)
            stages.labels("encode").observe(time.perf_counter() - started)
        return reply

    async def _models(self, _: Any, __: _Call) -> Any:
        reply = ModelsReply()
        for facts in self._service.facts()["models"]:
            names = ("name", "weights_sha256", "phases", "runtime", "device", "weights", "default")
            reply.models.add(**{name: facts[name] for name in names})
        return reply

    def _note(self, call: _Call) -> None:
        """Count the call and log it."""
        seconds = time.perf_counter() - call.started
        endpoint, metrics = f"grpc/{call.name}", self._service.metrics
        status = 200 if call.problem is None else call.problem.status
        metrics.request_seconds.labels(endpoint, str(status)).observe(seconds)
        metrics.response_bytes.labels(endpoint).observe(call.sent)
        if call.received:
            metrics.request_bytes.labels(endpoint).observe(call.received)
        if status == 200 and call.name != "Models":
            self._service.note_duration(seconds)
        if call.trace is not None:
            problem = call.problem
            call.trace.end(
                status,
                None if problem is None else problem.message,
                {
                    "rpc.system": "grpc",
                    "rpc.service": SERVICE,
                    "rpc.method": call.name,
                    "eqcctpro.request_id": call.request_id,
                },
            )
        if self._service.settings.logs.access:
            facts = request_facts(
                call.request_id,
                seconds,
                (call.received, call.sent),
                call.identity,
                call.problem,
                call.trace,
            )
            _log.info("gRPC %s %d", call.name, status, extra={"request": facts})


def _credentials(tls: Any) -> Any:
    authority = tls.client_authority
    return grpc.ssl_server_credentials(
        [(tls.key.read_bytes(), tls.certificate.read_bytes())],
        root_certificates=authority.read_bytes() if authority is not None else None,
        require_client_auth=authority is not None,
    )


def _address(peer: str) -> str:
    """The address of a client that gRPC calls such as ``ipv4:127.0.0.1:5000``."""
    return unquote(peer).partition(":")[2].rpartition(":")[0].strip("[]") or peer


def _reply(answer: Answer) -> Any:
    structure = msgspec.to_builtins(answer.structure(binary=True), builtin_types=(bytes,))
    reply = PickReply(
        request_id=structure["request_id"],
        model=structure["model"],
        served_name=structure["served_name"],
        notes=structure["notes"],
    )
    for name in ("picks", "detections", "stations", "curves"):
        for row in structure.get(name, ()):
            getattr(reply, name).add(**row)
    return reply
