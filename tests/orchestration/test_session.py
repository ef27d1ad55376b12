"""Runs that follow each other with workers that stay ready."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, InputError, SettingsError
from eqcctpro.orchestration.run import run_picking
from eqcctpro.orchestration.session import PickSession
from eqcctpro.orchestration.workers import Workers, open_workers
from eqcctpro.runtimes import select
from eqcctpro.runtimes.calibration import Cost

MODES = [
    "local",
    pytest.param("modelactor", marks=pytest.mark.slow),
    pytest.param("ripper", marks=pytest.mark.exhaustive),
]


def config_of(network: Path, output: Path, model: str, mode: str = "local") -> PickConfig:
    settings: dict[str, Any] = {"input": network, "output": output, "model": model}
    # One batch size and runtime, since sums in another order round otherwise.
    settings |= {"runtime": "openvino", "batch_size": 4, "overview": False}
    on_ray = {"mode": mode, "workers": 2} if mode != "local" else {}
    return PickConfig.checked(**settings, **on_ray)


def csv(folder: Path) -> bytes:
    return (folder / "picks.csv").read_bytes()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Workers]:
    """All workers that sessions have started."""
    found: list[Workers] = []

    def noted(*arguments: Any, **more: Any) -> Workers:
        found.append(open_workers(*arguments, **more))
        return found[-1]

    monkeypatch.setattr("eqcctpro.orchestration.session.open_workers", noted)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_runs_of_a_session_are_those_of_separate_runs(
    network: Path, imported_model: str, tmp_path: Path, mode: str, opened: list[Workers]
) -> None:
    config = config_of(network, tmp_path / "a", imported_model, mode)
    with PickSession(config) as session:
        first = session.run()
        fewer = session.run(output=tmp_path / "b", stations=("DEM0[12]",), p_threshold=0.9)
        again = session.run(output=tmp_path / "c", stations=(), p_threshold=None)
        assert len(opened) == 1
    assert again.counts == first.counts
    assert csv(tmp_path / "c") == csv(tmp_path / "a")
    assert 0 < fewer.counts["picks"] < first.counts["picks"]
    local = config_of(network, tmp_path / "d", imported_model)
    alone = run_picking(PickConfig.checked(**{**local.model_dump(exclude_unset=True)}))
    assert csv(tmp_path / "d") == csv(tmp_path / "a")
    assert alone.summary["tasks"] == first.summary["tasks"]


@pytest.mark.slow
def test_runs_share_the_thread_that_reads(
    network: Path, imported_model: str, tmp_path: Path
) -> None:
    with PickSession(config_of(network, tmp_path / "a", imported_model)) as session:
        session.run()
        before = set(threading.enumerate())
        session.run(output=tmp_path / "b")
        session.run(output=tmp_path / "c")
        assert set(threading.enumerate()) <= before


def test_what_needs_other_workers_is_refused(network: Path, tmp_path: Path) -> None:
    session = PickSession(config_of(network, tmp_path / "a", "EQTransformer/original"))
    with pytest.raises(SettingsError, match="model, threads: the workers of a session"):
        session.run(threads=1, model="PhaseNet/original")
    with pytest.raises(SettingsError, match="no such setting; did you mean stations"):
        session.run(station="A")


@pytest.mark.slow
def test_a_session_outlives_a_run_that_failed(
    network: Path, imported_model: str, tmp_path: Path
) -> None:
    with PickSession(config_of(network, tmp_path / "a", imported_model)) as session:
        with pytest.raises(InputError, match="does not exist"):
            session.run(input=tmp_path / "nothing")
        assert session.run(input=network).counts["failed"] == 0


@pytest.mark.slow
def test_a_run_that_failed_leaves_the_settings_as_they_were(
    network: Path, imported_model: str, tmp_path: Path
) -> None:
    with PickSession(config_of(network, tmp_path / "a", imported_model)) as session:
        for changes in ({"input": "nowhere"}, {"stations": "NOPE"}, {"p_threshold": 1.5}):
            before = session.config
            with pytest.raises(EQCCTProError):
                session.run(output=tmp_path / "b", **changes)
            assert session.config is before
        result = session.run(output=tmp_path / "c")
        assert result.summary["settings"]["input"] == [str(network)]
        session.close()
        assert session.run(output=tmp_path / "d").counts == result.counts
    assert csv(tmp_path / "c") == csv(tmp_path / "d")


@pytest.mark.slow
def test_opening_ahead_leaves_nothing_to_start(
    network: Path, imported_model: str, tmp_path: Path, opened: list[Workers]
) -> None:
    with PickSession(config_of(network, tmp_path / "a", imported_model)) as session:
        workers = session.open()
        assert workers.runtime == "openvino"
        assert workers.load_s > 0
        session.run()
        assert opened == [workers]


@pytest.mark.slow
def test_workers_that_stay_take_what_is_fast_once_loaded(
    network: Path, imported_model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading counts in one run, and hardly where many follow."""
    for package in ("openvino", "onnxruntime"):
        pytest.importorskip(package)
    costs = {"onnxruntime": Cost(load=0.0, window=2e-4), "openvino": Cost(load=0.02, window=1e-4)}
    monkeypatch.setattr(select, "calibrated", lambda *_: costs)
    monkeypatch.setattr(select, "_TINY_JOB", 1)  # this network's job is one
    settings: dict[str, Any] = {"input": network, "model": imported_model, "overview": False}
    alone = run_picking(PickConfig.checked(**settings, output=tmp_path / "alone"))
    with PickSession(PickConfig.checked(**settings, output=tmp_path / "many")) as session:
        of_many = session.run()
    assert 10 < alone.summary["windows"] < 200  # else these costs would not tell
    assert alone.summary["runtime"] == "onnxruntime"
    assert of_many.summary["runtime"] == "openvino"
