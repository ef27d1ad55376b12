"""The settings of a picking run in four parts, each a validated object that is passed down."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from eqcctpro.errors import SettingsError
from eqcctpro.notices import one_warning, without_effect
from eqcctpro.places import Place, as_place
from eqcctpro.times import parse_utc, utc_text
from eqcctpro.waveform.filters import parse_step
from eqcctpro.waveform.gaps import LONGEST_GAP_S, MOST_GAP_S

__all__ = [
    "EVERYDAY",
    "ClusterAddress",
    "ExecutionConfig",
    "InputConfig",
    "ModelConfig",
    "OutputConfig",
    "OutputFormat",
    "PickConfig",
    "PickingConfig",
    "PreparationConfig",
    "Settings",
    "UtcText",
    "least_probability",
    "sentences",
    "split_names",
]

OutputFormat = Literal[
    "csv",
    "parquet",
    "quakeml",
    "scml",
    "pyocto",
    "gamma",
    "phasenet",
    "nonlinloc",
    "seisbench",
    "eqcctpro",
]


#: Marks the settings whose options people use every day; the help shows the others on request.
EVERYDAY = "everyday"


def _cluster_address(address: str) -> str:
    """Refuse Ray's client: workers would be asked through a process that dies with the link."""
    if not address.strip():
        raise ValueError("it is empty; give HOST:PORT of the cluster's head, or auto")
    if address.startswith("ray://"):
        raise ValueError(
            "ray:// is Ray's client; run the command on a node of the cluster, and name HOST:PORT "
            "of the head, or auto"
        )
    return address


ClusterAddress = Annotated[str, AfterValidator(_cluster_address)]


def _utc_text(value: Any, info: ValidationInfo) -> str:
    return utc_text(value, info.field_name or "time")


#: A time as text; objects of Python, ObsPy, NumPy and pandas are taken too.
UtcText = Annotated[str, BeforeValidator(_utc_text)]


def least_probability(of: str) -> Any:
    """The field of a threshold, by default that of the weights."""
    text = f"Least probability of {of}; by default that of the weights"
    return Field(default=None, gt=0, lt=1, description=text)


#: Arithmetic of a network.
Precision = Literal["f32", "tf32", "fp16", "bf16"]


def check_arithmetic(runtime: str, device: str, precision: str) -> None:
    """Refuse a runtime or a precision that a device does not have.

    Parameters
    ----------
    runtime, device, precision : str
        As in `ExecutionConfig`.

    Raises
    ------
    ValueError
    """
    kind = parse_device(device)[0]
    if kind == "cpu":
        if precision in ("tf32", "fp16"):
            raise ValueError(f"precision: {precision} needs a GPU; on a CPU there is bf16")
        if precision == "bf16" and runtime not in ("auto", "openvino"):
            raise ValueError("precision: bf16 on a CPU needs the runtime openvino")
        return
    if runtime in ("onnxruntime", "openvino"):
        raise ValueError(
            f"runtime {runtime} on device {device}: it is used on the CPU only; "
            "GPUs are used by torch, which auto takes"
        )
    if runtime == "tensorflow" and kind == "mps":
        raise ValueError(f"runtime tensorflow on device {device}: use torch, or the device cpu")
    if precision != "f32" and runtime == "tensorflow":
        raise ValueError(f"precision: {precision} needs the runtime torch")
    if precision == "tf32" and kind == "mps":
        raise ValueError("precision: tf32 is of NVIDIA's GPUs; mps has fp16")


#: Settings of GPU memory, which say nothing to a run on the CPU.
GPU_SETTINGS = ("vram_mb", "max_vram_mb", "gpu_vram_safety_cap", "cudnn_headroom")

#: Arguments of SeisBench's ``annotate`` and ``classify`` that do not change picks.
_NO_MATTER = {
    "copy": "waveforms are always left as they are",
    "parallelism": "workers and threads say how much is done at once",
}

# Name and password in an address, whatever signs they are made of.
_USER = re.compile(r"://[^\s'\"]*@")
# Names of a store's options that would put a secret into the files of a run.
_SECRET = ("key", "secret", "token", "password", "credential")


class Settings(BaseModel):
    """Base of models of settings: true and false, which count as 1 and 0, are no numbers."""

    @field_validator("*", mode="before")
    @classmethod
    def _numbers_are_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        items = value if isinstance(value, (list, tuple)) else (value,)
        kinds = _kinds(cls.model_fields[info.field_name or ""].annotation)
        if {int, float} & kinds and bool not in kinds:
            for item in items:
                if isinstance(item, bool):
                    raise ValueError(f"{item} is no number")
        return value


def _kinds(annotation: Any) -> set[Any]:
    """The types that an annotation is made of."""
    parts = get_args(annotation)
    return {annotation}.union(*map(_kinds, parts)) if parts else {annotation}


class _Part(Settings):
    """Base of a run's settings and of each part of them."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @classmethod
    def checked(cls, **values: Any) -> Self:
        """Validate, and report everything that is wrong in one `SettingsError`.

        Settings that have no effect are left out, and named by one `SettingsWarning`.
        """
        try:
            with one_warning():
                return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(sentences(error, cls))) from error

    def without(self, name: str, reason: str) -> Self:
        """The same settings less one that has no effect, which is said.

        Parameters
        ----------
        name : str
            A field.
        reason : str
            Why it has none.
        """
        copy = self.model_copy()
        copy._leave_out(name, reason)
        return copy

    def _leave_out(self, name: str, reason: str) -> None:
        value = getattr(self, name)
        shown = f"{value:g}" if isinstance(value, float) else value
        without_effect(f"{name}={shown}", reason)
        self.__dict__[name] = type(self).model_fields[name].default
        self.model_fields_set.discard(name)


class InputConfig(_Part):
    """Waveforms that are picked: places, times and stations."""

    input: tuple[Annotated[Place, BeforeValidator(as_place)], ...] = Field(
        description="Folders, miniSEED files, patterns, tables of files, or addresses",
        min_length=1,
    )
    layout: Literal["auto", "chunks", "files", "sds", "list", "scedc", "ncedc", "earthscope"] = (
        Field("auto", description="Layout of the archive; auto recognises it")
    )
    storage: dict[str, Any] = Field(
        default_factory=dict, description="Options of an object store, such as anon"
    )
    input_roots: tuple[Annotated[Place, BeforeValidator(as_place)], ...] = Field(
        (),
        description="Folders and addresses that every file must lie in, links followed; "
        "by default anywhere",
    )
    start: Annotated[UtcText | None, EVERYDAY] = Field(
        None, description="Picks before this time are dropped: 2024-12-15T12:00 or 2024-350, UTC"
    )
    end: Annotated[UtcText | None, EVERYDAY] = Field(
        None, description="Picks from this time on are dropped"
    )
    timechunk: Annotated[float | None, EVERYDAY] = Field(
        None, gt=0, description="Length of a time chunk, minutes"
    )
    overlap: float = Field(0.0, ge=0, description="Overlap of neighbouring chunks, minutes")
    stations: Annotated[tuple[str, ...], EVERYDAY] = Field(
        (),
        description="Patterns of stations, such as NC.*,PB35,TX.*.*.HH, or @FILE with one a line; "
        "by default all",
    )
    stations_at_most: int | None = Field(
        None, ge=1, description="A random choice of so many stations, the same in every run"
    )
    exclude: tuple[str, ...] = Field((), description="Patterns of stations to leave out")
    channel_priority: tuple[str, ...] = Field(
        (), description="Of each station the first of these, such as HH, EH; by default all"
    )
    item_timeout: float | None = Field(
        600.0, gt=0, description="Seconds in which a station task must be read; None waits"
    )

    @field_validator("input", "input_roots", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return (value,) if isinstance(value, (str, Path)) else value

    @field_validator("stations", "exclude", "channel_priority", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        return split_names(value)

    @field_validator("stations", "exclude")
    @classmethod
    def _with_lists(cls, value: tuple[str, ...], info: Any) -> tuple[str, ...]:
        return tuple(name for entry in value for name in _listed(entry, info.field_name))

    @field_validator("storage")
    @classmethod
    def _no_secrets(cls, value: dict[str, Any]) -> dict[str, Any]:
        if secret := [name for name in value if any(word in name.lower() for word in _SECRET)]:
            raise ValueError(
                f"{secret[0]} is a secret, and settings are written to the summary; "
                "use the environment or the store's own configuration files"
            )
        return value

    @model_validator(mode="after")
    def _times_fit_together(self) -> Self:
        if self.start and self.end and self.end_ns <= self.start_ns:  # type: ignore[operator]
            raise ValueError(f"end {self.end} is not after start {self.start}")
        if self.timechunk is None and self.overlap:
            raise ValueError("overlap needs a timechunk length")
        if self.timechunk is not None and self.overlap >= self.timechunk:
            raise ValueError(
                f"overlap ({self.overlap} min) must be shorter than timechunk "
                f"({self.timechunk} min)"
            )
        return self

    @property
    def start_ns(self) -> int | None:
        """`start` in nanoseconds since 1970."""
        return None if self.start is None else parse_utc(self.start, "start")

    @property
    def end_ns(self) -> int | None:
        """`end` in nanoseconds since 1970."""
        return None if self.end is None else parse_utc(self.end, "end")


class PreparationConfig(_Part):
    """Gaps, contradictions and filters of waveforms before they are picked."""

    contradictions: Literal["cut", "drop"] = Field(
        "cut",
        description="Of records of a channel that contradict each other, leave out the stretch "
        "where they do, or (drop) all of them, as SeisBench does",
    )
    fill_gaps: Literal["none", "zero", "interpolate"] = Field(
        "none",
        description="Fill gaps between the pieces of a channel with zeros or straight lines, as "
        "ObsPy's merge does",
    )
    longest_gap: float = Field(
        LONGEST_GAP_S, gt=0, description="Seconds; longer gaps stay gaps, a day at most"
    )
    filters: tuple[str, ...] = Field(
        (),
        description="Filters and detrending in their order, with ObsPy's defaults: highpass:1, "
        "lowpass:20, bandpass:3,15,corners=4,causal, bandstop:49,51, detrend:linear",
    )

    @field_validator("longest_gap")
    @classmethod
    def _is_bounded(cls, value: float) -> float:
        if value > MOST_GAP_S:
            raise ValueError(
                f"gaps of {value:g} s are not filled; give a day ({MOST_GAP_S:g} s) or less"
            )
        return value

    @field_validator("filters", mode="before")
    @classmethod
    def _one_or_many_filters(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @field_validator("filters")
    @classmethod
    def _are_filters(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        """Filters with their defaults written out."""
        return tuple(str(parse_step(text)) for text in value)

    @model_validator(mode="after")
    def _longest_gap_has_effect(self) -> Self:
        if self.fill_gaps == "none" and self.longest_gap != LONGEST_GAP_S:
            self._leave_out("longest_gap", "fill_gaps is none")
        return self


class ModelConfig(_Part):
    """The model that picks, and its parameters."""

    model: Annotated[str, EVERYDAY] = Field(
        "EQTransformer/original", description="Parent/child, or a path to weights"
    )
    p_model: Path | None = Field(
        None, description="Weight file of EQCCT's P network, Keras's .h5 or SeisBench's .pt"
    )
    s_model: Path | None = Field(None, description="Weight file of EQCCT's S network")
    p_threshold: Annotated[float | None, EVERYDAY] = least_probability("a P")
    s_threshold: Annotated[float | None, EVERYDAY] = least_probability("an S")
    detection_threshold: float | None = least_probability("a detection")
    window_grid: Literal["trace", "absolute"] = Field(
        "trace",
        description="Windows start with the record, as SeisBench has it, or at multiples of the "
        "step",
    )
    bandpass: tuple[float, float] | Literal["off"] | None = Field(
        None,
        description="EQCCTPro's band-pass, such as 1,45 Hz; off where a model has it by default",
    )
    model_arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the model, such as overlap and stacking"
    )

    @model_validator(mode="before")
    @classmethod
    def _arguments_that_matter(cls, values: Any) -> Any:
        arguments = values.get("model_arguments") or {}
        if not isinstance(arguments, Mapping) or not _NO_MATTER.keys() & arguments.keys():
            return values
        for name, reason in _NO_MATTER.items():
            if name in arguments:
                without_effect(f"{name}={arguments[name]}", reason)
        rest = {name: value for name, value in arguments.items() if name not in _NO_MATTER}
        return {**values, "model_arguments": rest}

    @model_validator(mode="before")
    @classmethod
    def _files_mean_eqcct(cls, values: Any) -> Any:
        given = isinstance(values, Mapping) and (values.get("p_model") or values.get("s_model"))
        return {"model": "EQCCT/original", **values} if given else values

    @field_validator("bandpass", mode="before")
    @classmethod
    def _corners(cls, value: Any) -> Any:
        if not isinstance(value, str) or value == "off":
            return value
        corners = value.split(",")
        try:
            first, second = map(float, corners)
        except ValueError:
            raise ValueError(f"{value!r} is not two corners in Hz, such as 1,45, or off") from None
        return first, second

    @field_validator("bandpass")
    @classmethod
    def _is_band(
        cls, value: tuple[float, float] | Literal["off"] | None
    ) -> tuple[float, float] | Literal["off"] | None:
        if isinstance(value, tuple) and not 0 < value[0] < value[1]:
            raise ValueError("give the low corner first, both above 0 Hz")
        return value

    @model_validator(mode="after")
    def _files_fit_model(self) -> Self:
        if not self.model.lower().startswith("eqcct/"):
            for name in ("p_model", "s_model"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} is for the model EQCCT, not for {self.model}")
        return self


class ExecutionConfig(_Part):
    """Processes, devices and memory that a run uses."""

    mode: Annotated[Literal["local", "modelactor", "ripper"], EVERYDAY] = Field(
        "local",
        description="One process, Ray workers that keep the model, or Ray tasks that load it, pick "
        "and end",
    )
    workers: Annotated[int | None, EVERYDAY] = Field(
        None, ge=1, description="Worker processes of Ray"
    )
    concurrent_timechunks: int | None = Field(
        None, ge=1, description="Time chunks that Ray workers are busy with at once"
    )
    partition: Annotated[float, Field(gt=0)] | Literal["auto", "off"] = Field(
        "auto",
        description="Days that are planned, picked and written at a time; off takes all at once, "
        "auto does so for archives of less than ten thousand station-days",
    )
    address: ClusterAddress | None = Field(None, description="Address of a running Ray cluster")
    device: Annotated[str, EVERYDAY] = Field(
        "cpu", description="cpu, cuda, cuda:0, cuda:0,1, or mps on a Mac"
    )
    runtime: Literal["auto", "torch", "onnxruntime", "openvino", "tensorflow"] = Field(
        "auto",
        description="Runtime of the network; auto takes the fastest installed one",
    )
    batch_size: int | None = Field(None, ge=1, description="Windows in a batch")
    precision: Precision = Field(
        "f32",
        description="Arithmetic of the network: f32; on a GPU also tf32, fp16 and bf16, on a CPU "
        "bf16; these are faster on some and change picks",
    )
    threads: Annotated[int | None, EVERYDAY] = Field(
        None, ge=1, description="Threads of each worker's runtime"
    )
    inter_threads: int | None = Field(None, ge=1, description="TensorFlow's operators at a time")
    vram_mb: float | None = Field(None, gt=0, description="GPU memory of each worker, MB")
    max_vram_mb: float | None = Field(None, gt=0, description="GPU memory of all workers, MB")
    gpu_vram_safety_cap: float = Field(
        0.95, gt=0, le=0.99, description="Share of each GPU's memory that may be full"
    )
    cudnn_headroom: float = Field(
        0.25, ge=0, le=0.80, description="Share of the workers' GPU memory left for workspaces"
    )
    cpu_ids: tuple[int, ...] | None = Field(None, description="Cores to use; by default all")
    gpu_fraction: float | None = Field(
        None, gt=0, le=1, description="Share of a GPU that Ray reserves for each worker"
    )
    ray_temp_dir: Path | None = Field(None, description="Ray's folder for sockets and logs")
    ram_safety_cap: float = Field(0.90, gt=0, le=0.98, description="Share of memory to fill")
    ignore_ram_cap: bool = Field(
        False, description="Start all workers that are asked for, whatever the memory"
    )

    @field_validator("cpu_ids", mode="before")
    @classmethod
    def _many_cores(cls, value: Any) -> Any:
        return split_names(value) if isinstance(value, str) else value

    @field_validator("device")
    @classmethod
    def _is_device(cls, value: str) -> str:
        parse_device(value)
        return value

    @model_validator(mode="after")
    def _fits_mode(self) -> Self:
        if self.address is not None:
            if self.cpu_ids is not None:
                raise ValueError("cpu_ids are cores of this machine, and address means a cluster")
            if len(self.gpu_ids) > 1:
                raise ValueError(
                    f"device {self.device}: on a cluster Ray hands out the GPUs of the nodes; "
                    "write cuda, and workers for how many"
                )
        if self.mode == "local":
            if len(self.gpu_ids) > 1:
                raise ValueError(
                    f"device {self.device}: one process uses one GPU; "
                    "choose one, or the mode modelactor"
                )
            for name in ("workers", "address", "concurrent_timechunks", "gpu_fraction"):
                if getattr(self, name) is not None:
                    raise ValueError(f"{name} applies to the modes modelactor and ripper")
        if self.device == "mps" and self.mode != "local":
            raise ValueError("device mps: the GPU of a Mac is for one process; use the mode local")
        check_arithmetic(self.runtime, self.device, self.precision)
        return self

    @model_validator(mode="after")
    def _execution_has_effect(self) -> Self:
        """Put settings that cannot have an effect back to their defaults, and say so."""
        if self.runtime != "tensorflow" and self.inter_threads not in (None, 1):
            self._leave_out(
                "inter_threads",
                f"the runtime {self.runtime} executes one operator after the other; "
                "tensorflow takes more",
            )
        for name in () if self.gpu_ids else GPU_SETTINGS:
            if getattr(self, name) != type(self).model_fields[name].default:
                self._leave_out(name, "this run uses no GPU")
        return self

    @property
    def gpu_ids(self) -> tuple[int, ...]:
        """GPUs that `device` names, by torch's numbers; empty on the CPU and on a Mac."""
        return parse_device(self.device)[1]


class OutputConfig(_Part):
    """Results of a run, and how it goes on after an interruption."""

    output: Path = Field(description="Folder that results are written to")
    formats: Annotated[tuple[OutputFormat, ...], EVERYDAY] = Field(
        ("csv", "parquet"), description="Files of picks that are written"
    )
    amplitudes: bool = Field(False, description="Measure the amplitude of each pick")
    response: Path | None = Field(
        None, description="StationXML, for amplitudes of the ground and of Wood-Anderson"
    )
    annotations: bool = Field(False, description="Write the probability curves as miniSEED")
    overview: bool = Field(True, description="Draw overview.png")
    report: Annotated[bool, EVERYDAY] = Field(
        False, description="Write report.html, a page on the run, at the end"
    )
    log_file: Path | None = Field(None, description="A second place for the log")
    journal: bool = Field(True, description="Record what is done, so that a killed run goes on")
    resume: Literal["auto", "require", "never"] = Field(
        "auto", description="Whether an unfinished run in the output folder is resumed"
    )
    retry_failed: bool = Field(True, description="On resuming, pick again what failed")

    @field_validator("formats", mode="before")
    @classmethod
    def _formats_with_commas(cls, value: Any) -> Any:
        return split_names(value)

    @model_validator(mode="after")
    def _response_is_of_use(self) -> Self:
        if self.response is not None and not self.amplitudes:
            raise ValueError("response is for amplitudes, which are not asked for")
        return self


# Fields are in the order of the last base first.
class PickingConfig(ExecutionConfig, ModelConfig, PreparationConfig):
    """Preparation, model and execution: what picking takes, whatever the source of waveforms."""

    @model_validator(mode="before")
    @classmethod
    def _batch_size_once(cls, values: Any) -> Any:
        """SeisBench counts the batch size among a model's arguments; here it is a setting."""
        arguments = values.get("model_arguments") or {}
        if "batch_size" not in arguments:
            return values
        if values.get("batch_size") is not None:
            raise ValueError("batch_size is given twice: by itself and as a model argument")
        rest = {name: value for name, value in arguments.items() if name != "batch_size"}
        return {**values, "model_arguments": rest, "batch_size": arguments["batch_size"]}


class PickConfig(OutputConfig, PickingConfig, InputConfig):
    """Everything that a run of ``eqcctpro pick`` can be told.

    The field names are those of the command line, with ``_`` for ``-``, but for ``filters``
    (``--filter``), ``formats`` (``--format``) and ``model_arguments`` (``--set``).
    """

    @model_validator(mode="after")
    def _partitions_are_possible(self) -> Self:
        if isinstance(self.partition, float) and (refusal := self.not_in_partitions):
            raise ValueError(f"partition: {refusal}")
        return self

    @property
    def not_in_partitions(self) -> str | None:
        """Why a run with these settings is not cut into partitions; None if it may be."""
        if not self.journal:
            return "a run in partitions needs the journal"
        if "parquet" not in self.formats or not {"csv", "parquet"} >= set(self.formats):
            return "a run in partitions writes parquet, and csv; eqcctpro convert makes the others"
        if self.amplitudes:
            return "amplitudes are measured in runs that are not in partitions"
        return None

    def absolute(self) -> PickConfig:
        """The same settings with absolute paths, which mean the same in every folder."""
        changes: dict[str, Any] = {
            name: value.absolute()
            for name in ("output", "p_model", "s_model", "response", "log_file", "ray_temp_dir")
            if isinstance(value := getattr(self, name), Path)
        }
        for name in ("input", "input_roots"):
            changes[name] = tuple(
                place.absolute() if isinstance(place, Path) else place
                for place in getattr(self, name)
            )
        changes["model"] = _absolute_model(self.model)
        return self.model_copy(update=changes)


def _absolute_model(model: str) -> str:
    """``Class/path`` or a path, with the path absolute; names of weights have no slash."""
    parent, _, child = model.partition("/")
    if Path(model).exists():
        return str(Path(model).absolute())
    if "/" in child or Path(child).suffix == ".pt":
        return f"{parent}/{Path(child).absolute()}"
    return model


def split_names(value: Any) -> Any:
    """Names from one text with commas or several; what is no text is left to validation."""
    entries = [value] if isinstance(value, str) else value
    if not isinstance(entries, (list, tuple)):
        return value
    return tuple(
        part
        for entry in entries
        for part in (
            filter(None, map(str.strip, entry.split(","))) if isinstance(entry, str) else [entry]
        )
    )


def _listed(entry: str, parameter: str) -> Iterable[str]:
    """A pattern, or those that the file named behind an ``@`` holds, one a line."""
    if not entry.startswith("@"):
        return [entry]
    try:
        lines = Path(entry[1:]).expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{parameter}: cannot read the list {entry[1:]}: {error}") from error
    names = [name.strip() for line in lines for name in line.partition("#")[0].split(",")]
    found = [name for name in names if name]
    if not found:
        raise ValueError(f"{parameter}: the list {entry[1:]} names nothing")
    return found


def parse_device(text: str) -> tuple[Literal["cpu", "cuda", "mps"], tuple[int, ...]]:
    """Kind of a device, and the numbers of its GPUs: ``cuda:0,1`` are two.

    Raises
    ------
    ValueError
        It names no device, or one twice.
    """
    kind, colon, numbers = text.partition(":")
    if text in ("cpu", "mps"):
        return cast("Literal['cpu', 'mps']", text), ()
    parts = [part.strip() for part in numbers.split(",")] if colon else ["0"]
    if kind != "cuda" or not all(part.isascii() and part.isdigit() for part in parts):
        hint = "use cpu, cuda, cuda:0, cuda:0,1 or mps"
        if kind in ("gpu", "hip", "rocm"):
            hint = "GPUs are cuda, also those of AMD"
        raise ValueError(f"{text!r} is not a device; {hint}")
    found = tuple(map(int, parts))
    if len(set(found)) < len(found):
        raise ValueError(f"device {text}: a GPU is named twice")
    return "cuda", found


def sentences(error: ValidationError, model: type[BaseModel]) -> Iterable[str]:
    """Describe each mistake in settings by a sentence."""
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        # A key in the wrong place is still a key.
        secret = any(word in name.lower() for word in (*_SECRET, "users", "security"))
        value = "" if secret else f" (it is {problem['input']!r})"
        if problem["type"] == "extra_forbidden":
            message = "no such setting" + _meant(name, model)
        elif problem["type"] == "model_type":
            message = f"this is a table of settings{value}"
        elif problem["type"] not in {"value_error", "missing"}:
            message = f"{message}{value}"
        message = _USER.sub("://(not shown)@", message)
        yield message if not name or message.startswith(f"{name}:") else f"{name}: {message}"


def _meant(name: str, model: type[BaseModel]) -> str:
    """A question after the name that comes closest to an unknown one."""
    from difflib import get_close_matches

    names = list(_names_in(model))
    inner = {known.rpartition(".")[2]: known for known in reversed(names)}
    last = name.rpartition(".")[2]
    close = get_close_matches(name, names, n=1) or [
        inner[found] for found in get_close_matches(last, inner, n=1)
    ]
    return f"; did you mean {close[0]}?" if close else ""


def _names_in(model: type[BaseModel]) -> Iterable[str]:
    """Names of settings, with a dot for those of a section."""
    for name, field in model.model_fields.items():
        inside = field.annotation
        if isinstance(inside, type) and issubclass(inside, BaseModel):
            yield from (f"{name}.{inner}" for inner in _names_in(inside))
        else:
            yield name
