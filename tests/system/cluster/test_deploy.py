"""The files under deploy/ that start Ray clusters: what one machine can check of them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from disturbed_runs import SLOW_WORKERS
from repository import ROOT

from eqcctpro.synthetic.network import synthetic_network

DEPLOY = ROOT / "deploy"
SBATCH = DEPLOY / "slurm" / "eqcctpro.sbatch"
RAYJOB = DEPLOY / "kuberay" / "rayjob.yaml"

# The fields of KubeRay's ray.io/v1 that a job of ours may have, and what Kubernetes asks of a pod.
QUANTITY = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti)?$"}
RESOURCES = {
    "type": "object",
    "required": ["cpu", "memory"],
    "additionalProperties": QUANTITY,
}
CONTAINER = {
    "type": "object",
    "required": ["name", "image", "resources"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string", "pattern": "^[a-z0-9-]+$"},
        "image": {"type": "string"},
        "imagePullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
        "securityContext": {"type": "object"},
        "env": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "value"],
                "properties": {"name": {"type": "string"}, "value": {"type": "string"}},
            },
        },
        "resources": {
            "type": "object",
            "required": ["requests", "limits"],
            "additionalProperties": False,
            "properties": {"requests": RESOURCES, "limits": RESOURCES},
        },
        "volumeMounts": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "mountPath"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "mountPath": {"type": "string"},
                    "readOnly": {"type": "boolean"},
                },
            },
        },
    },
}
GROUP = {
    "rayStartParams": {"type": "object", "additionalProperties": {"type": "string"}},
    "template": {
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["containers", "volumes"],
                "properties": {
                    "containers": {"type": "array", "minItems": 1, "items": CONTAINER},
                    "volumes": {"type": "array"},
                    "automountServiceAccountToken": {"type": "boolean"},
                    "securityContext": {"type": "object"},
                },
                "additionalProperties": False,
            }
        },
    },
}
SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "ray.io/v1"},
        "kind": {"const": "RayJob"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["entrypoint", "rayClusterSpec"],
            "properties": {
                "entrypoint": {"type": "string"},
                "backoffLimit": {"type": "integer", "minimum": 0},
                "activeDeadlineSeconds": {"type": "integer", "minimum": 1},
                "shutdownAfterJobFinishes": {"type": "boolean"},
                "ttlSecondsAfterFinished": {"type": "integer", "minimum": 0},
                "rayClusterSpec": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["headGroupSpec", "workerGroupSpecs"],
                    "properties": {
                        "rayVersion": {"type": "string"},
                        "headGroupSpec": {
                            "type": "object",
                            "required": ["rayStartParams", "template"],
                            "properties": GROUP,
                            "additionalProperties": False,
                        },
                        "workerGroupSpecs": {
                            "type": "array",
                            "minItems": 1,
                            "items": {
                                "type": "object",
                                "required": ["groupName", "rayStartParams", "template"],
                                "additionalProperties": False,
                                "properties": {
                                    "groupName": {"type": "string"},
                                    "replicas": {"type": "integer"},
                                    "minReplicas": {"type": "integer"},
                                    "maxReplicas": {"type": "integer"},
                                    **GROUP,
                                },
                            },
                        },
                    },
                },
            },
        },
    },
}


def test_the_job_for_kuberay_has_the_fields_that_kuberay_knows() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(RAYJOB.read_text())
    jsonschema.validate(job, SCHEMA)
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    for group in groups:
        pod = group["template"]["spec"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        for container in pod["containers"]:
            assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    # The check of nodes wants the same everywhere.
    images = {c["image"] for group in groups for c in group["template"]["spec"]["containers"]}
    assert len(images) == 1
    pinned = re.search(r"^ray==(.*)$", (DEPLOY.parent / "constraints.txt").read_text(), re.M)
    assert pinned and cluster["rayVersion"] == pinned[1]


def test_the_command_of_the_job_is_one_that_is_understood() -> None:
    yaml = pytest.importorskip("yaml")
    from eqcctpro.config import PickConfig

    program, verb, source, *options = shlex.split(
        yaml.safe_load(RAYJOB.read_text())["spec"]["entrypoint"]
    )
    assert (program, verb) == ("eqcctpro", "pick")
    given = dict(zip(options[::2], options[1::2], strict=True))
    config = PickConfig.checked(
        input=source,
        output=given.pop("-o"),
        **{name.removeprefix("--"): value for name, value in given.items()},
    )
    assert config.address == "auto" and config.mode == "modelactor"


def test_the_slurm_script_is_sound() -> None:
    subprocess.run(["bash", "-n", SBATCH], check=True)
    bare = subprocess.run(["bash", SBATCH], capture_output=True, text=True, check=False)
    assert bare.returncode == 2 and "usage: sbatch" in bare.stderr


SRUN = """#!/bin/bash
# What srun does, with this machine for every node.
while [ $# -gt 0 ]; do
    case $1 in
        --nodelist=*) echo "srun on ${1#*=}" >>"$FAKE_SLURM_LOG"; shift ;;
        --*) shift ;;
        *) break ;;
    esac
done
exec "$@"
"""
SCONTROL = """#!/bin/bash
case "$1 $2" in
    "show hostnames") printf '%s\\n' node1 node2 ;;
    "requeue "*) echo "requeue $2" >>"$FAKE_SLURM_LOG" ;;
esac
"""
HOSTNAME = """#!/bin/bash
echo 127.0.0.1
"""


def slurm(folder: Path) -> dict[str, str]:
    """The environment of a job, with programs that stand for Slurm's."""
    programs = folder / "bin"
    programs.mkdir()
    texts = {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME}
    texts["eqcctpro"] = f'#!/bin/bash\nexec {sys.executable} -m eqcctpro "$@"\n'
    texts["ray"] = f'#!/bin/bash\nexec {sys.executable} -m ray.scripts.scripts "$@"\n'
    for name, text in texts.items():
        path = programs / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return {
        **os.environ,
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "FAKE_SLURM_LOG": str(folder / "slurm.log"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
        "EQCCTPRO_SHARED_FOLDER": str(folder),
        "RAY_TMPDIR": "/tmp",
    }


@pytest.mark.exhaustive
@pytest.mark.parametrize("interrupted", [False, True])
def test_the_slurm_script_picks_on_two_nodes(
    interrupted: bool, tmp_path: Path, imported_model: str
) -> None:
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    synthetic_network(tmp_path / "archive", stations=40, duration_s=120.0)
    out = tmp_path / "out"
    command = ["bash", str(SBATCH), str(tmp_path / "archive"), "-o", str(out), "-q"]
    command += ["--model", imported_model, "--runtime", "openvino", "--no-overview"]
    environment = slurm(tmp_path)
    if interrupted:
        slow = SLOW_WORKERS
        path = [str(slow), environment.get("PYTHONPATH", "")]
        environment |= {"PYTHONPATH": os.pathsep.join(path), "EQCCTPRO_TEST_PAUSE_S": "0.5"}
    job = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        if interrupted:
            wait_for(out / "run.log", "actors ready")
            job.send_signal(signal.SIGTERM)
        words, _ = job.communicate(timeout=240)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    log = (tmp_path / "slurm.log").read_text()
    assert "srun on node1" in log and "srun on node2" in log
    assert not list(tmp_path.glob(".eqcctpro-*")), "the token is removed"
    if interrupted:
        assert job.returncode == 130, words
        assert f"requeue {os.getpid()}" in log and not (out / "picks.csv").exists()
        return
    assert job.returncode == 0, words
    calm = [sys.executable, "-m", "eqcctpro", "pick", str(tmp_path / "archive")]
    calm += ["-o", str(tmp_path / "calm"), *command[5:]]
    subprocess.run(calm, check=True, timeout=180)
    assert (out / "picks.csv").read_bytes() == (tmp_path / "calm" / "picks.csv").read_bytes()
    assert len((out / "picks.csv").read_bytes().splitlines()) > 40


def wait_for(log: Path, words: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if log.exists() and words in log.read_text():
            return
        time.sleep(0.1)
    pytest.fail(f"{words!r} does not come")
