"""Plans and picks that are held as columns say what objects would."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest

from eqcctpro.archive import texts
from eqcctpro.archive.coverage import station_hours
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.models.weight_files import split_name
from eqcctpro.models.weights import find_weights
from eqcctpro.orchestration.task_records import TaskRecords
from eqcctpro.picks.raw import TaskPicks
from eqcctpro.picks.table import PickRows
from eqcctpro.picks.writers import CSV_ROWS, write_csv, write_parquet
from eqcctpro.pipeline.records import PickOutcome
from eqcctpro.runtimes.select import load_picker
from eqcctpro.synthetic.network import START_NS

SECOND = 10**9
HOUR = 3600 * SECOND


@pytest.fixture(scope="module")
def archive(write_mseed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three hours of two stations with several locations and instruments, and holes."""
    root = tmp_path_factory.mktemp("archive") / "für Ürümqi"
    held = [
        ("A", "", "HH", [(0, 5000), (7000, 3000)]),
        ("A", "10", "HH", [(2000, 4000)]),
        ("A", "", "HN", [(0, 800)]),
        ("B", "", "EH", [(3000, 600), (5000, 700)]),
    ]
    for station, location, instrument, pieces in held:
        for number, (start_s, length_s) in enumerate(pieces):
            for component in "ZNE":
                code = f"XX.{station}.{location}.{instrument}{component}"
                samples = np.arange(length_s, dtype="i4")
                path = root / station / f"{number}.{code}.mseed"
                write_mseed(path, code, [(START_NS + start_s * SECOND, samples)], 1.0)
    return root


@pytest.fixture
def plan(archive: Path) -> Plan:
    return make_plan(InputSettings((archive,), timechunk_min=60.0))


def said(plan: Plan) -> list[Any]:
    """Everything that a plan holds."""
    return [list(plan.tasks), list(plan.tasks.headings()), list(plan.files), plan.skipped]


def test_many_texts_are_held_otherwise_and_say_the_same(
    archive: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = archive / "B" / b"\xff\xfe.mseed".decode("utf-8", "surrogateescape")
    (archive / "B" / "0.XX.B..EHZ.mseed").rename(strange)
    few = make_plan(InputSettings((archive,), timechunk_min=60.0))
    monkeypatch.setattr(texts, "MANY_TEXTS", 1)
    many = make_plan(InputSettings((archive,), timechunk_min=60.0))
    strange.rename(archive / "B" / "0.XX.B..EHZ.mseed")
    assert said(many) == said(few)
    assert any(str(strange) in task.files for task in many.tasks)
    assert {task.station for task in many.tasks} == {"A", "B"}


def hours_by_hand(plan: Plan, tasks: Iterable[int]) -> float:
    """Seconds of which a station has a sample, one by one."""
    seconds: dict[str, set[int]] = defaultdict(set)
    for index in tasks:
        task = plan.tasks[index]
        for file in plan.files:
            for extent in file.channels:
                if extent.code[:3] == (task.network, task.station, task.location) and (
                    extent.code[3][:-1] == task.instrument
                ):
                    first = max(extent.start_ns, task.chunk.own_start_ns)
                    last = min(extent.end_ns, task.chunk.own_end_ns)
                    # Between samples, of which there is one a second.
                    seconds[task.station].update(range(first // SECOND, last // SECOND))
    return sum(map(len, seconds.values())) / 3600


def test_hours_of_data_are_those_of_any_instrument(plan: Plan) -> None:
    everything = range(len(plan.tasks))
    assert len(plan.chunks) == 3
    assert {(t.station, t.location, t.instrument) for t in plan.tasks} == {
        *(("A", "", "HH"), ("A", "10", "HH"), ("A", "", "HN"), ("B", "", "EH")),
    }
    # Location 10 fills some of the hole of A's other one.
    assert station_hours(plan, everything) == pytest.approx(hours_by_hand(plan, everything))
    assert station_hours(plan, everything) == pytest.approx((5999 + 2999 + 599 + 699) / 3600)


@pytest.mark.parametrize("wanted", ["HN", "EH", "10", "last hour", "nothing"])
def test_hours_of_data_of_some_tasks(plan: Plan, wanted: str) -> None:
    chosen = [
        index
        for index, task in enumerate(plan.tasks)
        if wanted in (task.instrument, task.location)
        or (wanted == "last hour" and task.chunk == plan.chunks[-1])
    ]
    assert bool(chosen) == (wanted != "nothing")
    assert station_hours(plan, chosen) == pytest.approx(hours_by_hand(plan, chosen))


class _Named:
    def __init__(self, codes: list[tuple[str, str, str, str, str]]) -> None:
        self._codes = codes

    def names(self, positions: Iterable[int]) -> Iterator[tuple[str, str, str, str, str]]:
        return (self._codes[at] for at in positions)


@pytest.fixture(scope="module")
def rows(imported_model: str) -> Any:
    """Makes picks of stations whose codes have several lengths."""
    picker = load_picker(find_weights(*split_name(imported_model)))
    codes = [("XX", f"S{'é' * (n % 4)}{n}", ("", "00")[n % 2], "HH", "chunk") for n in range(30)]
    tasks = _Named(codes)

    def make(count: int) -> PickRows:
        random = np.random.default_rng(count)
        times = random.integers(START_NS, START_NS + HOUR, count)
        raw = TaskPicks(
            random.integers(0, len(picker.labels), count).astype(np.int16),
            times,
            times - SECOND,
            times + SECOND,
            random.random(count).astype(np.float32),
            random.integers(0, len(codes), count).astype(np.int32),
        )
        return PickRows(raw, tasks, picker, "run")

    return SimpleNamespace(make=make, labels=picker.labels)


@pytest.mark.parametrize("count", [0, 1, CSV_ROWS, 2 * CSV_ROWS + 17])
def test_a_table_in_parts_is_the_whole_table(rows: Any, tmp_path: Path, count: int) -> None:
    whole, parts = rows.make(count), rows.make(count)
    assert len(whole) == len(parts) == count
    table = whole.table
    for kind, write in (("csv", write_csv), ("parquet", write_parquet)):
        # From parts, from the table, and from what was asked for its table before.
        written = []
        for number, source in enumerate((parts, table, whole)):
            path = tmp_path / f"{number}.{kind}"
            write(source, path)
            written.append(path.read_bytes())
        assert written[0] == written[1] == written[2]
    found = pyarrow.parquet.read_table(tmp_path / "0.parquet")
    assert found.equals(table) and found.num_rows == count
    assert sum(whole.phases.values()) == count
    assert whole.phases == {
        label: n for label in rows.labels if (n := table["phase"].to_pylist().count(label))
    }
    keys = list(zip(*(table[name].to_pylist() for name in ("time", "station")), strict=True))
    assert keys == sorted(keys)


def test_records_by_task() -> None:
    first = PickOutcome("failed", "no space", "OutputError", n_windows=1)
    noted = PickOutcome("done", notes=("gaps",), n_windows=2, n_samples=2**40, n_outside=3)
    silent = PickOutcome("empty")
    records = TaskRecords(5, {3: first, 1: noted})
    assert dict(records) == {1: noted, 3: first} and len(records) == 2
    again = PickOutcome("done", n_windows=7)
    records.add({3: again, 2: silent})
    assert list(records) == [1, 2, 3] and records[3] == again
    assert records.counts() == {"done": 2, "empty": 1, "failed": 0}
    assert records.with_texts() == {1: noted, 2: silent}
    assert list(records.ended("empty", "failed")) == [2]
    assert records.totals() == {"n_windows": 9, "n_samples": 2**40, "n_outside": 3}
    for missing in (0, 4, 5, -1):
        with pytest.raises(KeyError):
            records[missing]
