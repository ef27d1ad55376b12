"""What a run records, how it goes on, and what it refuses to mix."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.archive.timechunks import whole_archive
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, InputError, OutputError, ResumeError
from eqcctpro.journal import parts, recorder
from eqcctpro.journal.identity import item_ids, plan_hash
from eqcctpro.journal.lock import OutputLock
from eqcctpro.journal.status import read_status
from eqcctpro.miniseed.index import PROBE_BYTES
from eqcctpro.orchestration import session as session_module
from eqcctpro.orchestration.interrupt import RunInterrupted
from eqcctpro.orchestration.run import run_picking
from eqcctpro.orchestration.session import PickSession
from eqcctpro.picks.eqcctpro_folders import station_file
from eqcctpro.picks.reading import read_picks
from eqcctpro.sources import feeder

Session = PickSession
RESULTS = ("picks.csv", "picks.parquet", "detections.csv", "detections.parquet")


@pytest.fixture(scope="module")
def archive(generated_network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("journal") / "archive"
    return Path(shutil.copytree(generated_network[0], folder))


@pytest.fixture(scope="module")
def session(archive: Path, imported_model: str, tmp_path_factory: Any) -> Iterator[Session]:
    """A session whose model is loaded once for all tests."""
    config = PickConfig.checked(
        input=archive,
        output=tmp_path_factory.mktemp("sessions"),
        model=imported_model,
        runtime="openvino",
        batch_size=1,  # so that stations end one after the other
        overview=False,
    )
    with PickSession(config) as ready:
        yield ready


@pytest.fixture(scope="module")
def calm(session: Session, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    output = tmp_path_factory.mktemp("calm")
    session.run(output=output)
    return results(output)


@pytest.fixture
def mended(archive: Path) -> Iterator[Path]:
    """The archive, which a test may damage."""
    kept = {path: (path.read_bytes(), path.stat()) for path in archive.rglob("*.mseed")}
    yield archive
    for path, (content, status) in kept.items():
        if not path.is_file() or path.stat().st_mtime_ns != status.st_mtime_ns:
            path.unlink(missing_ok=True)
            path.write_bytes(content)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def results(output: Path) -> dict[str, Any]:
    tasks = pq.read_table(output / "tasks.parquet").drop_columns(["seconds"]).to_pylist()
    return {"tasks": tasks, **{name: (output / name).read_bytes() for name in RESULTS}}


def run(session: Session, output: Path, **changes: Any) -> Any:
    """A run with the defaults but for what is given."""
    defaults = {"p_threshold": None, "resume": "auto", "retry_failed": True, "journal": True}
    return session.run(**{**defaults, "item_timeout": 600.0, "output": output, **changes})


@pytest.fixture
def after(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], None]], None]:
    """Have something done after so many results, which are recorded one by one."""

    def arrange(count: int, deed: Callable[[], None]) -> None:
        monkeypatch.setattr(feeder, "WAITING_BYTES", 0)
        monkeypatch.setattr(recorder, "GROUP_TASKS", 1)
        sound, seen = session_module._note_failures, []

        def note(bundle: Any, *rest: Any, **options: Any) -> None:
            sound(bundle, *rest, **options)
            seen.extend(bundle.outcomes)
            if len(seen) == count:
                deed()

        monkeypatch.setattr(session_module, "_note_failures", note)

    return arrange


def stop() -> None:
    raise EQCCTProError("stopped by the test")


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def stopped(session: Session, output: Path, after: Any, count: int = 2) -> None:
    after(count, stop)
    with pytest.raises(EQCCTProError, match="stopped by the test"):
        run(session, output)
    after(-1, stop)


class TestGoingOn:
    @pytest.mark.slow
    def test_an_interrupted_run_goes_on(
        self, session: Session, calm: Any, tmp_path: Path, after: Any
    ) -> None:
        after(2, interrupt)
        with pytest.raises(RunInterrupted, match="of 6 station tasks are recorded") as caught:
            run(session, tmp_path)
        assert "eqcctpro status" in caught.value.hint
        assert not any((tmp_path / name).exists() for name in RESULTS)
        status = read_status(tmp_path)
        assert status.state == status.ending == "interrupted"
        assert sum(status.counts.values()) == status.total == 6
        assert 2 <= status.counts["done"] < 6
        run(session, tmp_path)
        assert results(tmp_path) == calm
        assert not (tmp_path / ".eqcctpro").exists()
        log = (tmp_path / "run.log").read_text()
        assert "interrupted: " in log and "going on with an earlier run: " in log

    @pytest.mark.slow
    def test_interrupted_twice_stops_at_once(
        self, session: Session, calm: Any, tmp_path: Path, after: Any
    ) -> None:
        def twice() -> None:
            interrupt()
            interrupt()

        after(1, twice)
        with pytest.raises(KeyboardInterrupt) as caught:
            run(session, tmp_path)
        assert not isinstance(caught.value, RunInterrupted)
        assert read_status(tmp_path).counts["done"] == 1
        run(session, tmp_path)
        assert results(tmp_path) == calm

    def test_what_is_recorded_is_not_picked_again(
        self, session: Session, calm: Any, tmp_path: Path, after: Any, monkeypatch: Any
    ) -> None:
        stopped(session, tmp_path, after, 4)
        prepared: list[Any] = []
        sound = feeder.prepare
        monkeypatch.setattr(
            feeder,
            "prepare",
            lambda waveforms, *rest: (prepared.append(waveforms), sound(waveforms, *rest))[1],
        )
        result = run(session, tmp_path)
        assert len(prepared) == 2 and results(tmp_path) == calm
        assert result.summary["balanced"] and sum(result.summary["tasks"].values()) == 6

    @pytest.mark.slow
    def test_a_damaged_part_is_picked_again(
        self, session: Session, calm: Any, tmp_path: Path, after: Any
    ) -> None:
        stopped(session, tmp_path, after, 4)
        first, second, *_ = sorted((tmp_path / ".eqcctpro" / "parts").iterdir())
        first.write_bytes(first.read_bytes()[:-20])
        second.unlink()
        (first.parent / "99999999.arrow").write_bytes(b"never recorded")
        run(session, tmp_path)
        assert "is damaged" in (tmp_path / "run.log").read_text()
        assert results(tmp_path) == calm

    @pytest.mark.slow
    def test_a_full_disk(
        self, session: Session, calm: Any, tmp_path: Path, monkeypatch: Any
    ) -> None:
        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(recorder, "GROUP_TASKS", 1)
            patch.setattr(parts.os, "fsync", full)
            with pytest.raises(OutputError, match="No space left") as caught:
                run(session, tmp_path)
        assert "the same command goes on" in str(caught.value.hint)
        assert not list(tmp_path.rglob("*.unfinished"))
        run(session, tmp_path)
        assert results(tmp_path) == calm

    @pytest.mark.slow
    def test_a_run_without_a_journal_leaves_none_and_spares_an_unfinished_one(
        self, session: Session, calm: Any, tmp_path: Path, after: Any
    ) -> None:
        stopped(session, tmp_path / "a", after)
        with pytest.raises(ResumeError, match="holds an unfinished run"):
            run(session, tmp_path / "a", journal=False)
        run(session, tmp_path / "b", journal=False)
        assert results(tmp_path / "b") == calm
        assert {path.name for path in (tmp_path / "b").iterdir()} == {
            *RESULTS,
            "run.log",
            "summary.json",
            "tasks.parquet",
        }

    def test_only_one_run_at_a_time(self, session: Session, tmp_path: Path) -> None:
        with OutputLock(tmp_path):
            assert read_status(tmp_path).state == "running"
            with pytest.raises(ResumeError, match="another run is writing to"):
                run(session, tmp_path)


class TestDifferences:
    @pytest.mark.slow
    def test_a_changed_setting_is_named(
        self, session: Session, calm: Any, tmp_path: Path, after: Any
    ) -> None:
        stopped(session, tmp_path, after)
        with pytest.raises(ResumeError, match=r"p_threshold was 0\.\d+, is 0\.07") as caught:
            run(session, tmp_path, p_threshold=0.07)
        assert "--fresh" in str(caught.value.hint)
        run(session, tmp_path)
        assert results(tmp_path) == calm

    @pytest.mark.slow
    def test_another_runtime_is_named(self, archive: Path, tmp_path: Path, after: Any) -> None:
        common = {"input": archive, "output": tmp_path, "model": "EQTransformer/original"}
        common |= {"overview": False}
        after(2, stop)
        with pytest.raises(EQCCTProError, match="stopped"):
            run_picking(PickConfig.checked(**common, runtime="openvino", batch_size=1))
        with pytest.raises(ResumeError, match="runtime was openvino, is torch"):
            run_picking(PickConfig.checked(**common, runtime="torch"))

    @pytest.mark.slow
    def test_fresh_discards_what_the_run_wrote_and_nothing_else(
        self, session: Session, tmp_path: Path, after: Any
    ) -> None:
        run(session, tmp_path, formats=("csv", "parquet", "eqcctpro"), annotations=True)
        mine = tmp_path / "notes.txt"
        mine.write_text("not the run's")
        (curves,) = (tmp_path / "annotations").iterdir()
        assert any(curves.glob("*.mseed"))
        (tmp_path / ".picks.csv.abcd1234").write_text("half")
        after(2, stop)
        with pytest.raises(EQCCTProError):
            run(session, tmp_path, resume="never", formats=("csv", "parquet"), annotations=False)
        assert not (tmp_path / "annotations").exists()
        assert {path.name for path in tmp_path.glob("*.*")} >= {"notes.txt", "run.log"}
        assert not any((tmp_path / name).exists() for name in (*RESULTS, "summary.json"))
        assert not (tmp_path / ".picks.csv.abcd1234").exists()
        after(-1, stop)
        result = run(session, tmp_path, resume="never", p_threshold=0.07)
        assert result.summary["settings"]["p_threshold"] == 0.07
        assert mine.read_text() == "not the run's"

    @pytest.mark.slow
    def test_a_changed_file_is_named_and_the_rest_kept_when_asked(
        self, session: Session, mended: Path, calm: Any, tmp_path: Path, after: Any
    ) -> None:
        stopped(session, tmp_path, after, 5)
        path = sorted(mended.rglob("*.mseed"))[0]
        os.utime(path, ns=(0, 1_700_000_000_000_000_000))
        name = str(path.relative_to(mended))
        with pytest.raises(ResumeError, match=f"{name} has changed") as caught:
            run(session, tmp_path)
        assert "--resume keeps" in str(caught.value.hint)
        run(session, tmp_path, resume="require")
        assert "5 station tasks are as before, 1 are not" in (tmp_path / "run.log").read_text()
        assert results(tmp_path) == calm, "its samples are the same"

    def test_nothing_to_go_on_with(self, session: Session, tmp_path: Path) -> None:
        with pytest.raises(ResumeError, match="holds no run to go on with"):
            run(session, tmp_path, resume="require")


class TestInput:
    @pytest.fixture
    def once_planned(self, monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
        """What is done once the next run is planned."""
        deeds: list[Callable[[], None]] = []
        sound = session_module.open_journal

        def open_journal(*given: Any) -> Any:
            while deeds:
                deeds.pop()()
            return sound(*given)

        monkeypatch.setattr(session_module, "open_journal", open_journal)
        return deeds

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("kind", "error", "words"),
        [
            ("change", "InputChangedError", "has changed since the run was planned"),
            ("vanish", "DecodeError", "cannot read"),
            ("hang", "InputTimeoutError", "could not be read in 0.5 s"),
        ],
    )
    def test_a_file_that_is_spoiled_meanwhile_costs_its_station_until_it_is_mended(
        self,
        session: Session,
        mended: Path,
        calm: Any,
        tmp_path: Path,
        once_planned: list[Callable[[], None]],
        monkeypatch: pytest.MonkeyPatch,
        kind: str,
        error: str,
        words: str,
    ) -> None:
        monkeypatch.setattr(session_module, "HELD_BYTES", 0)
        path = sorted(mended.rglob("*.mseed"))[4]
        content, status = path.read_bytes(), path.stat()

        def spoil() -> None:
            if path.is_file():
                path.unlink()
            if kind == "change":
                path.write_bytes(content[:1024])
            elif kind == "hang":
                os.mkfifo(path)

        once_planned.append(spoil)
        result = run(session, tmp_path, item_timeout=0.5)
        (failed,) = result.summary["failed"]
        assert (
            failed["error"] == error and words in failed["reason"] and path.name in failed["reason"]
        )
        assert result.counts["done"] == 5 and result.exit_code == 10
        path.unlink(missing_ok=True)
        path.write_bytes(content)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        found = read_status(tmp_path)
        assert found.state == "finished" and "--resume" in str(found.advice)
        assert [item["station"] for item in found.failures] == [failed["station"]]
        kept = run(session, tmp_path, resume="require", retry_failed=False)
        assert kept.counts["failed"] == 1
        again = run(session, tmp_path, resume="require")
        assert again.counts["failed"] == 0 and results(tmp_path) == calm

    @pytest.mark.slow
    def test_small_files_are_read_once_and_may_vanish_then(
        self,
        session: Session,
        mended: Path,
        calm: Any,
        tmp_path: Path,
        once_planned: list[Callable[[], None]],
    ) -> None:
        small = [path for path in mended.rglob("*.mseed") if path.stat().st_size <= PROBE_BYTES]
        assert small

        def vanish() -> None:
            for path in small:
                path.unlink()

        once_planned.append(vanish)
        result = run(session, tmp_path)
        assert result.counts["failed"] == 0 and results(tmp_path) == calm


class TestIdentity:
    def task(self) -> StationTask:
        chunk = whole_archive(0, 10**9, None, None)
        return StationTask(0, "N", "STA", "", "HH", "STA", chunk, ("in/a",), 4, ((4, 5),))

    def test_everything_counts(self) -> None:
        task, settings = self.task(), {"p_threshold": "0.3"}
        variants = [
            (task, settings),
            (task, {"p_threshold": "0.2"}),
            (dataclasses.replace(task, stamps=((4, 6),)), settings),
            (dataclasses.replace(task, stamps=((5, 5),)), settings),
            (dataclasses.replace(task, files=("in/b",)), settings),
            (dataclasses.replace(task, folder="OTHER"), settings),
            (dataclasses.replace(task, station="STB"), settings),
            (
                dataclasses.replace(task, chunk=dataclasses.replace(task.chunk, own_end_ns=7)),
                settings,
            ),
        ]
        found = {item_ids([item], [Path("in")], how)[0] for item, how in variants}
        assert len(found) == len(variants)

    def test_neither_the_place_of_the_archive_nor_the_order_counts(self) -> None:
        task = self.task()
        moved = dataclasses.replace(task, files=("elsewhere/in/a",))
        here = item_ids([task], [Path("in")], {})
        assert here == item_ids([moved], [Path("elsewhere/in")], {})
        assert plan_hash([b"a", b"b"]) == plan_hash([b"b", b"a"]) != plan_hash([b"a"])

    def test_what_is_left_out_by_rule_is_counted(self, archive: Path) -> None:
        some = make_plan(InputSettings((archive,), stations=("DEM0[12]",)))
        assert some.skipped == {"not_chosen": 4, "outside_span": 0}


class TestStatus:
    @pytest.mark.slow
    def test_command(
        self, session: Session, tmp_path: Path, after: Any, cli: Callable[..., Any]
    ) -> None:
        assert cli("status", tmp_path).exit_code == InputError.exit_code
        stopped(session, tmp_path, after)
        shown = cli("status", tmp_path)
        assert shown.exit_code == 0
        assert "stopped: EQCCTProError: stopped by the test" in shown.stdout
        assert "6 station tasks: " in shown.stdout and "run the same command" in shown.stdout
        found = json.loads(cli("status", tmp_path, "--json").stdout)
        tasks = found["station_tasks"]
        assert tasks.pop("total") == sum(tasks.values()) == 6
        run(session, tmp_path)
        finished = cli("status", tmp_path).stdout
        assert finished.startswith("finished\n6 station tasks: 6 done, 0 empty, 0 failed")

    @pytest.mark.slow
    def test_of_a_station(
        self, session: Session, tmp_path: Path, after: Any, cli: Callable[..., Any]
    ) -> None:
        """Its station tasks, also while the run is unfinished."""
        stopped(session, tmp_path, after)
        stations = [f"DEM0{number}" for number in range(1, 7)]
        said = [cli("status", tmp_path, name).stdout for name in stations]
        counts = json.loads(cli("status", tmp_path, "--json").stdout)["station_tasks"]
        waiting = sum(text.endswith("waiting: it is not picked yet\n") for text in said)
        done = sum(": done; highest probability P 0." in text for text in said)
        assert waiting == counts["waiting"] > 0
        assert done == counts["done"] > 0
        run(session, tmp_path)
        said = [cli("status", tmp_path, name).stdout for name in stations]
        picks = read_picks(tmp_path)["station"].to_pylist()
        for name, text in zip(stations, said, strict=True):
            assert f"done, {picks.count(name)} picks; highest probability P 0." in text
        wrong = cli("status", tmp_path, "NOPE")
        assert wrong.exit_code == 2 and "XX.DEM01" in wrong.output

    @pytest.mark.slow
    def test_why_a_station_has_no_picks(
        self, pick: Any, archive: Path, tmp_path: Path, imported_model: str, cli: Callable[..., Any]
    ) -> None:
        def threshold(value: float, name: str, **span: str) -> Any:
            limits = {"p_threshold": value, "s_threshold": value}
            out = tmp_path / name
            return pick(archive, output=out, model=imported_model, **limits, **span).picks

        threshold(0.999, "none")
        usual = threshold(0.1, "usual")
        usual = usual[usual["station"] == "DEM02"]
        highest = usual.groupby("phase")["probability"].max()
        told = ", ".join(
            f"{phase} {highest[phase]:.3f} (below the threshold of 0.999)" for phase in "PS"
        )
        said = cli("status", tmp_path / "none", "xx.dem02").stdout.strip()
        assert said.endswith(f": done, no picks; highest probability {told}")
        (found,) = json.loads(cli("status", tmp_path / "none", "XX.DEM02.00.HH", "--json").stdout)
        assert found["picks"] == 0 and found["thresholds"] == {"P": 0.999, "S": 0.999}
        # The curve does reach the threshold, but outside of what was asked for.
        threshold(0.1, "early", start="2024-12-15T12:01:30")
        said = cli("status", tmp_path / "early", "DEM02").stdout
        assert "done, no picks: " in said and " are outside of the run's span; " in said, said

    def test_a_record_that_is_not_ours(self, tmp_path: Path) -> None:
        (tmp_path / ".eqcctpro").mkdir()
        path = tmp_path / ".eqcctpro" / "journal.sqlite"
        path.write_bytes(b"not a database, but long enough to be looked at" * 50)
        with pytest.raises(OutputError, match="is damaged"):
            read_status(tmp_path)
        path.unlink()
        with sqlite3.connect(path) as database:
            database.execute("PRAGMA user_version = 99")
        with pytest.raises(OutputError, match="format 99"):
            read_status(tmp_path)


@pytest.mark.parametrize("code", ["../../etc", "/etc", "..", "A/../../B", "a\0b", "", ".", "~"])
def test_no_code_leads_out_of_the_output_folder(code: str, tmp_path: Path) -> None:
    for chunk, folder in ((code, "STA"), ("CHUNK", code), (code, code)):
        path = station_file(tmp_path, chunk, folder)
        assert (
            path.resolve().relative_to(tmp_path.resolve()).parts[-1] == "X_prediction_results.csv"
        )
        assert len(path.relative_to(tmp_path).parts) == 3 and ".." not in path.parts


POISON = """
import os, signal
from eqcctpro.sources import feeder

sound = feeder.prepare


def prepare(waveforms, *rest):
    if waveforms.segments[0].code.station == "DEM03":
        os.kill(os.getpid(), signal.SIGSEGV)
    return sound(waveforms, *rest)


feeder.prepare = prepare
"""


@pytest.mark.slow
def test_a_station_that_kills_the_process_is_quarantined(
    archive: Path, imported_model: str, tmp_path: Path, cli_process: Any, session: Session
) -> None:
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(POISON)
    path = os.pathsep.join([str(tmp_path / "hook"), os.environ.get("PYTHONPATH", "")])
    out = tmp_path / "out"
    command = ["pick", archive, "-o", out, "--model", imported_model, "--runtime", "openvino"]
    command += ["--no-overview", "--batch-size", "1"]
    died = cli_process(*command, PYTHONPATH=path)
    assert died.returncode == -signal.SIGSEGV
    assert read_status(out).state == "dead"
    ended = cli_process(*command, PYTHONPATH=path)
    assert ended.returncode == 10, ended.stderr
    summary = json.loads((out / "summary.json").read_text())
    (failed,) = summary["failed"]
    assert failed["station"].startswith("XX.DEM03.") and failed["error"] == "QuarantinedError"
    assert "SIGSEGV" in failed["reason"]
    assert summary["tasks"] == {"done": 5, "empty": 0, "failed": 1} and summary["quarantined"] == 1
    assert read_status(out).quarantined == 1
    # Once it is harmless, it is picked when that is asked for.
    assert cli_process(*command, "--resume").returncode == 0
    run(session, tmp_path / "calm")
    assert results(out) == results(tmp_path / "calm")
