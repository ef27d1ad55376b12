"""``tasks.parquet``: a row for each station task; the summary keeps counts and examples."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pyarrow.parquet as pq
import pytest

from eqcctpro.errors import OutputError
from eqcctpro.journal.status import read_status
from eqcctpro.journal.task_table import TASK_SCHEMA

START_NS = 1_704_067_200 * 10**9


def rows_of(folder: Path) -> list[dict[str, Any]]:
    table = pq.read_table(folder / "tasks.parquet")
    assert table.schema.equals(TASK_SCHEMA)
    return list(table.to_pylist())


def test_highest_probabilities_are_those_of_the_curves(
    pick: Any, imported_model: str, generated_network: Any, tmp_path: Path
) -> None:
    given = {"model": imported_model, "annotations": True, "p_threshold": 0.9999999}
    result = pick(generated_network[0], **given, output=tmp_path)
    rows = rows_of(tmp_path)
    assert len(rows) == result.summary["plan"]["station_tasks"] == 6
    assert result.tasks.equals(pq.read_table(tmp_path / "tasks.parquet"))
    picked = result.table.to_pandas().groupby(["station", "phase"]).probability.max()
    for row in rows:
        assert (row["status"], row["reason"], row["error"]) == ("done", "", "")
        for phase in "PS":
            curves = obspy.Stream()
            for path in tmp_path.glob(f"annotations/*/*{row['station']}*.mseed"):
                curves += obspy.read(str(path)).select(channel=f"{row['channel']}{phase}")
            highest = max(float(np.nanmax(trace.data)) for trace in curves)
            assert row[f"max_probability_{phase}"] == pytest.approx(highest, abs=1e-7)
        # No P has a probability of one; there are S picks, and they are the highest of S.
        found = picked.get((row["station"], "S"))
        if found is not None:
            assert row["max_probability_S"] == pytest.approx(found, abs=1e-7)
    assert "P" not in picked.index.get_level_values("phase")
    assert sum(row["picks"] for row in rows) == len(result.table) > 0
    assert sum(row["detections"] for row in rows) == len(result.detections)
    assert all(row["windows"] > 0 and row["samples"] > 0 for row in rows)
    assert any("gaps" in note for row in rows for note in row["notes"])


@pytest.mark.slow
def test_chunks_are_told_apart(
    pick: Any, imported_model: str, around_midnight: tuple[Path, Path], tmp_path: Path
) -> None:
    result = pick(around_midnight[1], model=imported_model, timechunk=4, output=tmp_path)
    rows = rows_of(tmp_path)
    assert len({(row["station"], row["timechunk"]) for row in rows}) == len(rows) > 6
    table = result.table.to_pandas()
    for row in rows:
        mine = table[(table.station == row["station"]) & (table.timechunk == row["timechunk"])]
        assert row["picks"] == len(mine)
        for phase in "PS":
            highest = mine[mine.phase == phase].probability.max()
            if not np.isnan(highest):
                assert row[f"max_probability_{phase}"] == pytest.approx(highest, abs=1e-7)


def many_empty(folder: Path, write_mseed: Any, count: int) -> Path:
    """Stations whose records are shorter than a window, each of another length."""
    for number in range(count):
        code = f"XX.S{number:04d}..HHZ"
        samples = np.arange(50 + number, dtype=np.int32) % 7 + 1
        write_mseed(folder / f"{code}.mseed", code, [(START_NS, samples)])
    return folder


@pytest.mark.slow
def test_summaries_of_many_empty_tasks_stay_small(
    pick: Any, imported_model: str, write_mseed: Any, tmp_path: Path
) -> None:
    archive = many_empty(tmp_path / "archive", write_mseed, 130)
    broken = archive / "XX.B..HHZ.mseed"
    broken.write_bytes(b"no miniSEED at all")
    out = tmp_path / "out"
    result = pick(archive, model=imported_model, output=out, report=True)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["tasks"] == {"done": 0, "empty": 130, "failed": 0}
    assert summary["reasons"]["empty"] == {"too short": 130}
    assert summary["reasons"]["failed"] == {}
    assert len(summary["empty"]) == 100
    assert summary["empty"][0]["reason"].startswith("too short: 50 samples")
    assert len(rows_of(out)) == 130
    assert all(row["max_probability_P"] is None for row in rows_of(out))
    assert f"empty: 30 more, in {out / 'tasks.parquet'}" in result.problems
    page = (out / "report.html").read_text()
    assert "XX.S0129" in page and "too short: 179 samples" in page
    assert "XX.S0129" not in (out / "summary.json").read_text()


@pytest.mark.slow
def test_failures_beyond_the_summary_are_in_the_status(
    pick: Any, imported_model: str, write_mseed: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    """Of a run without a journal as of one with it."""
    from eqcctpro.orchestration import outputs
    from eqcctpro.sources import feeder

    def breaks(*_: Any) -> Any:
        raise ArithmeticError("a waveform that cannot be")

    monkeypatch.setattr(outputs, "MOST_LISTED", 2)
    monkeypatch.setattr(feeder, "prepare", breaks)
    archive = many_empty(tmp_path / "archive", write_mseed, 4)
    for journal in (True, False):
        out = tmp_path / f"out-{journal}"
        result = pick(archive, model=imported_model, output=out, journal=journal)
        assert result.counts["failed"] == 4 and len(result.summary["failed"]) == 2
        assert result.summary["reasons"]["failed"] == {"ArithmeticError": 4}
        failures = read_status(out).failures
        assert [item["station"] for item in failures] == [f"XX.S{n:04d}..HH" for n in range(4)]
        assert {item["error"] for item in failures} == {"ArithmeticError"}


@pytest.mark.parametrize("version", [1, 2])
def test_records_of_earlier_versions_can_be_read(
    pick: Any, imported_model: str, write_mseed: Any, tmp_path: Path, monkeypatch: Any, version: int
) -> None:
    """They have no columns for probabilities, and for how many samples there are."""
    from eqcctpro.journal.folder import RunFolder
    from eqcctpro.journal.store import JournalStore
    from eqcctpro.sources import feeder

    def breaks(*_: Any) -> Any:
        raise ArithmeticError("a waveform that cannot be")

    monkeypatch.setattr(feeder, "prepare", breaks)
    archive = many_empty(tmp_path / "archive", write_mseed, 2)
    pick(archive, model=imported_model, output=tmp_path / "out")
    journal = RunFolder(tmp_path / "out").journal
    with contextlib.closing(sqlite3.connect(journal)) as db, db:
        lacking = ["held", "picked", "data_ns", "left_out"]
        lacking += ["highest_p", "highest_s", "seconds"] if version == 1 else []
        for column in lacking:
            db.execute(f"ALTER TABLE items DROP COLUMN {column}")
        db.execute(f"PRAGMA user_version = {version}")
    assert len(read_status(tmp_path / "out").failures) == 2
    store = JournalStore(journal, writable=False)
    records = [record for _, record, _ in store.outcomes()]
    store.close()
    assert [(r.status, r.highest_p, r.counts.held) for r in records] == [("failed", None, 0)] * 2
    assert all(record.seconds == 0 for record in records) == (version == 1)
    with pytest.raises(OutputError, match=f"is a record of format {version}, not 3"):
        JournalStore(journal, writable=True)
