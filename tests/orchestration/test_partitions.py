"""Runs in partitions: the same picks as of one plan, piece by piece, and how they go on."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from midnights import DAY_NS, FIRST_NS, day_file, write_midnights

from benchmarks.sparse_archive import SparseRecord, write_sparse_archive
from eqcctpro.archive import partitions
from eqcctpro.archive.partitions import partition_planner
from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.archive.timechunks import MINUTE_NS
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, ResumeError, SettingsError
from eqcctpro.journal import recorder
from eqcctpro.journal.status import read_status
from eqcctpro.orchestration import session as session_module
from eqcctpro.orchestration.partition_summary import add_summaries
from eqcctpro.orchestration.session import PickSession
from eqcctpro.picks.reading import read_picks

CODES = ("network", "station", "location", "channel", "timechunk")
SAME = (
    *("tasks", "plan", "skipped", "balance", "balanced", "picks", "detections"),
    *("picks_outside_span", "windows", "samples", "reasons"),
)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_midnights(tmp_path_factory.mktemp("midnights") / "sds")


@pytest.fixture(scope="module")
def session(
    archive: Path, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PickSession]:
    config = PickConfig.checked(
        input=archive,
        output=tmp_path_factory.mktemp("sessions"),
        model=imported_model,
        runtime="openvino",
        overview=False,
    )
    with PickSession(config) as ready:
        yield ready


def run(session: PickSession, output: Path, **changes: Any) -> Any:
    usual: dict[str, Any] = {"partition": 1.0, "timechunk": None, "overlap": 0.0, "resume": "auto"}
    usual |= {"report": False, "overview": False}
    usual |= {"window_grid": "trace", "input": changes.get("input", session.config.input)}
    return session.run(**{**usual, "output": output, **changes})


@pytest.fixture(scope="module")
def calm(session: PickSession, archive: Path, tmp_path_factory: Any) -> dict[str, Any]:
    output = tmp_path_factory.mktemp("calm")
    return results(output, run(session, output, input=archive))


def results(output: Path, result: Any) -> dict[str, Any]:
    """What two runs must have in common; the identifier stands for how a run is cut."""
    name = result.summary["run_id"].encode()
    found: dict[str, Any] = {
        kind: (output / f"{kind}.csv").read_bytes().replace(name, b"ID")
        for kind in ("picks", "detections")
    }
    for kind in ("picks", "detections"):
        found[f"{kind} table"] = pq.read_table(output / f"{kind}.parquet").drop(["run_id"])
    tasks = pq.read_table(output / "tasks.parquet").drop(["seconds"])
    found["tasks"] = tasks.sort_by([(name, "ascending") for name in CODES]).to_pylist()
    found["summary"] = {name: result.summary[name] for name in SAME}
    return found


def described(task: StationTask) -> tuple[Any, ...]:
    """All of a task but its place in the plan."""
    chunk = task.chunk
    spans = (chunk.read_start_ns, chunk.read_end_ns, chunk.own_start_ns, chunk.own_end_ns)
    return (task.name, task.folder, chunk.name, *spans, task.files, task.stamps, task.beside)


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three weeks around a New Year, with a week without files."""
    root = tmp_path_factory.mktemp("days") / "sds"
    write_sparse_archive(root, stations=3, days=9, first=date(2010, 12, 28), hour=0)
    write_sparse_archive(root, stations=4, days=5, first=date(2011, 1, 13), hour=23)
    return root


class TestPlans:
    @pytest.mark.parametrize(
        "settings",
        [
            {},
            {"context_ns": MINUTE_NS},
            {"timechunk_min": 60.0, "overlap_min": 2.0, "context_ns": MINUTE_NS},
            {"timechunk_min": 7.0},
            {"timechunk_min": 2000.0, "overlap_min": 100.0},
            {"timechunk_min": 50.0, "start_ns": 14_975 * DAY_NS + 7},
            {"start_ns": 14_975 * DAY_NS + 7, "end_ns": 14_990 * DAY_NS - 7},
        ],
    )
    def test_partitions_have_the_tasks_of_one_plan(
        self, days: Path, settings: dict[str, Any]
    ) -> None:
        asked = InputSettings(inputs=(days,), **settings)
        whole = make_plan(asked)
        expected = sorted(map(described, whole.tasks))
        for size in (1.0, 2.0, 5.5, 1000.0):
            planner = partition_planner(asked, size, begun=False)
            assert planner is not None
            parts = list(planner.plans())
            assert [part.number for part in parts] == list(range(len(parts)))
            assert sorted(described(t) for part in parts for t in part.plan.tasks) == expected
            own = sum(len(part.plan.files) - part.plan.guests for part in parts)
            assert own == len(whole.files) or "start_ns" in settings
            assert parts[-1].part.last and not any(part.part.last for part in parts[:-1])
            for left, right in pairwise(parts):
                assert left.part.own.end_ns == right.part.own.start_ns
            assert len(parts) > 5 or size > 2

    @pytest.mark.parametrize("settings", [{}, {"timechunk_min": 1.0, "overlap_min": 0.2}])
    def test_time_chunk_folders(self, tmp_path: Path, settings: dict[str, Any]) -> None:
        record, root = SparseRecord(), tmp_path / "archive"
        for hour in range(14):
            station = f"S{hour % 3}"
            name = f"20260101T{hour:02d}0000Z_20260101T{hour + 1:02d}0000Z"
            (root / name / station).mkdir(parents=True)
            path = root / name / station / f"XX.{station}..HHZ.mseed"
            path.write_bytes(record.of(station, "HHZ", 2026, 1, hour))
        asked = InputSettings(inputs=(root,), context_ns=MINUTE_NS, **settings)
        expected = {
            (name, chunk, files)
            for name, _, chunk, _, _, _, _, files, *_ in map(described, make_plan(asked).tasks)
        }
        planner = partition_planner(asked, 0.1, begun=False)
        assert planner is not None
        found = [described(t) for part in planner.plans() for t in part.plan.tasks]
        assert {(one[0], one[2], one[7]) for one in found} == expected
        assert len(found) == len(expected)

    def test_small_archives_are_planned_at_once(
        self, days: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = InputSettings(inputs=(days,))
        assert partition_planner(asked, "auto", begun=False) is None
        monkeypatch.setattr(partitions, "MANY_TASKS", 20)
        assert partition_planner(asked, "auto", begun=False) is not None
        assert partition_planner(asked, "off", begun=False) is None
        sample = InputSettings(inputs=(days,), stations_at_most=2)
        assert partition_planner(sample, "auto", begun=False) is None
        with pytest.raises(SettingsError, match="stations_at_most"):
            partition_planner(sample, 1.0, begun=False)

    def test_a_partition_lists_no_other_years(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for year in range(2001, 2009):
            write_sparse_archive(tmp_path, stations=2, days=3, first=date(year, 6, 1))
        listed: list[str] = []
        sound = os.scandir
        monkeypatch.setattr(os, "scandir", lambda path: (listed.append(str(path)), sound(path))[1])
        planner = partition_planner(InputSettings(inputs=(tmp_path,)), 1.0, begun=False)
        assert planner is not None
        next(planner.plans())
        years = {path.removeprefix(f"{tmp_path}/")[:4] for path in listed} - {""}
        assert not years - {"2001", str(tmp_path)[:4]}
        assert len([path for path in listed if "HHZ.D" in path]) == 2


class TestWhatCannotBeRead:
    @pytest.fixture
    def fails(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
        """Have the listing of folders with a name fail so many times."""

        def arrange(name: str, times: int) -> None:
            sound, left = os.scandir, [times]

            def scandir(path: Any) -> Any:
                if name in str(path) and left[0] > 0:
                    left[0] -= 1
                    raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), path)
                return sound(path)

            monkeypatch.setattr(os, "scandir", scandir)
            monkeypatch.setattr(partitions, "RETRY_S", (0.01, 0.02, 0.03))

        return arrange

    def test_it_is_tried_again(
        self, days: Path, fails: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        asked = InputSettings(inputs=(days,))
        expected = sorted(map(described, make_plan(asked).tasks))
        fails("S0001", 3)
        planner = partition_planner(asked, 2.0, begun=False)
        assert planner is not None
        parts = list(planner.plans())
        assert sorted(described(t) for part in parts for t in part.plan.tasks) == expected
        assert not any(part.plan.problems for part in parts)
        assert "S0001" in caplog.text and "tried again" in caplog.text

    def test_it_is_named_and_the_rest_goes_on(self, days: Path, fails: Any) -> None:
        fails("2010/XX/S0001", 10**6)
        planner = partition_planner(InputSettings(inputs=(days,)), 2.0, begun=False)
        assert planner is not None
        parts = list(planner.plans())
        (problem,) = [one for part in parts for one in part.plan.problems]
        assert "2010/XX/S0001" in problem.message and "Stale file handle" in problem.message
        stations = {t.station for part in parts[:2] for t in part.plan.tasks}
        assert stations == {"S0000", "S0002"}
        assert {t.station for t in parts[-1].plan.tasks} >= {"S0001"}

    def test_records_that_no_partition_looks_for_are_named(self, tmp_path: Path) -> None:
        write_sparse_archive(tmp_path, stations=1, days=6)
        (first,) = tmp_path.rglob("*.001")
        first.write_bytes(SparseRecord().of("S0000", "HHZ", 2010, 5, 12))
        planner = partition_planner(InputSettings(inputs=(tmp_path,)), 1.0, begun=False)
        assert planner is not None
        (problem,) = [one for part in planner.plans() for one in part.plan.problems]
        assert str(first) in problem.message and "2010-01-05T12:00:00Z" in problem.message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "sizes"),
    [
        ({}, (1.0, 2.0)),
        ({"window_grid": "absolute"}, (1.0,)),
        ({"timechunk": 30.0, "overlap": 2.0}, (1.0, 3.0)),
        ({"timechunk": 7.0, "window_grid": "absolute"}, (0.5,)),
    ],
)
def test_picks_are_those_of_one_plan(
    session: PickSession, archive: Path, tmp_path: Path, settings: Any, sizes: tuple[float, ...]
) -> None:
    whole = tmp_path / "whole"
    expected = results(whole, run(session, whole, input=archive, partition="off", **settings))
    assert expected["picks"].count(b"\n") > 20
    for size in sizes:
        output = tmp_path / str(size)
        result = run(session, output, input=archive, partition=size, **settings)
        assert result.summary["partitions"]["number"] > 1
        assert results(output, result) == expected
        assert result.table.num_rows == len(result.picks) == expected["picks"].count(b"\n") - 1
        assert not (output / ".eqcctpro").exists()
        assert read_picks(output).num_rows == result.table.num_rows


@pytest.mark.slow
def test_time_chunk_folders_in_partitions(session: PickSession, tmp_path: Path) -> None:
    from eqcctpro.synthetic.network import synthetic_network

    archive = tmp_path / "archive"
    synthetic_network(archive, stations=2, duration_s=240.0)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    asked = {"input": archive, "timechunk": 1.0, "overlap": 0.5}
    expected = results(whole, run(session, whole, partition="off", **asked))
    assert results(parts, run(session, parts, partition=0.0005, **asked)) == expected


@pytest.mark.slow
def test_any_reader_takes_the_days_for_one_table(
    session: PickSession, archive: Path, calm: dict[str, Any], tmp_path: Path
) -> None:
    result = run(session, tmp_path, input=archive, report=True, overview=True)
    folder = tmp_path / "picks.parquet"
    names = [path.stem for path in sorted(folder.iterdir())]
    assert names[0] == "2010-01-10" and len(names) == 4
    for name in names:
        times = pq.read_table(folder / f"{name}.parquet")["time"].to_pylist()
        assert {f"{time:%Y-%m-%d}" for time in times} == {name}
    table = pa.dataset.dataset(folder).to_table()
    assert table.equals(result.table) and table.num_rows == result.counts["picks"]
    assert len(pd.read_parquet(folder)) == table.num_rows
    chunk = result.summary["partitions"]["sample"]["timechunk"]
    page = (tmp_path / "report.html").read_text()
    assert f"All but the time chunk with the most picks, {chunk}, of 4." in page
    assert (tmp_path / "overview.png").stat().st_size > 1000
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    (count,) = duckdb.sql(f"SELECT count(*) FROM '{folder}/*.parquet'").fetchone()
    assert count == table.num_rows


def stop_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Have the run fail after so many results, which are recorded one by one."""
    monkeypatch.setattr(recorder, "GROUP_TASKS", 1)
    sound, seen = session_module._note_failures, []

    def note(bundle: Any, *rest: Any, **options: Any) -> None:
        sound(bundle, *rest, **options)
        seen.extend(bundle.outcomes)
        if len(seen) >= count:
            raise EQCCTProError("stopped by the test")

    monkeypatch.setattr(session_module, "_note_failures", note)


@pytest.mark.slow
class TestGoingOn:
    def stopped(
        self, session: PickSession, archive: Path, output: Path, count: int, **changes: Any
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            stop_after(patch, count)
            with pytest.raises(EQCCTProError, match="stopped by the test"):
                run(session, output, input=archive, **changes)

    def test_a_finished_partition_is_not_picked_again(
        self, session: PickSession, archive: Path, calm: dict[str, Any], tmp_path: Path
    ) -> None:
        self.stopped(session, archive, tmp_path, 5)
        with pytest.MonkeyPatch.context() as patch:
            planned: list[Any] = []
            sound = partitions.make_part
            patch.setattr(partitions, "make_part", lambda *a: (planned.append(a), sound(*a))[1])
            result = run(session, tmp_path, input=archive)
        assert len(planned) == 2  # of four
        assert results(tmp_path, result) == calm
        assert not (tmp_path / ".eqcctpro").exists()

    def test_other_settings_are_refused(
        self, session: PickSession, archive: Path, tmp_path: Path
    ) -> None:
        self.stopped(session, archive, tmp_path, 5)
        for changes, message in (
            ({"p_threshold": 0.9}, "p_threshold was"),
            ({"timechunk": 60.0}, "timechunk was"),
            ({"partition": "off"}, "unfinished run in partitions"),
        ):
            with pytest.raises(ResumeError, match=message):
                run(session, tmp_path, input=archive, **changes)

    def test_changed_input_is_found(self, session: PickSession, tmp_path: Path) -> None:
        archive = write_midnights(tmp_path / "sds")
        output = tmp_path / "out"
        self.stopped(session, archive, output, 7)
        for component in "ZNE":
            os.utime(day_file(archive, 0, component, 0), ns=(0, FIRST_NS))
        with pytest.raises(ResumeError, match="files of 3 partitions have changed, from the beg"):
            run(session, output, input=archive)
        for component in "ZNE":
            day_file(archive, 1, component, 0).unlink()
        result = run(session, output, input=archive, resume="require")
        anew = tmp_path / "anew"
        assert results(output, result) == results(anew, run(session, anew, input=archive))

    def test_what_failed_is_picked_again(
        self, session: PickSession, tmp_path: Path, calm: dict[str, Any]
    ) -> None:
        archive = write_midnights(tmp_path / "sds")
        damaged = day_file(archive, 1, "Z", 1)
        content = damaged.read_bytes()
        damaged.write_bytes(content[:1000] + bytes(len(content) - 1500) + content[-500:])
        output = tmp_path / "out"
        first = run(session, output, input=archive)
        if not first.counts["failed"] and not first.counts["files_failed"]:
            assert results(output, first) != calm
        damaged.write_bytes(content)
        again = run(session, output, input=archive, resume="never")
        assert again.counts["failed"] == 0
        assert results(output, again)["picks"] == calm["picks"]

    def test_the_status_says_how_far_it_is(
        self, session: PickSession, archive: Path, tmp_path: Path, cli: Any
    ) -> None:
        self.stopped(session, archive, tmp_path, 5)
        found = read_status(tmp_path)
        assert found.state == "interrupted" and found.reach is not None
        assert found.counts["done"] >= 5
        assert found.reach.partitions == (found.counts["done"] - 1) // 2
        assert found.reach.reached == "2010-01-12T00:00:00Z"
        assert found.reach.end == "2010-01-14T00:00:00Z"
        assert found.counts["waiting"] == 8 - found.counts["done"]
        shown = cli("status", tmp_path).output
        assert "2 partitions finished, to 2010-01-12T00:00:00Z of 2010-01-14" in shown

    def test_results_of_another_kind_are_replaced(
        self,
        session: PickSession,
        archive: Path,
        calm: dict[str, Any],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(partitions, "MANY_TASKS", 5)
        for partition in (1.0, "off", "auto"):
            result = run(session, tmp_path, input=archive, partition=partition)
            assert results(tmp_path, result)["picks"] == calm["picks"]
            assert (tmp_path / "picks.parquet").is_dir() == (partition != "off")


def test_the_summary_stays_small() -> None:
    def part(number: int) -> dict[str, Any]:
        kinds = [f"reason {number * 50 + at}" for at in range(50)]
        listed = [{"station": "XX.S", "reason": f"{kind}: {'long ' * 100}"} for kind in kinds]
        return {
            **{name: listed for name in ("empty", "failed", "files_failed", "notes")},
            "tasks": {"done": 1, "failed": 50},
            "balance": {"input": 2, "not_picked": {f"cause {number % 2}": 1}},
            "balanced": True,
            "reasons": {"failed": dict.fromkeys(kinds, number + 1)},
            "detections": None,
        }

    total = add_summaries(map(part, range(400)))
    assert len(json.dumps(total)) < 300_000
    assert total["tasks"] == {"done": 400, "failed": 20_000} and total["balanced"]
    assert total["balance"] == {"input": 800, "not_picked": {"cause 0": 200, "cause 1": 200}}
    assert sum(total["reasons"]["failed"].values()) == 50 * sum(range(1, 401))
    assert len(total["reasons"]["failed"]) == 21 and total["detections"] is None
    assert len(total["failed"]) > 20


def test_what_cannot_be_cut_is_refused() -> None:
    for changes in ({"formats": "quakeml"}, {"journal": False}, {"amplitudes": True}):
        with pytest.raises(SettingsError, match="partition: "):
            PickConfig.checked(input="a", output="b", partition=2.0, **changes)
    with pytest.raises(SettingsError, match="partition"):
        PickConfig.checked(input="a", output="b", partition=0.0)
    assert PickConfig.checked(input="a", output="b", partition=3).partition == 3


# A run that is killed at the n-th of the steps that change its folder.
DYING = textwrap.dedent(
    """
    import os, signal, sys
    from eqcctpro import PickConfig, run_picking
    from eqcctpro.journal import folder, partition_record, recorder
    from eqcctpro.orchestration import keeping, partition_borders, partitioned
    from eqcctpro.picks import day_tables, writers

    archive, output, model, size, last = sys.argv[1:]
    steps = 0
    recorder.GROUP_TASKS = 1

    def step():
        global steps
        steps += 1
        if steps == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

    def dying(owner, name):
        sound = getattr(owner, name)
        def wrapped(*args, **kwargs):
            step()
            result = sound(*args, **kwargs)
            step()
            return result
        setattr(owner, name, wrapped)

    dying(recorder.Recorder, "_write")
    dying(day_tables, "write_parquet")
    dying(partitioned, "write_parquet")
    dying(partitioned, "write_csv_parts")
    dying(partitioned, "write_parquet_parts")
    dying(partition_borders.BorderPicks, "save")
    dying(partition_record.PartitionRecord, "finish")
    dying(keeping.RunJournal, "finish")
    dying(keeping.RunJournal, "begin")
    dying(folder.RunFolder, "forget")
    run_picking(PickConfig(
        input=archive, output=output, model=model, partition=float(size), runtime="openvino",
        overview=False,
    ))
    """
)


def killed_again_and_again(archive: Path, output: Path, model: str, seed: int, kills: int) -> None:
    rng, size = random.Random(seed), 1.0
    died = 0
    while True:
        last = rng.randint(1, 40) if died < kills else 10**6
        ended = subprocess.run(
            [sys.executable, "-c", DYING, archive, output, model, str(size), str(last)],
            check=False,
            timeout=120,
        )
        if ended.returncode == 0:
            break
        assert ended.returncode == -signal.SIGKILL
        died += 1
    assert died


@pytest.mark.slow
@pytest.mark.parametrize(
    ("seed", "kills"),
    [(1, 2), *(pytest.param(seed, 12, marks=pytest.mark.exhaustive) for seed in range(2, 7))],
)
def test_a_killed_run_ends_with_the_same_bytes(
    archive: Path,
    imported_model: str,
    calm: dict[str, Any],
    tmp_path: Path,
    seed: int,
    kills: int,
    finished: Callable[[Path], Any],
) -> None:
    killed_again_and_again(archive, tmp_path, imported_model, seed, kills)
    assert results(tmp_path, finished(tmp_path)) == calm


@pytest.fixture
def finished() -> Callable[[Path], Any]:
    """The summary of a run, as an object that has it."""
    from types import SimpleNamespace

    from eqcctpro.report.run_data import load_summary

    return lambda output: SimpleNamespace(summary=load_summary(output))
