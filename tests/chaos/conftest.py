"""The undisturbed run that disturbed ones are compared with."""

from __future__ import annotations

import time

import pytest
from disturbed_runs import Calm, end, results, start

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
