"""Wrong settings and unusable input: what is said, the exit code, and what still works."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqcctpro.errors import (
    InputError,
    OutputError,
    SettingsError,
    UnknownModelError,
    WeightsNotFoundError,
)
from eqcctpro.synthetic.network import START_NS

pytestmark = pytest.mark.usefixtures("imported_model")

as_root = hasattr(os, "geteuid") and os.geteuid() == 0
not_as_root = pytest.mark.skipif(as_root, reason="root may read and write everything")

SETTINGS, INPUT, MODEL, OUTPUT, SOME_FAILED = 2, 3, 4, 5, 10
FAST = ("--runtime", "torch", "--threads", "1", "--no-overview", "--format", "csv")
STATIONS = {f"DEM0{number}" for number in range(1, 7)}


@pytest.fixture
def run(
    cli: Callable[..., Any], imported_model: str, tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run ``eqcctpro pick``; returns the exit code, stdout and stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        given = ["pick", *FAST, *arguments]
        if "-o" not in arguments:
            given += ["-o", tmp_path / "out"]
        if "--model" not in arguments:
            given += ["--model", imported_model]
        result = cli(*given)
        # Anything but an orderly end is an error that nobody expected.
        assert result.exception is None or isinstance(result.exception, SystemExit), (
            result.exception
        )
        assert "Traceback" not in result.stderr
        return result.exit_code, result.stdout, result.stderr

    return call


@pytest.fixture
def summary(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    return lambda: json.loads((tmp_path / "out" / "summary.json").read_text())


def station_folder(archive: Path, station: str) -> Path:
    (folder,) = archive.glob(f"*/{station}")
    return folder


def noise(n: int, kind: str = "f4", seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(n) * 1000).astype(kind)


def test_sound_input_ends_with_zero(run: Any, network: Path, summary: Any) -> None:
    code, out, _ = run(network)
    assert code == 0
    assert "6 done, 0 empty, 0 failed" in out
    assert summary()["balanced"]


class TestInput:
    def test_missing_folder(self, run: Any, tmp_path: Path) -> None:
        code, out, err = run(tmp_path / "nowhere")
        assert code == INPUT and out == ""
        assert f"{tmp_path / 'nowhere'} does not exist" in err
        assert "hint: " in err

    def test_empty_folder(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        code, _, err = run(tmp_path / "empty")
        assert code == INPUT and f"{tmp_path / 'empty'} holds no files" in err

    def test_folder_without_time_chunks(self, run: Any, network: Path) -> None:
        (chunk,) = network.iterdir()
        code, _, err = run(chunk, "--layout", "chunks")
        assert code == INPUT and "holds no time-chunk folder" in err and "--layout files" in err

    def test_only_other_files(self, run: Any, tmp_path: Path) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in" / "readme.txt").write_text("nothing to pick")
        code, _, err = run(tmp_path / "in")
        assert code == INPUT and "nothing to pick" in err

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("content", "says"),
        [
            (b"", "empty"),
            (bytes(range(256)) * 40, "miniSEED"),
            (b"this is text, whatever its name says\n" * 100, "miniSEED"),
        ],
        ids=["zero-length", "random", "text"],
    )
    def test_bad_file_fails_and_the_others_are_picked(
        self, run: Any, network: Path, summary: Any, content: bytes, says: str
    ) -> None:
        bad = station_folder(network, "DEM01") / "bad.mseed"
        bad.write_bytes(content)
        code, out, err = run(network)
        assert code == SOME_FAILED
        assert str(bad) in err and says in err
        assert "6 done" in out
        (failed,) = summary()["files_failed"]
        assert failed["file"] == str(bad)

    @pytest.mark.slow
    def test_only_file_of_a_station_is_bad(self, run: Any, network: Path, summary: Any) -> None:
        folder = station_folder(network, "DEM01")
        for path in folder.iterdir():
            path.write_bytes(b"\x00" * 4096)
        code, out, err = run(network)
        assert code == SOME_FAILED and "5 done" in out
        assert all(str(path) in err for path in folder.iterdir())
        assert len(summary()["files_failed"]) == 3

    def test_the_only_file_is_bad(self, run: Any, tmp_path: Path) -> None:
        bad = tmp_path / "bad.mseed"
        bad.write_bytes(b"\x01\x02" * 5000)
        code, _, err = run(bad)
        assert code == INPUT and str(bad) in err

    @pytest.mark.slow
    def test_truncated_file_gives_what_is_whole(
        self, run: Any, network: Path, summary: Any
    ) -> None:
        for path in station_folder(network, "DEM01").iterdir():
            content = path.read_bytes()
            path.write_bytes(content[: len(content) - 700])
        code, out, err = run(network, "--stations", "DEM01")
        assert code == 0 and "1 done" in out
        assert err.count("not picked: ") == err.count("only partly readable") == 3
        (noted,) = summary()["notes"]
        assert len([note for note in noted["notes"] if "partly readable" in note]) == 3

    @pytest.mark.slow
    @pytest.mark.parametrize("damaged", [slice(0, 512), slice(64, 512)], ids=["header", "samples"])
    def test_what_follows_damage_is_read(
        self, run: Any, network: Path, summary: Any, damaged: slice
    ) -> None:
        path = next(station_folder(network, "DEM01").glob("*HHZ*"))
        content = np.frombuffer(path.read_bytes(), "u1").copy()
        record = content[512 * 20 : 512 * 21]
        record[damaged] = np.random.default_rng(0).integers(0, 256, 512)[damaged]
        path.write_bytes(content.tobytes())
        code, out, _ = run(network, "--stations", "DEM01,DEM02")
        assert code == 0 and "2 done" in out
        (noted,) = summary()["notes"]
        notes = " ".join(noted["notes"])
        assert str(path) in notes and f"512 of {len(content)} bytes of " in notes
        assert "gaps: 4 pieces" in notes

    @pytest.mark.slow
    def test_other_files_are_listed_and_ignored(
        self, run: Any, network: Path, summary: Any
    ) -> None:
        other = station_folder(network, "DEM01") / "notes.txt"
        other.write_text("installed in 1999")
        code, *_ = run(network)
        assert code == 0
        assert summary()["files_ignored"] == [{"file": str(other), "reason": "not miniSEED"}]
        assert summary()["plan"]["files_ignored"] == 1

    @not_as_root
    def test_unreadable_file(self, run: Any, network: Path) -> None:
        path = next(station_folder(network, "DEM01").iterdir())
        path.chmod(0)
        code, out, err = run(network)
        assert code == SOME_FAILED and str(path) in err and "6 done" in out

    @pytest.mark.slow
    def test_broken_link(self, run: Any, network: Path) -> None:
        link = station_folder(network, "DEM01") / "gone.mseed"
        link.symlink_to(network / "nowhere.mseed")
        code, out, err = run(network)
        assert code == SOME_FAILED and str(link) in err and "6 done" in out

    def test_data_that_are_not_in_the_asked_for_time(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--start", "2020-01-01", "--end", "2020-01-02")
        assert code == INPUT and "no data between" in err

    def test_fail_fast_stops_at_the_first_bad_file(self, run: Any, network: Path) -> None:
        bad = station_folder(network, "DEM01") / "bad.mseed"
        bad.write_bytes(b"")
        code, _, err = run(network, "--fail-fast")
        assert code == InputError.exit_code and str(bad) in err
        assert not (network.parent / "out" / "picks.csv").exists()


class TestWaveforms:
    """Stations whose waveforms cannot be picked, beside one that can."""

    @pytest.fixture
    def reason(
        self, run: Any, network: Path, summary: Any, write_mseed: Any
    ) -> Callable[..., tuple[str, list[str]]]:
        """Pick DEM01 and a station AAA made of pieces; why AAA is empty, and its notes."""

        def call(pieces: list[tuple[int, np.ndarray]], rate: float = 100.0) -> Any:
            for component in "ZNE":
                path = station_folder(network, "DEM01").parent / "AAA" / f"{component}.mseed"
                write_mseed(path, f"XX.AAA..HH{component}", pieces, rate)
            code, out, _ = run(network, "--stations", "AAA,DEM01")
            assert code == 0
            facts = summary()
            assert facts["tasks"]["failed"] == 0
            assert facts["tasks"]["done"] >= 1, out
            reasons = [item["reason"] for item in facts["empty"]]
            noted = [item["notes"] for item in facts["notes"] if "AAA" in item["station"]]
            return "".join(reasons), [note for notes in noted for note in notes]

        return call

    @pytest.mark.slow
    def test_zeros(self, reason: Any) -> None:
        why, _ = reason([(START_NS, np.zeros(12000, "i4"))])
        assert why == "all samples are zero"

    @pytest.mark.slow
    def test_all_nan(self, reason: Any) -> None:
        why, notes = reason([(START_NS, np.full(12000, np.nan, "f4"))])
        assert why and "36000 samples that are not numbers" in " ".join(notes)

    @pytest.mark.slow
    def test_some_nan_are_a_gap(self, reason: Any) -> None:
        samples = noise(12000)
        samples[9000:9100] = np.nan
        samples[9500] = np.inf
        why, notes = reason([(START_NS, samples)])
        assert why == ""
        assert "303 samples that are not numbers were treated as a gap" in notes

    @pytest.mark.slow
    def test_single_sample(self, reason: Any) -> None:
        why, _ = reason([(START_NS, noise(1, "i4") + np.int32(7))])
        assert "no stretch of usable samples" in why

    @pytest.mark.slow
    def test_shorter_than_a_window(self, reason: Any) -> None:
        why, _ = reason([(START_NS, noise(5999))])
        assert why == "too short: 5999 samples, and a window has 6000"

    @pytest.mark.slow
    def test_components_that_the_model_does_not_know(
        self, run: Any, network: Path, summary: Any, write_mseed: Any
    ) -> None:
        folder = station_folder(network, "DEM01").parent / "AAA"
        write_mseed(folder / "h.mseed", "XX.AAA..HDH", [(START_NS, noise(12000))])
        code, *_ = run(network, "--stations", "AAA,DEM01")
        assert code == 0
        assert "no component that EQTransformer/original knows" in summary()["empty"][0]["reason"]


class TestSettings:
    @pytest.mark.parametrize("threshold", ["0", "1", "1.5", "-1", "nan"])
    @pytest.mark.parametrize("option", ["--p-threshold", "--s-threshold", "--detection-threshold"])
    def test_threshold_out_of_range(
        self, run: Any, network: Path, option: str, threshold: str
    ) -> None:
        code, _, err = run(network, f"{option}={threshold}")
        assert code == SETTINGS
        assert option.strip("-").replace("-", "_") in err.replace("-", "_")

    def test_threshold_that_is_no_number(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--p-threshold", "abc")
        assert code == SETTINGS and "--p-threshold" in err and "number" in err

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            (("--start", "2024-12-15T12:01", "--end", "2024-12-15T12:00"), "not after"),
            (("--start", "2024-12-15T12:01", "--end", "2024-12-15T12:01"), "not after"),
            (("--start", "half past ten"), "half past ten"),
            (("--stations", "NOPE*"), "NOPE*"),
            (("--layout", "folders"), "layout"),
            (("--mode", "threads"), "mode"),
            (("--device", "gpu"), "'gpu' is not a device"),
            (("--overlap", "2"), "overlap needs a timechunk"),
            (("--timechunk", "1", "--overlap", "1"), "shorter than timechunk"),
            (("--timechunk", "0"), "timechunk"),
            (("--window-grid", "free"), "window_grid"),
            (("--batch-size", "0"), "batch_size"),
            (("--workers", "2"), "workers applies to the modes"),
            (("--mode", "modelactor", "--address", "ray://head:10001"), "address: ray:// is Ray's"),
            (("--set", "overlap"), "NAME=VALUE"),
            (("--set", "overlapp=0.5"), "did you mean overlap?"),
            (("--set", "overlap=a"), "overlap: 'a' is not a number"),
            (("--set", "overlap=6000"), "overlap"),
            (("--set", "overlap=-3"), "overlap"),
            (("--set", "stacking=sum"), "stacking"),
            (("--set", "blinding=5"), "blinding"),
            (("--set", "blinding=4000,4000"), "blinding"),
            (("--set", "strict=perhaps"), "strict"),
            (("--set", "P_threshold=2"), "P_threshold"),
            (("--set", "N_threshold=0.5"), "N_threshold"),
            (("--set", "batch_size=many"), "batch_size"),
            (("--bandpass", "45,1"), "bandpass"),
            (("--bandpass", "1"), "bandpass"),
            (("--bandpass", "a,b"), "bandpass"),
            (("--runtime", "jax"), "runtime"),
            (("--format", "xml"), "formats"),
        ],
    )
    def test_wrong_option(
        self, run: Any, network: Path, options: tuple[str, ...], says: str
    ) -> None:
        code, out, err = run(network, *options)
        assert code == SETTINGS, err
        assert says in err and out == ""

    def test_unknown_option(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--p-treshold", "0.5")
        assert code == SETTINGS and "--p-treshold" in err

    def test_stations_that_are_there_are_named(self, run: Any, network: Path) -> None:
        _, _, err = run(network, "--stations", "DEM7")
        assert all(f"XX.{station}" in err for station in STATIONS)

    def test_missing_input_and_output(self, cli: Any) -> None:
        result = cli("pick")
        assert result.exit_code == SETTINGS and "input is missing" in result.stderr
        result = cli("pick", "in")
        assert result.exit_code == SETTINGS and "output is missing" in result.stderr

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("missing.toml", None, "missing.toml"),
            ("broken.toml", "model = ", "broken.toml"),
            ("broken.json", "{", "broken.json"),
            ("broken.yaml", "a: [", "broken.yaml"),
            ("list.json", "[1, 2]", "not a table"),
            ("binary.toml", b"\xff\xfe\x00", "binary.toml"),
            ("misspelt.toml", "p_treshold = 0.5", "did you mean p_threshold?"),
            ("wrong.yaml", "p-threshold: high", "p_threshold"),
            ("value.json", '{"batch_size": 0}', "batch_size"),
            ("true.yaml", "batch_size: true", "batch_size: True is no number"),
            ("twice.yaml", "model: A/b\nmodel: C/d", "line 2, column 1: model is given twice"),
            ("twice.toml", "p-threshold = 0.3\np_threshold = 0.4", "p_threshold is given twice"),
            ("settings.conf", "", "must end in .toml, .yaml or .json"),
        ],
    )
    def test_wrong_configuration_file(
        self, run: Any, network: Path, tmp_path: Path, name: str, text: Any, says: str
    ) -> None:
        path = tmp_path / name
        if text is not None:
            path.write_bytes(text if isinstance(text, bytes) else text.encode())
        code, _, err = run(network, "--config", path)
        assert code == SETTINGS and says in err

    @pytest.mark.slow
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("a.toml", 'stations = "DEM01"\np-threshold = 0.88\nmodel_arguments = {overlap = 0}'),
            ("a.yaml", "stations: [DEM01]\np_threshold: 0.88\nmodel-arguments: {overlap: 0}"),
            ("a.json", '{"stations": "DEM01", "p_threshold": 0.88, "model_arguments": {}}'),
        ],
    )
    def test_configuration_file_has_an_effect_and_options_win(
        self, run: Any, network: Path, tmp_path: Path, summary: Any, name: str, text: str
    ) -> None:
        (tmp_path / name).write_text(text)
        code, *_ = run(network, "--config", tmp_path / name)
        settings = summary()["settings"]
        assert code == 0 and settings["stations"] == ["DEM01"]
        assert settings["p_threshold"] == 0.88
        given = ["--p-threshold", "0.3", "--set", "overlap=0.5", "--fresh"]
        run(network, "--config", tmp_path / name, *given)
        settings = summary()["settings"]
        assert settings["p_threshold"] == 0.3
        assert settings["model_arguments"]["overlap"] == "0.5"


class TestModel:
    def test_unknown_model(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--model", "EQTransfromer/original")
        assert code == MODEL and "EQTransfromer" in err and "EQTransformer" in err

    def test_not_a_model_name(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--model", "PhaseNet")
        assert code == MODEL and "Class/weights" in err

    def test_unknown_weights(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--model", "EQTransformer/orignal")
        assert code == MODEL and "orignal" in err and "original" in err

    def test_weight_file_that_is_not_there(self, run: Any, network: Path) -> None:
        code, _, err = run(network, "--model", "EQTransformer/./here.pt")
        assert code == MODEL and "here.pt" in err

    def test_weight_file_that_is_none(self, run: Any, network: Path, tmp_path: Path) -> None:
        path = tmp_path / "own.pt"
        path.write_bytes(b"PK\x03\x04 nothing that torch could load")
        code, _, err = run(network, "--model", f"EQTransformer/{path}")
        assert code == MODEL and str(path) in err

    def test_a_gpu_that_is_not_there(self, run: Any, network: Path) -> None:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        code, _, err = run(network, "--device", "cuda")
        assert code == MODEL and "CUDA" in err

    def test_model_is_checked_before_the_input(self, run: Any, tmp_path: Path) -> None:
        code, *_ = run(tmp_path / "nowhere", "--model", "EQTransfromer/original")
        assert code == MODEL


class TestOutput:
    def test_output_is_a_file(self, run: Any, network: Path, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("in the way")
        code, _, err = run(network, "-o", tmp_path / "file")
        assert code == OUTPUT and str(tmp_path / "file") in err
        code, _, err = run(network, "-o", tmp_path / "file" / "below")
        assert code == OUTPUT and str(tmp_path / "file" / "below") in err

    def test_a_log_that_cannot_be_written(
        self,
        pick: Any,
        cli: Any,
        network: Path,
        imported_model: str,
        tmp_path: Path,
        monkeypatch: Any,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        Path("file").write_text("in the way")
        for log in ("file/below/my.log", "."):
            with pytest.raises(OutputError, match=f"cannot write the log {log}: ") as caught:
                pick(network, model=imported_model, output=tmp_path / "out", log_file=log)
            assert caught.value.hint
        ended = cli("evaluate", network, "-o", "file/ev")
        assert ended.exit_code == OUTPUT, ended.output
        assert "file/ev/evaluation.log" in ended.stderr and "hint:" in ended.stderr

    @not_as_root
    def test_output_may_not_be_written(self, run: Any, network: Path, tmp_path: Path) -> None:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o555)
        code, _, err = run(network, "-o", folder)
        assert code == OUTPUT and str(folder) in err

    @pytest.mark.skipif(not as_root or not shutil.which("setpriv"), reason="needs root, setpriv")
    def test_output_may_not_be_written_by_another_user(self, tmp_path: Path) -> None:
        import subprocess
        import sys

        folder = tmp_path / "closed"
        folder.mkdir(mode=0o755)
        code = (
            "from pathlib import Path\n"
            "from eqcctpro.errors import OutputError\n"
            "from eqcctpro.picks.writers import check_writable\n"
            f"try: check_writable(Path({str(folder)!r}))\n"
            "except OutputError as error: print(error)"
        )
        program = [sys.executable, "-c", code]
        for path in (folder, *folder.parents):
            if path.owner() == "root" and path != Path("/tmp") and "pytest" in str(path):
                path.chmod(0o755)
        done = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *program],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if "ModuleNotFoundError" in done.stderr or "Permission denied: '/" in done.stderr:
            pytest.skip("another user cannot import the package here")
        assert str(folder) in done.stdout and "Permission denied" in done.stdout


class TestInPython:
    """The same errors, as exceptions."""

    def test_kinds(self, pick: Any, network: Path, imported_model: str, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="does not exist"):
            pick(tmp_path / "nowhere", model=imported_model)
        with pytest.raises(SettingsError, match="NOPE"):
            pick(network, model=imported_model, stations="NOPE")
        with pytest.raises(SettingsError, match=r"P_threshold|p_threshold"):
            pick(network, model=imported_model, model_arguments={"P_threshold": 1.5})
        with pytest.raises(UnknownModelError, match="NoNet"):
            pick(network, model="NoNet/original")
        with pytest.raises(WeightsNotFoundError, match="nothing"):
            pick(network, model="EQTransformer/nothing")
        (tmp_path / "file").write_text("")
        with pytest.raises(OutputError, match="file"):
            pick(network, model=imported_model, output=tmp_path / "file")

    def test_the_log_says_why_a_run_ended(
        self, pick: Any, imported_model: str, tmp_path: Path
    ) -> None:
        with pytest.raises(InputError):
            pick(tmp_path / "nowhere", model=imported_model, output=tmp_path / "out")
        assert "does not exist" in (tmp_path / "out" / "run.log").read_text()


@pytest.mark.slow
def test_no_traceback_from_the_program_itself(
    cli_process: Any, network: Path, imported_model: str, tmp_path: Path
) -> None:
    bad = station_folder(network, "DEM01") / "bad.mseed"
    bad.write_bytes(b"")
    arguments = (network, "-o", tmp_path / "out", "--stations", "DEM0[12]", *FAST)
    done = cli_process("pick", *arguments, "--model", imported_model)
    assert done.returncode == SOME_FAILED
    assert str(bad) in done.stderr and "Traceback" not in done.stderr
    done = cli_process("pick", *arguments, "--p-threshold", "3", "--model", imported_model)
    assert done.returncode == SETTINGS and done.stdout == ""
    assert done.stderr.startswith("error: p_threshold")
