"""A finished run in the output folder: what replaces it, and what works from another folder."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from eqcctpro import PickConfig, plot_station, run_picking
from eqcctpro.errors import (
    InputError,
    ReplaceError,
    ResourceError,
    RuntimeUnavailableError,
    UnknownModelError,
)
from eqcctpro.picks.reading import read_picks

SETTINGS: dict[str, Any] = {"runtime": "torch", "threads": 1, "overview": False}


@pytest.fixture(scope="module")
def finished(
    generated_network: Any, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with the archive `in` and the results `out`, by relative paths."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(generated_network[0], folder / "in")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_picking(PickConfig.checked(input="in", output="out", model=imported_model, **SETTINGS))
    return folder


@pytest.fixture
def there(finished: Path, tmp_path: Path) -> Path:
    """A copy of the results, of the same archive, that a test may replace."""
    return Path(shutil.copytree(finished / "out", tmp_path / "out"))


def pick_again(finished: Path, out: Path, model: str, **changes: Any) -> Any:
    settings = {"input": finished / "in", "output": out, "model": model, **SETTINGS, **changes}
    return run_picking(PickConfig.checked(**settings))


class TestPaths:
    @pytest.mark.slow
    def test_what_is_stored_is_absolute(self, finished: Path) -> None:
        summary = json.loads((finished / "out" / "summary.json").read_text())
        assert summary["settings"]["input"] == [str(finished / "in")]
        assert summary["settings"]["output"] == str(finished / "out")
        assert summary["paths"]["picks_csv"] == str(finished / "out" / "picks.csv")

    @pytest.mark.slow
    def test_other_commands_work_in_another_folder(
        self, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        figure = plot_station(finished / "out", "DEM02")
        assert figure.axes
        ended = cli("report", finished / "out", "-o", "page.html")
        assert ended.exit_code == 0, ended.output
        assert "Waveforms and gaps:" not in Path("page.html").read_text()

    def test_weights_by_a_relative_path(self) -> None:
        config = PickConfig.checked(input="in", output="out", model="PhaseNet/own/my.pt")
        assert config.absolute().model == f"PhaseNet/{Path.cwd()}/own/my.pt"
        config = PickConfig.checked(input="s3://bucket/in", output="out", model="GPD/original")
        assert config.absolute().model == "GPD/original"
        assert config.absolute().input == ("s3://bucket/in",)

    @pytest.mark.slow
    def test_what_is_printed_is_as_it_was_given(
        self, finished: Path, imported_model: str, tmp_path: Path, monkeypatch: Any, cli: Any
    ) -> None:
        monkeypatch.chdir(tmp_path)
        options = ["--runtime", "torch", "--threads", "1", "--no-overview"]
        given = ["-o", "mine/out", "--model", imported_model, "--stations", "DEM01"]
        ended = cli("pick", finished / "in", *given, *options)
        assert "mine/out/picks.csv" in ended.output.splitlines()

    @pytest.mark.slow
    def test_status_names_the_folder_of_a_command_with_relative_paths(
        self, finished: Path, imported_model: str, tmp_path: Path, monkeypatch: Any
    ) -> None:
        """A run that ended before its time, looked at from elsewhere."""
        from eqcctpro.journal.status import read_status
        from eqcctpro.orchestration import session

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(session, "_finish", stop)
        monkeypatch.chdir(finished)
        with pytest.raises(KeyboardInterrupt):
            pick_again(Path("in").absolute().parent, tmp_path / "cut", imported_model)
        assert f" in {finished}" not in str(read_status(tmp_path / "cut").advice)
        monkeypatch.chdir(tmp_path)
        assert f" in {finished}, and it goes on" in str(read_status(tmp_path / "cut").advice)


class TestReplacing:
    @pytest.mark.slow
    def test_the_same_settings_may_replace_it(
        self, finished: Path, there: Path, imported_model: str
    ) -> None:
        # 0.1 is what applied by default, and where it runs changes no pick.
        settings = {"p_threshold": 0.1, "formats": "csv", "threads": 2}
        run = pick_again(finished, there, imported_model, **settings)
        assert run.table.drop(["run_id"]).equals(read_picks(finished / "out").drop(["run_id"]))

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"p_threshold": 0.4}, "p_threshold was 0.1, is 0.4"),
            ({"model_arguments": {"overlap": 0.75}}, "overlap was 3000, is 4500"),
            ({"stations": "DEM01"}, "stations was not there, is ['DEM01']"),
            (
                {"start": "2024-12-15T12:01:00"},
                "start was not there, is 2024-12-15T12:01:00.000000Z",
            ),
            ({"window_grid": "absolute"}, "window_grid was trace, is absolute"),
            ({"bandpass": (2, 20)}, "bandpass was not there, is [2.0, 20.0]"),
        ],
    )
    def test_others_are_refused_and_nothing_is_touched(
        self,
        finished: Path,
        there: Path,
        imported_model: str,
        changes: dict[str, Any],
        words: str,
    ) -> None:
        before = {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()}
        with pytest.raises(ReplaceError) as caught:
            pick_again(finished, there, imported_model, **changes)
        assert words in caught.value.message
        assert "--fresh" in str(caught.value.hint) and "resume='never'" in str(caught.value.hint)
        after = {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()}
        assert after == before, "not even the log"

    def test_another_archive_is_refused(
        self, finished: Path, there: Path, imported_model: str
    ) -> None:
        other = finished / "in" / "20241215T120000Z_20241215T120200Z" / "DEM02"
        with pytest.raises(ReplaceError, match="input was"):
            pick_again(finished, there, imported_model, input=other)

    @pytest.mark.slow
    def test_resume_never_replaces_it_with_all_that_belongs_to_it(
        self, finished: Path, there: Path, imported_model: str, cli: Any
    ) -> None:
        """Events, scores and pictures of other picks must not lie beside new ones."""
        derived = ["events.csv", "event_picks.csv", "events.quakeml", "events.scml", "events.obs"]
        derived += ["show_XX.DEM01.png", "score.json", "matches.csv", "curve.csv", "stations.csv"]
        for name in derived:
            (there / name).write_text("of the picks of before")
        assert (
            cli("convert", there, "--to", "quakeml", "-o", there / "picks.quakeml").exit_code == 0
        )
        mine = {"notes.txt": "mine", "stations.xml": "mine", "events-of-mine.csv": "mine"}
        for name, text in mine.items():
            (there / name).write_text(text)
        run = pick_again(finished, there, imported_model, p_threshold=0.4, resume="never")
        assert run.counts["picks"] > 0
        assert {path.name for path in there.iterdir()} == {
            *("picks.csv", "picks.parquet", "detections.csv", "detections.parquet"),
            *("summary.json", "run.log", *mine),
        } | ({"tasks.parquet"} if (finished / "out" / "tasks.parquet").exists() else set())

    @pytest.mark.slow
    def test_tables_of_ones_own_stay(
        self, finished: Path, there: Path, imported_model: str
    ) -> None:
        """Without the files that tell whose they are, tables are the user's."""
        for name in ("events.csv", "stations.csv", "curve.csv"):
            (there / name).write_text("mine")
        pick_again(finished, there, imported_model, resume="never", stations="DEM01")
        for name in ("events.csv", "stations.csv", "curve.csv"):
            assert (there / name).read_text() == "mine"

    @pytest.mark.slow
    def test_folders_of_eqcctpros_format_go_too(
        self, finished: Path, imported_model: str, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        pick_again(finished, out, imported_model, formats=("csv", "eqcctpro"))
        assert len(list(out.glob("*/*_outputs/X_prediction_results.csv"))) == 6
        mine = out / "elsewhere" / "A_outputs"
        mine.mkdir(parents=True)
        (mine / "notes.csv").write_text("mine")
        pick_again(finished, out, imported_model, stations="DEM01", resume="never")
        assert not list(out.glob("*/*_outputs/X_prediction_results.csv"))
        assert (mine / "notes.csv").exists()

    @pytest.mark.slow
    def test_results_that_nobody_can_read_are_not_in_the_way(
        self, finished: Path, there: Path, imported_model: str
    ) -> None:
        (there / "summary.json").write_text("{")
        assert pick_again(finished, there, imported_model, p_threshold=0.4).counts["picks"]


NO_GPU = {"device": "cuda", "runtime": "auto"}
NO_MEMORY = {"mode": "modelactor", "workers": 2, "ram_safety_cap": 0.00001}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path, but for the log and what SQLite leaves when it reads."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith((".log", "-shm", "-wal"))
    }


@pytest.fixture
def no_gpu() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")


@pytest.mark.usefixtures("no_gpu")
class TestStartThatFails:
    """A run that cannot start: what is in its folder stays, and the real fault is said."""

    @pytest.mark.parametrize("journal", [True, False])
    @pytest.mark.parametrize(
        ("changes", "error"), [(NO_GPU, RuntimeUnavailableError), (NO_MEMORY, ResourceError)]
    )
    def test_fresh_keeps_the_results(
        self,
        finished: Path,
        there: Path,
        imported_model: str,
        changes: dict[str, Any],
        error: type[Exception],
        journal: bool,
    ) -> None:
        before, log = contents(there), (there / "run.log").read_text()
        changes = {**changes, "resume": "never", "journal": journal}
        with pytest.raises(error) as caught:
            pick_again(finished, there, imported_model, **changes)
        assert contents(there) == before
        after = (there / "run.log").read_text()
        assert after.startswith(log)
        assert str(caught.value).splitlines()[0] in after[len(log) :]

    @pytest.mark.slow
    def test_fresh_keeps_an_unfinished_run(
        self, finished: Path, tmp_path: Path, imported_model: str, monkeypatch: Any
    ) -> None:
        from eqcctpro.orchestration import session

        def stop(*_: Any) -> None:
            raise KeyboardInterrupt

        out = tmp_path / "out"
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(session, "_finish", stop)
            pick_again(finished, out, imported_model)
        before = contents(out)
        assert ".eqcctpro/journal.sqlite" in before
        for resume in ("never", "auto"):  # the device differs too, which is not the real fault
            with pytest.raises(RuntimeUnavailableError):
                pick_again(finished, out, imported_model, **NO_GPU, resume=resume)
            assert contents(out) == before
        pick_again(finished, out, imported_model)
        assert "going on with an earlier run" in (out / "run.log").read_text()

    @pytest.mark.slow
    def test_workers_that_do_not_start(
        self, finished: Path, there: Path, imported_model: str, monkeypatch: Any
    ) -> None:
        from eqcctpro.orchestration import session

        def fail(*_: Any, **__: Any) -> None:
            raise ResourceError("no worker started")

        before = contents(there)
        with monkeypatch.context() as patch, pytest.raises(ResourceError):
            patch.setattr(session, "open_workers", fail)
            pick_again(finished, there, imported_model, resume="never", p_threshold=0.4)
        assert contents(there) == before
        pick_again(finished, there, imported_model, resume="never", p_threshold=0.4)
        log = (there / "run.log").read_text()
        assert "no worker started" not in log, "a run that begins has a log of its own"
        assert log.count("station tasks in") == 1 and log.count("done ") == 1

    @pytest.mark.parametrize(
        ("changes", "error", "words"),
        [
            ({"input": "nowhere"}, InputError, "does not exist"),
            ({"input": "."}, InputError, "holds no files"),
            (NO_GPU, RuntimeUnavailableError, "CUDA"),
            (NO_MEMORY, ResourceError, "(?i)memory|RAM"),
            ({"model": "NoNet/original"}, UnknownModelError, "NoNet"),
            ({"runtime": "tensorflow"}, RuntimeUnavailableError, "tensorflow"),
        ],
    )
    def test_the_fault_is_said_before_other_settings_are(
        self,
        finished: Path,
        there: Path,
        imported_model: str,
        changes: dict[str, Any],
        error: type[Exception],
        words: str,
        tmp_path: Path,
        monkeypatch: Any,
    ) -> None:
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")
        before = contents(there)
        model = {"model": imported_model, **changes}.pop("model")
        changes = {name: value for name, value in changes.items() if name != "model"}
        with pytest.raises(error, match=words):
            pick_again(finished, there, model, p_threshold=0.4, **changes)
        assert contents(there) == before


@pytest.mark.slow
class TestCommandLine:
    def test_refused_without_a_terminal(
        self, finished: Path, there: Path, imported_model: str, cli: Any
    ) -> None:
        options = ["--runtime", "torch", "--threads", "1", "--no-overview", "--p-threshold", "0.4"]
        command = ["pick", finished / "in", "-o", there, "--model", imported_model, *options]
        ended = cli(*command)
        assert ended.exit_code == 2
        assert "finished run with other settings: p_threshold was 0.1, is 0.4" in ended.output
        assert "hint: another output folder keeps them; --fresh" in ended.output
        ended = cli(*command, "--fresh")
        assert ended.exit_code == 0, ended.output

    @pytest.mark.parametrize(("answer", "code"), [("n", 2), ("y", 0)])
    def test_a_terminal_is_asked(
        self, finished: Path, there: Path, imported_model: str, answer: str, code: int
    ) -> None:
        options = ["--runtime", "torch", "--threads", "1", "--no-overview", "--p-threshold", "0.4"]
        command = [sys.executable, "-m", "eqcctpro", "pick", str(finished / "in"), "-o", str(there)]
        said, ended = on_a_terminal([*command, "--model", imported_model, *options], answer)
        assert "Discard them and pick anew? [y/N]" in said
        assert ended == code
        summary = json.loads((there / "summary.json").read_text())
        assert summary["applied"]["thresholds"]["P"] == (0.4 if answer == "y" else 0.1)


def on_a_terminal(command: list[str], answer: str) -> tuple[str, int]:
    """What a command says on a terminal, where its one question is answered."""
    mine, theirs = pty.openpty()
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, answered, deadline = b"", False, time.monotonic() + 120
    while time.monotonic() < deadline:
        if select.select([mine], [], [], 0.2)[0]:
            try:
                said += os.read(mine, 4096)
            except OSError:  # the other end is closed
                break
        if not answered and b"[y/N]" in said:
            os.write(mine, f"{answer}\n".encode())
            answered = True
        if process.poll() is not None and not select.select([mine], [], [], 0)[0]:
            break
    os.close(mine)
    return said.decode(), process.wait(timeout=30)
