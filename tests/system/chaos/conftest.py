"""The undisturbed run that others are compared with, and a session for runs of this process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from disturbed_runs import Calm, end, results, start

from eqcctpro.config import PickConfig
from eqcctpro.orchestration.session import PickSession
from eqcctpro.synthetic.network import synthetic_network

STATIONS = 30


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, imported_model: str) -> Calm:
    folder = tmp_path_factory.mktemp("calm")
    synthetic_network(folder / "archive", stations=STATIONS, duration_s=120.0)
    options = ["--model", imported_model, "--runtime", "openvino", "--no-overview", "-q"]
    seconds = 0.0
    for _ in range(2):  # the first compiles the network for the cache
        began = time.monotonic()
        code, words = end(start("none", 0, folder / "archive", folder / "out", options))
        seconds = time.monotonic() - began
        assert code == 0, words
    return Calm(folder / "archive", results(folder / "out"), seconds, options)


@pytest.fixture(scope="module")
def session(
    generated_network: Any, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PickSession]:
    """A session whose model is loaded once for all tests of a file."""
    config = PickConfig.checked(
        input=generated_network[0],
        output=tmp_path_factory.mktemp("sessions"),
        model=imported_model,
        runtime="openvino",
        batch_size=1,
        overview=False,
    )
    with PickSession(config) as ready:
        yield ready
