"""Replicas that broke are counted; those that come and go with the load are not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from eqcctpro.errors import ModelError
from eqcctpro.serving.state import StateFolder

REPLICA = """
import sys
from pathlib import Path
from eqcctpro.serving.state import StateFolder
from eqcctpro.errors import ModelError

state = StateFolder(Path(sys.argv[1]))
state.note_start()
print("begun", flush=True)
told = sys.stdin.readline().strip()
if told == "end":
    state.note_end()
elif told == "break":
    state.note_break()
elif told == "fail":
    state.note_failure(ModelError("no weights", hint="fetch them"))
"""


@pytest.fixture
def state(tmp_path: Path) -> StateFolder:
    state = StateFolder(tmp_path)
    state.make()
    return state


def begin(state: StateFolder) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", REPLICA, str(state.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    return process


def restarts(state: StateFolder) -> int:
    """The number as a process sees it that has not asked before."""
    return StateFolder(state.path).restarts()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "broken"),
    [("end", 0), ("break", 1), ("fail", 1), ("nothing", 1), ("kill", 1)],
)
def test_a_replica_that_ends_counts_if_it_broke(state: StateFolder, end: str, broken: int) -> None:
    replica, other = begin(state), begin(state)
    try:
        assert restarts(state) == 0
        if end == "kill":
            replica.kill()
        replica.communicate(f"{end}\n", timeout=30)
        assert restarts(state) == broken == restarts(state)
    finally:
        other.communicate("end\n", timeout=30)
    assert restarts(state) == broken
    failure = state.failure()
    assert (failure is not None) == (end == "fail")
    if failure is not None:
        assert isinstance(failure, ModelError) and failure.hint == "fetch them"


@pytest.mark.slow
def test_many_cycles_of_load_are_no_restarts(state: StateFolder) -> None:
    for _ in range(3):
        for replica in [begin(state) for _ in range(2)]:
            replica.communicate("end\n", timeout=30)
    assert restarts(state) == 0
