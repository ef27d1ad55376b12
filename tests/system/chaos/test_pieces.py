"""Station tasks that are too large for memory are picked in pieces, with the picks of the whole."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from threading import Timer
from typing import Any

import numpy as np
import obspy
import pytest
from disturbed_runs import SLOW_WORKERS, results

from eqcctpro.archive.pieces import equal_pieces
from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.orchestration import dispatch, waveform_memory
from eqcctpro.orchestration.interrupt import RunInterrupted
from eqcctpro.orchestration.session import PickSession
from eqcctpro.report.run_traces import vertical_traces
from eqcctpro.report.traces import OverviewTrace, highpassed
from eqcctpro.sources import feeder
from eqcctpro.synthetic.network import synthetic_network

MINUTES = 16.0


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> obspy.Stream:
    """A quarter of an hour of three components with an earthquake in each minute."""
    folder = tmp_path_factory.mktemp("record")
    synthetic_network(folder, stations=1, duration_s=60 * MINUTES)
    return obspy.read(str(folder / "*" / "*" / "*.mseed"))


def write(stream: obspy.Stream, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    stream.write(str(path), format="MSEED", reclen=512)


def one_file(record: obspy.Stream, folder: Path) -> None:
    write(record, folder / "all.mseed")


def with_gaps(record: obspy.Stream, folder: Path) -> None:
    """Each component has gaps where others go on, and all have one."""
    start, made = record[0].stats.starttime, obspy.Stream()
    for number, trace in enumerate(record):
        edges = [0, 150.0 + 97.3 * number, 605.0, 60 * MINUTES]
        for first, last in pairwise(edges):
            made += trace.slice(start + first + 3.21 * (first > 0), start + last)
    write(made, folder / "all.mseed")


def many_files(record: obspy.Stream, folder: Path) -> None:
    """Files that go on where others end, of a length that is no multiple of a window's step."""
    start = record[0].stats.starttime
    for trace in record:
        for number in range(5):
            begin = start + 211.37 * number
            part = trace.slice(begin, begin + 211.36)
            write(obspy.Stream([part]), folder / f"{number}.{trace.stats.channel}.mseed")


def fast(record: obspy.Stream, folder: Path) -> None:
    """The same at 200 Hz, in files that go on where others end."""
    made = record.copy()
    for trace in made:
        trace.data = trace.data.repeat(2)
        trace.stats.sampling_rate = 200.0
    many_files(made, folder)


def small(monkeypatch: pytest.MonkeyPatch, *, pieces_mb: float, room_mb: float) -> None:
    """A worker has little room, and pieces are short."""
    values = {"LARGE_MB": 0.0, "COVERED_MB": 0.0, "PIECE_MB": pieces_mb, "SMALLEST_PIECE_MB": 0.1}
    for name, value in values.items():
        monkeypatch.setattr(waveform_memory, name, value)
    monkeypatch.setattr(waveform_memory, "_room", lambda *_: (room_mb, None))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("archive", "more"),
    [
        (with_gaps, {"annotations": True}),
        (fast, {"fill_gaps": "interpolate", "filters": ("highpass:1",)}),
        (many_files, {}),
        *(
            pytest.param(*case, marks=pytest.mark.exhaustive)
            for case in [
                (one_file, {}),
                (with_gaps, {"fill_gaps": "zero"}),
                (fast, {"annotations": True}),
                (many_files, {"window_grid": "absolute"}),
            ]
        ),
    ],
    ids=lambda value: getattr(value, "__name__", None) or "-".join(value) or "plain",
)
def test_pieces_have_the_picks_of_the_whole(
    record: obspy.Stream,
    session: PickSession,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    archive: Callable[[obspy.Stream, Path], None],
    more: dict[str, Any],
) -> None:
    archive(record, tmp_path / "archive")
    given = {"input": tmp_path / "archive", "layout": "files", "annotations": False, **more}
    given = {"fill_gaps": "none", "filters": (), "window_grid": "trace", **given}
    whole = session.run(output=tmp_path / "whole", **given)
    session.close()
    small(monkeypatch, pieces_mb=1.2, room_mb=12.0 if archive is fast else 6.0)
    pieces = session.run(output=tmp_path / "pieces", **given)
    session.close()
    (note,) = [note for note in notes_of(pieces) if "pieces of time" in note]
    assert int(note.split()[2]) >= 4
    assert results(tmp_path / "pieces") == results(tmp_path / "whole")
    assert len(whole.picks) > MINUTES
    for name in ("balance", "tasks", "picks"):
        assert pieces.summary[name] == whole.summary[name]
    if more.get("annotations"):
        curves = [
            {
                (t.id, str(t.stats.starttime)): t.data.tobytes()
                for t in obspy.read(path).merge().split()
            }
            for name in ("whole", "pieces")
            for path in [str(next((tmp_path / name / "annotations").rglob("*.mseed")))]
        ]
        assert curves[0] == curves[1]


@pytest.mark.slow
def test_an_interruption_ends_between_pieces(
    record: obspy.Stream, session: PickSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one_file(record, tmp_path / "archive")
    given = {"input": tmp_path / "archive", "layout": "files", "annotations": False}
    given |= {"fill_gaps": "none", "filters": (), "window_grid": "trace"}
    session.run(output=tmp_path / "whole", **given)
    session.close()
    small(monkeypatch, pieces_mb=0.6, room_mb=6.0)
    pieces: list[int] = []

    def prepare(*arguments: Any, sound: Any = feeder.prepare) -> Any:
        pieces.append(arguments[0].own.start_ns)
        if len(pieces) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return sound(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(feeder, "prepare", prepare)
        patch.setattr(feeder, "WAITING_BYTES", 1)  # as pieces of a usual size have it
        with pytest.raises(RunInterrupted, match=r"interrupted: 0 of 1 station tasks"):
            session.run(output=tmp_path / "pieces", **given)
        assert 3 <= len(pieces) <= 6
    result = session.run(output=tmp_path / "pieces", **given)
    session.close()
    (note,) = [note for note in notes_of(result) if "pieces of time" in note]
    assert int(note.split()[2]) >= 8
    assert results(tmp_path / "pieces") == results(tmp_path / "whole")


def test_the_picture_shows_stations_in_pieces(
    record: obspy.Stream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the strongest samples of each minute as the whole has them, of much fewer samples."""
    with_gaps(record, tmp_path / "archive")
    plan = make_plan(InputSettings((tmp_path / "archive",), "files"))
    (whole,) = plan.tasks
    plan.tasks.table.cut({0: equal_pieces(plan.tasks.table, 0, 6, 0)})
    (cut,) = plan.tasks
    assert len(cut.pieces) == 6
    monkeypatch.setattr("eqcctpro.report.run_traces.PIECE_SAMPLES", 1000)
    shown, drawn = ([highpassed(trace) for trace in vertical_traces(task)] for task in (whole, cut))
    assert {trace.label[-1] for trace in (*shown, *drawn)} == {"Z"}
    assert sum(trace.samples.size for trace in drawn) <= 9 * 1000

    def peaks(traces: list[OverviewTrace]) -> dict[int, float]:
        found: dict[int, float] = {}
        for trace in traces:
            times = trace.start_ns + np.arange(trace.samples.size) * 1e9 / trace.sampling_rate
            for minute in range(int(MINUTES)):
                begin = shown[0].start_ns + minute * 60e9 + 5e9
                inside = trace.samples[(times >= begin) & (times < begin + 50e9)]
                if inside.size:
                    found[minute] = max(found.get(minute, 0.0), float(np.abs(inside).max()))
        return found

    assert peaks(drawn) == pytest.approx(peaks(shown), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["modelactor", pytest.param("ripper", marks=pytest.mark.exhaustive)]
)
def test_an_interruption_leaves_ray_workers_with_pieces(
    record: obspy.Stream,
    imported_model: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mode: Any,
) -> None:
    """A worker is not waited for that would be busy with a station for minutes."""
    one_file(record, tmp_path / "archive")
    small(monkeypatch, pieces_mb=0.6, room_mb=6.0)
    # Each piece takes five seconds in a worker.
    monkeypatch.setenv("EQCCTPRO_TEST_PAUSE_S", "5")
    folders = [str(SLOW_WORKERS), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, folders)))
    config = PickConfig.checked(
        **{"input": tmp_path / "archive", "output": tmp_path / "out", "layout": "files"},
        **{"model": imported_model, "runtime": "torch", "mode": mode, "workers": 1},
        overview=False,
    )
    sent: list[float] = []

    def wait(*given: Any, sound: Any = dispatch.wait_for_some) -> list[Any]:
        if not sent:
            Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
        sent.append(time.monotonic())
        return list(sound(*given))

    monkeypatch.setattr(f"eqcctpro.orchestration.{mode}.wait_for_some", wait)
    interrupted = pytest.raises(RunInterrupted, match=r"interrupted: 0 of 1 station tasks")
    with PickSession(config) as session, interrupted:
        session.run()
    # All pieces would take a minute.
    assert time.monotonic() - sent[0] < 1.0 + dispatch.GLANCE_SECONDS + 15.0


def notes_of(result: Any) -> list[str]:
    return [note for station in result.summary["notes"] for note in station["notes"]]
