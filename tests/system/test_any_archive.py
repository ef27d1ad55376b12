"""However an archive is laid out and cut: its picks are those of one tidy file for each channel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from any_archive import AnyArchive, Channel, LaidOut, archives, write_network
from hypothesis import HealthCheck, Phase, given, settings

from eqcctpro import PickConfig, PickSession
from eqcctpro.times import parse_utc

RATES = (100.0,)
#: How many archives the long test draws.
MANY = int(os.environ.get("EQCCTPRO_TEST_ARCHIVES", "2000"))
# A few nanoseconds of a clock that is interpolated between stamps are no other time.
TIME_TOLERANCE_NS = 50_000
TOLERANCE = 1e-5


class Law:
    """Picks archives with a small network, and compares."""

    def __init__(self, folder: Path, model: str) -> None:
        self.folder = folder
        self._session = PickSession(
            PickConfig.checked(
                input=folder,
                output=folder / "out",
                model=model,
                runtime="torch",
                threads=1,
                batch_size=32,
                formats=("csv",),
                overview=False,
                journal=False,
                window_grid="absolute",
                p_threshold=0.5,
                s_threshold=0.5,
            )
        )

    def close(self) -> None:
        self._session.close()

    def pick(self, source: Path, **how: Any) -> tuple[list[Any], dict[str, Any], list[str]]:
        how = {"timechunk": None, "overlap": 0.0, **how}
        output = self.folder / "out"
        result = self._session.run(input=source, output=output, resume="never", **how)
        table = result.table
        names = ("network", "station", "location", "channel", "phase", "time", "probability")
        rows = sorted(zip(*(table[name].to_pylist() for name in names), strict=True))
        return rows, result.summary, result.problems

    def holds(self, archive: AnyArchive) -> int:
        """Compare an archive with its tidy twin, whole and in time chunks; returns the picks."""
        shutil.rmtree(self.folder, ignore_errors=True)
        tidy = archive.write_tidy(self.folder / "tidy")
        source = archive.write(self.folder)
        expected, summary, _ = self.pick(tidy)
        assert summary["balanced"]
        picked = summary["balance"]["picked"]
        length, overlap = archive.cut_min
        for how in ({}, {"timechunk": length, "overlap": overlap}):
            found, summary, problems = self.pick(source, **how)
            if not archive.drifts or (archive.is_whole and not how):
                same_picks(expected, found)
            self._adds_up(archive, summary, problems, picked, how)
        return len(expected)

    def _adds_up(
        self,
        archive: AnyArchive,
        summary: dict[str, Any],
        problems: list[str],
        picked: int,
        how: dict[str, Any],
    ) -> None:
        balance = summary["balance"]
        assert summary["balanced"] and not summary["tasks"]["failed"]
        assert balance["input"] == balance["picked"] + sum(balance["not_picked"].values())
        # At each border of time chunks a sample may have another time by another clock.
        slack = 10 * len(archive.channels) if archive.drifts else 0
        assert abs(balance["picked"] - picked) <= slack
        # Chunk folders hold what they share twice, and each of them counts what it owns.
        if archive.layout.kind != "chunks" or how:
            expected = archive.samples()
            if archive.layout.kind == "chunks":
                assert balance["input"] >= expected - slack
            else:
                assert abs(balance["input"] - expected) <= slack
        lost = set(balance["not_picked"]) - {"doubled"}
        assert bool(lost) == any("samples:" in line for line in problems)
        contradicted = any(one.contradictions for one in archive.channels)
        assert contradicted == any("contradict each other" in line for line in problems)


def same_picks(expected: list[Any], found: list[Any]) -> None:
    """The same codes and phases; times and probabilities as far as they are computed."""
    assert len(found) == len(expected), (found, expected)
    for one, other in zip(expected, found, strict=True):
        assert other[:5] == one[:5]
        assert abs((other[5] - one[5]).total_seconds()) * 1e9 <= TIME_TOLERANCE_NS
        assert other[6] == pytest.approx(one[6], abs=TOLERANCE)


@pytest.fixture(scope="module")
def law(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Law]:
    """A network with weights by chance: its picks depend on every sample of a window."""
    folder = tmp_path_factory.mktemp("law")
    write_network(folder / "weights")
    found = Law(folder / "archive", f"PhaseNet/{folder}/weights")
    yield found
    found.close()


# Whatever it finds is made smaller by the long test.
FOUND = (Phase.explicit, Phase.reuse, Phase.generate)


@pytest.mark.slow
@settings(
    phases=FOUND,
    max_examples=12,
    derandomize=True,  # new ones are for the long test
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
@given(archive=archives(RATES))
def test_any_archive(law: Law, archive: AnyArchive) -> None:
    law.holds(archive)


@pytest.mark.exhaustive
@settings(
    max_examples=MANY, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
)
@given(archive=archives(RATES))
def test_many_archives(law: Law, archive: AnyArchive) -> None:
    law.holds(archive)


def station(**how: Any) -> tuple[Channel, ...]:
    start_ns = parse_utc("2024-12-15T12:00:00")
    given = {"rate": 100.0, "start_ns": start_ns, "pieces": ((0, 30_000),), **how}
    return tuple(Channel(f"XX.AAA..HH{c}", seed=seed, **given) for seed, c in enumerate("ZNE"))


def of(channels: tuple[Channel, ...], layout: LaidOut, *cut_min: float) -> AnyArchive:
    return AnyArchive(channels, layout, channels[0].start_ns, cut_min or (2.0, 0.0))


def test_there_are_picks_to_compare(law: Law) -> None:
    assert law.holds(of(station(), LaidOut("flat", "station", "shuffled", links=True))) > 10


# What the law has found, each as small as it gets.


@pytest.mark.slow
def test_samples_behind_a_gap_are_where_they_are_in_any_chunk(law: Law) -> None:
    """Positions that are truncated depend on where a block begins."""
    vertical, *others = station(pieces=((0, 32_500),))
    vertical = replace(vertical, pieces=((0, 27_292), (27_428, 32_500)))
    law.holds(of((vertical, *others), LaidOut("flat"), 1.0, 0.0))
    first, *others = station(start_ns=parse_utc("2024-12-31T23:57:10"), pieces=((0, 20_600),))
    first = replace(first, pieces=((0, 9_538), (9_540, 11_885), (11_985, 20_600)))
    law.holds(of((first, *others), LaidOut("sds")))


@pytest.mark.parametrize(("seconds", "chunk_min"), [(70, 1.0), (130, 2.0)])
def test_a_folder_with_the_end_of_the_data_only(law: Law, seconds: int, chunk_min: float) -> None:
    """It has less than a window of what its neighbour has whole."""
    channels = station(pieces=((0, 100 * seconds),))
    law.holds(of(channels, LaidOut("chunks", chunk_min=chunk_min)))


@pytest.mark.slow
def test_a_folder_that_ends_late_in_one_component(law: Law) -> None:
    first, second, third = station(pieces=((0, 36_000),))
    channels = (first, replace(second, record_bytes=256), replace(third, record_bytes=4096))
    law.holds(of(channels, LaidOut("chunks", chunk_min=1.0)))


def test_the_last_sample_of_a_grid_of_chunks(law: Law) -> None:
    """The end of the grid is that of the data, and a pick may be there."""
    assert law.holds(of(station(pieces=((0, 5_600),)), LaidOut("flat"), 30.0, 2.0))


@pytest.mark.parametrize(
    ("drift_ppm", "record_bytes", "cuts_s"),
    [(80.0, 1024, (10.0, 25.0, 40.0)), (-237.0, 256, (10.0, 20.0))],
)
def test_files_too_short_to_show_that_a_clock_drifts_by_half_a_sample(
    law: Law, drift_ppm: float, record_bytes: int, cuts_s: tuple[float, ...]
) -> None:
    """A hundredth of a sample between them is more than there is without drift."""
    pieces = ((0, 4_800), (9_000, 13_500))
    vertical, *_ = station(drift_ppm=drift_ppm, record_bytes=record_bytes, pieces=pieces)
    law.holds(of((vertical,), LaidOut("flat", cuts_s=cuts_s)))


def test_a_missing_sample_where_a_clock_drifts(law: Law) -> None:
    """Its records join or not, whatever else is in their file."""
    vertical, north, east = station(drift_ppm=-237.0, pieces=((0, 7_100),))
    vertical = replace(vertical, pieces=((0, 2_931), (2_932, 7_100)), record_bytes=4096)
    east = replace(east, pieces=((0, 853), (854, 7_100)))
    law.holds(of((vertical, north, east), LaidOut("flat", "station", order="channel")))
    north = replace(north, pieces=((0, 20), (21, 575), (582, 1_614), (1_615, 7_100)))
    east = replace(
        east, pieces=((0, 129), (131, 313), (315, 4_275), (6_275, 7_100)), record_bytes=256
    )
    law.holds(of((vertical, north, east), LaidOut("table", "instrument", order="reversed")))


def test_a_gap_where_a_clock_drifts(law: Law) -> None:
    """Pieces that are too short to be off by half a sample have the times of their rate."""
    vertical, north, east = station(drift_ppm=-237.0, pieces=((0, 7_000),))
    east = replace(east, pieces=((0, 417), (6_417, 7_000)))
    law.holds(of((vertical, north, east), LaidOut("flat", "instrument", order="channel")))


def test_folders_that_end_with_two_samples_of_others(law: Law) -> None:
    """Where these two are in a record of a minute is told by that record's clock."""
    start_ns = parse_utc("2024-12-31T23:57:10")
    vertical, *_ = station(drift_ppm=-237.0, start_ns=start_ns, pieces=((0, 11_100),))
    law.holds(of((vertical,), LaidOut("chunks", order="channel", chunk_min=1.0), 1.0, 0.0))


def test_a_contradiction_in_a_folder_that_owns_nothing(law: Law) -> None:
    """Its neighbour holds all of its samples, in longer records, but one."""
    channels = station(
        start_ns=parse_utc("2024-03-01T23:56:30.5"), pieces=((0, 17_900),), record_bytes=4096
    )
    first, second, third = channels
    third = replace(third, contradictions=((300, 362),))
    channels = (first, replace(second, copies=((0, 2),)), third)
    law.holds(of(channels, LaidOut("chunks", order="channel", chunk_min=1.0), 1.0, 0.0))


@pytest.mark.parametrize("drift_ppm", [80.0, -237.0])
def test_windows_follow_a_clock(law: Law, drift_ppm: float) -> None:
    """Not to the last sample in any chunk, but nearly all windows are the same ones."""
    archive = of(station(drift_ppm=drift_ppm), LaidOut("flat"))
    source = archive.write_tidy(law.folder / "tidy")
    whole, _, _ = law.pick(source)
    chunks, _, _ = law.pick(source, timechunk=2.0)
    rows = [{(row[4], round(row[6], 3)) for row in found} for found in (whole, chunks)]
    assert len(rows[0]) > 100
    assert len(rows[0] & rows[1]) > 0.9 * len(rows[0])
