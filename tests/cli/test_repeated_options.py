"""Options that take a list: with commas, given several times, or both, on every command."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer

from eqcctpro.cli import app
from eqcctpro.config import PickConfig

# One value that has a comma in it.
PAIRS = {"bandpass", "centre", "uncertainty", "depth"}


def options(command: Any, path: tuple[str, ...] = ()) -> Any:
    """All options of all commands, with the command's name."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from options(inner, (*path, name))
    for parameter in command.params:
        if parameter.param_type_name == "option":
            yield " ".join(path), parameter


class TestEveryCommand:
    def test_options_that_show_a_list_may_be_repeated(self) -> None:
        lists = {
            (command, str(option.name)): option.multiple
            for command, option in options(typer.main.get_command(app))
            if option.name not in PAIRS
            and re.search(r"[\w*?'-],[\w*-]", f"{option.help} {option.default}")
        }
        assert ("pick", "stations") in lists
        assert ("evaluate", "station_counts") in lists
        assert [name for name, multiple in lists.items() if not multiple] == []


class TestPick:
    @pytest.mark.slow
    def test_stations_and_formats_add_up(
        self, cli: Any, network: Path, imported_model: str, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        given = ["--stations", "DEM01", "--stations", "DEM02,DEM03", "--exclude", "DEM02"]
        formats = ["--format", "csv", "--format", "quakeml"]
        ended = cli("pick", network, "-o", out, "--model", imported_model, *given, *formats)
        assert ended.exit_code == 0, ended.output
        settings = json.loads((out / "summary.json").read_text())["settings"]
        assert settings["stations"] == ["DEM01", "DEM02", "DEM03"]
        assert json.loads((out / "summary.json").read_text())["plan"]["station_tasks"] == 2
        assert (out / "picks.csv").exists()
        assert (out / "picks.quakeml").exists()

    def test_devices_add_up(self, cli: Any, network: Path, tmp_path: Path) -> None:
        """Two GPUs are one too many for the mode local, whichever way they are named."""
        devices = ["--device", "cuda:0", "--device", "cuda:1"]
        ended = cli("pick", network, "-o", tmp_path / "out", *devices)
        assert ended.exit_code == 2
        assert "device cuda:0,1: one process uses one GPU" in ended.output

    def test_lists_in_python_take_commas_too(self) -> None:
        config = PickConfig.checked(input="in", output="out", stations=["A, B", "C"], formats="csv")
        assert config.stations == ("A", "B", "C")
        assert config.formats == ("csv",)


class TestOtherCommands:
    def test_evaluate_takes_every_value(self, cli: Any, network: Path, tmp_path: Path) -> None:
        axes = ["--stations", "2", "--stations", "4", "--mode", "local", "--mode", "modelactor"]
        axes += ["--concurrency", "1", "--concurrency", "2", "--cpus", "1"]
        ended = cli("evaluate", network, "-o", tmp_path / "out", *axes, "--dry-run")
        assert ended.exit_code == 0, ended.output
        # Of each number of stations: local, and ModelActor with one and with two workers.
        assert ended.output.startswith("6 trials")

    def test_what_is_no_number_is_said_without_a_traceback(
        self, cli: Any, network: Path, tmp_path: Path
    ) -> None:
        ended = cli("evaluate", network, "-o", tmp_path, "--stations", "10", "--stations", "x")
        assert ended.exit_code == 2
        assert "--stations '10,x': not whole numbers" in ended.output

    def test_score_takes_every_phase(self, cli: Any, tmp_path: Path) -> None:
        header = "network,station,location,instrument,phase,time,probability\n"
        rows = [
            f"XX,A,,HH,{phase},2024-12-15T12:00:0{second}.000000Z,0.9\n"
            for second, phase in enumerate(("P", "S", "Pn"))
        ]
        picks = tmp_path / "picks.csv"
        picks.write_text(header + "".join(rows))
        ended = cli("score", picks, picks, "--phases", "P", "--phases", "S")
        assert ended.exit_code == 0, ended.output
        assert [line.split()[0] for line in ended.output.splitlines()[1:]] == ["P", "S"]

    @pytest.mark.parametrize("order", [("first", "second"), ("second", "first")])
    def test_coordinates_of_several_files(self, tmp_path: Path, order: tuple[str, str]) -> None:
        from eqcctpro.association import read_stations

        header = "network,station,latitude,longitude,elevation_m\n"
        (tmp_path / "first.csv").write_text(f"{header}XX,A,31.0,-104.0,0\nXX,B,32.0,-104.0,0\n")
        (tmp_path / "second.csv").write_text(f"{header}XX,A,33.0,-104.0,0\nXX,C,34.0,-104.0,0\n")
        found = read_stations(*(tmp_path / f"{name}.csv" for name in order))
        places = dict(zip(found.names, found.latitude, strict=True))
        assert places == {
            "XX.A": 31.0 if order[0] == "first" else 33.0,
            "XX.B": 32.0,
            "XX.C": 34.0,
        }
