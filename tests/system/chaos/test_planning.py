"""Archives in which one name or file is bad: it fails alone, or is named."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from disturbed_runs import results

from eqcctpro.archive import indexing, listing
from eqcctpro.errors import DecodeError, InputTimeoutError
from eqcctpro.miniseed import index, sparse_files
from eqcctpro.miniseed.index import index_file, scan
from eqcctpro.orchestration.progress import PlanningProgress
from eqcctpro.orchestration.session import PickSession


@pytest.fixture
def archive(generated_network: Any, tmp_path: Path) -> Path:
    return Path(shutil.copytree(generated_network[0], tmp_path / "archive"))


@pytest.mark.slow
def test_bad_names(session: PickSession, archive: Path, tmp_path: Path) -> None:
    session.run(input=archive, output=tmp_path / "calm", layout="files")
    files = sorted(archive.rglob("*.mseed"))
    link = archive / "loop.mseed"
    link.symlink_to("loop.mseed")
    (archive / "folder.mseed").mkdir()
    foreign = os.fsencode(files[0]).replace(b".mseed", b"\xe4\xff.mseed")
    files[0].rename(os.fsdecode(foreign))
    folder = Path(os.fsdecode(os.fsencode(archive) + b"/st\xe4tion"))
    folder.mkdir()
    files[1].rename(folder / files[1].name)
    result = session.run(
        input=archive, output=tmp_path / "out", layout="files", formats=("csv", "parquet")
    )
    assert results(tmp_path / "out") == results(tmp_path / "calm")
    told = "\n".join(result.problems)
    assert f"cannot read {link}: Too many levels of symbolic links" in told
    assert f"{archive}/folder.mseed: an empty folder with the name of a file" in told
    told.encode()


@pytest.mark.slow
def test_an_unreadable_file_with_a_foreign_name_is_named(
    session: PickSession, archive: Path, tmp_path: Path
) -> None:
    path = os.fsencode(archive) + b"/\xff.mseed"
    with open(path, "wb") as file:  # noqa: PTH123 (bytes)
        file.write(b"nothing of use" * 100)
    result = session.run(input=archive, output=tmp_path / "out", layout="files")
    assert f"{archive}/\\xff.mseed" in "\n".join(result.problems)


@pytest.fixture
def sparse(archive: Path, tmp_path: Path) -> Path:
    """A file of three gigabytes with little in it."""
    path = tmp_path / "sparse.mseed"
    content = sorted(archive.rglob("*.mseed"))[0].read_bytes()
    with path.open("wb") as file:
        file.write(content)
        file.seek(2**31)
        file.write(content)
        file.truncate(3 * 2**30)
    if path.stat().st_blocks * 512 > 2**30:
        pytest.skip("the file system has no sparse files")
    return path


MEMORY = """
import resource, sys
from eqcctpro.miniseed.index import index_file
from eqcctpro.waveform.decode import decode_file
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(channel,) = index_file(sys.argv[1]).channels
decoded = decode_file(sys.argv[1])
assert [s.code.channel for s in decoded.segments] == [channel.code[3]] * len(decoded.segments)
print(decoded.warnings[-1])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_a_sparse_file_takes_no_more_memory_than_it_holds(sparse: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", MEMORY, str(sparse)], capture_output=True, text=True, check=True
    )
    warning, megabytes = told.stdout.splitlines()
    assert warning.endswith("to which nothing was ever written; fetch it again")
    assert int(megabytes) < 400, told.stdout


@pytest.mark.slow
def test_too_little_memory_is_told(archive: Path, tmp_path: Path) -> None:
    path = tmp_path / "large.mseed"
    content = sorted(archive.rglob("*.mseed"))[0].read_bytes()
    with path.open("wb") as file:
        for _ in range(2**30 // len(content) // 2):
            file.write(content)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_DATA, (2**28, 2**28))

    script = (
        "import sys; from eqcctpro.waveform.decode import decode_file; decode_file(sys.argv[1])"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(path)],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=limit,
    )
    assert f"{path} needs more memory to be read than there is" in told.stderr, told.stderr


@pytest.mark.parametrize("seed", range(4))
def test_blocks_hold_what_the_whole_file_holds(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    parts = [file.read_bytes() for file in sorted(archive.rglob("*.mseed"))]
    records = [part[at : at + 512] for part in parts for at in range(0, len(part), 512)]
    chance.shuffle(records)
    if seed % 2:
        for _ in range(5):
            records.insert(chance.randrange(len(records)), chance.randbytes(chance.randrange(700)))
    content = b"".join(records)
    path = tmp_path / "mixed.mseed"
    path.write_bytes(content)
    expected = scan(content, path)
    for module in (sparse_files, index):
        monkeypatch.setattr(module, "BLOCK_BYTES", 10_000)
    assert index_file(path).channels == expected
    path.write_bytes(bytes(50_000))
    with pytest.raises(DecodeError, match="not readable as miniSEED"):
        index_file(path)


@pytest.mark.slow
def test_a_file_system_that_hangs_costs_its_file(
    session: PickSession, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(archive.rglob("*.mseed"))
    hangs, released = str(files[4]), threading.Event()
    sound = indexing.index_file

    def index(path: str, *rest: Any) -> Any:
        if path == hangs:
            released.wait(60)
        return sound(path, *rest)

    monkeypatch.setattr(indexing, "index_file", index)
    result = session.run(input=archive, output=tmp_path / "out", item_timeout=0.2)
    released.set()
    assert f"{hangs} could not be read in 0.2 s (check the file system)" in result.problems[0]
    assert result.summary["plan"]["files"] == len(files) - 1


@pytest.mark.slow
def test_a_folder_that_hangs_costs_itself(
    session: PickSession, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = session.run(input=archive, output=tmp_path / "calm", layout="files", item_timeout=60)
    folders = [archive / "hanging", archive / "of others"]
    for folder in folders:
        folder.mkdir()
    link = archive / "hanging link"
    link.symlink_to(tmp_path)
    released, sound, leads = threading.Event(), os.scandir, listing.leads_to_folder

    def scandir(path: str) -> Any:
        if path == str(folders[0]):
            released.wait(60)
        if path == str(folders[1]):
            raise PermissionError(13, "Permission denied", path)
        return sound(path)

    def leads_to_folder(entry: os.DirEntry[str]) -> bool:
        if entry.path == str(link):
            released.wait(60)
        return leads(entry)

    monkeypatch.setattr(listing.os, "scandir", scandir)
    monkeypatch.setattr(listing, "leads_to_folder", leads_to_folder)
    result = session.run(input=archive, output=tmp_path / "out", layout="files", item_timeout=0.3)
    with pytest.raises(InputTimeoutError, match=r"hanging could not be read in 0\.3 s"):
        session.run(input=folders[0], output=tmp_path / "none")
    released.set()
    told = "\n".join(result.problems)
    assert f"{link} could not be read in 0.3 s (check the file system)" in told
    assert f"{folders[0]} could not be read in 0.3 s (check the file system)" in told
    assert f"input folder {folders[1]} cannot be listed: Permission denied" in told
    assert result.counts["files_failed"] == 3
    assert results(tmp_path / "out") == results(tmp_path / "calm")
    assert len(calm.picks)


@pytest.mark.slow
def test_a_file_that_breaks_the_reader_fails_alone(
    session: PickSession, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sorted(archive.rglob("*.mseed"))
    sound = indexing.index_file

    def index(path: str, *rest: Any) -> Any:
        if path == str(files[0]):
            raise RuntimeError("unforeseen")
        return sound(path, *rest)

    monkeypatch.setattr(indexing, "index_file", index)
    result = session.run(input=archive, output=tmp_path / "out")
    assert f"{files[0]} cannot be read: RuntimeError: unforeseen" in result.problems[0]


def test_progress_of_planning(capsys: pytest.CaptureFixture[str]) -> None:
    told = PlanningProgress(stream=sys.stderr)
    told(64)
    told._shown -= 20
    told(12_800)
    assert capsys.readouterr().err == "planning: 12800 files\n"
