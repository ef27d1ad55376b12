"""Routes beside picking: sessions, the stream of picks, jobs, loading of models."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import msgspec
from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

from eqcctpro.serving.bodies import receive_body
from eqcctpro.serving.hub import Hub
from eqcctpro.serving.jobs import JobRequest
from eqcctpro.serving.model_board import Change
from eqcctpro.serving.model_loading import LoadRequest, UnloadRequest, choice_to_load
from eqcctpro.serving.problems import (
    BusyProblem,
    InvalidProblem,
    MalformedProblem,
    MediaTypeProblem,
)
from eqcctpro.serving.security import COOKIE, Identity
from eqcctpro.serving.service import Service
from eqcctpro.serving.stream import missed

__all__ = ["STREAM", "job_routes", "model_routes", "session_routes", "stream_routes"]

#: Path of the stream, which has no end.
STREAM = "/v1/picks/stream"

# How long a listener is unheard of when the service ends.
_GLANCE_S = 0.5
# How often it is looked whether a model is loaded, and for how long at most.
_LOOK_S, _LONGEST_S = 0.1, 60.0

_Content = TypeVar("_Content")

_log = logging.getLogger("eqcctpro.serving")


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(content), status, headers=headers, media_type="application/json"
    )


def _who(request: Request) -> Identity:
    """Identity of the client, as the gate has established it."""
    identity: Identity = request.scope["state"]["exchange"].identity
    return identity


def session_routes(service: Service) -> APIRouter:
    """Logging in and out."""
    router = APIRouter(tags=["session"])
    security, secure = service.settings.security, service.settings.http.tls is not None

    @router.post("/v1/session")
    async def log_in(request: Request) -> Response:
        """A token for a name and a password (HTTP Basic); also as a cookie."""
        headers = dict(request.scope["headers"])
        service.count_login(request.scope["state"]["exchange"].address)
        # Checking a password takes long on purpose.
        session = await asyncio.to_thread(service.guard.log_in, headers)
        answer = _json(
            {
                "token": session.token,
                "name": session.name,
                "expires_in_s": session.expires_in_s,
            }
        )
        answer.set_cookie(
            COOKIE,
            session.token,
            max_age=int(session.expires_in_s),
            httponly=True,
            secure=secure,
            samesite=security.same_site,
            path="/",
        )
        return answer

    @router.get("/v1/session")
    async def session(request: Request) -> Response:
        """Return the client's identity, and whether sign-in is configured."""
        headers = dict(request.scope["headers"])
        found = service.guard.identify(headers, request.scope["state"]["exchange"].address)
        return _json({"name": found.name, "kind": found.kind, "sign_in": security.can_authenticate})

    @router.delete("/v1/session", status_code=204)
    async def log_out() -> Response:
        """Delete the cookie; a token that was stored elsewhere stays valid until it expires."""
        answer = Response(status_code=204)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    return router


def stream_routes(service: Service, hub: Hub) -> APIRouter:
    """The stream of picks."""
    router = APIRouter(tags=["stream"])
    settings, metrics = service.settings.stream, service.metrics
    listeners = 0
    metrics.watch(metrics.stream_clients, lambda: listeners)

    @router.get(STREAM)
    async def stream(request: Request) -> StreamingResponse:
        """Picks of your requests from now on, or since `Last-Event-ID`, as they are found."""
        if listeners >= settings.subscribers:
            raise BusyProblem(f"{listeners} listen already", headers={"Retry-After": "60"})
        owner = _who(request).owner
        last = request.headers.get("last-event-id", "")[:64] or await hub.end(owner)
        return StreamingResponse(
            events(owner, last), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )

    async def events(owner: str, last: str) -> AsyncIterator[bytes]:
        nonlocal listeners
        listeners += 1
        loop = asyncio.get_running_loop()
        said = loop.time()
        try:
            yield b": picks follow\n\n"
            while not service.stopping:
                found = await hub.after(owner, last, _GLANCE_S)
                if found:
                    metrics.stream_dropped.labels("slow").inc(missed(last, found[0]))
                for event in found:
                    data = msgspec.json.encode(event.pick)
                    yield b"id: %s\nevent: pick\ndata: %s\n\n" % (event.id.encode(), data)
                    metrics.stream_events.inc()
                    last = event.id
                if found:
                    said = loop.time()
                elif loop.time() - said > settings.keep_alive_s:
                    yield b": nothing new\n\n"
                    said = loop.time()
        finally:
            listeners -= 1

    return router


async def _read(request: Request, service: Service, kind: type[_Content], name: str) -> _Content:
    """The body of a request, which is JSON.

    Raises
    ------
    MediaTypeProblem, InvalidProblem, MalformedProblem
    """
    # A page elsewhere can send a form or plain text without being asked, but no JSON.
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != "application/json":
        raise MediaTypeProblem(
            f"{name} is not read from {given[:100] or 'a body without a type'!r}",
            hint="send it with Content-Type: application/json",
        )
    body = await receive_body(request, service.settings.limits)
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise InvalidProblem(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedProblem(f"the body is no JSON: {error}") from error


async def _read_any(
    request: Request, service: Service, kind: type[_Content], name: str
) -> _Content:
    """The body of a request if there is one, which says all that can be said.

    Raises
    ------
    MediaTypeProblem, InvalidProblem, MalformedProblem
    """
    for parameter in request.query_params:
        raise InvalidProblem(
            f"{parameter[:60]!r} is no parameter", hint="say it in the body, as JSON"
        )
    if request.headers.get("content-length", "0") == "0" and (
        "transfer-encoding" not in request.headers
    ):
        return kind()
    return await _read(request, service, kind, name)


def model_routes(service: Service, hub: Hub) -> APIRouter:
    """Loading and unloading models."""
    router = APIRouter(tags=["models"])

    async def ask(method: str, *arguments: Any) -> Any:
        found = await asyncio.to_thread(hub.call_models, method, *arguments)
        if service.keeper is not None:
            service.keeper.wake()
        return found

    async def ended(number: int) -> Change:
        """Wait, for a limited time, until a version is loaded or has failed; return its state."""
        until = time.monotonic() + min(service.settings.limits.request_timeout_s, _LONGEST_S)
        change: Change = await ask("outcome", number)
        while change.state == "LOADING" and time.monotonic() < until and not service.stopping:
            await asyncio.sleep(_LOOK_S)
            change = await asyncio.to_thread(hub.call_models, "outcome", number)
        return change

    @router.post("/v1/models/{name:path}/load")
    async def load(name: str, request: Request) -> Response:
        """Load a model, or other weights of one that is served, in all replicas.

        Needs an administrator's key.  What was served is served until all have loaded it; where
        one cannot, nothing changes, and the answer says why.  202 is answered while it takes long.
        """
        who = _who(request)
        service.guard.require_administrator(who)
        content = await _read_any(request, service, LoadRequest, "a model")
        told = service.keeper.told if service.keeper is not None else None
        served = () if told is None else told.serves.versions
        present = next((version.choice for version in served if version.name == name), None)
        choice = await asyncio.to_thread(choice_to_load, name, content, service.settings, present)
        number = await ask("load", choice)
        _log.info("%s has %s loaded, as version %d", who.name, name, number)
        change = await ended(number)
        if change.state == "UNAVAILABLE":
            raise InvalidProblem(
                f"{name} is not loaded: {change.reason}", hint="what was served before still is"
            )
        facts = {
            **{"name": name, "version": number, "state": change.state, "since": change.since},
            "settings": choice.model_dump(mode="json", exclude_unset=True),
            "note": "a service that is started again has the models of its settings: put "
            "`settings` into `models` there if this one is to stay",
        }
        return _json(facts, 202 if change.state == "LOADING" else 200)

    @router.post("/v1/models/{name:path}/unload")
    async def unload(name: str, request: Request) -> Response:
        """Stop serving a model; requests in progress are answered.

        Needs an administrator's key.  The default goes only with `default` in the body, the model
        of requests that name none from then on.
        """
        who = _who(request)
        service.guard.require_administrator(who)
        content = await _read_any(request, service, UnloadRequest, "what is unloaded")
        revision = await ask("unload", name, content.default)
        _log.info("%s has %s unloaded", who.name, name)
        until = time.monotonic() + _LONGEST_S
        while not await ask("followed", revision) and time.monotonic() < until:
            await asyncio.sleep(_LOOK_S)
        return _json({"name": name, "state": "UNAVAILABLE"})

    return router


def job_routes(service: Service, hub: Hub) -> APIRouter:
    """Jobs on archives on the server's disk."""
    router = APIRouter(tags=["jobs"])

    @router.post("/v1/jobs", status_code=202)
    async def submit(request: Request) -> Response:
        """Start a job on an archive in one of the folders that jobs may read."""
        job = await _read(request, service, JobRequest, "a job")
        found = await hub.ask_jobs("submit", job, _who(request))
        return _json(found, 202, {"Location": f"/v1/jobs/{found['id']}"})

    @router.get("/v1/jobs")
    async def jobs(request: Request) -> Response:
        """Your jobs, the latest first."""
        return _json({"jobs": await hub.ask_jobs("jobs", _who(request))})

    @router.get("/v1/jobs/{job_id}")
    async def job(job_id: str, request: Request) -> Response:
        """Return a job's progress and the files that it has written."""
        # Of a run's record, which holds what only JSON of the standard library writes.
        return Response(
            json.dumps(await hub.ask_jobs("job", job_id, _who(request))),
            media_type="application/json",
        )

    @router.delete("/v1/jobs/{job_id}")
    async def cancel(job_id: str, request: Request) -> Response:
        """Cancel a job; it is killed if it does not end soon."""
        return _json(await hub.ask_jobs("cancel", job_id, _who(request)))

    @router.get(
        "/v1/jobs/{job_id}/result/{name}",
        response_class=FileResponse,
        responses={200: {"content": {"*/*": {}}, "description": "The file"}},
    )
    async def result(job_id: str, name: str, request: Request) -> FileResponse:
        """A file that a job has written, such as ``picks.csv``."""
        path = await hub.ask_jobs("result", job_id, name, _who(request))
        return FileResponse(path, filename=name)

    return router
