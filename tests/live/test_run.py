"""Live runs from a source to the folder: the same picks as of the archive, and clean ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from eqcctpro.errors import SettingsError
from eqcctpro.live import LiveConfig, live_picks


def rows_of(messages: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    names = ("network", "station", "location", "channel", "phase", "time", "start_time", "end_time")
    return sorted(tuple(one[name] for name in names) for one in messages)


def lines_in(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("picks/*/*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize(
    "model", ["PhaseNet/original", "PhaseNetLight/ethz", "EQTransformer/original"]
)
def test_final_picks_are_those_of_the_archive(
    model: str, labelled: Path, seisbench_cache: Path, pick: Any, cli: Any, tmp_path: Path
) -> None:
    stations = "BG.*,BK.*"
    same = ("--model", model, "--runtime", "torch", "--threads", 1, "--stations", stations)
    result = cli("live", f"replay:{labelled}?speed=0", "-o", tmp_path / "live", *same)
    assert result.exit_code == 0, result.output
    run = pick(
        labelled,
        model=model,
        stations=stations,
        window_grid="absolute",
        output=tmp_path / "batch",
        formats=("parquet",),
    )
    assert run.exit_code == 0
    found = pq.read_table(tmp_path / "batch" / "picks.parquet").to_pylist()
    assert len(found) > 20
    lines = lines_in(tmp_path / "live")
    assert {line["status"] for line in lines} == {"final"}
    for one in found:
        for name in ("time", "start_time", "end_time"):
            one[name] = one[name].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    assert rows_of(lines) == rows_of(found)
    heights = {rows_of([line])[0]: line["probability"] for line in lines}
    for one in found:
        assert abs(heights[rows_of([one])[0]] - one["probability"]) <= 1e-6
    status = cli("live", "status", tmp_path / "live", "--json")
    told = json.loads(status.output)
    assert told["state"] == "ended" and told["picks"] == {"final": len(found)}


def test_settings_are_checked_before_anything_is_done(
    cli: Callable[..., Any], tmp_path: Path
) -> None:
    for options, said in (
        (("http://a",), "no address of a SeedLink server"),
        (("seedlink://a", "seedlink://a"), "a source is given twice"),
        (("seedlink://a", "--stations", "A.B.C.D.E"), "no pattern of stations"),
        (("seedlink://a", "--for", "5", "--until", "2030-01-01"), "either for or until"),
        (("seedlink://a", "--patience", "-1"), "patience"),
        (("seedlink://a", "--for", "inf"), "finite number"),
        (("seedlink://a", "--http-key", "secret"), "no effect without http"),
        (("seedlink://a", "--device", "gpu9"), "'gpu9' is not a device"),
        (("seedlink://a:0",), "no address of a SeedLink server"),
        (("replay:",), "names no archive"),
        (("replay:a?sped=1",), "sped=1 is no speed"),
        (("replay:a?speed=nan",), "speed=nan is no speed"),
        (("seedlink://a", "--sink", "nothing://a"), "is no kind of sink"),
    ):
        result = cli("live", *options, "-o", tmp_path / "out")
        assert result.exit_code == 2 and said in result.output, result.output
    assert not (tmp_path / "out").exists()
    result = cli("live", "seedlink://127.0.0.1:1")
    assert result.exit_code == 2 and "add -o OUT" in result.output
    result = cli("live", "status", tmp_path)
    assert result.exit_code == 3 and "holds no live run" in result.output


@pytest.mark.slow
def test_what_is_not_picked_or_sent_is_said_at_the_end(
    imported_model: str, live_archive: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    for path in live_archive.glob("TX.PB00*"):
        (archive / path.name).write_bytes(path.read_bytes())
    (archive / "broken.mseed").write_bytes(b"no record" * 1000)
    result = cli(
        "live",
        f"replay:{archive}?speed=0",
        "-o",
        tmp_path / "out",
        "--model",
        imported_model,
        "--runtime",
        "torch",
        "--threads",
        1,
    )
    assert result.exit_code == 0, result.output
    told = cli("live", "status", tmp_path / "out").output
    for text in (result.output, told, (tmp_path / "out" / "live.log").read_text()):
        assert text.count("broken.mseed is not readable") == 1, text


def test_a_sink_that_is_behind_is_said_at_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    from eqcctpro.cli.live import _told_at_the_end
    from eqcctpro.live.status import LiveStatus

    sinks = [
        {"name": "redis://a/b", "behind": 7, "last_error": "refused"},
        {"name": "jsonl", "behind": 0, "last_error": ""},
    ]
    _told_at_the_end(LiveStatus(sinks=sinks))
    assert capsys.readouterr().err == (
        "sink redis://a/b: 7 messages wait for the next run: refused\n"
    )


@pytest.mark.slow
def test_a_folder_is_of_one_model(imported_model: str, live_archive: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"output": tmp_path, "runtime": "torch", "threads": 1}
    source = f"replay:{live_archive}?speed=0"
    config = LiveConfig.checked(sources=source, model=imported_model, run_for=0.01, **settings)
    list(live_picks(config))
    state = tmp_path / "state.sqlite"
    assert state.is_file()
    import sqlite3

    with sqlite3.connect(state) as db:
        (kept,) = db.execute("SELECT value FROM facts WHERE name = 'checkpoint'").fetchone()
        changed = json.dumps({**json.loads(kept), "model": "PhaseNet/other"}).encode()
        db.execute("UPDATE facts SET value = ? WHERE name = 'checkpoint'", (changed,))
    db.close()
    with pytest.raises(SettingsError, match="holds a run with PhaseNet/other"):
        list(live_picks(config))
