"""Settings of a live run, as one validated object."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, unquote

from pydantic import Field, field_validator, model_validator

from eqcctpro.config import ModelConfig, UtcText, check_arithmetic, split_names
from eqcctpro.errors import EQCCTProError, SettingsError
from eqcctpro.live.client import ServerAddress
from eqcctpro.live.packets import StationChoice
from eqcctpro.times import parse_utc

__all__ = ["REPLAY", "LiveConfig", "replay_address"]

#: What addresses of archives begin with.
REPLAY = "replay:"


def replay_address(url: str) -> tuple[str, float]:
    """Path and speed of ``replay:ARCHIVE?speed=20``.

    Raises
    ------
    SettingsError
        It names no archive, or no speed.
    """
    path, _, query = url.removeprefix(REPLAY).partition("?")
    if not path:
        raise SettingsError(f"{url!r} names no archive", hint="replay:ARCHIVE?speed=20")
    speed = 1.0
    for name, value in parse_qsl(query, keep_blank_values=True):
        try:
            speed = float(value)
        except ValueError:
            speed = -1.0
        if name != "speed" or not 0 <= speed <= 1e6:
            raise SettingsError(
                f"{url!r}: {name}={value} is no speed between 0 and 1,000,000",
                hint="replay:ARCHIVE?speed=20; 1 is real time, 0 as fast as possible",
            )
    return unquote(path), speed


class LiveConfig(ModelConfig):
    """Everything that ``eqcctpro live`` can be told.

    The names are those of the command line, with ``_`` for ``-``, but for `run_for` (``--for``),
    `sinks` (``--sink``) and `model_arguments` (``--set``); a settings file may have ``for`` and
    ``sink``, too.
    """

    sources: tuple[str, ...] = Field(
        description="seedlink://HOST:18000, seedlinks://HOST:18500 (TLS) or "
        "replay:ARCHIVE?speed=20",
        min_length=1,
    )
    output: Path = Field(description="Folder that picks and the state are written to")
    stations: tuple[str, ...] = Field(
        (), description="Patterns of stations, such as NC.*,PB35,TX.*.*.HH; by default all"
    )
    exclude: tuple[str, ...] = Field((), description="Patterns of stations to leave out")
    window_grid: Literal["absolute"] = Field(
        "absolute", description="Windows start at multiples of the step since 1970"
    )
    runtime: Literal["auto", "torch", "onnxruntime", "openvino"] = Field(
        "auto", description="Runtime of the network; auto takes the fastest installed one"
    )
    device: str = Field("cpu", description="cpu, cuda or cuda:0")
    batch_size: int | None = Field(None, ge=1, description="Windows in a batch")
    threads: int | None = Field(None, ge=1, description="Threads of the runtime")
    patience: float = Field(
        10.0,
        ge=0,
        le=3600,
        description="Seconds that a window waits for a late component, beside the length of its "
        "records, and records for what is missing before them",
    )
    backfill: float | None = Field(
        None, gt=0, le=7 * 24 * 60, description="Minutes of data before the start to pick as well"
    )
    run_for: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="End after so many seconds"
    )
    until: UtcText | None = Field(None, description="End at this time, UTC, by the clock")
    sinks: tuple[str, ...] = Field((), description="Where picks are sent, besides the folder")
    disk_limit: int = Field(
        2000, ge=1, description="MB that picks on their way to sinks may take on the disk"
    )
    http: str = Field(
        "", description="HOST:PORT at which status, metrics and picks are told, such as 8080"
    )
    http_key: str = Field(
        "",
        repr=False,
        description="Key that readers give; needed where other machines can connect. ${NAME} is "
        "the variable of the environment",
    )

    @model_validator(mode="before")
    @classmethod
    def _other_names(cls, values: Any) -> Any:
        values = dict(values)
        for given, name in (("for", "run_for"), ("sink", "sinks"), ("source", "sources")):
            if given in values:
                if name in values:
                    raise ValueError(f"{given} and {name} are the same setting")
                values[name] = values.pop(given)
        return values

    @field_validator("sources", "sinks", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("stations", "exclude", mode="before")
    @classmethod
    def _with_commas(cls, value: Any) -> Any:
        return split_names(value)

    @field_validator("sources")
    @classmethod
    def _are_sources(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            _checked(replay_address if url.startswith(REPLAY) else ServerAddress.parse, url)
        if len(set(value)) < len(value):
            raise ValueError("a source is given twice")
        return value

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        _checked(StationChoice, self.stations, self.exclude)
        check_arithmetic(self.runtime, self.device, "float32")
        if self.until is not None and self.run_for is not None:
            raise ValueError("give either for or until")
        if self.http_key and not self.http:
            raise ValueError("http_key has no effect without http, the address to listen at")
        if self.p_model is not None or self.s_model is not None:
            raise ValueError("p_model and s_model are of EQCCT, which does not pick real-time data")
        return self

    @property
    def until_ns(self) -> int | None:
        """`until` in nanoseconds since 1970."""
        return None if self.until is None else parse_utc(self.until, "until")


def _checked(check: Any, *values: Any) -> None:
    """Have errors of our own reported with all others."""
    try:
        check(*values)
    except EQCCTProError as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise ValueError(f"{error.message}{hint}") from error
