"""The settings of an evaluation: one validated object that is passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import (
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from eqcctpro.config import PickConfig, Settings, sentences
from eqcctpro.errors import SettingsError

__all__ = ["PERCENT_STEPS", "EvaluationConfig"]

#: Shares of the stations that are picked at once, in percent: EQCCTPro's documented steps.
PERCENT_STEPS = (20, 40, 60, 80, 100)

Mode = Literal["local", "modelactor", "ripper"]
Runtime = Literal["auto", "torch", "onnxruntime", "openvino", "tensorflow"]


class EvaluationConfig(Settings):
    """Settings of a sweep: what is measured, and how often.

    Every combination of the axes is one trial, where it makes sense: mode ``local`` has no
    concurrency, and values that memory caps to the same number of workers run once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    pick: PickConfig = Field(description="What every trial picks, and all that is no axis")
    eval_mode: Literal["cpu", "gpu"] = Field("cpu", description="Whether trials use GPUs")
    csv_dir: Path = Field(description="Folder of the results")

    cpu_counts: tuple[int, ...] = Field(description="Cores of a trial: the first so many")
    gpu_counts: tuple[int, ...] = Field((0,), description="GPUs of a trial: the first so many")
    station_counts: tuple[int, ...] = Field(description="Stations of a trial")
    concurrency: tuple[int, ...] | Literal["percent", "max"] = Field(
        "percent", description="Workers; percent takes 20 to 100 % of the stations, max all"
    )
    concurrency_step: int | None = Field(
        None, ge=1, description="Instead: workers from the least on by this step, and all stations"
    )
    min_concurrency: int = Field(1, ge=1, description="Least workers of percent and of the step")
    ripper_ignores_ram_cap: bool = Field(
        False, description="Ripper trials start all workers that are asked for"
    )
    timechunk_concurrency: tuple[int, ...] = Field((1,), description="Time chunks at once")
    modes: tuple[Mode, ...] = Field(("modelactor",), description="Modes to compare")
    runtimes: tuple[Runtime, ...] = Field(("auto",), description="Runtimes to compare")
    batch_sizes: tuple[int | None, ...] = Field(
        (None,), description="Batch sizes to compare; None leaves the choice to the run"
    )
    baselines: tuple[str, ...] = Field((), description="Other programs to measure")

    repeats: int = Field(3, ge=1, le=100, description="Runs of a trial that count")
    warm_ups: int = Field(1, ge=0, le=10, description="Runs before them that do not")
    seed: int = Field(0, description="Of the choice of stations")
    retry_failed: bool = Field(True, description="Run trials again that failed before")
    trial_timeout_s: float = Field(3600.0, gt=0, description="Seconds after which a trial is ended")

    @field_validator(
        "cpu_counts", "station_counts", "timechunk_concurrency", "modes", "runtimes", "batch_sizes"
    )
    @classmethod
    def _given_once(cls, value: tuple[Any, ...]) -> tuple[Any, ...]:
        if not value:
            raise ValueError("give at least one")
        return tuple(dict.fromkeys(value))

    @field_validator("cpu_counts", "station_counts", "timechunk_concurrency", "concurrency")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        if isinstance(value, tuple) and any(number < 1 for number in value):
            raise ValueError("numbers must be 1 or more")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> EvaluationConfig:
        gpus = self.pick.gpu_ids
        if self.eval_mode == "gpu" and not gpus:
            raise ValueError("eval_mode gpu: choose GPUs (selected_gpus, or device)")
        if self.eval_mode == "cpu" and gpus:
            raise ValueError("eval_mode cpu: the settings name GPUs")
        if max(self.gpu_counts) > len(gpus):
            raise ValueError(f"gpu_counts: {max(self.gpu_counts)} GPUs of {len(gpus)}")
        cores = self.pick.cpu_ids
        if cores is not None and max(self.cpu_counts) > len(cores):
            raise ValueError(f"cpu_counts: {max(self.cpu_counts)} cores of {len(cores)}")
        return self

    @classmethod
    def checked(cls, **values: Any) -> EvaluationConfig:
        """Validate, and report everything that is wrong in one `SettingsError`."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(sentences(error, cls))) from error
