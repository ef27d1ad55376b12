"""OpenAPI description of the interface, with examples that work."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from eqcctpro.serving.answers import ANSWER_TYPES, CURVE_TYPES, CurveAnswer, PickAnswer
from eqcctpro.serving.service import Service
from eqcctpro.serving.waveforms import ARROW, MINISEED, ArrayBody

__all__ = ["describe_interface"]

_PROBLEMS = {
    "400": "The body is not what its type says",
    "401": "Nobody knows who asks",
    "403": "It is known who asks, and that is not allowed",
    "404": "There is no such thing",
    "406": "The answer cannot be given in a format that the client takes",
    "408": "It took too long",
    "409": "It cannot be done as things are at the moment",
    "413": "It is more than the service takes at once",
    "415": "The service does not read such bodies",
    "422": "The body can be read, and what it says is wrong",
    "429": "There is too much to do already; Retry-After says when to ask again",
    "503": "The service is ending",
}

_PICKING = tuple(status for status in _PROBLEMS if status != "409")
_JOBS = ("400", "401", "403", "404", "408", "413", "415", "422", "429", "503")
# Problems of the other routes, by the beginnings of their paths.
_ELSEWHERE = {
    "/v1/jobs": _JOBS,
    "/v1/models/": (*_JOBS, "409"),
    "/v1/": ("401", "429", "503"),
}

_WHAT = {
    "/v1/pick": "Picks of the waveforms in the body, and what became of each station.",
    "/v1/annotate": "Probability curves of the waveforms in the body, beside their picks.",
}

_EXAMPLE_STATION = {
    "network": "XX",
    "station": "DEM01",
    "location": "00",
    "channels": ["HHZ", "HHN", "HHE"],
    "start": "2024-12-15T12:00:00Z",
    "sampling_rate": 100.0,
    "samples": [[12, 15, 9, -3], [4, 2, -7, 1], [0, 3, 5, -2]],
}


def describe_interface(app: FastAPI, service: Service) -> None:
    """Add bodies and answers to ``/openapi.json``."""
    described: list[str] = []

    def openapi() -> dict[str, Any]:
        nonlocal described
        if app.openapi_schema is None or described != list(service.engines):
            described = list(service.engines)
            app.openapi_schema = _schema(app, service)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI, service: Service) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        routes=app.routes,
        description="P and S arrivals from waveforms. Times are UTC.",
    )
    kinds = (ArrayBody, PickAnswer, CurveAnswer)
    _, components = msgspec.json.schema_components(
        kinds, ref_template="#/components/schemas/{name}"
    )
    parts = schema.setdefault("components", {})
    parts.setdefault("schemas", {}).update(components)
    parts["schemas"]["Problem"] = _problem_schema()
    parts["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "token": {"type": "http", "scheme": "bearer"},
    }
    for path, operations in schema["paths"].items():
        known = next((known for start, known in _ELSEWHERE.items() if path.startswith(start)), ())
        for method in operations.values():
            method["responses"].pop("422", None)  # FastAPI's, which looks different
            method["responses"] |= _problems(known)
    names = sorted(service.engines, key=lambda name: name != service.default)
    for path, answer, types in (
        ("/v1/annotate", "CurveAnswer", CURVE_TYPES),
        ("/v1/pick", "PickAnswer", tuple(ANSWER_TYPES)),
    ):
        operation: dict[str, Any] = {
            "summary": "Picks" if answer == "PickAnswer" else "Curves and picks",
            "description": _WHAT[path],
            "tags": ["picking"],
        }
        schema["paths"] = {path: {"post": operation}, **schema["paths"]}
        operation["parameters"] = _parameters(names)
        operation["requestBody"] = _request_body()
        operation["responses"] = _responses(answer, types)
        if service.settings.security.closed:
            operation["security"] = [{"key": []}, {"token": []}]
    return schema


def _problem_schema() -> dict[str, Any]:
    text = {"type": "string"}
    return {
        "type": "object",
        "properties": {
            "type": text,
            "title": text,
            "status": {"type": "integer"},
            "detail": text,
            "hint": {"type": ["string", "null"]},
            "request_id": text,
        },
        "required": ["type", "title", "status", "detail", "request_id"],
    }


def _parameters(models: list[str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {
            "name": "model",
            "in": "query",
            "schema": {"type": "string", "enum": models, "default": models[0]},
        }
    ]
    for name in ("p_threshold", "s_threshold", "detection_threshold"):
        number = {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1}
        found.append({"name": name, "in": "query", "schema": number})
    flag = {"type": "boolean", "default": False}
    found += [{"name": name, "in": "query", "schema": flag} for name in ("waveforms", "private")]
    priority = {"type": "string", "enum": ["interactive", "batch"], "default": "interactive"}
    found.append({"name": "x-priority", "in": "header", "schema": priority})
    return found


def _request_body() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    arrays = {"$ref": "#/components/schemas/ArrayBody"}
    return {
        "required": True,
        "description": "miniSEED 2 or 3, arrays, or Arrow with the columns network, station, "
        "location, channel, start, sampling_rate, samples. As it is or gzip.",
        "content": {
            MINISEED: binary,
            "application/octet-stream": binary,
            "application/json": {
                "schema": arrays,
                "example": {"stations": [_EXAMPLE_STATION], "p_threshold": 0.3},
            },
            "application/msgpack": {"schema": arrays},
            ARROW: binary,
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {"type": "array", "items": {"type": "string", "format": "binary"}}
                    },
                }
            },
        },
    }


def _responses(answer: str, types: tuple[str, ...]) -> dict[str, Any]:
    structured = {"schema": {"$ref": f"#/components/schemas/{answer}"}}
    text = {"schema": {"type": "string"}}
    content = {kind: structured if kind in CURVE_TYPES else text for kind in types}
    return {"200": {"description": "Picks", "content": content}, **_problems(_PICKING)}


def _problems(statuses: tuple[str, ...]) -> dict[str, Any]:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": _PROBLEMS[status], "content": problem} for status in statuses}
