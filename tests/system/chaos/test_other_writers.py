"""Commands that write into the folder of a run, and runs, keep out of each other's way."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from eqcctpro.errors import ResumeError
from eqcctpro.journal.lock import LOCK_FILE, OutputLock
from eqcctpro.journal.status import read_status
from eqcctpro.orchestration.session import PickSession


@pytest.fixture(scope="module")
def finished(session: PickSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished run."""
    output = tmp_path_factory.mktemp("finished")
    session.run(output=output)
    return output


COMMANDS: dict[str, list[str]] = {
    "associate": ["OUT", "--stations", "nowhere.csv"],
    "amplitudes": ["OUT", "IN"],
    "convert": ["OUT", "--to", "csv", "-o", "OUT/other.csv"],
    "report": ["OUT"],
    "score": ["OUT", "OUT", "--compare", "-o", "OUT"],
    "show": ["OUT", "XX.DEM01"],
}


def arguments(name: str, output: Path, session: PickSession) -> list[str]:
    given = [part.replace("OUT", str(output)) for part in COMMANDS[name]]
    return [name, *(str(session.config.input[0]) if part == "IN" else part for part in given)]


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_wait_for_no_run(
    name: str, finished: Path, session: PickSession, cli: Any
) -> None:
    before = contents(finished)
    with OutputLock(finished):
        told: Result = cli(*arguments(name, finished, session))
        assert told.exit_code == 2, told.output
        assert f"another run is writing to {finished} (process {os.getpid()} on" in told.stderr
        assert read_status(finished).state == "running"
    assert contents(finished) == before


@pytest.mark.slow
def test_runs_wait_for_no_command(
    finished: Path, session: PickSession, cli: Any, tmp_path: Path
) -> None:
    before = contents(finished)
    with OutputLock(finished, "eqcctpro associate"):
        message = rf"eqcctpro associate is writing to {finished} \(process {os.getpid()} on"
        with pytest.raises(ResumeError, match=message):
            session.run(output=finished)
        assert read_status(finished).state == "finished"
        elsewhere = cli("convert", str(finished), "--to", "csv", "-o", str(tmp_path / "a.csv"))
        assert elsewhere.exit_code == 0, elsewhere.output
    assert contents(finished) == before
    told = cli(*arguments("convert", finished, session))
    assert told.exit_code == 0 and (finished / "other.csv").exists(), told.output
    assert not (finished / LOCK_FILE).exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != LOCK_FILE}
