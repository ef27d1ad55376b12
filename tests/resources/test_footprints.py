"""What is known of a worker's memory, and what is measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eqcctpro.errors import OutputError, SettingsError, WorkerError
from eqcctpro.orchestration.probe import measure_footprint
from eqcctpro.resources.footprints import (
    Footprint,
    find_footprint,
    footprints_path,
    save_footprints,
    worst_footprint,
)
from eqcctpro.resources.published_footprints import ripper_factor

ROW = '{"footprints": [{"model": "A/b", "runtime": "torch", "device": "cpu", "ram_mb": %s}]}'


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "config"
    monkeypatch.setenv("EQCCTPRO_CONFIG", str(folder))
    return folder


class TestWhatIsKnown:
    def test_published_values_for_torch(self) -> None:
        cpu = find_footprint("eqtransformer/original", "torch", "cpu")
        gpu = find_footprint("EQTransformer/original", "torch", "cuda")
        assert cpu is not None and gpu is not None
        assert (cpu.ram_mb, cpu.source) == (521, "published")
        assert (gpu.ram_mb, gpu.vram_mb) == (1001, 528)

    def test_shipped_values_for_exported_models(self) -> None:
        found = find_footprint("PhaseNet/anything", "openvino", "cpu")
        assert found is not None and found.source == "shipped" and found.ram_mb > 100
        assert find_footprint("PhaseNet/anything", "openvino", "cuda") is None

    def test_an_unknown_model_is_not_guessed(self) -> None:
        assert find_footprint("CRED/original", "torch", "cpu") is None
        assert find_footprint("PhaseNet/mine", "torch", "cpu") is None
        assert worst_footprint("CRED/original", ("openvino",), "cpu") is None

    def test_the_worst_of_several_runtimes(self) -> None:
        worst = worst_footprint("EQCCT/original", ("openvino", "onnxruntime"), "cpu")
        assert worst is not None and worst.runtime == "onnxruntime"

    def test_factors_of_mode_ripper(self) -> None:
        factors = [ripper_factor(name) for name in ("EQCCT", "PhaseNet", "GPD", "Other")]
        assert factors == [2.0, 1.7, 1.8, 1.8]


class TestTheUsersFile:
    def test_measured_values_win(self) -> None:
        save_footprints([Footprint("PhaseNet/original", "torch", "cpu", 333.0)])
        found = find_footprint("phasenet/Original", "torch", "cpu")
        assert found is not None and (found.ram_mb, found.source) == (333.0, "calibrated")
        other = find_footprint("PhaseNet/stead", "torch", "cpu")
        assert other is not None and other.source == "published"

    def test_later_ones_replace_earlier_ones_and_keep_the_rest(self) -> None:
        save_footprints(
            [Footprint("A/b", "torch", "cpu", 1.0), Footprint("A/c", "torch", "cpu", 2)]
        )
        save_footprints([Footprint("a/B", "torch", "cpu", 3.0)])
        rows = json.loads(footprints_path().read_text())["footprints"]
        assert sorted(row["ram_mb"] for row in rows) == [2, 3]

    @pytest.mark.parametrize(
        "text",
        [
            "{",
            "[]",
            '{"footprints": [{"model": "A/b"}]}',
            ROW % '"x"',
            ROW % "-1",
            ROW % "0",
            '{"footprints": 7}',
        ],
    )
    def test_a_damaged_file_is_named(self, config: Path, text: str) -> None:
        config.mkdir()
        (config / "footprints.json").write_text(text)
        with pytest.raises(SettingsError, match=r"footprints\.json"):
            find_footprint("PhaseNet/original", "torch", "cpu")

    def test_a_folder_that_cannot_be_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("in the way")
        monkeypatch.setenv("EQCCTPRO_CONFIG", str(tmp_path / "file"))
        with pytest.raises(OutputError, match="EQCCTPRO_CONFIG"):
            save_footprints([Footprint("A/b", "torch", "cpu", 1.0)])


@pytest.mark.slow
class TestMeasuring:
    @pytest.mark.parametrize(
        "runtime", ["onnxruntime", pytest.param("torch", marks=pytest.mark.exhaustive)]
    )
    def test_a_worker(self, imported_model: str, runtime: str) -> None:
        measured = measure_footprint(imported_model, runtime=runtime, batch_size=16)
        assert (measured.model, measured.runtime) == (imported_model, runtime)
        assert measured.batch_size == 16 and measured.vram_mb == 0
        assert 40 < measured.load_mb <= measured.ram_mb < 2000
        # Larger batches take more; torch frees each layer's memory within milliseconds, and what
        # it takes between two looks is not seen.
        assert measured.ram_per_window_mb >= 0
        assert measured.ram_per_window_mb > 0 or runtime == "torch"

    def test_a_model_that_is_not_there(self) -> None:
        with pytest.raises(WorkerError, match="did you mean EQTransformer"):
            measure_footprint("EQTransfromer/original")

    def test_the_command_writes_what_plans_read(
        self, cli: Callable[..., Any], imported_model: str
    ) -> None:
        done = cli("calibrate", "--model", imported_model, "--runtime", "onnxruntime")
        assert done.exit_code == 0, done.output
        assert str(footprints_path()) in done.output
        found = find_footprint(imported_model, "onnxruntime", "cpu")
        assert found is not None and found.source == "calibrated"
        assert f"{found.ram_mb:.0f}" in done.output

    def test_the_command_says_what_it_could_not_measure(self, cli: Callable[..., Any]) -> None:
        done = cli("calibrate", "--model", "No/such", "--runtime", "torch")
        assert done.exit_code == 4
        assert "not measured: No/such on torch" in done.output
