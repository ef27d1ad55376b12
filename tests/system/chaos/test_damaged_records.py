"""Records of runs that are damaged are named as such, and --fresh gets rid of them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disturbed_runs import results

from eqcctpro.errors import OutputError
from eqcctpro.journal.status import read_status
from eqcctpro.orchestration import session as session_module
from eqcctpro.orchestration.session import PickSession


@pytest.fixture(scope="module")
def calm(session: PickSession, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Results of an undisturbed run."""
    output = tmp_path_factory.mktemp("undisturbed")
    session.run(output=output)
    return results(output)


@pytest.fixture(scope="module")
def unfinished(session: PickSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output of a run that ended with an error in the middle."""

    def fail(*_: Any, **__: Any) -> None:
        raise OutputError("stopped by the test")

    output = tmp_path_factory.mktemp("unfinished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session_module, "_note_failures", fail)
        with pytest.raises(OutputError, match="stopped by the test"):
            session.run(output=output)
    return output


@pytest.fixture
def output(unfinished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(unfinished, tmp_path / "out"))


def sql(*statements: str) -> Callable[[Path], None]:
    def damage(record: Path) -> None:
        db = sqlite3.connect(record / "journal.sqlite")
        for statement in statements:
            db.execute(statement)
        db.commit()
        db.close()

    return damage


def overwrite(record: Path) -> None:
    path = record / "journal.sqlite"
    path.write_bytes(bytes(range(256)) * 40)
    for name in ("-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)


def tear(record: Path) -> None:
    sql("PRAGMA wal_checkpoint(TRUNCATE)")(record)
    path = record / "journal.sqlite"
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)


def replace_by_a_folder(record: Path) -> None:
    overwrite(record)
    (record / "journal.sqlite").unlink()
    (record / "journal.sqlite" / "inner").mkdir(parents=True)


DAMAGES = {
    "no database": overwrite,
    "torn pages": tear,
    "a folder": replace_by_a_folder,
    "no plan": sql("DELETE FROM facts WHERE name = 'plan'"),
    "facts that are no JSON": sql("UPDATE facts SET value = '{' WHERE name = 'settings'"),
    "no table of station tasks": sql("DROP TABLE items"),
    "no attempts": sql("DELETE FROM attempts"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_record(
    session: PickSession, calm: Any, output: Path, damage: Callable[[Path], None]
) -> None:
    damage(output / ".eqcctpro")
    with pytest.raises(OutputError, match="is damaged") as caught:
        session.run(output=output, resume="auto")
    assert "--fresh discards it" in caught.value.hint
    with pytest.raises(OutputError, match="is damaged"):
        read_status(output)
    session.run(output=output, resume="never")
    assert results(output) == calm
    assert not (output / ".eqcctpro").exists()


def stray_folders(record: Path) -> None:
    (record / "parts" / "stray" / "inner").mkdir(parents=True)
    (record / "parts" / "00000009.arrow.unfinished").mkdir()


def marks_as_a_folder(record: Path) -> None:
    (record / "started").unlink(missing_ok=True)
    (record / "started" / "inner").mkdir(parents=True)


@pytest.mark.parametrize("resume", ["auto", "never"])
@pytest.mark.parametrize("damage", [stray_folders, marks_as_a_folder])
def test_what_does_not_belong_there_is_removed(
    session: PickSession, calm: Any, output: Path, damage: Callable[[Path], None], resume: str
) -> None:
    damage(output / ".eqcctpro")
    assert read_status(output).total == 6
    session.run(output=output, resume=resume)
    assert results(output) == calm


@pytest.mark.parametrize("kind", ["file", "link"])
def test_something_else_in_place_of_the_record(
    session: PickSession, calm: Any, tmp_path: Path, kind: str
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    if kind == "file":
        (output / ".eqcctpro").write_text("no folder")
    else:
        (output / ".eqcctpro").symlink_to(output / "nowhere")
    session.run(output=output, resume="never")
    assert results(output) == calm
