"""The samples of an input are picked, or counted by the reason why they are not."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from field_records import START_NS, noise, records_of, write
from pymseed import MS3Record

from eqcctpro.errors import OutputError
from eqcctpro.times import NS_PER_S, format_utc

RATE = 100
WINDOW = 6000  # samples of the model's windows


def samples_in(
    files: Iterable[Path], start_s: float = -np.inf, end_s: float = np.inf, channels: str = ""
) -> int:
    """Samples of records, one after the other, between two times in seconds behind the start."""
    total = 0
    for path in files:
        for record in MS3Record.from_file(str(path)):
            if channels and record.sourceid.rsplit("_", 1)[-1] not in channels:
                continue
            first = (record.starttime - START_NS) / NS_PER_S
            times = first + np.arange(record.samplecnt) / record.samprate
            total += int(((times >= start_s - 1e-6) & (times < end_s - 1e-6)).sum())
    return total


def station(
    folder: Path, name: str, seconds: float = 300, letters: str = "ZNE", start_s: float = 0
) -> list[Path]:
    """A file for each component."""
    files = []
    for seed, letter in enumerate(letters):
        code = f"XX.{name}.00.HH{letter}"
        start_ns = START_NS + round(start_s * NS_PER_S)
        records = records_of(code, noise(seconds, seed=seed), start_ns=start_ns)
        files.append(write(folder / f"{code}.{start_s:g}.mseed", records))
    return files


@pytest.fixture
def balance(pick: Any, imported_model: str) -> Any:
    """Pick an archive, and compare the balances of the summary and of the table of tasks."""

    def run(archive: Path, **settings: Any) -> dict[str, Any]:
        result = pick(archive, model=imported_model, **settings)
        found: dict[str, Any] = result.summary["balance"]
        assert result.summary["balanced"]
        assert found["input"] == found["picked"] + sum(found["not_picked"].values())
        table = result.tasks
        for row in table.to_pylist():
            causes = [row[name] for name in row if name.startswith("samples_")][2:]
            assert row["samples_input"] == row["samples_picked"] + sum(causes)
            assert min(causes) >= 0
        by_name = {
            name.removeprefix("samples_"): sum(table[name].to_pylist())
            for name in table.column_names
            if name.startswith("samples_")
        }
        assert by_name.pop("input") == found["input"] - found["by_file_ends"]
        assert by_name.pop("picked") == found["picked"]
        if not found["by_file_ends"]:
            assert {cause: n for cause, n in by_name.items() if n} == found["not_picked"]
        lines = [line for line in result.problems if "samples:" in line]
        assert bool(lines) == bool(set(found["not_picked"]) - {"doubled"})
        return found

    return run


def test_a_tidy_archive_is_picked_whole(balance: Any, tmp_path: Path) -> None:
    files = station(tmp_path, "AAA") + station(tmp_path, "BBB", 200)
    found = balance(tmp_path)
    assert found["input"] == found["picked"] == samples_in(files) == 3 * 500 * RATE
    assert found["not_picked"] == {}


@pytest.mark.slow
@pytest.mark.parametrize(("timechunk", "overlap"), [(1, 0), (2, 1), (3, 0.5)])
def test_samples_of_overlapping_chunks_count_once(
    balance: Any, tmp_path: Path, timechunk: float, overlap: float
) -> None:
    files = station(tmp_path, "AAA") + station(tmp_path, "BBB", 200, start_s=33.333)
    found = balance(tmp_path, timechunk=timechunk, overlap=overlap)
    assert found["input"] == found["picked"] == samples_in(files)


@pytest.mark.slow
def test_only_what_is_asked_for_counts(balance: Any, tmp_path: Path) -> None:
    files = station(tmp_path, "AAA")
    start, end = (format_utc(START_NS + round(s * NS_PER_S)) for s in (50.005, 250))
    for settings in ({}, {"timechunk": 1, "overlap": 0.25}):
        found = balance(tmp_path, start=start, end=end, **settings)
        assert found["input"] == found["picked"] == samples_in(files, 50.005, 250)


@pytest.mark.slow
def test_samples_that_are_not_picked(balance: Any, write_mseed: Any, tmp_path: Path) -> None:
    """A stretch too short, one of no numbers, doubled and contradicting records, a component."""
    files = station(tmp_path, "AAA", letters="ZNE")
    files += station(tmp_path, "AAA", 20, start_s=310)  # shorter than a window
    files += station(tmp_path, "AAA", letters="U")  # of no use
    whole = noise(300, seed=0)
    doubled = whole[2000:5000]
    other = whole[10_000:14_000].copy()
    other[1000:3000] += 7  # 20 s contradict
    for name, at, data in (("doubled", 2000, doubled), ("other", 10_000, other)):
        records = records_of("XX.AAA.00.HHZ", data, start_ns=START_NS + at * 10_000_000)
        files.append(write(tmp_path / f"{name}.mseed", records))
    broken = noise(300, seed=1).astype("f4")
    broken[15_000:15_100] = np.nan
    for letter in "ZNE":
        path = tmp_path / f"BBB.{letter}.mseed"
        files.append(write_mseed(path, f"XX.BBB.00.HH{letter}", [(START_NS, broken)]))
    found = balance(tmp_path)
    assert found["input"] == samples_in(files)
    assert found["not_picked"] == {
        "component_not_used": 300 * RATE,
        "shorter_than_window": 3 * 20 * RATE,
        # The overlap with the earlier record, and what agrees around the contradiction.
        "doubled": 3000 + 2000,
        "contradicting": 2 * 2000,
        "not_a_number": 300,
    }


@pytest.mark.slow
def test_stations_of_which_nothing_is_picked(balance: Any, tmp_path: Path) -> None:
    short = station(tmp_path, "SHRT", 30)
    files = station(tmp_path, "GOOD")
    silent = write(tmp_path / "zero", records_of("XX.ZERO.00.HHZ", np.zeros(9000, np.int32)))
    strange = write(tmp_path / "strange", records_of("XX.ODD.00.HHX", noise(90)))
    found = balance(tmp_path)
    assert found["input"] == samples_in([*short, *files, silent, strange])
    assert found["not_picked"] == {
        "shorter_than_window": 9000,
        "all_zero": 9000,
        "component_not_used": 9000,
    }


@pytest.mark.slow
def test_strict(balance: Any, tmp_path: Path) -> None:
    files = station(tmp_path, "AAA", 200, letters="ZN") + station(tmp_path, "BBB", 300, letters="Z")
    files += station(tmp_path, "AAA", 300, letters="E", start_s=100)
    found = balance(tmp_path, model_arguments={"strict": True})
    assert found["input"] == samples_in(files)
    assert found["not_picked"] == {"components_missing": (2 * 100 + 200 + 300) * RATE}


@pytest.mark.slow
def test_horizontal_components_of_both_names(balance: Any, tmp_path: Path) -> None:
    station(tmp_path, "AAA", letters="ZNE")
    station(tmp_path, "AAA", 100, letters="12", start_s=100)
    found = balance(tmp_path)
    assert found["not_picked"] == {"component_not_used": 2 * 100 * RATE}


@pytest.mark.slow
@pytest.mark.parametrize("rates", [(50,), (200,), (40,), (100, 200), (125, 100)])
def test_other_rates(
    balance: Any, write_mseed: Any, tmp_path: Path, rates: tuple[int, ...]
) -> None:
    expected = 0
    for number, rate in enumerate(rates):
        for letter in "ZNE":
            data = noise(200, rate=rate, seed=number)
            start_ns = START_NS + number * 200 * NS_PER_S
            path = tmp_path / f"{rate}.{letter}.mseed"
            write_mseed(path, f"XX.AAA.00.HH{letter}", [(start_ns, data)], float(rate))
            expected += len(data)
    for settings in ({}, {"timechunk": 2, "overlap": 0.5}):
        found = balance(tmp_path, **settings)
        assert found["input"] == found["picked"] == expected


@pytest.mark.slow
def test_a_station_that_fails(
    balance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eqcctpro.orchestration import worker
    from eqcctpro.sources import feeder

    files = station(tmp_path, "AAA") + station(tmp_path, "BBB")

    def breaks(waveforms: Any, *others: Any) -> Any:
        if waveforms.segments[0].code.station == "BBB":
            raise ArithmeticError("a waveform that cannot be")
        return prepare(waveforms, *others)

    prepare = feeder.prepare
    monkeypatch.setattr(feeder, "prepare", breaks)
    found = balance(tmp_path)
    half = samples_in(files) // 2
    assert found == {
        **{"input": 2 * half, "picked": half, "not_picked": {"failed": half}},
        "by_file_ends": half,
    }
    monkeypatch.undo()

    def full(*_: Any) -> None:
        raise OutputError("no space")

    monkeypatch.setattr(worker, "write_curves", full)
    found = balance(tmp_path, annotations=True, timechunk=2, overlap=0)
    assert (found["input"], found["by_file_ends"]) == (2 * half, 0)
    assert found["not_picked"] == {"failed": 2 * half}


@pytest.mark.slow
def test_hours_are_those_of_data(pick: Any, imported_model: str, tmp_path: Path) -> None:
    """A record that comes late makes no day of data."""
    for letter in "ZNE":
        code = f"XX.LATE.00.HH{letter}"
        early = records_of(code, noise(90))
        late = records_of(code, noise(0.5), start_ns=START_NS + 86_390 * NS_PER_S)
        write(tmp_path / "archive" / f"{code}.mseed", early + late)
    result = pick(tmp_path / "archive", model=imported_model)
    assert result.summary["station_hours"] == pytest.approx((89.99 + 0.49) / 3600, abs=1e-5)


@pytest.mark.slow
def test_notes_are_told_once(pick: Any, imported_model: str, tmp_path: Path) -> None:
    """However many files say the same, and however many stations read a file."""
    from eqcctpro.pipeline.prepare import told_once

    assert told_once(["a", "b", "a", "a"]) == ("a (3 times)", "b")
    files = station(tmp_path, "AAA")
    files[0].write_bytes(files[0].read_bytes() + b"\0" * 700)
    log = b"".join(records_of("XX.AAA.00.LOG", noise(5, rate=0.5), rate=0.5))
    files[1].write_bytes(files[1].read_bytes() + log * 15)
    result = pick(tmp_path, model=imported_model)
    (noted,) = result.summary["notes"]
    assert len(noted["notes"]) == len(set(noted["notes"]))
