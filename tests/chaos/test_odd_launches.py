"""Commands started in odd ways give the same results, or say in one line why not."""

from __future__ import annotations

import os
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
    assert "Traceback" not in words and "Error" not in words, words
    assert results(output) == calm


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
