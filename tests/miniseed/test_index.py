"""What files hold, whatever the order of their records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_records import START_NS, in_time_order, noise, records_of, write

from eqcctpro.miniseed.index import index_file

S = 10**9


def held(path: Path) -> dict[str, tuple[float, float]]:
    """Channels of a file, and seconds after the start of the data."""
    return {
        ".".join(one.code): ((one.start_ns - START_NS) / S, (one.end_ns - START_NS) / S)
        for one in index_file(path).channels
    }


def channel(code: str, seconds: float, *, seed: int = 0, after: float = 0, **how: object) -> list:
    start_ns = START_NS + round(after * S)
    return records_of(code, noise(seconds, seed=seed), start_ns=start_ns, **how)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [120, 3600])
@pytest.mark.parametrize("last", ["AAA", "BBB"])
@pytest.mark.parametrize("version", [2, 3])
def test_a_ring_buffer_of_three_stations(
    tmp_path: Path, seconds: int, last: str, version: int
) -> None:
    stations = ("AAA", "BBB", "CCC")
    mixed = in_time_order(
        record
        for number, station in enumerate(stations)
        for record in channel(f"XX.{station}.00.HHZ", seconds, seed=number, version=version)
    )
    end = next(i for i in reversed(range(len(mixed))) if last.encode() in mixed[i][:60])
    mixed.append(mixed.pop(end))
    first = next(i for i in range(len(mixed)) if b"AAA" in mixed[i][:60])
    mixed.insert(0, mixed.pop(first))
    found = held(write(tmp_path / "dump", mixed))
    assert found == {f"XX.{name}.00.HHZ": (0, seconds - 0.01) for name in stations}


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_another_channel_in_the_middle(tmp_path: Path, share: float) -> None:
    one = channel("XX.AAA.00.HHZ", 3600)
    other = channel("XX.BBB.00.HHZ", 3600 * share, seed=1, after=100)
    half = len(one) // 2
    found = held(write(tmp_path / "file", one[:half] + other + one[half:]))
    assert set(found) == {"XX.AAA.00.HHZ", "XX.BBB.00.HHZ"}


@pytest.mark.parametrize("late", [(900, 1800), (3000, 3400), (3100, 3350)])
def test_records_that_came_late(tmp_path: Path, late: tuple[int, int]) -> None:
    records = channel("XX.AAA.00.HHZ", 3600)
    begin, end = (len(records) * at // 3600 for at in late)
    path = write(tmp_path / "file", records[:begin] + records[end:] + records[begin:end])
    assert held(path) == {"XX.AAA.00.HHZ": (0, 3599.99)}


def test_records_backwards(tmp_path: Path) -> None:
    path = write(tmp_path / "file", channel("XX.AAA.00.HHZ", 3600)[::-1])
    assert held(path) == {"XX.AAA.00.HHZ": (0, 3599.99)}


@pytest.mark.parametrize("length", [512, 4096])
@pytest.mark.parametrize("version", [2, 3])
def test_tidy_files_are_not_scanned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int, version: int
) -> None:
    from eqcctpro.miniseed import index

    path = write(tmp_path / "file", channel("XX.AAA.00.HHZ", 7200, length=length, version=version))
    scanned: list[object] = []
    scan = index.scan
    monkeypatch.setattr(index, "scan", lambda *args: scanned.append(args) or scan(*args))
    assert held(path) == {"XX.AAA.00.HHZ": (0, 7199.99)}
    assert version == 3 or not scanned


@pytest.mark.slow
def test_what_the_ends_of_a_file_hide_is_said(
    tmp_path: Path, imported_model: str, pick: Any
) -> None:
    one = [channel(f"XX.AAA.00.HH{c}", 900, seed=n) for n, c in enumerate("ZNE")]
    few = channel("XX.BBB.00.HHZ", 20, seed=7, after=100)
    half = len(one[0]) // 2
    write(tmp_path / "in" / "z", one[0][:half] + few + one[0][half:])
    for name, records in zip("ne", one[1:], strict=True):
        write(tmp_path / "in" / name, records)
    assert "XX.BBB.00.HHZ" not in held(tmp_path / "in" / "z")  # or the test needs another file
    result = pick(tmp_path / "in", model=imported_model)
    (line,) = result.problems
    assert line.startswith("not picked: XX.BBB.00.HH in ")


@pytest.mark.slow
def test_a_dead_channel_with_an_offset_is_noted(
    tmp_path: Path, imported_model: str, pick: Any
) -> None:
    for letter in "ZNE":
        code = f"XX.AAA.00.HH{letter}"
        write(tmp_path / "in" / code, records_of(code, np.full(9000, 34)))
    result = pick(tmp_path / "in", model=imported_model)
    (noted,) = result.summary["notes"]
    assert "components E, N, Z hold a constant only: zero in every window" in noted["notes"]
