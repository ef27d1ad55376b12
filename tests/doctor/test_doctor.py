"""The doctor's report, in this process and as a command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference_data import DATA

from eqcctpro.doctor import examine
from eqcctpro.doctor.models import earthquake_windows
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.resources.cgroups import GroupMemory, cgroup_cores, cgroup_memory


def doctor(*options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "eqcctpro", "doctor", *options],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def homeless(tmp_path: Path) -> dict[str, str]:
    """Variables of a user who has neither weights nor caches."""
    return {
        "HOME": str(tmp_path),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "SEISBENCH_CACHE_ROOT": str(tmp_path / "seisbench"),
        "EQCCTPRO_MODELS": str(tmp_path / "models"),
        "EQCCTPRO_CACHE": str(tmp_path / "eqcctpro"),
    }


@pytest.mark.slow
def test_lines_name_what_was_looked_at(homeless: dict[str, str]) -> None:
    done = doctor("--no-models", **homeless)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    lines = [line for line in done.stdout.splitlines()[:-1] if "->" not in line]
    assert {line.split()[0] for line in lines} <= {"ok", "warn"}
    topics = {line.split()[1] for line in lines}
    assert {"python", "cores", "memory", "gpu", "torch", "openvino", "ray"} <= topics
    assert homeless["EQCCTPRO_CACHE"] in done.stdout


@pytest.mark.slow
def test_json_has_the_same_lines(homeless: dict[str, str]) -> None:
    done = doctor("--no-models", "--json", **homeless)
    report = json.loads(done.stdout)
    assert report["ok"] is True
    assert {frozenset(check) for check in report["checks"]} == {
        frozenset({"topic", "status", "found", "hint"})
    }
    versions = {check["topic"]: check["found"] for check in report["checks"]}
    assert versions["numpy"] == np.__version__


@pytest.mark.exhaustive
def test_damaged_weights_fail_with_a_hint(homeless: dict[str, str]) -> None:
    folder = Path(homeless["EQCCTPRO_MODELS"]) / "models" / "v3" / "phasenet"
    folder.mkdir(parents=True)
    (folder / "broken.pt.v1").write_bytes(b"no weights")
    (folder / "broken.json.v1").write_text('{"model_args": {}, "version": "1"}')
    done = doctor("--json", **homeless)
    checks = {check["topic"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert checks["model PhaseNet/broken"]["status"] == "warn"
    assert checks["model PhaseNet/broken"]["hint"]
    assert checks["models"]["status"] == "fail"


@pytest.mark.exhaustive
def test_a_folder_that_cannot_be_written_is_named(homeless: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a_file").write_text("")
    inside = str(tmp_path / "a_file" / "inside")
    done = doctor("--no-models", **{**homeless, "EQCCTPRO_MODELS": inside})
    assert f"{inside} cannot be written" in done.stdout
    assert "-> set EQCCTPRO_MODELS" in done.stdout
    done = doctor("--no-models", **{**homeless, "EQCCTPRO_CACHE": inside})
    assert "-> set EQCCTPRO_CACHE" in done.stdout


@pytest.mark.exhaustive
def test_real_models_load_and_pick(homeless: dict[str, str]) -> None:
    cache = DATA / "models" / "seisbench"
    if not (cache / "models" / "v3").is_dir():
        pytest.skip(f"no weights below {cache}")
    done = doctor("--json", **{**homeless, "EQCCTPRO_MODELS": str(cache)})
    checks = {check["topic"]: check for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 0, done.stdout
    for name in ("PhaseNet/original", "EQTransformer/original", "GPD/original"):
        assert checks[f"model {name}"]["status"] == "ok"
        phases = dict(
            part.split() for part in checks[f"model {name}"]["found"].split("with ")[1]
            .split(" (")[0].split(", ")
        )  # fmt: skip
        assert float(phases["P"]) > 0.5
        assert float(phases["S"]) > 0.5


def test_examining_yields_checks_one_after_the_other() -> None:
    first = next(iter(examine(models=False)))
    assert (first.topic, first.status) == ("python", "ok")


def control_groups(tmp_path: Path, own: str, **files: str) -> tuple[Path, Path]:
    for name, text in files.items():
        path = tmp_path / "cgroup" / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    (tmp_path / "own").write_text(f"{own}\n")
    return tmp_path / "cgroup", tmp_path / "own"


def test_version_2_limits_of_the_group_and_its_parents_count(tmp_path: Path) -> None:
    where = control_groups(
        tmp_path,
        "0::/user/me",
        user__me__cpu_dot_max="max 100000",
        user__cpu_dot_max="150000 100000",
        user__me__memory_dot_max="1073741824",
        user__memory_dot_max="4294967296",
    )
    assert cgroup_cores(*where) == 1.5
    assert cgroup_memory(*where) == GroupMemory(2**30, 2**30)


def test_version_1_limits_and_paths_of_the_host(tmp_path: Path) -> None:
    where = control_groups(
        tmp_path,
        "4:cpu,cpuacct:/docker/0a1b\n5:memory:/docker/0a1b",
        **{
            "cpu__cpu_dot_cfs_quota_us": "200000",
            "cpu__cpu_dot_cfs_period_us": "100000",
            "memory__memory_dot_limit_in_bytes": "9223372036854771712",
        },
    )
    assert cgroup_cores(*where) == 2.0
    assert cgroup_memory(*where) is None


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert cgroup_cores(tmp_path / "none", tmp_path / "none") is None
    assert cgroup_memory(tmp_path / "none", tmp_path / "none") is None


@pytest.mark.parametrize(
    ("components", "rate", "samples"),
    [("ZNE", 100.0, 6000), ("ENZ", 100.0, 3001), ("Z", None, 400), ("ZH", 50.0, 9000)],
)
def test_earthquake_windows_have_the_models_shape(
    components: str, rate: float | None, samples: int
) -> None:
    picker = Picker(
        model="Any", weights="any", weights_sha256="", sampling_rate=rate, components=components,
        in_samples=samples, output="array", pred_sample=(0, samples), out_samples=samples,
        labels=("P", "S"), phases=("P", "S"), detection_label=None,
        windows=WindowSettings(0, 1, "avg", (0, 0)),
    )  # fmt: skip
    windows = earthquake_windows(picker)
    assert windows.shape[1:] == (len(components), samples)
    assert windows.dtype == np.float32
    vertical = windows[:, components.index("Z")]
    assert (np.abs(vertical).max(axis=1) > 1000).all(), "every window holds the earthquake"
    if "H" in components:
        assert not windows[:, components.index("H")].any()
