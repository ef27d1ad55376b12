"""The program that measures GPUs, rehearsed on the CPU; and the tables made of what it writes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

from benchmarks import gpu_check  # noqa: E402
from benchmarks.gpu_bundle import RUN, TooLargeError, build_bundle  # noqa: E402
from benchmarks.gpu_check import Options, rehearsal, run_checks, same_picks  # noqa: E402

pytest.importorskip("torch")


def test_a_check_that_fails_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu.json"

    def fail(_: Any) -> dict[str, Any]:
        assert json.loads(path.read_text())["checks"]["first"]["value"] == 0.3
        raise ValueError("Expected a torch.device with a specified index")

    def lacking(_: Any) -> dict[str, Any]:
        raise ModuleNotFoundError("no", name="ray")

    checks = {
        "first": lambda _: {"value": 0.1 + 0.2, "nan": float("nan")},
        "fails": fail,
        "lacks": lacking,
        "last": lambda _: {"ok": True},
    }
    monkeypatch.setattr(gpu_check, "CHECKS", checks)
    assert run_checks(Options(device="cpu"), path) is False
    report = json.loads(path.read_text())
    states = {name: check["state"] for name, check in report["checks"].items()}
    assert states == {
        "first": "ran", "fails": "failed", "lacks": "left out", "last": "ran",
    }  # fmt: skip
    assert "specified index" in report["checks"]["fails"]["reason"]
    assert report["checks"]["first"]["nan"] == "nan" and not report["complete"]
    assert run_checks(Options(device="cpu", minutes=0), path) is False
    assert run_checks(Options(device="cpu"), path, ("first", "last")) is True


def test_sets_of_picks() -> None:
    first = {"a": [(0, 0.5), (100, 0.6)], "b": [(0, 0.9)]}
    second = {"a": [(0, 0.75), (300_000_000, 0.6)], "c": [(0, 0.9)]}
    found = same_picks(first, second)
    assert (found.both, found.only_first, found.only_second) == (1, 2, 2)
    assert found.same_sample == 1 and found.largest_difference == 0.25
    # Each is matched once, the nearest first.
    found = same_picks({"a": [(0, 1.0), (60, 1.0)]}, {"a": [(50, 1.0), (70, 1.0)]}, 100)
    assert (found.both, found.only_first, found.only_second) == (2, 0, 0)


@pytest.mark.exhaustive
def test_the_rehearsal(tmp_path: Path, imported_model: str) -> None:
    path = tmp_path / "gpu.json"
    options = rehearsal(Options(device="cpu", models=(imported_model,), minutes=9))
    complete = run_checks(options, path)
    report = json.loads(path.read_text())
    assert complete, {name: check.get("reason") for name, check in report["checks"].items()}
    checks = report["checks"]
    assert checks["parity"]["rows"][0]["only_first"] == 0
    assert checks["parity"]["rows"][0]["both"] > 10
    assert checks["recovery"]["ok"]
    assert all(
        kinds["exportable"]["same_twice"] for kinds in checks["agreement"]["models"].values()
    )
    assert checks["sharing"]["rows"][0]["picks"] == checks["stages"]["rows"][0]["picks"]


def test_tables_of_a_report() -> None:
    sys.path.insert(0, str(ROOT / "scripts" / "documentation"))
    try:
        from gpu_tables import BEGIN, END, with_gpu_tables
    finally:
        sys.path.pop(0)
    stage = {"model": "PhaseNet/original", "stations": 580, "plan_s": 0.05, "run_s": 0.16}
    report = {
        "options": {"device": "cuda"},
        "checks": {
            "facts": {"state": "ran", "device": {"card": "Card X"}, "cores": 16},
            "stages": {"state": "ran", "rows": [stage]},
            "ceilings": {"state": "ran", "gemm_f32_tflops": 31.25, "seconds": 3},
            "sharing": {"state": "left out", "reason": "ray is not installed"},
        },
    }
    page = with_gpu_tables(f"before\n{BEGIN}\nold\n{END}\nafter\n", report)
    assert "Measured on Card X, 16 cores" in page and "old" not in page
    assert "| PhaseNet/original | 580 | 0.05 | 0.16 |" in page
    assert "| gemm_f32_tflops | 31.2 |" in page
    assert "Not measured: sharing (ray is not installed)." in page
    assert page.startswith("before\n") and page.endswith(f"{END}\nafter\n")
    assert with_gpu_tables(page, report) == page
    with pytest.raises(ValueError, match="has no lines"):
        with_gpu_tables("nothing", report)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("wheels") / "unheard_of-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("unheard_of/__init__.py", "VALUE = 42\n")
    return path


@pytest.mark.slow
def test_a_bundle_runs_elsewhere(tmp_path: Path, wheel: Path) -> None:
    weights = tmp_path / "cache"
    for name in ("phasenet/original.pt.v1", "phasenet/original.json.v1", "gpd/original.pt.v1"):
        path = weights / "models" / "v3" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random.Random(name).randbytes(300_000))
    parts = build_bundle(
        ROOT, tmp_path / "out", wheels=[wheel], weights=weights, models=["PhaseNet/original"],
        limit_mb=2.0,
    )  # fmt: skip
    assert len(parts) > 1 and all(part.stat().st_size <= 2 * 2**20 for part in parts)
    there = tmp_path / "there"
    for part in parts:
        with zipfile.ZipFile(part) as archive:
            archive.extractall(there)
    found = {path.name for path in (there / "weights").rglob("*") if path.is_file()}
    assert found == {"original.pt.v1", "original.json.v1"}
    done = subprocess.run(
        [sys.executable, str(there / RUN), "--help"],
        capture_output=True, text=True, timeout=120, cwd=tmp_path, check=True,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    assert "--json" in done.stdout
    assert (there / "packages" / "unheard_of" / "__init__.py").exists()


def test_a_file_that_fits_no_part_is_named(tmp_path: Path, wheel: Path) -> None:
    large = tmp_path / "torch-2.11-cp312.whl"
    large.write_bytes(bytes(3 * 2**20))
    with pytest.raises(TooLargeError, match=r"torch-2.11-cp312.whl has 3.0 MB"):
        build_bundle(ROOT, tmp_path / "out", wheels=[large], limit_mb=2.0)
