"""gRPC: the messages of ``picker.proto``, and what answers them."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from typing import Any

import grpc
import msgspec

from eqcctpro.serving.answers import Answer
from eqcctpro.serving.bodies import Body
from eqcctpro.serving.grpc_messages import SERVICE, message
from eqcctpro.serving.problems import LateProblem, Problem, TooLargeProblem
from eqcctpro.serving.security import Identity
from eqcctpro.serving.service import Service
from eqcctpro.serving.waveforms import Options

__all__ = ["GrpcPicker", "add_PickerServicer_to_server"]

PickRequest, PickReply = message("PickRequest"), message("PickReply")
ModelsRequest, ModelsReply = message("ModelsRequest"), message("ModelsReply")

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}

_METHODS = {
    "Pick": (PickRequest, PickReply),
    "Annotate": (PickRequest, PickReply),
    "Models": (ModelsRequest, ModelsReply),
}


def add_PickerServicer_to_server(servicer: Any, server: Any) -> None:  # noqa: N802 (gRPC's name)
    """Register the methods; Ray Serve's proxy calls this."""
    handlers = {
        name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, name),
            request_deserializer=request.FromString,
            response_serializer=reply.SerializeToString,
        )
        for name, (request, reply) in _METHODS.items()
    }
    generic = grpc.method_handlers_generic_handler(SERVICE, handlers)
    server.add_generic_rpc_handlers((generic,))


class GrpcPicker:
    """Answers gRPC requests with a replica's service.

    Parameters
    ----------
    service : Service
    """

    def __init__(self, service: Service) -> None:
        self._service = service

    async def pick(self, request: Any, context: Any, *, with_curves: bool = False) -> Any:
        """Answer ``Pick`` or ``Annotate``."""
        return await self._guarded(
            context, lambda who: self._pick(request, with_curves, who), PickReply
        )

    async def models(self, context: Any) -> Any:
        """Answer ``Models``."""
        return await self._guarded(context, lambda _: self._models(), ModelsReply)

    async def _guarded(
        self, context: Any, answer: Callable[[Identity], Any], reply: Callable[[], Any]
    ) -> Any:
        service, limit = self._service, self._service.settings.limits.request_timeout_s
        try:
            headers = {
                str(name).lower().encode(): value if isinstance(value, bytes) else value.encode()
                for name, value in context.invocation_metadata()
            }
            who = service.guard.identify(headers, "gRPC")
            service.guard.count(who)
            async with asyncio.timeout(limit):
                return await answer(who)
        except TimeoutError:
            _refuse(context, LateProblem(f"there was no answer in {limit:g} s"))
        except Problem as problem:
            _refuse(context, problem)
        return reply()

    async def _pick(self, request: Any, with_curves: bool, who: Identity) -> Any:
        service = self._service
        with service.share() as share, service.place():
            most = service.settings.limits.max_body_mb
            if len(request.body) > most * 2**20:
                raise TooLargeProblem(f"the body has more than {most:g} MB")
            share.take(len(request.body))
            kind = request.media_type
            body = Body([request.body], len(request.body), None, kind, kind)
            waveforms = await service.reader.read(body, share)
            options = Options(model=request.model or None, private=request.private)
            for name in ("p_threshold", "s_threshold", "detection_threshold"):
                if request.HasField(name):
                    setattr(options, name, getattr(request, name))
            answer = await service.pick(
                waveforms,
                options,
                uuid.uuid4().hex,
                with_curves=with_curves,
                who=who,
                share=share,
            )
            return _reply(answer)

    async def _models(self) -> Any:
        reply = ModelsReply()
        for engine in self._service.engines.values():
            facts = engine.facts()
            names = ("name", "weights_sha256", "phases", "runtime", "device")
            reply.models.add(**{name: facts[name] for name in names})
        return reply


def _refuse(context: Any, problem: Problem) -> None:
    context.set_code(_CODES.get(problem.status, grpc.StatusCode.INTERNAL))
    context.set_details(str(problem))


def _reply(answer: Answer) -> Any:
    structure = msgspec.to_builtins(answer.structure(binary=True), builtin_types=(bytes,))
    reply = PickReply(
        request_id=structure["request_id"], model=structure["model"], notes=structure["notes"]
    )
    for name in ("picks", "detections", "stations", "curves"):
        for row in structure.get(name, ()):
            getattr(reply, name).add(**row)
    return reply
