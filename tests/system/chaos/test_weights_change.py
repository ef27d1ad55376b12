"""Weights that are exchanged or damaged: a run refuses, and never mixes picks of two weights."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from disturbed_runs import results

from eqcctpro.config import PickConfig
from eqcctpro.errors import ResumeError, WeightsError
from eqcctpro.models import loading
from eqcctpro.orchestration.run import run_picking
from eqcctpro.sources import feeder


@pytest.fixture
def weights(imported_weights: Path, tmp_path: Path) -> Path:
    """A file of weights that a test may change, with what lies beside it."""
    (found,) = (imported_weights / "models" / "v3" / "eqtransformer").glob("original.pt.v*")
    for path in found.parent.glob("original.*"):
        shutil.copy2(path, tmp_path / path.name)
    return tmp_path / found.name


def exchange(path: Path) -> None:
    """Other weights of the same kind in its place, as a training does it."""
    import torch

    state = torch.load(path, weights_only=True)
    name = next(iter(state))
    state[name] = state[name] * 1.01
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: random.Random(1).randrange(10_000, 100_000)])


def config(archive: Path, output: Path, weights: Path, **more: Any) -> PickConfig:
    common = {"model": f"EQTransformer/{weights}", "overview": False, "runtime": "torch"}
    return PickConfig.checked(input=archive, output=output, **common, **more)


@pytest.mark.slow
@pytest.mark.parametrize("change", [exchange, damage])
def test_changed_between_two_attempts(
    change: Any,
    generated_network: Any,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive, output = generated_network[0], tmp_path / "out"
    calm = run_picking(config(archive, tmp_path / "calm", weights))
    sound, stations = feeder.prepare, []

    def prepare(waveforms: Any, *rest: Any) -> Any:
        stations.append(waveforms.segments[0].code)
        if len(stations) == 4:
            raise KeyboardInterrupt
        return sound(waveforms, *rest)

    monkeypatch.setattr(feeder, "prepare", prepare)
    monkeypatch.setattr("eqcctpro.journal.recorder.GROUP_SECONDS", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run_picking(config(archive, output, weights))
    monkeypatch.setattr(feeder, "prepare", sound)
    before = weights.read_bytes()
    change(weights)
    with pytest.raises((ResumeError, WeightsError), match=r"weights was|is damaged"):
        run_picking(config(archive, output, weights))
    assert not (output / "picks.csv").exists()
    weights.write_bytes(before)
    run_picking(config(archive, output, weights))
    assert results(output) == results(tmp_path / "calm")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["weights"]["sha256"] == calm.summary["weights"]["sha256"]


@pytest.mark.parametrize("when", ["before it is read", "while it is read"])
def test_changed_after_it_was_found(
    when: str,
    generated_network: Any,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = loading.require_sha256
    calls: list[Path] = []

    def check(path: Path, sha256: str) -> None:
        calls.append(path)
        if len(calls) == (1 if when == "before it is read" else 2):
            exchange(weights)
        sound(path, sha256)

    monkeypatch.setattr(loading, "require_sha256", check)
    with pytest.raises(WeightsError, match="has changed since it was found: its SHA-256 was"):
        run_picking(config(generated_network[0], tmp_path / "out", weights))
    assert not (tmp_path / "out" / "picks.csv").exists()
