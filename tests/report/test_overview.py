"""The overview picture, looked at pixel by pixel."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from counted_calls import calls

from eqcctpro.errors import OutputError
from eqcctpro.report import traces
from eqcctpro.report.overview import draw_overview, time_ticks
from eqcctpro.report.traces import PHASE_COLOURS, OverviewTrace, columns_of, highpassed
from eqcctpro.times import parse_utc

START_NS = 1_734_264_000_000_000_000
SCHEMA = pa.schema(
    [
        ("network", pa.string()),
        ("station", pa.string()),
        ("phase", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("probability", pa.float32()),
    ]
)


def picks(*rows: tuple[str, str, float, float]) -> pa.Table:
    """Build a table from station, phase, seconds after the start, probability."""
    return pa.Table.from_pylist(
        [
            {
                "network": "XX",
                "station": station,
                "phase": phase,
                "time": START_NS // 1000 + round(seconds * 1e6),
                "probability": probability,
            }
            for station, phase, seconds, probability in rows
        ],
        schema=SCHEMA,
    )


def trace(station: str, channel: str = "HHZ", **changes: Any) -> OverviewTrace:
    values: dict[str, Any] = {
        "label": f"XX.{station}.00.{channel}",
        "start_ns": START_NS,
        "sampling_rate": 100.0,
        "samples": np.random.default_rng(0).standard_normal(6000).astype(np.float32),
        "station": f"XX.{station}",
    }
    return OverviewTrace(**(values | changes))


def draw(path: Path, traces: list[OverviewTrace], table: pa.Table, **options: Any) -> np.ndarray:
    from matplotlib.image import imread

    assert draw_overview(path, traces, table, title="A run", **options) == path
    return imread(path)


def coloured(image: np.ndarray, phase: str) -> np.ndarray:
    """Pixels of a phase's full colour, without the legend in the picture's top 40 rows."""
    code = PHASE_COLOURS[phase]
    wanted = np.array([int(code[at : at + 2], 16) for at in (1, 3, 5)]) / 255
    return (np.abs(image[40:, :, :3] - wanted) < 0.02).all(axis=-1)


def test_certain_picks_are_drawn_at_their_time_in_their_colour(tmp_path: Path) -> None:
    table = picks(("A", "P", 15.0, 1.0), ("A", "S", 45.0, 1.0))
    image = draw(tmp_path / "o.png", [trace("A")], table)
    columns = {phase: np.flatnonzero(coloured(image, phase).any(axis=0)) for phase in "PS"}
    assert columns["P"].size and columns["S"].size
    distance = columns["S"].mean() - columns["P"].mean()
    # Half a minute of the minute that fills most of the picture's width.
    assert 0.40 * image.shape[1] < distance < 0.5 * image.shape[1]


def test_an_uncertain_pick_is_fainter(tmp_path: Path) -> None:
    sure = draw(tmp_path / "sure.png", [trace("A")], picks(("A", "P", 15.0, 1.0)))
    unsure = draw(tmp_path / "unsure.png", [trace("A")], picks(("A", "P", 15.0, 0.1)))
    assert coloured(sure, "P").any()
    assert not coloured(unsure, "P").any()
    blank = draw(tmp_path / "none.png", [trace("A")], picks())
    assert (unsure != blank)[40:].any()


def test_pieces_of_one_trace_share_a_row_and_stations_do_not(tmp_path: Path) -> None:
    later = trace("A", start_ns=START_NS + 70_000_000_000)
    one = draw(tmp_path / "one.png", [trace("A"), later], picks())
    many = draw(tmp_path / "many.png", [trace(f"S{n}") for n in range(20)], picks())
    assert many.shape[0] > one.shape[0]
    both = draw(tmp_path / "both.png", [trace("A"), trace("A", "HHN"), later], picks())
    assert np.array_equal(one, both), "the vertical component stands for the station"


def test_the_stations_with_the_most_picks_are_kept(tmp_path: Path) -> None:
    traces = [trace(f"S{n:02d}") for n in range(30)]
    table = picks(("S29", "P", 15.0, 1.0))
    image = draw(tmp_path / "o.png", traces, table, max_traces=5)
    assert coloured(image, "P").any()
    assert image.shape[0] < draw(tmp_path / "all.png", traces, table).shape[0]


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros(6000, np.float32),
        np.full(6000, np.nan),
        np.array([1.0]),
        np.array([], np.float32),
        np.where(np.arange(600_000) % 1000, 1.0, np.inf),
        np.arange(1_000_001, dtype=np.int32),
    ],
    ids=["flat", "nan", "single", "empty", "inf", "ramp"],
)
def test_odd_samples_are_drawn(tmp_path: Path, samples: np.ndarray) -> None:
    table = picks(("B", "P", 15.0, 1.0))
    image = draw(tmp_path / "o.png", [trace("A", samples=samples), trace("B")], table)
    assert image.ndim == 3


def test_nothing_at_all_is_drawn(tmp_path: Path) -> None:
    image = draw(tmp_path / "o.png", [], picks())
    assert (image[..., :3] < 0.5).any(), "it says that there is nothing"


def test_picks_of_stations_that_are_not_shown_do_not_matter(tmp_path: Path) -> None:
    image = draw(tmp_path / "o.png", [trace("A")], picks(("ELSE", "P", 15.0, 1.0)))
    assert not coloured(image, "P").any()


@pytest.mark.slow
def test_a_day_is_hardly_more_work_than_minutes(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).standard_normal(8_640_000).astype(np.float32)

    def work(length: int) -> int:
        traces = [trace(f"S{n}", samples=samples[:length]) for n in range(10)]
        return calls(draw, tmp_path / "o.png", traces, picks())

    work(60_000)  # imports
    # Without reducing the traces there is work for each sample, 144 times as many.
    assert work(samples.size) < 2 * work(60_000)


def test_the_same_input_gives_the_same_file(tmp_path: Path) -> None:
    table = picks(("A", "P", 15.0, 0.7))
    draw(tmp_path / "a.png", [trace("A")], table)
    draw(tmp_path / "b.png", [trace("A")], table)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_the_other_phase_hides_no_pick(tmp_path: Path) -> None:
    """P keeps to the upper half of a row and S to the lower one, also at the same time."""
    table = picks(("A", "P", 30.0, 1.0), ("A", "S", 30.0, 1.0))
    image = draw(tmp_path / "o.png", [trace("A")], table)
    rows = {phase: np.flatnonzero(coloured(image, phase).any(axis=1)) for phase in "PS"}
    assert len(rows["P"]) == len(rows["S"]) > 5
    assert rows["P"].max() < rows["S"].min()


@pytest.mark.parametrize("rate", [40.0, 100.0])
def test_the_microseism_is_filtered(rate: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.ndimage import uniform_filter1d

    monkeypatch.setattr(traces, "_BLOCK", 999)  # in many blocks, as a day is
    seconds = np.arange(round(60 * rate)) / rate
    samples = 5000.0 + 1e5 * np.sin(2 * np.pi * 0.15 * seconds)
    burst = 1e4 * np.sin(2 * np.pi * 8 * seconds)
    samples[round(30 * rate) :] += burst[round(30 * rate) :]
    found = highpassed(trace("A", samples=samples, sampling_rate=rate)).samples
    assert found.dtype == np.float32 and found.shape == samples.shape
    inside = slice(round(rate), -round(rate))
    wanted = samples - uniform_filter1d(samples, 2 * round(rate / 2) + 1)
    assert np.abs(found - wanted)[inside].max() < 0.05
    before, after = found[round(rate) : round(29 * rate)], found[round(31 * rate) : -round(rate)]
    assert np.abs(before).max() < 0.05 * 1e5 < np.abs(after).max()


def test_what_is_no_number_stays_alone_and_slow_channels_as_they_are() -> None:
    samples = np.arange(1000.0)
    samples[100] = np.nan
    found = highpassed(trace("A", samples=samples)).samples
    assert np.flatnonzero(~np.isfinite(found)).tolist() == [100]
    slow = trace("A", samples=samples, sampling_rate=1.0)
    assert highpassed(slow) is slow


@pytest.mark.slow
def test_a_run_says_what_its_picture_leaves_out(
    labelled: Path, imported_model: str, pick: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks other than the one with the most picks, and what the filter removes."""
    from eqcctpro.report.raster import Paper

    written: list[str] = []
    monkeypatch.setattr(Paper, "write", lambda _, *given: written.append(given[2]))
    pick(labelled, model=imported_model, overview=True, stations="AR,GDXB,OMMB")
    (said,) = [text for text in written if "filtered" in text]
    assert said == (
        "This is the time chunk with the most picks, of 5. "
        "Traces are high-pass filtered at about 1 Hz for this picture only."
    )


@pytest.mark.slow
def test_a_run_says_how_many_of_its_stations_the_picture_shows(
    generated_network: tuple[Path, list[Any]],
    imported_model: str,
    pick: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eqcctpro.orchestration import outputs
    from eqcctpro.report.raster import Paper

    written: list[str] = []
    write = Paper.write

    def keep(self: Paper, x: float, y: float, text: str, *rest: Any) -> None:
        written.append(text)
        write(self, x, y, text, *rest)

    monkeypatch.setattr(Paper, "write", keep)
    monkeypatch.setattr(outputs, "OVERVIEW_TRACES", 4)
    pick(generated_network[0], model=imported_model, overview=True)
    labels = [text for text in written if text.startswith("XX.DEM")]
    assert len(labels) == 4
    assert [text for text in written if "(4 of 6 stations, those with the most picks)" in text]


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "nowhere").touch()
    with pytest.raises(OutputError, match="nowhere"):
        draw_overview(tmp_path / "nowhere" / "o.png", [trace("A")], picks(), title="A run")


def test_drawing_imports_neither_matplotlib_nor_scipy(tmp_path: Path) -> None:
    code = """
        import sys, numpy, pyarrow
        from eqcctpro.report.overview import draw_overview
        from eqcctpro.report.traces import OverviewTrace
        trace = OverviewTrace("XX.A..HHZ", 0, 100.0, numpy.arange(6000), "XX.A")
        times = pyarrow.timestamp("us")
        kinds = {"network": "string", "station": "string", "phase": "string", "time": times}
        kinds["probability"] = "float32"
        nothing = pyarrow.table({name: pyarrow.array([], kind) for name, kind in kinds.items()})
        draw_overview(sys.argv[1], [trace], nothing, title="A run")
        # What is imported while results are written can be cut short by Ctrl-C, and costs time.
        sys.exit(bool({"matplotlib", "scipy"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "o.png")]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("rate", [7.3, 100.0, 250.0])
def test_a_column_holds_its_samples_and_meets_its_neighbours(rate: float) -> None:
    samples = np.random.default_rng(1).standard_normal(4000)
    made = trace("A", samples=samples, sampling_rate=rate)
    first, lowest, highest = columns_of(made, START_NS - 12_345_678_901, 0.9e9)
    column = np.floor((12.345678901 + np.arange(4000) / rate) / 0.9)
    groups = [samples[column == number] for number in np.unique(column)]
    assert first == column[0] and len(lowest) == len(highest) == len(groups)
    for number, group in enumerate(groups):
        edges = [(groups[number - 1][-1] + group[0]) / 2] if number else []
        edges += [(group[-1] + groups[number + 1][0]) / 2] if number + 1 < len(groups) else []
        assert lowest[number] == min(*group, *edges)
        assert highest[number] == max(*group, *edges)


@pytest.mark.parametrize("rate", [0.3, 1.0, 3.7])
def test_samples_further_apart_than_columns_are_joined_by_a_line(rate: float) -> None:
    samples = np.random.default_rng(1).standard_normal(400)
    made = trace("A", samples=samples, sampling_rate=rate)
    first, lowest, highest = columns_of(made, START_NS - 12_345_678_901, 0.05e9)
    times = (first + np.arange(len(lowest))[:, None] + np.linspace(0, 1, 50)) * 0.05
    line = np.interp((times - 12.345678901) * rate, np.arange(400), samples)[1:-1]
    # A quarter of a column may be missing at its ends.
    missing = 0.3 * 0.05 * rate * np.abs(np.diff(samples)).max()
    np.testing.assert_allclose(lowest[1:-1], line.min(axis=1), atol=missing)
    np.testing.assert_allclose(highest[1:-1], line.max(axis=1), atol=missing)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("2024-12-15T12:00:00", "2024-12-15T12:01:00", ["12:00", "12:00:10", "12:00:20"]),
        ("2024-12-15T12:00:00", "2024-12-15T12:30:00", ["12:00", "12:05", "12:10"]),
        ("2024-12-14T22:00:00", "2024-12-15T22:00:00", ["2024-12-15", "03:00", "06:00"]),
        ("2024-12-14T22:00:00", "2024-12-17T22:00:00", ["2024-12-15", "12:00", "2024-12-16"]),
        ("2024-12-14T22:00:00", "2025-12-14T22:00:00", ["2025-01-12", "2025-03-03", "2025-04-22"]),
        ("2024-12-15T12:00:00", "2024-12-15T12:00:00.2", ["12:00", "12:00:00.05", "12:00:00.10"]),
    ],
)
def test_times_are_labelled_where_they_are_round(start: str, end: str, expected: list[str]) -> None:
    span = parse_utc(start), parse_utc(end)
    ticks = time_ticks(*span, 10)
    assert 3 <= len(ticks) <= 10
    assert all(span[0] <= time <= span[1] for time, _ in ticks)
    assert len({b - a for (a, _), (b, _) in pairwise(ticks)}) == 1
    assert [text for _, text in ticks][:3] == expected
