"""Commands started in odd ways give the same results, or say in one line why not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from disturbed_runs import results

pytestmark = pytest.mark.slow

COMMAND = (
    f"{sys.executable} -m eqcctpro pick $ARCHIVE -o $OUT --model $MODEL "
    "--runtime openvino --no-overview"
)

# Started by a shell.
LAUNCHES = {
    "no standard error": f"{COMMAND} 2>&-",
    "no standard streams": f"{COMMAND} <&- >&- 2>&-",
    "full standard output": f"{COMMAND} >/dev/full",
    "full standard error": f"{COMMAND} 2>/dev/full",
    "a reader that wants one line": f"set -o pipefail; {COMMAND} | head -n 1",
    "few open files": f"ulimit -n 64; {COMMAND}",
    "no assertions": COMMAND.replace(" -m", " -OO -m", 1),
    "plain C": f"LC_ALL=C LANG=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {COMMAND}",
    "no hangup": f"nohup {COMMAND} >/dev/null 2>&1",
    "no home": f"HOME=/proc/none TMPDIR=/proc/none {COMMAND}",
}


@pytest.fixture(scope="module")
def calm(generated_network: Any, imported_model: str, tmp_path_factory: Any) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("odd") / "calm"
    ended = launch(COMMAND, generated_network[0], output, imported_model)
    assert ended.returncode == 0, ended.stderr
    return results(output)


def launch(
    command: str, archive: Path, output: Path, model: str
) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "ARCHIVE": str(archive), "OUT": str(output), "MODEL": model}
    return subprocess.run(
        ["bash", "-c", command], env=environment, capture_output=True, timeout=120, check=False
    )


def launches() -> list[Any]:
    """All of them, of which a few are tested each time."""
    few = ("no standard streams", "full standard output", "few open files", "plain C")
    rest = pytest.mark.exhaustive
    return [
        pytest.param(command, id=name, marks=() if name in few else rest)
        for name, command in LAUNCHES.items()
    ]


@pytest.mark.parametrize("command", launches())
def test_launch(
    command: str,
    calm: dict[str, bytes],
    generated_network: Any,
    imported_model: str,
    tmp_path: Path,
) -> None:
    output = tmp_path / "w\u00f6rk"
    ended = launch(command, generated_network[0], output, imported_model)
    words = ended.stderr.decode(errors="replace")
    assert ended.returncode == 0, words
    assert not any(word in words for word in ("Traceback", "Error", "INFO")), words
    assert results(output) == calm


def may_mount() -> bool:
    probe = ["unshare", "--mount", "bash", "-c", "mount -t tmpfs none /mnt"]
    allowed = os.geteuid() == 0 and shutil.which("unshare") is not None
    return allowed and subprocess.run(probe, check=False).returncode == 0


FULL = """
mkdir $FULL && mount -t tmpfs -o size=64k none $FULL && ! head -c 99999 /dev/zero 2>&- >$FULL/x
TMPDIR=$FULL """


def test_a_full_temporary_folder(
    calm: dict[str, bytes],
    generated_network: Any,
    imported_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not may_mount():
        pytest.skip("needs the right to mount, to fill a disk")
    monkeypatch.setenv("FULL", str(tmp_path / "full"))
    inside = f"exec unshare --mount bash -c '{FULL}{COMMAND}"
    ended = launch(f"{inside}'", generated_network[0], tmp_path / "out", imported_model)
    assert ended.returncode == 0, ended.stderr
    assert results(tmp_path / "out") == calm
    (tmp_path / "full").rmdir()
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps({"ray_temp_dir": str(tmp_path / "full" / "ray")}))
    ripper = f"{inside} --mode ripper --workers 1 --config {settings}'"
    ended = launch(ripper, generated_network[0], tmp_path / "ray", imported_model)
    error, hint = ended.stderr.decode().splitlines()
    assert ended.returncode == 6 and hint.startswith("hint: make room there"), ended.stderr
    assert error.endswith("where it keeps its sockets and logs, has 0 MB left")


# What is told of the modes on Ray, which need more of a machine.
ON_RAY = {
    "few open files": LAUNCHES["few open files"],
    "no home": LAUNCHES["no home"],
    "a full temporary folder": f"exec unshare --mount bash -c '{FULL}{COMMAND}",
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["modelactor", "ripper"])
@pytest.mark.parametrize("name", ON_RAY)
def test_launch_on_ray(
    name: str,
    mode: str,
    calm: dict[str, bytes],
    generated_network: Any,
    imported_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = f"{ON_RAY[name]} --mode {mode} --workers 2"
    if "unshare" in command:
        if not may_mount():
            pytest.skip("needs the right to mount, to fill a disk")
        command += "'"
        monkeypatch.setenv("FULL", str(tmp_path / "full"))
    ended = launch(command, generated_network[0], tmp_path / "out", imported_model)
    words = ended.stderr.decode(errors="replace")
    assert ended.returncode == 0, words
    assert "Traceback" not in words and "INFO" not in words, words
    assert results(tmp_path / "out") == calm


def test_what_a_command_prints_is_its_result() -> None:
    told = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m eqcctpro models list >/dev/full"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert told.returncode == 5
    assert told.stderr.decode() == (
        "error: standard output cannot be written: No space left on device\n"
    )
