"""Test of the service's engine, without Ray and without a port."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from eqcctpro.serving.answers import Answer
from eqcctpro.serving.engines import find_model, open_engine
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.security import Guard
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.waveforms import Options, read_body

__all__ = ["pick_example", "try_requests"]

_TIMES = 20


def try_requests(settings: ServeSettings) -> Iterator[str]:
    """Load every model and pick the example several times; yields a line for each model.

    Raises
    ------
    ModelError
    """
    for choice in settings.models:
        engine = open_engine(find_model(choice), settings)
        service = Service(
            settings,
            {choice.name: engine},
            Metrics(settings.metrics),
            Guard(settings.security, "-"),
        )
        seconds, answer = asyncio.run(
            _pick_often(service, example_miniseed(engine.model.picker), _TIMES)
        )
        engine.online.close()
        engine.runtime.close()
        yield (
            f"{choice.name} on {engine.runtime.kind} ({engine.runtime.device}): warm after "
            f"{engine.warm_s:.2f} s, {len(answer.rows())} picks in the example, "
            f"{1000 * seconds:.1f} ms a request"
        )


def pick_example(model: str) -> list[dict[str, Any]]:
    """Pick the example in this process; return the picks as an answer holds them."""
    settings = ServeSettings.checked({"models": [model]})
    engine = open_engine(find_model(settings.models[0]), settings)
    service = Service(
        settings, {model: engine}, Metrics(settings.metrics), Guard(settings.security, "-")
    )
    _, answer = asyncio.run(_pick_often(service, example_miniseed(), 1))
    engine.online.close()
    engine.runtime.close()
    return [msgspec.to_builtins(row) for row in answer.rows()]


async def _pick_often(service: Service, content: bytes, times: int) -> tuple[float, Answer]:
    """Return the median time of a request, and one answer."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        answer = await service.pick(read_body(content, ""), Options(), "dry-run")
        taken.append(time.perf_counter() - started)
    return sorted(taken)[times // 2], answer
