"""Time chunks: EQCCTPro's grid, one owner for every pick, and independence of the cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eqcctpro.archive.timechunks import Timechunk, chunk_grid, chunks_of_folders
from eqcctpro.errors import SettingsError
from eqcctpro.synthetic.network import START_NS
from eqcctpro.times import NS_PER_S, chunk_name, parse_utc

NOON = parse_utc("2024-12-15T12:00:00")
MINUTE = 60 * NS_PER_S
CONTINUOUS_START = parse_utc("2024-02-03T05:14:28")


class TestGrid:
    def names(self, end: str, *, length: float, overlap: float) -> list[str]:
        chunks = chunk_grid(NOON, parse_utc(end), length_min=length, overlap_min=overlap)
        return [f"{c.name[9:13]}-{c.name[26:30]}" for c in chunks]

    def test_an_hour_in_two(self) -> None:
        found = self.names("2024-12-15T13:00:00", length=30, overlap=2)
        assert found == ["1158-1230", "1228-1300"]

    def test_the_last_chunk_is_cut_at_the_end(self) -> None:
        found = self.names("2024-12-15T13:00:00", length=25, overlap=2)
        assert found == ["1158-1225", "1223-1250", "1248-1300"]

    def test_one_chunk_that_is_longer_than_the_span(self) -> None:
        assert self.names("2024-12-15T12:10:00", length=30, overlap=0) == ["1200-1210"]

    def test_full_name(self) -> None:
        (chunk,) = chunk_grid(NOON, NOON + MINUTE, length_min=1, overlap_min=0.5)
        assert chunk.name == "20241215T115930Z_20241215T120100Z"

    @pytest.mark.parametrize(
        ("end", "length", "overlap"), [(NOON, 1, 0), (NOON + 1, 0, 0), (NOON + 1, 1, 1)]
    )
    def test_impossible(self, end: int, length: float, overlap: float) -> None:
        with pytest.raises(SettingsError):
            chunk_grid(NOON, end, length_min=length, overlap_min=overlap)


def owners(chunks: Sequence[Timechunk], time_ns: int) -> list[str]:
    return [chunk.name for chunk in chunks if chunk.own_start_ns <= time_ns < chunk.own_end_ns]


class TestOwners:
    @pytest.mark.slow
    @given(
        span_s=st.integers(1, 20_000),
        length_min=st.floats(0.1, 120),
        overlap=st.floats(0, 0.99),
        share=st.floats(0, 1, exclude_max=True),
    )
    def test_every_moment_of_a_grid_has_one_owner_that_reads_it(
        self, span_s: int, length_min: float, overlap: float, share: float
    ) -> None:
        end = NOON + span_s * NS_PER_S
        chunks = chunk_grid(NOON, end, length_min=length_min, overlap_min=overlap * length_min)
        moment = NOON + int(share * span_s * NS_PER_S)
        assert len(owners(chunks, moment)) == 1
        for chunk in chunks:
            assert chunk.read_start_ns is not None and chunk.read_end_ns is not None
            assert chunk.read_start_ns <= chunk.own_start_ns <= chunk.own_end_ns
            assert chunk.own_end_ns <= chunk.read_end_ns
        assert owners(chunks, NOON - 1) == owners(chunks, end) == []

    @given(
        spans=st.lists(
            st.tuples(st.integers(0, 5000), st.integers(1, 5000)), min_size=1, max_size=8
        ),
        moment=st.integers(-1000, 12_000),
    )
    def test_every_moment_of_folders_has_one_owner(
        self, spans: list[tuple[int, int]], moment: int
    ) -> None:
        names = [chunk_name(NOON + a * NS_PER_S, NOON + (a + n) * NS_PER_S) for a, n in spans]
        chunks = chunks_of_folders(names)
        assert len(owners(chunks, NOON + moment * NS_PER_S)) == 1

    def test_the_border_is_in_the_middle_of_what_neighbours_share(self) -> None:
        first, second = chunk_grid(NOON, NOON + 60 * MINUTE, length_min=30, overlap_min=2)
        assert first.own_start_ns == NOON and second.own_end_ns == NOON + 60 * MINUTE
        assert first.own_end_ns == second.own_start_ns == NOON + 29 * MINUTE


Rows = list[tuple[str, int, int, int, float]]


def rows(table: Any) -> Rows:
    """Phase, times and probability of every pick, in order of phase and time."""
    frame = table.to_pandas()
    return sorted(
        (row.phase, row.time.value, row.start_time.value, row.end_time.value, row.probability)
        for row in frame.itertuples()
    )


def assert_equal(found: Rows, expected: Rows) -> None:
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours[0] == theirs[0]
        assert np.abs(np.subtract(ours[1:4], theirs[1:4])).max() <= 1000  # 1e-6 s
        assert ours[4] == pytest.approx(theirs[4], abs=1e-6)


def nearest(found: Rows, expected: Rows) -> np.ndarray:
    """Seconds from every expected pick to the nearest found one of its phase."""
    distances = []
    for phase, time_ns, *_ in expected:
        times = np.array([other[1] for other in found if other[0] == phase])
        distances.append(np.abs(times - time_ns).min() / NS_PER_S)
    return np.array(distances)


def assert_none_doubled(found: Rows, seconds: float = 0.1) -> None:
    for phase in ("P", "S"):
        times = np.array(sorted(row[1] for row in found if row[0] == phase))
        assert np.diff(times).min() > seconds * NS_PER_S


@pytest.fixture(scope="session")
def reference(pick: Any, continuous: Path, seisbench_cache: Path) -> Callable[[str, str], Rows]:
    """Picks of the two hours as one chunk."""
    known: dict[tuple[str, str], Rows] = {}

    def run(model: str, grid: str) -> Rows:
        if (model, grid) not in known:
            result = pick(continuous, model=model, window_grid=grid)
            known[model, grid] = rows(result.table)
        return known[model, grid]

    return run


@pytest.fixture(scope="session")
def pieces_on_disk(
    continuous: Path, write_mseed: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The two hours in folders of 12 min that begin 2 min before the one before ends."""
    import obspy

    archive = tmp_path_factory.mktemp("pieces")
    for path in continuous.glob("*/*/*.mseed"):
        (trace,) = obspy.read(str(path))
        start = trace.stats.starttime
        for begin in range(0, 7200, 600):
            first = max(begin - 120, 0)
            piece = trace.slice(start + first, start + begin + 600)
            name = chunk_name(
                CONTINUOUS_START + first * NS_PER_S, CONTINUOUS_START + (begin + 600) * NS_PER_S
            )
            out = archive / name / "WILZ" / f"{trace.id}__{begin}.mseed"
            write_mseed(out, trace.id, [(piece.stats.starttime.ns, piece.data)])
    assert len(list(archive.iterdir())) == 12
    return archive


# The record begins 28 s past a minute; chunks of whole minutes cut it anywhere.
GRID = {"start": "2024-02-03T05:14:28", "end": "2024-02-03T07:14:28.01", "overlap": 2.0}
SLOW = pytest.mark.slow


@pytest.mark.slow
class TestContinuousRecord:
    @pytest.mark.parametrize(
        ("model", "minutes"),
        [
            ("PhaseNet/original", 10),
            ("PhaseNet/original", 20),
            ("PhaseNet/original", 30),
            pytest.param("EQTransformer/original", 10, marks=pytest.mark.exhaustive),
            pytest.param("EQTransformer/original", 20, marks=pytest.mark.exhaustive),
            pytest.param("EQTransformer/original", 30, marks=pytest.mark.exhaustive),
        ],
    )
    def test_absolute_grid_gives_the_picks_of_one_chunk(
        self, pick: Any, continuous: Path, reference: Any, model: str, minutes: int
    ) -> None:
        result = pick(continuous, model=model, window_grid="absolute", timechunk=minutes, **GRID)
        assert result.summary["plan"]["timechunks"] == -(-7201 // (60 * minutes))
        assert len(set(result.table["timechunk"].to_pylist())) > 3
        assert_equal(rows(result.table), reference(model, "absolute"))

    @pytest.mark.parametrize(
        "model", ["PhaseNet/original", pytest.param("EQTransformer/original", marks=SLOW)]
    )
    def test_absolute_grid_on_folders_gives_the_picks_of_one_chunk(
        self, pick: Any, pieces_on_disk: Path, reference: Any, model: str
    ) -> None:
        result = pick(pieces_on_disk, model=model, window_grid="absolute")
        assert (
            result.summary["plan"] | {"layout": "chunks", "timechunks": 12}
            == (result.summary["plan"])
        )
        assert_equal(rows(result.table), reference(model, "absolute"))

    def test_folders_read_in_other_chunks_give_the_picks_of_one_chunk(
        self, pick: Any, pieces_on_disk: Path, reference: Any
    ) -> None:
        result = pick(
            pieces_on_disk,
            model="PhaseNet/original",
            window_grid="absolute",
            timechunk=17,
            **GRID,
        )
        assert_equal(rows(result.table), reference("PhaseNet/original", "absolute"))

    @pytest.mark.parametrize("minutes", [10, 20, 30, None])
    @pytest.mark.parametrize(
        "model",
        ["PhaseNet/original", pytest.param("EQTransformer/original", marks=pytest.mark.exhaustive)],
    )
    def test_trace_grid_nearly_gives_the_picks_of_one_chunk(
        self,
        pick: Any,
        continuous: Path,
        pieces_on_disk: Path,
        reference: Any,
        model: str,
        minutes: int | None,
    ) -> None:
        bar = 0.95
        if minutes is None:
            # A file does not say how its first sample lies in the record that it was cut
            # from: windows start there, and PhaseNet's step does not divide 10 min.
            bar = 0.85
            result = pick(pieces_on_disk, model=model)
        else:
            result = pick(continuous, model=model, timechunk=minutes, **GRID)
        found, expected = rows(result.table), reference(model, "trace")
        for one, other in ((found, expected), (expected, found)):
            sure = [row for row in one if row[4] > 0.5]
            assert np.mean(nearest(other, sure) <= 0.02) >= bar
        assert_none_doubled(found)

    def test_picks_outside_the_span_are_dropped_and_counted(
        self, pick: Any, continuous: Path, reference: Any
    ) -> None:
        start, end = CONTINUOUS_START + 30 * MINUTE, CONTINUOUS_START + 45 * MINUTE
        result = pick(
            continuous,
            model="PhaseNet/original",
            start="2024-02-03T05:44:28Z",
            end="2024-02-03 05:59:28",
        )
        everything = reference("PhaseNet/original", "trace")
        inside = [row for row in everything if start <= row[1] < end]
        assert 0 < len(inside) < len(everything)
        assert_equal(rows(result.table), inside)
        assert result.summary["picks_outside_span"] == len(everything) - len(inside)


@pytest.fixture(scope="module")
def made_up(imported_model: str, pick: Any, generated_network: Any) -> Callable[..., Any]:
    """Pick with a model that needs no shared data."""

    def run(source: Path | None = None, **settings: Any) -> Any:
        return pick(source or generated_network[0], model=imported_model, **settings)

    return run


@pytest.fixture(scope="module")
def two_folders(write_mseed: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Six minutes of two made-up stations, in one folder, and in two that share 140 s."""
    import obspy

    from eqcctpro.synthetic.network import synthetic_network

    whole = tmp_path_factory.mktemp("whole")
    synthetic_network(whole, stations=2, duration_s=360.0)
    folders = tmp_path_factory.mktemp("folders")
    for path in whole.glob("*/*/*.mseed"):
        (trace,) = obspy.read(str(path))
        for first, last in ((0, 250), (110, 360)):
            start = START_NS + first * NS_PER_S
            name = chunk_name(start, START_NS + last * NS_PER_S)
            out = folders / name / path.parent.name / f"{trace.stats.channel}.mseed"
            write_mseed(out, trace.id, [(start, trace.data[first * 100 : last * 100])])
    return whole, folders


def replace_folder(target: Path, source: Path) -> None:
    shutil.rmtree(target)
    shutil.copytree(source, target)


@pytest.mark.slow
class TestFolders:
    def test_every_chunk_has_its_own_output(
        self, made_up: Any, two_folders: tuple[Path, Path], tmp_path: Path
    ) -> None:
        made_up(two_folders[1], output=tmp_path, formats=("csv", "eqcctpro"))
        found = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*/*.csv"))
        chunks = [path.name for path in sorted(two_folders[1].iterdir())]
        assert found == [
            f"{chunk}/{station}_outputs/X_prediction_results.csv"
            for chunk in chunks
            for station in ("DEM01", "DEM02")
        ]
        texts = {(tmp_path / path).read_text() for path in found}
        assert len(texts) == 4

    def test_no_pick_is_lost_or_doubled(self, made_up: Any, two_folders: tuple[Path, Path]) -> None:
        whole, folders = (made_up(path, window_grid="absolute") for path in two_folders)
        assert whole.counts["picks"] >= 22
        assert set(folders.table["timechunk"].to_pylist()) == {
            path.name for path in two_folders[1].iterdir()
        }
        for station in ("DEM01", "DEM02"):
            of_station = pc.field("station") == station
            assert_equal(
                rows(folders.table.filter(of_station)), rows(whole.table.filter(of_station))
            )

    def test_a_station_that_is_only_in_the_first_folder_keeps_its_surplus(
        self, made_up: Any, two_folders: tuple[Path, Path], tmp_path: Path
    ) -> None:
        archive = Path(shutil.copytree(two_folders[1], tmp_path / "archive"))
        first, second = sorted(archive.iterdir())
        shutil.rmtree(second / "DEM01")
        # Its file holds more than the folder's name says.
        replace_folder(first / "DEM01", next(two_folders[0].glob("*/DEM01")))
        result = made_up(archive)
        assert result.summary["tasks"]["done"] == 3
        complete = made_up(two_folders[0]).picks
        expected = complete[complete["station"] == "DEM01"]
        found = result.picks[result.picks["station"] == "DEM01"]
        assert list(found["time"]) == list(expected["time"])
        assert set(found["timechunk"]) == {first.name}

    def test_surplus_is_context_where_the_neighbour_has_the_station(
        self, made_up: Any, two_folders: tuple[Path, Path], tmp_path: Path
    ) -> None:
        archive = Path(shutil.copytree(two_folders[1], tmp_path / "archive"))
        first, second = sorted(archive.iterdir())
        for folder in (first, second):
            for station in ("DEM01", "DEM02"):
                replace_folder(folder / station, next(two_folders[0].glob(f"*/{station}")))
        result = made_up(archive).picks
        expected = made_up(two_folders[0]).picks
        assert list(result["time"]) == list(expected["time"])
        border = START_NS + 180 * NS_PER_S
        for name, times in result.groupby("timechunk")["time"]:
            assert {time.value < border for time in times} == {name == first.name}

    def test_span_cuts_folders_too(self, made_up: Any, two_folders: tuple[Path, Path]) -> None:
        everything = made_up(two_folders[1])
        result = made_up(two_folders[1], start="2024-12-15T12:01:00", end="2024-12-15T12:03:00")
        start, end = START_NS + MINUTE, START_NS + 3 * MINUTE
        expected = [time for time in everything.picks["time"] if start <= time.value < end]
        assert list(result.picks["time"]) == expected != []
        assert result.summary["picks_outside_span"] > 0

    def test_chunks_without_data_are_left_out(self, made_up: Any) -> None:
        result = made_up(start="2024-12-15T11:50:00", end="2024-12-15T12:10:00", timechunk=5.0)
        assert result.summary["plan"]["station_tasks"] == 6
        assert result.summary["balanced"]
