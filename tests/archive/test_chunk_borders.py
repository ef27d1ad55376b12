"""A pick belongs to a chunk that has its data, whatever the names of folders promise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_records import START_NS, noise, records_of, write
from pymseed import MS3TraceList

from eqcctpro.archive.timechunks import borders_within_data, chunks_of_folders
from eqcctpro.times import NS_PER_S

FOLDERS = ("20241215T120000Z_20241215T121000Z", "20241215T120800Z_20241215T121800Z")
RATE = 100


def border(left: tuple[float, float], right: tuple[float, float]) -> float:
    """The border of the two folders, in seconds, for what each of them holds."""
    held = [
        (START_NS + round(first * NS_PER_S), START_NS + round(last * NS_PER_S))
        for first, last in (left, right)
    ]
    first, second = borders_within_data(chunks_of_folders(FOLDERS), held)
    assert first.own_end_ns == second.own_start_ns
    return (first.own_end_ns - START_NS) / NS_PER_S


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ((0, 600), (480, 1080), 540),  # as the names say
        ((0, 603), (477, 1080), 540),  # whole records reach over
        ((0, 500), (480, 1080), 490),  # the first one ends early
        ((0, 600), (590, 1080), 595),  # the second one begins late
        ((0, 470), (480, 1080), 475),  # a gap before the border
        ((0, 530), (550, 1080), 540),  # a gap around it
    ],
)
def test_borders(left: tuple[float, float], right: tuple[float, float], expected: float) -> None:
    assert border(left, right) == expected


def test_a_chunk_whose_neighbour_holds_its_time_owns_nothing() -> None:
    """What it has may be shorter than a window."""
    names = (*FOLDERS, "20241215T121600Z_20241215T122600Z")
    chunks = chunks_of_folders(names)

    def spans(*held: tuple[float, float]) -> list[tuple[int, int]]:
        return [(START_NS + round(a * NS_PER_S), START_NS + round(b * NS_PER_S)) for a, b in held]

    first, second, third = borders_within_data(chunks, spans((0, 490), (480, 490), (1000, 1500)))
    assert second.own_start_ns == second.own_end_ns
    assert first.own_end_ns == third.own_start_ns
    assert START_NS + 490 * NS_PER_S < first.own_end_ns <= START_NS + 1000 * NS_PER_S
    first, second, third = borders_within_data(chunks, spans((550, 600), (480, 1080), (960, 1500)))
    assert first.own_start_ns == first.own_end_ns == second.own_start_ns
    assert second.own_end_ns == third.own_start_ns == START_NS + 1020 * NS_PER_S


@pytest.mark.slow
@pytest.mark.parametrize("timechunk", [None, 5.0])
def test_gaps_of_one_folder_are_filled_from_its_neighbour(
    generated_network: Any, imported_model: str, pick: Any, tmp_path: Path, timechunk: float | None
) -> None:
    """The second folder lacks the minute of an arrival behind the border, which the first has."""
    length = 18 * 60 * RATE
    for seed, letter in enumerate("ZNE"):
        (path,) = generated_network[0].glob(f"*/DEM01/*H{letter}__*.mseed")
        traces = MS3TraceList()
        traces.add_file(str(path), unpack_data=True)
        arrival = traces[0][0].np_datasamples.astype(np.int32)[: 60 * RATE]
        data = noise(length / RATE, seed=seed, size=30)
        data[540 * RATE : 600 * RATE] = arrival
        for station, spans in (("FULL", ((480, 1080),)), ("HOLE", ((480, 541), (599, 1080)))):
            code = f"XX.{station}.00.HH{letter}"
            for number, (first, last) in enumerate(((0, 600), *spans)):
                start_ns = START_NS + first * NS_PER_S
                records = records_of(code, data[first * RATE : last * RATE], start_ns=start_ns)
                held = tmp_path / "archive" / FOLDERS[number > 0] / station / f"{code}.mseed"
                held.parent.mkdir(parents=True, exist_ok=True)
                with held.open("ab") as file:
                    file.write(b"".join(records))
    result = pick(
        tmp_path / "archive", model=imported_model, window_grid="absolute", timechunk=timechunk
    )
    full, hole = (result.picks[result.picks.station == name] for name in ("FULL", "HOLE"))
    assert len(full) >= 2
    for column in ("phase", "time"):
        assert hole[column].tolist() == full[column].tolist()
    assert result.summary["balanced"]
    assert set(result.summary["balance"]["not_picked"]) == {"doubled"}


@pytest.mark.slow
@pytest.mark.parametrize("grid", ["trace", "absolute"])
def test_files_that_end_early(
    generated_network: Any, imported_model: str, pick: Any, tmp_path: Path, grid: str
) -> None:
    quake = {
        path.name.split("__")[0][-1]: path for path in generated_network[0].glob("*/DEM01/*.mseed")
    }
    assert set(quake) == set("ZNE")
    length = 18 * 60 * RATE
    for seed, (letter, path) in enumerate(sorted(quake.items())):
        traces = MS3TraceList()
        traces.add_file(str(path), unpack_data=True)
        arrival = traces[0][0].np_datasamples.astype(np.int32)[: 90 * RATE]
        data = noise(length / RATE, seed=seed, size=30)
        at = 500 * RATE  # after the early end, and before the border by the names
        data[at : at + len(arrival)] = arrival
        for station, missing in (("FULL", 0), ("LATE", 100)):
            spans = ((0, 600 - missing), (480, 1080))
            for folder, (first, last) in zip(FOLDERS, spans, strict=True):
                code = f"XX.{station}.00.HH{letter}"
                records = records_of(
                    code, data[first * RATE : last * RATE], start_ns=START_NS + first * NS_PER_S
                )
                write(tmp_path / "archive" / folder / station / f"{code}.mseed", records)
    picks = pick(tmp_path / "archive", model=imported_model, window_grid=grid).picks
    full, late = (picks[picks.station == name] for name in ("FULL", "LATE"))
    assert len(full) >= 2
    assert sorted(late.phase) == sorted(full.phase)
    times = [frame.sort_values("time").time.astype("int64").to_numpy() for frame in (full, late)]
    assert np.abs(times[0] - times[1]).max() <= 20_000_000
