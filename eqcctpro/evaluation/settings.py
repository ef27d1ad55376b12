"""The settings of an evaluation: one validated object that is passed down."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from eqcctpro.config import PickConfig, sentences
from eqcctpro.errors import SettingsError

__all__ = ["PERCENT_STEPS", "EvaluationConfig"]

#: Shares of the stations that are picked at once, in percent: EQCCTPro's documented steps.
PERCENT_STEPS = (20, 40, 60, 80, 100)

Mode = Literal["local", "modelactor", "ripper"]
Runtime = Literal["auto", "torch", "onnxruntime", "openvino", "tensorflow"]


class EvaluationConfig(BaseModel):
    """What is measured, and how often.

    Every combination of the axes is one trial, where it makes sense: mode ``local`` has no
    concurrency, and values that memory caps to the same number of workers run once.

    Attributes
    ----------
    pick : PickConfig
        What every trial picks, and all settings that are no axis.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    pick: PickConfig
    eval_mode: Literal["cpu", "gpu"] = "cpu"
    csv_dir: Path

    cpu_counts: tuple[int, ...] = Field(description="Cores of a trial: the first so many")
    gpu_counts: tuple[int, ...] = (0,)
    station_counts: tuple[int, ...]
    concurrency: tuple[int, ...] | Literal["percent", "max"] = "percent"
    timechunk_concurrency: tuple[int, ...] = (1,)
    modes: tuple[Mode, ...] = ("modelactor",)
    runtimes: tuple[Runtime, ...] = ("auto",)
    batch_sizes: tuple[int | None, ...] = (None,)
    baselines: tuple[str, ...] = ()

    repeats: int = Field(3, ge=1, le=100)
    warm_ups: int = Field(1, ge=0, le=10)
    seed: int = 0
    retry_failed: bool = False
    trial_timeout_s: float = Field(3600.0, gt=0)

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
