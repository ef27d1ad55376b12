"""What a run writes: tables, folders, summary, log, picture, and lines on the terminal."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from eqcctpro.config import ExecutionConfig, ModelConfig, PickConfig
from eqcctpro.errors import SettingsError
from eqcctpro.picks.eqcctpro_folders import EQCCTPRO_COLUMNS
from eqcctpro.picks.table import DETECTION_SCHEMA, PICK_SCHEMA
from eqcctpro.synthetic.network import START_NS

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")
CHUNK = "20241215T120000Z_20241215T120200Z"


@pytest.fixture(scope="module")
def archive(
    generated_network: Any, write_mseed: Any, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The made-up network, with a silent station, a broken file and a file of another kind."""
    folder = tmp_path_factory.mktemp("archive") / "in"
    shutil.copytree(generated_network[0], folder)
    silent = folder / CHUNK / "ZERO"
    for component in "ZNE":
        pieces = [(START_NS, np.zeros(12000, "i4"))]
        write_mseed(silent / f"{component}.mseed", f"XX.ZERO..HH{component}", pieces)
    (folder / CHUNK / "DEM02" / "broken.mseed").write_bytes(b"\x00\xff" * 3000)
    (folder / CHUNK / "DEM02" / "station.xml").write_text("<xml/>")
    return folder


@pytest.fixture(scope="module")
def result(
    pick: Any, archive: Path, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    return pick(
        archive,
        model=imported_model,
        output=tmp_path_factory.mktemp("result") / "new" / "folder",
        formats=("csv", "parquet", "eqcctpro"),
        overview=True,
    )


@pytest.fixture(scope="module")
def summary(result: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(result.paths["summary"]).read_text())
    return found


def lines(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(newline="") as file:
        return list(csv.DictReader(file))


def test_arrivals_are_found(result: Any, generated_network: Any) -> None:
    """The main job, on input whose arrivals are known."""
    picks = result.picks
    found = []
    for arrival in generated_network[1]:
        mine = picks[(picks["station"] == arrival.station) & (picks["phase"] == arrival.phase)]
        found.append(any(abs(time.value - arrival.time_ns) < 0.5e9 for time in mine["time"]))
    assert np.mean(found) > 0.9
    assert len(picks) < 1.3 * len(found)


class TestPickTable:
    def test_columns(self, result: Any) -> None:
        header = Path(result.paths["picks_csv"]).read_text().splitlines()[0].split(",")
        assert header[:4] == ["network", "station", "location", "channel"]
        assert header[4:9] == ["phase", "time", "start_time", "end_time", "probability"]
        assert header == PICK_SCHEMA.names

    def test_rows(self, result: Any) -> None:
        rows = lines(result.paths["picks_csv"])
        assert len(rows) == result.counts["picks"] > 20
        for row in rows:
            assert (row["network"], row["location"]) == ("XX", "00")
            assert row["channel"] == ("EH" if row["station"] == "DEM06" else "HH")
            assert row["phase"] in ("P", "S")
            for name in ("start_time", "time", "end_time"):
                assert ISO.fullmatch(row[name])
            assert row["start_time"] <= row["time"] <= row["end_time"]
            assert re.fullmatch(r"0\.\d{6}|1\.000000", row["probability"])
            assert (row["model"], row["weights"]) == ("EQTransformer", "original")
            assert row["timechunk"] == CHUNK
        assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)

    def test_parquet_holds_the_same(self, result: Any) -> None:
        table = pa.parquet.read_table(result.paths["picks_parquet"])
        assert table.schema.equals(PICK_SCHEMA)
        assert table.equals(result.table)
        text = lines(result.paths["picks_csv"])
        assert [f"{time:%Y-%m-%dT%H:%M:%S.%f}Z" for time in table["time"].to_pylist()] == [
            row["time"] for row in text
        ]
        assert [f"{p:.6f}" for p in table["probability"].to_pylist()] == [
            row["probability"] for row in text
        ]

    def test_a_reader_that_knows_nothing_of_us_gets_times_and_numbers(self, result: Any) -> None:
        table = pa.csv.read_csv(result.paths["picks_csv"])
        assert pa.types.is_timestamp(table.schema.field("time").type)
        assert table.schema.field("probability").type == pa.float64()

    def test_detections(self, result: Any) -> None:
        rows = lines(result.paths["detections_csv"])
        assert list(rows[0]) == DETECTION_SCHEMA.names
        assert len(rows) == result.detections.num_rows >= 10
        table = pa.parquet.read_table(result.paths["detections_parquet"])
        assert table.equals(result.detections)
        assert all(row["start_time"] <= row["time"] <= row["end_time"] for row in rows)

    def test_result_is_what_was_written(self, result: Any) -> None:
        assert result.table.schema.equals(PICK_SCHEMA)
        assert list(result.picks.columns) == PICK_SCHEMA.names

    @pytest.mark.slow
    def test_no_picks_give_a_table_without_rows(
        self, pick: Any, archive: Path, imported_model: str
    ) -> None:
        none = pick(
            archive,
            model=imported_model,
            stations="DEM01",
            p_threshold=0.9999,
            s_threshold=0.9999,
            formats=("csv", "parquet", "eqcctpro"),
            overview=True,
        )
        assert none.counts["picks"] == 0
        assert Path(none.paths["picks_csv"]).read_text() == ",".join(PICK_SCHEMA.names) + "\n"
        assert pa.parquet.read_table(none.paths["picks_parquet"]).schema.equals(PICK_SCHEMA)
        assert Path(none.paths["overview"]).stat().st_size > 5000

    @pytest.mark.slow
    def test_only_the_asked_for_formats(
        self, pick: Any, archive: Path, imported_model: str, tmp_path: Path
    ) -> None:
        pick(archive, model=imported_model, stations="DEM01", formats="parquet", output=tmp_path)
        written = {path.name for path in tmp_path.iterdir()}
        assert written == {
            *("picks.parquet", "detections.parquet"),
            *("tasks.parquet", "summary.json", "run.log"),
        }

    @pytest.mark.slow
    def test_the_same_run_gives_the_same_bytes_and_leaves_nothing_else(
        self, pick: Any, archive: Path, imported_model: str, tmp_path: Path
    ) -> None:
        texts = []
        for _ in range(2):
            pick(archive, model=imported_model, output=tmp_path)
            texts.append((tmp_path / "picks.csv").read_bytes())
        assert texts[0] == texts[1]
        assert {path.name for path in tmp_path.iterdir()} == (
            {"picks.csv", "detections.csv", "tasks.parquet", "summary.json", "run.log"}
        )


class TestStationFolders:
    """``<timechunk>/<STATION>_outputs/X_prediction_results.csv``."""

    def rows(self, result: Any, station: str) -> list[dict[str, str]]:
        folder = Path(result.paths["station_folders"]) / CHUNK / f"{station}_outputs"
        return lines(folder / "X_prediction_results.csv")

    def test_columns(self, result: Any) -> None:
        (row, *_) = self.rows(result, "DEM01")
        assert tuple(row) == EQCCTPRO_COLUMNS and len(row) == 11
        assert (row["network"], row["station"], row["instrument_type"]) == ("XX", "DEM01", "HH")

    def test_every_station_that_did_not_fail_has_one(self, result: Any) -> None:
        folders = {path.name for path in Path(result.paths["station_folders"]).glob("*/*_outputs")}
        assert folders == {f"DEM0{n}_outputs" for n in range(1, 7)} | {"ZERO_outputs"}

    def test_a_station_without_picks_has_a_blank_row(self, result: Any) -> None:
        (row,) = self.rows(result, "ZERO")
        assert row["station"] == "ZERO"
        assert [row[name] for name in EQCCTPRO_COLUMNS[7:]] == [""] * 4

    def test_all_picks_are_there_and_paired(self, result: Any) -> None:
        for station in ("DEM01", "DEM03", "DEM06"):
            rows = self.rows(result, station)
            picks = result.picks[result.picks["station"] == station]
            for phase, name in (("P", "p"), ("S", "s")):
                found = sorted(row[f"{name}_arrival_time"] for row in rows)
                times = picks[picks["phase"] == phase]["time"]
                expected = sorted(f"{time:%Y-%m-%d %H:%M:%S.%f}" for time in times)
                assert [text for text in found if text] == expected
            for row in rows:
                if row["p_arrival_time"] and row["s_arrival_time"]:
                    p, s = (
                        datetime.strptime(row[f"{name}_arrival_time"], "%Y-%m-%d %H:%M:%S.%f")
                        for name in "ps"
                    )
                    assert timedelta() < s - p <= timedelta(seconds=30)
                for name in "ps":
                    assert bool(row[f"{name}_arrival_time"]) == bool(row[f"{name}_probability"])
        assert all(row["s_arrival_time"] for row in self.rows(result, "DEM01"))


class TestSummary:
    def test_every_task_is_done_empty_or_failed(self, summary: dict[str, Any]) -> None:
        assert summary["plan"]["station_tasks"] == sum(summary["tasks"].values()) == 7
        assert summary["balanced"] is True
        assert summary["tasks"] == {"done": 6, "empty": 1, "failed": 0}

    def test_reasons(self, summary: dict[str, Any]) -> None:
        (empty,) = summary["empty"]
        assert empty["station"] == "XX.ZERO..HH"
        assert (empty["timechunk"], empty["reason"]) == (CHUNK, "all samples are zero")
        (file,) = summary["files_failed"]
        assert file["file"].endswith("broken.mseed") and file["error"] == "DecodeError"
        assert file["file"] in file["message"]
        (ignored,) = summary["files_ignored"]
        assert ignored["file"].endswith("station.xml")
        assert ignored["reason"] == "not miniSEED"

    def test_what_was_done_to_the_data_is_noted(self, summary: dict[str, Any]) -> None:
        notes = {item["station"]: " ".join(item["notes"]) for item in summary["notes"]}
        assert "gaps" in notes["XX.DEM05.00.HH"]
        assert "missing" in notes["XX.DEM06.00.EH"]
        assert "XX.DEM01.00.HH" not in notes

    def test_counts(self, summary: dict[str, Any], result: Any) -> None:
        phases = Counter(result.table["phase"].to_pylist())
        assert summary["picks"] == {"total": result.table.num_rows, **phases}
        assert summary["detections"] == result.detections.num_rows
        assert summary["windows"] >= 18 and summary["samples"] > 200_000
        assert summary["picks_outside_span"] == 0

    def test_origin(self, summary: dict[str, Any], result: Any) -> None:
        weights = summary["weights"]
        content = Path(weights["file"]).read_bytes()
        assert weights["sha256"] == hashlib.sha256(content).hexdigest()
        assert summary["model"] == "EQTransformer/original"
        assert set(result.table["run_id"].to_pylist()) == {summary["run_id"]}
        for package in ("eqcctpro", "numpy", "torch", "seisbench", "pymseed"):
            assert summary["versions"][package]
        assert summary["runtime"] == "torch" and summary["mode"] == "local"
        assert summary["settings"]["model"] == "EQTransformer/original"

    def test_defaults_that_applied_are_seisbenchs(self, summary: dict[str, Any]) -> None:
        """Nothing was set in this run; a methods section needs the numbers nevertheless."""
        import seisbench.models as sbm

        usual = {name: value for name, (_, value) in sbm.EQTransformer._annotate_args.items()}
        assert summary["settings"]["p_threshold"] is None
        applied = summary["applied"]
        assert applied["thresholds"] == {
            "P": usual["*_threshold"],
            "S": usual["*_threshold"],
            "Detection": usual["detection_threshold"],
        }
        told = applied["arguments"]
        assert told.pop("blinding") == list(usual["blinding"])
        assert "stride" not in told  # it is for models that predict points
        assert told == {name: usual[name] for name in told}
        assert {"overlap", "stacking", "strict", "zerophase_resample"} <= set(told)
        assert applied["window_samples"] == 6000 and applied["window_step"] == 3000
        assert (applied["sampling_rate"], applied["component_order"]) == (100.0, "ZNE")

    @pytest.mark.slow
    def test_what_was_set_is_what_applied(
        self, pick: Any, archive: Path, imported_model: str, cli: Any
    ) -> None:
        asked = {"overlap": "0.75", "S_threshold": 0.4, "stacking": "avg"}
        run = pick(
            archive / CHUNK / "DEM03",
            model=imported_model,
            p_threshold=0.2,
            bandpass=(2, 20),
            model_arguments=asked,
        )
        applied = run.summary["applied"]
        assert applied["thresholds"] == {"P": 0.2, "S": 0.4, "Detection": 0.3}
        assert (applied["arguments"]["overlap"], applied["window_step"]) == (4500, 1500)
        assert applied["arguments"]["stacking"] == "avg"
        assert applied["bandpass"] == [2, 20]
        out = Path(run.paths["summary"]).parent
        assert cli("report", out).exit_code == 0
        page = (out / "report.html").read_text()
        assert "P=0.2, S=0.4, Detection=0.3" in page
        assert "2 to 20 Hz" in page

    def test_seconds_of_each_stage(self, summary: dict[str, Any]) -> None:
        stages = summary["seconds"]["stages"]
        assert {"decode", "prepare", "infer", "pick"} <= set(stages)
        assert all(value > 0 for value in stages.values())
        assert summary["seconds"]["pick"] >= stages["infer"]

    def test_paths_exist(self, summary: dict[str, Any], result: Any) -> None:
        assert summary["paths"] == result.paths
        assert all(Path(path).exists() for path in summary["paths"].values())


@pytest.mark.slow
def test_overview_is_a_picture_with_something_on_it(result: Any) -> None:
    from matplotlib.image import imread

    path = Path(result.paths["overview"])
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    pixels = imread(path)
    assert min(pixels.shape[:2]) > 300
    assert len(np.unique(pixels.reshape(-1, pixels.shape[-1]), axis=0)) > 20


def test_log(result: Any) -> None:
    entries = Path(result.paths["log"]).read_text().splitlines()
    stamps = [re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z - [A-Z]+ - \S", e) for e in entries]
    assert all(stamps), entries
    text = "\n".join(entries)
    assert "EQTransformer/original" in text and "7 station tasks" in text
    assert "WARNING - unusable file: " in text and "broken.mseed" in text
    assert "done 6, empty 1, failed 0" in text


class TestTerminal:
    FAST = ("--runtime", "torch", "--threads", "1", "--no-overview")

    @pytest.mark.slow
    def test_quiet_says_nothing(
        self, cli: Any, generated_network: Any, imported_model: str, tmp_path: Path
    ) -> None:
        done = cli(
            *("pick", generated_network[0], "-o", tmp_path, "--model", imported_model),
            *(*self.FAST, "-q"),
        )
        assert done.exit_code == 0
        assert done.stdout == done.stderr == ""
        assert (tmp_path / "picks.csv").exists()

    @pytest.mark.slow
    def test_counts_and_paths_on_stdout(
        self, cli: Any, archive: Path, imported_model: str, tmp_path: Path
    ) -> None:
        done = cli("pick", archive, "-o", tmp_path, "--model", imported_model, *self.FAST)
        assert done.exit_code == 10
        first, *paths = done.stdout.splitlines()
        assert re.match(r"2\d picks \(\d+ P, \d+ S\) on 7 station tasks: 6 done, 1 empty", first)
        assert str(tmp_path / "picks.csv") in paths
        assert all(Path(path).exists() for path in paths)
        assert "empty: XX.ZERO..HH" in done.stderr and "broken.mseed" in done.stderr

    @pytest.mark.slow
    def test_verbose_shows_the_log(
        self, cli_process: Any, generated_network: Any, imported_model: str, tmp_path: Path
    ) -> None:
        done = cli_process(
            *("pick", generated_network[0], "-o", tmp_path, "--model", imported_model),
            *(*self.FAST, "-v", "--stations", "DEM01"),
        )
        assert done.returncode == 0
        assert "INFO" in done.stderr and "1 station tasks" in done.stderr

    def test_version(self, cli: Any) -> None:
        import eqcctpro

        assert cli("--version").stdout.split() == ["eqcctpro", eqcctpro.__version__]

    def test_help_names_options_and_exit_codes(self, cli: Any) -> None:
        text = cli("pick", "--help-all").stdout
        names = (
            "layout start end timechunk overlap window-grid stations mode workers address device "
            "runtime batch-size p-threshold s-threshold detection-threshold set format config"
        )
        for name in [*names.split(), "quiet", "verbose", "keep-going"]:
            assert f"--{name}" in text, name
        assert "Exit codes" in text


def test_help_tells_the_defaults_of_the_settings() -> None:
    from typer.main import get_command

    from eqcctpro.cli import app

    def text(parameter: Any, default: Any) -> str:
        if isinstance(default, bool):
            return (parameter.opts if default else parameter.secondary_opts)[0].lstrip("-")
        return ",".join(default) if isinstance(default, tuple) else f"{default:g}"

    fields = {name: f for name, f in PickConfig.model_fields.items() if not f.is_required()}
    told = set()
    for option in get_command(app).commands["pick"].params:
        # Where the command has a default of its own, the settings' is not for it.
        if option.default is None and option.name in fields:
            default = fields[option.name].get_default(call_default_factory=True)
            if default or (default is False and option.secondary_opts):
                said = option.show_default
                assert said == (default if isinstance(default, str) else text(option, default))
                told.add(option.name)
    assert {"model", "mode", "device", "formats", "overview", "report", "item_timeout"} <= told


def test_every_setting_is_an_option() -> None:
    from typer.main import get_command

    from eqcctpro.cli import app

    options = {option.name for option in get_command(app).commands["pick"].params}
    assert PickConfig.model_fields.keys() - options == {"input"}  # the argument INPUT


def test_a_part_of_the_settings_stands_alone() -> None:
    model = ModelConfig.checked(model="PhaseNet/original", p_threshold=0.4)
    assert model.p_threshold == 0.4
    with pytest.raises(SettingsError, match="output: no such setting"):
        ModelConfig.checked(output="out")
    with pytest.raises(SettingsError, match="threads"):
        ExecutionConfig.checked(threads=0)


def test_progress_lines() -> None:
    import io

    from eqcctpro.orchestration.progress import Progress

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal, plain, quiet = Terminal(), io.StringIO(), Terminal()
    for stream, silent in ((terminal, False), (plain, False), (quiet, True)):
        with Progress(4, stream=stream, quiet=silent) as progress:
            for _ in range(4):
                progress.add(done=1, picks=3, failed=0)
        assert (progress.done, progress.picks) == (4, 12)
    last = terminal.getvalue().split("\r")[-1]
    for part in ("4/4 stations", "12 picks", "/s", "MB"):
        assert part in last
    assert quiet.getvalue() == ""
    assert plain.getvalue().count("\n") <= 1  # only now and then


def test_no_arrival_is_there_twice(result: Any) -> None:
    rows = lines(result.paths["picks_csv"])
    keys = Counter((row["station"], row["phase"], row["time"]) for row in rows)
    assert set(keys.values()) == {1}
