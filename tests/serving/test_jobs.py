"""Jobs take no more than they may, end when they are told to, and belong to whoever made them."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.errors import SettingsError
from eqcctpro.serving.job_files import PathHider
from eqcctpro.serving.job_process import JobLimits, JobProcess
from eqcctpro.serving.jobs import JobBoard, JobRequest
from eqcctpro.serving.problems import ForbiddenProblem, InvalidProblem, NotFoundProblem
from eqcctpro.serving.security import Identity
from eqcctpro.serving.settings import JobSettings, ServeSettings

ALICE, BOB = Identity("alice", "key"), Identity("bob", "key")
USER_ALICE = Identity("alice", "user")

# Takes no notice of SIGTERM, has a child in a session of its own, and then does something.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"], start_new_session=True)
print("ready", flush=True)
{then}
"""


@pytest.fixture
def board(network: Path, tmp_path: Path, imported_model: str) -> Iterator[Callable[..., JobBoard]]:
    made: list[JobBoard] = []

    def make(**given: Any) -> JobBoard:
        settings = {"roots": (network,), "folder": tmp_path / "jobs", **given}
        made.append(JobBoard(JobSettings.model_validate(settings), [imported_model]))
        return made[-1]

    yield make
    for each in made:
        each.close()


def ended(board: JobBoard, name: str, who: Identity = ALICE, seconds: float = 280.0) -> Any:
    until = time.monotonic() + seconds
    while (facts := board.job(name, who))["status"] in ("waiting", "running"):
        assert time.monotonic() < until, facts
        time.sleep(0.1)
    return facts


def gone(processes: list[psutil.Process]) -> bool:
    until = time.monotonic() + 10
    while any(alive(each) for each in processes):
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def stubborn(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Starts a job process that does not end by itself; returns it with its family."""

    def start(then: str, **limits: float) -> tuple[JobProcess, list[psutil.Process]]:
        def command(module: str, *arguments: str) -> list[str]:
            assert module == "eqcctpro.serving.job_process"
            return [sys.executable, "-c", STUBBORN.format(then=then)]

        monkeypatch.setattr("eqcctpro.serving.job_process.module_command", command)
        given = {"memory_mb": 10_000.0, "time_s": 60.0, "end_s": 0.3, **limits}
        log = tmp_path / "log"
        process = JobProcess([], log, JobLimits(**given))
        until = time.monotonic() + 30
        while "ready" not in log.read_text():
            assert time.monotonic() < until
            time.sleep(0.02)
        return process, process._family()

    return start


@pytest.mark.slow
def test_a_cancelled_job_is_killed_with_its_children(stubborn: Callable[..., Any]) -> None:
    process, family = stubborn("time.sleep(120)")
    assert len(family) == 2
    process.end()
    assert process.wait() == (-signal.SIGKILL, "")
    assert gone(family)


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_ended(stubborn: Callable[..., Any]) -> None:
    process, family = stubborn("time.sleep(120)", time_s=0.5)
    code, limit = process.wait()
    assert code == -signal.SIGKILL
    assert "jobs.time_limit_s" in limit
    assert gone(family)


@pytest.mark.slow
def test_a_job_that_fills_the_memory_is_killed(stubborn: Callable[..., Any]) -> None:
    grow = "held = []\nwhile True: held.append(bytearray(8 * 2**20)); time.sleep(0.02)"
    process, family = stubborn(grow, memory_mb=300.0)
    code, limit = process.wait()
    assert code == -signal.SIGKILL
    assert "jobs.memory_mb" in limit
    assert gone(family)


@pytest.mark.slow
def test_a_job_ends_with_the_service(tmp_path: Path) -> None:
    """Also where that is killed: another one would run the job a second time."""
    started = tmp_path / "started"
    slow = tmp_path / "slow.py"
    slow.write_text(
        "import os, sys, pathlib, time\n"
        f"pathlib.Path({str(started)!r}).write_text(str(os.getpid()))\n"
        "time.sleep(120)\n"
    )
    runs = (
        "import sys; sys.argv = ['job', sys.argv[1]]\n"
        "import eqcctpro.cli, runpy\n"
        f"eqcctpro.cli.app = lambda: runpy.run_path({str(slow)!r})\n"
        "from eqcctpro.serving.job_process import main\n"
        "main()\n"
    )
    service = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {runs!r}, str(os.getpid())])\n"
        "time.sleep(120)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", service], start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not started.exists() or not started.read_text():
            assert time.monotonic() < until
            time.sleep(0.05)
        job = psutil.Process(int(started.read_text()))
    finally:
        process.kill()
        process.wait()
    assert gone([job])


def test_jobs_have_bounds(board: Callable[..., JobBoard], tmp_path: Path) -> None:
    one = board()
    (tmp_path / "names").write_text("root:x:0:0\n")
    for wrong, name in (
        ({"timechunk": 1e-9}, "timechunk"),
        ({"timechunk": 0.5}, "timechunk"),
        ({"timechunk": 1e300}, "timechunk"),
        ({"timechunk": float("nan")}, "timechunk"),
        ({"stations": [f"@{tmp_path / 'names'}"]}, "stations"),
        ({"stations": [f"A,@{tmp_path / 'names'}"]}, "stations"),
        ({"stations": ["A"] * 20_000}, "stations"),
        ({"start": "2" * 10_000}, "letters"),
    ):
        with pytest.raises(InvalidProblem, match=name) as raised:
            one.submit(JobRequest(input=".", **wrong), ALICE)
        assert "root:x" not in str(raised.value)
    assert one.jobs(ALICE) == []


@pytest.mark.parametrize(
    ("minutes", "said"), [(1e-9, "makes 1,9.*time chunks and 11,9"), (1e-12, "is not a length")]
)
def test_a_plan_larger_than_memory_is_refused(network: Path, minutes: float, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        make_plan(InputSettings((network,), layout="files", timechunk_min=minutes))


@pytest.mark.slow
def test_jobs_belong_to_whoever_made_them(board: Callable[..., JobBoard], tmp_path: Path) -> None:
    one = board(at_a_time=1)
    name = one.submit(JobRequest(input=".", formats=["csv"]), ALICE)["id"]
    for other in (BOB, USER_ALICE):
        assert one.jobs(other) == []
        for ask in (one.job, one.cancel):
            with pytest.raises(NotFoundProblem):
                ask(name, other)
    done = ended(one, name)
    assert done["status"] == "done", done
    assert "picks.csv" in done["files"]
    with pytest.raises(NotFoundProblem):
        one.result(name, "picks.csv", BOB)
    assert [job["id"] for job in one.jobs(ALICE)] == [name]
    one.close()
    again = board()
    assert [job["id"] for job in again.jobs(ALICE)] == [name]
    assert again.jobs(BOB) == again.jobs(USER_ALICE) == []


@pytest.mark.slow
def test_roots_of_now_hold_for_jobs_of_before(
    board: Callable[..., JobBoard], network: Path, tmp_path: Path, imported_model: str
) -> None:
    made = tmp_path / "jobs" / "20240101T000000-00000000"
    made.mkdir(parents=True)
    request = {"input": str(network), "model": imported_model, "layout": "files"}
    content = {"request": request, "by": "alice", "submitted": 0.0, "status": "running"}
    (made / "job.json").write_text(json.dumps(content))
    (tmp_path / "other").mkdir()
    done = ended(board(roots=(tmp_path / "other",)), made.name)
    assert done["status"] == "failed"
    assert "leads out of the folders" in done["message"]


@pytest.mark.slow
def test_nothing_of_a_job_names_folders_of_the_server(
    board: Callable[..., JobBoard], network: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    (chunk,) = (path for path in network.iterdir() if path.is_dir())
    (chunk / "DEM03").rename(outside)
    (chunk / "DEM03").symlink_to(outside)
    for path in (chunk / "DEM02").iterdir():
        path.write_bytes(b"damaged")
    one = board()
    done = ended(one, one.submit(JobRequest(input=".", formats=["csv"]), ALICE)["id"])
    assert done["status"] == "done", done
    stations = (one.result(done["id"], "picks.csv", ALICE)).read_text()
    assert "DEM01" in stations
    assert "DEM03" not in stations
    import pyarrow.parquet as pq

    texts = [json.dumps(done)]
    for name in done["files"]:
        path = one.result(done["id"], name, ALICE)
        parquet = path.suffix == ".parquet"
        texts.append(
            str(pq.read_table(path).to_pylist()) if parquet else path.read_text("utf-8", "replace")
        )
    assert "DEM02/" in " ".join(texts)  # what is said of a file names it still
    for text in texts:
        for folder in (network, tmp_path, Path.home(), Path(sys.prefix)):
            assert f"{folder}/" not in text


def test_a_job_that_cannot_be_run_fails_and_the_next_has_its_turn(
    board: Callable[..., JobBoard], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/secret/folder")

    monkeypatch.setattr("eqcctpro.serving.jobs.JobProcess", full)
    one = board()
    names = [one.submit(JobRequest(input="."), ALICE)["id"] for _ in range(3)]
    for name in names:
        facts = ended(one, name)
        assert (facts["status"], facts["message"]) == (
            "failed",
            "the service cannot carry it out: OSError",
        )


@pytest.mark.slow
@pytest.mark.parametrize("cancelled", [False, True])
def test_files_of_a_job_are_shown_when_they_name_no_folder_any_more(
    board: Callable[..., JobBoard], monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    one, rewrite, seen = board(), PathHider.rewrite, []

    def look(hider: PathHider, folder: Path) -> None:
        job = one.job(one.jobs(ALICE)[0]["id"], ALICE)
        seen.append((job["status"], job["files"], folder.is_dir()))
        rewrite(hider, folder)

    monkeypatch.setattr(PathHider, "rewrite", look)
    name = one.submit(JobRequest(input=".", formats=["csv"]), ALICE)["id"]
    if cancelled:
        until = time.monotonic() + 60
        while not (one._folder / name / "out" / "run.log").exists():
            assert time.monotonic() < until
            time.sleep(0.01)
        one.cancel(name, ALICE)
    ended(one, name)
    until = time.monotonic() + 60
    while not seen or not one.job(name, ALICE)["files"]:
        assert time.monotonic() < until, seen
        time.sleep(0.01)
    assert seen == [("cancelled" if cancelled else "running", [], True)]


def test_paths_are_shown_as_clients_know_them() -> None:
    shown = PathHider([Path("/data/archive"), Path("/var/jobs/1/out")])
    assert shown({"a": ["/data/archive/NC/x.mseed is empty", 3]}) == {
        "a": ["NC/x.mseed is empty", 3]
    }
    assert shown("weights from /home/me/.cache/a/b.pt (sha)") == "weights from b.pt (sha)"
    assert shown("see https://example.org/a/b and 1/2/3") == "see https://example.org/a/b and 1/2/3"
    assert shown("/data/archive") == "."


def test_jobs_read_only_their_roots(board: Callable[..., JobBoard], tmp_path: Path) -> None:
    one = board()
    for text in ("s3://bucket/folder", "http://127.0.0.1:1/a", "file:///etc", "memory://a"):
        with pytest.raises(ForbiddenProblem):
            one.submit(JobRequest(input=text), ALICE)
    with pytest.raises(ValueError, match="which all jobs may read"):
        JobSettings(roots=(tmp_path,), folder=tmp_path / "jobs")


def test_old_jobs_are_removed(
    board: Callable[..., JobBoard], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = board(roots=(), folder=tmp_path / "jobs")
    folder = tmp_path / "jobs"
    for number in range(5):
        made = folder / f"20240101T00000{number}-0000000{number}"
        made.mkdir(parents=True)
        content = {
            **{"request": {"input": str(tmp_path)}, "by": "alice", "kind": "key"},
            **{"submitted": time.time() - number, "status": "done", "ended": time.time() - number},
        }
        if number == 1:
            content["ended"] = time.time() - 40 * 86_400
        (made / "job.json").write_text(json.dumps(content))
    monkeypatch.setattr(JobSettings, "keep", 3)
    one = board(keep_days=30)
    until = time.monotonic() + 10
    while len(one.jobs(ALICE)) > 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    left = {path.name[-1] for path in folder.iterdir()}
    assert left == {"0", "2"}, left  # the third of the youngest is too old


def test_roots_reach_the_replicas(tmp_path: Path) -> None:
    given = {"jobs": {"roots": [str(tmp_path / "a"), "s3://bucket/b/"], "folder": "elsewhere"}}
    settings = ServeSettings.checked(given)
    assert settings.jobs.roots == (tmp_path / "a", "s3://bucket/b")
    assert ServeSettings.model_validate_json(settings.model_dump_json()) == settings
