"""Times as SeisBench and ObsPy take them, wherever a time is taken."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from obspy import UTCDateTime

from eqcctpro import EvaluateSystem, PickConfig, RunEQCCTPro
from eqcctpro.config_files import load_config_file
from eqcctpro.download import DownloadSettings
from eqcctpro.errors import SettingsError
from eqcctpro.synthetic.dataset import Synthesis
from eqcctpro.times import format_utc, parse_utc

TEXTS = [
    "2024-12-15",
    "2024-12-15T12:00:00",
    "2024-12-15 12:00",
    "2024-12-15T12:00:00.25Z",
    "2024-12-15T13:00:00+01:00",
    "20241215T120000",
    "2024-350",
    "2024350",
    "2024-350T12:00:00.5",
    "2024-350T12:00Z",
    "2024350T120000",
    "2023-365",
    "2024-366",
]
SAME: list[Any] = [
    "2024-350T12:00",
    datetime(2024, 12, 15, 12),
    datetime(2024, 12, 15, 13, tzinfo=timezone(timedelta(hours=1))),
    UTCDateTime(2024, 12, 15, 12),
    np.datetime64("2024-12-15T12:00"),
    pd.Timestamp("2024-12-15T12:00", tz="UTC"),
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_means_what_obspy_says(text: str) -> None:
    assert parse_utc(text) == UTCDateTime(text).ns


@pytest.mark.parametrize("value", SAME, ids=lambda value: type(value).__name__)
def test_objects(value: Any) -> None:
    assert format_utc(parse_utc(value), "seconds") == "2024-12-15T12:00:00Z"


def test_nanoseconds_and_days() -> None:
    assert parse_utc(UTCDateTime(ns=1_734_264_000_123_456_789)) == 1_734_264_000_123_456_789
    assert parse_utc(pd.Timestamp(1_734_264_000_123_456_789)) == 1_734_264_000_123_456_789
    assert parse_utc(date(2024, 12, 15)) == UTCDateTime(2024, 12, 15).ns


@pytest.mark.parametrize(
    "value",
    ["", "noon", "2023-366", "2024-000", "2024-12-32", 5, None, pd.NaT, np.datetime64("NaT")],
)
def test_what_is_no_time_is_said(value: Any) -> None:
    with pytest.raises(SettingsError, match=r"start: .* is not a time") as caught:
        parse_utc(value, "start")
    assert "2024-350" in str(caught.value.hint)


@pytest.mark.parametrize("value", SAME, ids=lambda value: type(value).__name__)
def test_everywhere(value: Any, tmp_path: Path) -> None:
    """Each interface that takes a time takes all of them."""
    noon = 1_734_264_000 * 10**9
    later = UTCDateTime(ns=noon) + 3600
    assert PickConfig.checked(input="in", output="out", start=value).start_ns == noon
    # As text in the settings, which are written as JSON.
    text = PickConfig.checked(input="in", output="out", start=value).model_dump(mode="json")[
        "start"
    ]
    assert parse_utc(text) == noon
    named = {"input_dir": "in", "output_dir": "out", "start_time": value, "end_time": later}
    run = RunEQCCTPro(**named, model_type="seisbench", mode="local", **MODEL)
    assert (run.config.start_ns, run.config.end_ns) == (noon, noon + 3600 * 10**9)
    wanted = DownloadSettings.checked(output="out", start=value, end=later, stations="A")
    assert wanted.start_ns == noon
    assert parse_utc(Synthesis(start=value).start) == noon


MODEL = {"seisbench_parent_model": "PhaseNet", "seisbench_child_model": "original"}


def test_in_a_benchmark(network: Path, tmp_path: Path) -> None:
    system = EvaluateSystem(
        "cpu",
        input_dir=network,
        output_dir=tmp_path,
        csv_dir=tmp_path,
        start_time=datetime(2024, 12, 15, 12, tzinfo=UTC),
        end_time="2024-350T12:02",
        timechunk_dt=1,
        conc_timechunk_tasks_step_size=1,
        model_type="seisbench",
        **MODEL,
    )
    assert system.config.pick.end_ns == 1_734_264_120 * 10**9
    assert system.config.timechunk_concurrency == (1, 2)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", "start = 2024-12-15T12:00:00Z\nend = 2024-12-16"),
        ("a.yaml", "start: 2024-12-15T12:00:00Z\nend: 2024-12-16"),
        ("a.json", '{"start": "2024-350T12:00", "end": "2024-351"}'),
    ],
)
def test_dates_of_settings_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    config = PickConfig.checked(input="in", output="out", **load_config_file(tmp_path / name))
    assert config.start_ns == 1_734_264_000 * 10**9
    assert config.end_ns == parse_utc("2024-12-16")


@pytest.mark.slow
def test_on_the_command_line(cli: Any, network: Path, imported_model: str, tmp_path: Path) -> None:
    options = ["--model", imported_model, "--runtime", "torch", "--stations", "DEM01,DEM02"]
    span = ["--start", "2024-350T12:00:00", "--end", "2024-350T12:01:00"]
    ended = cli("pick", network, "-o", tmp_path / "a", *options, *span, "--no-overview")
    assert ended.exit_code == 0, ended.output
    span = ["--start", "2024-12-15T12:00:00", "--end", "2024-12-15T12:01:00"]
    # The same settings in other words: nothing is replaced by anything else.
    again = cli("pick", network, "-o", tmp_path / "a", *options, *span, "--no-overview")
    assert again.exit_code == 0, again.output
    assert again.output == ended.output
    shown = cli(
        "show", tmp_path / "a", "DEM01", "--time", "2024-350T12:00:30", "-o", tmp_path / "a.png"
    )
    assert shown.exit_code == 0, shown.output
    scored = cli(
        "score", tmp_path / "a", tmp_path / "a", "--start", "2024-350", "--end", "2024-351"
    )
    assert scored.exit_code == 0, scored.output
