"""The settings of the online picker: one validated object."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from eqcctpro.config import ClusterAddress, Threshold, sentences
from eqcctpro.errors import SettingsError
from eqcctpro.places import Place, as_place
from eqcctpro.serving.security_settings import SecuritySettings

__all__ = [
    "BatchingSettings",
    "GrpcSettings",
    "HttpSettings",
    "JobSettings",
    "LimitSettings",
    "LogSettings",
    "MetricsSettings",
    "ModelSettings",
    "ReplicaSettings",
    "ServeSettings",
    "StreamSettings",
    "WatchdogSettings",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ModelSettings(_Section):
    """One model that is served; a name alone will do."""

    name: str = Field(description="Parent/child, or Parent/path of weights")
    p_threshold: float | None = Threshold
    s_threshold: float | None = Threshold
    detection_threshold: float | None = Threshold
    bandpass: tuple[float, float] | Literal["off"] | None = None
    runtime: Literal["auto", "torch", "onnxruntime", "openvino", "tensorflow"] = "auto"
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    precision: Literal["f32", "bf16"] = "f32"
    arguments: dict[str, Any] = Field(default_factory=dict, description="As of eqcctpro pick --set")


class TlsSettings(_Section):
    """Files of a certificate, PEM."""

    certificate: Path
    key: Path
    client_authority: Path | None = Field(None, description="Who must have signed clients")

    @field_validator("certificate", "key", "client_authority")
    @classmethod
    def _is_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path


class HttpSettings(_Section):
    """Where and how the service listens."""

    host: str = "127.0.0.1"
    port: int = Field(8000, ge=1, le=65535)
    hosts: tuple[str, ...] = Field(
        (),
        description="Names that clients call it by, beside those of loopback and the address it "
        "listens at; .example.org is all below, * is all",
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses and networks whose X-Forwarded-For and -Proto are believed"
    )
    root_path: str = Field(
        "", pattern=r"^(/[A-Za-z0-9._~-]+)*$", description="Prefix that a proxy in front cuts off"
    )
    listener: Literal["replica", "proxy"] = Field(
        "replica", description="Whether replicas take requests themselves, or Ray Serve's proxy"
    )
    keep_alive_s: int = Field(75, ge=1)
    compression: bool = True
    compress_from_bytes: int = Field(4096, ge=0)
    tls: TlsSettings | None = None
    cors_origins: tuple[str, ...] = ()
    cors_headers: tuple[str, ...] = ("Authorization", "Content-Type", "Last-Event-ID", "X-API-Key")
    cors_credentials: bool = False
    cors_max_age_s: int = Field(600, ge=0)

    @field_validator("trusted_proxies")
    @classmethod
    def _are_networks(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                ipaddress.ip_network(text)
            except ValueError as error:
                raise ValueError(
                    f"{text!r} is no address and no network such as 10.0.0.0/8"
                ) from error
        return value

    @model_validator(mode="after")
    def _clients_are_asked(self) -> HttpSettings:
        # Ray Serve's proxy takes an authority's file, but lets clients without a certificate in.
        if self.listener == "proxy" and self.tls is not None and self.tls.client_authority:
            raise ValueError(
                "tls.client_authority needs listener=replica: Ray Serve's proxy does not "
                "ask clients for certificates"
            )
        return self

    @property
    def local(self) -> bool:
        """Whether only this machine reaches it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class BatchingSettings(_Section):
    """How windows of many requests share batches; all counts are windows."""

    max_batch_size: int = Field(64, ge=1)
    max_wait_ms: float = Field(
        0.0, ge=0, description="How long a batch that is not full waits; batches under way do"
    )
    turn_ms: float = Field(
        50.0, gt=0, description="How long others wait for a request that has more than that to do"
    )
    slice: int | None = Field(
        None, ge=1, description="Windows that a thread takes at a time; None: as many as there are"
    )


class LimitSettings(_Section):
    """What a client may ask for, and how long it takes."""

    capacity: int = Field(256, ge=1, description="Requests accepted and not answered, a replica")
    max_body_mb: float = Field(64.0, gt=0, description="MB of 2**20 bytes, after decompression")
    max_list_mb: float = Field(
        2.0, gt=0, description="JSON and msgpack with samples as lists of numbers"
    )
    bodies_mb: float = Field(
        1024.0, gt=0, description="Memory of all bodies that are worked on, and of their samples"
    )
    max_samples: int = Field(
        60_000_000, ge=1, description="Samples of all components after resampling"
    )
    max_pieces: int = Field(
        100_000, ge=1, description="Pieces with gaps between them, of all channels of a request"
    )
    request_timeout_s: float = Field(30.0, gt=0)
    headers_timeout_s: float = Field(
        10.0, gt=0, description="For a client to send its headers; only http.listener=replica"
    )
    max_header_kb: float = Field(
        32.0, gt=0, description="kB of 1024 bytes, of a request's address and headers"
    )
    max_headers: int = Field(100, ge=8, description="Headers of a request")
    body_timeout_s: float = Field(30.0, gt=0, description="For a client to send its request")
    body_kb_per_s: float = Field(
        1.0, gt=0, description="How fast a body must come, after its first seconds"
    )
    forward_timeout_s: float = Field(60.0, gt=0, description="For a batch in the network")
    retry_after_s: int = Field(1, ge=0)
    connections: int = Field(
        1000, ge=1, description="Open connections of a replica; idle ones make room for others"
    )


class ReplicaSettings(_Section):
    """How many processes pick, and what each may use."""

    count: int | None = Field(None, ge=1)
    min: int | None = Field(None, ge=0, description="With max: as many as the load asks for")
    max: int | None = Field(None, ge=1)
    target_ongoing_requests: float = Field(8.0, gt=0)
    upscale_delay_s: float = Field(30.0, ge=0)
    downscale_delay_s: float = Field(600.0, ge=0)
    max_per_node: int | None = Field(None, ge=1)
    cpus: float | None = Field(None, ge=0, description="Cores of a replica, for Ray's scheduler")
    gpus: float = Field(0.0, ge=0, description="GPUs, or a fraction of one, of a replica")
    threads: int | None = Field(None, ge=1, description="Threads of a replica's runtime")
    network_nice: int = Field(
        0, ge=0, le=19, description="How far the network's threads stand behind the others"
    )
    placement: Literal["fused", "staged"] = Field(
        "fused", description="One process for everything, or the network in deployments of its own"
    )
    front: int = Field(1, ge=1, description="Replicas that decode and pick, where staged")
    constructor_retries: int = Field(1, ge=0)

    @property
    def front_count(self) -> int:
        """Replicas that take requests, or the least of them."""
        if self.placement == "staged":
            return self.front
        return self.count or self.min or 1

    @model_validator(mode="after")
    def _fits_together(self) -> ReplicaSettings:
        if self.count is not None and (self.min is not None or self.max is not None):
            raise ValueError("give count, or min and max")
        if (self.min is None) != (self.max is None):
            raise ValueError("min and max belong together")
        if self.min is not None and self.max is not None and self.min > self.max:
            raise ValueError(f"min {self.min} is more than max {self.max}")
        return self


def _place(given: str | Path) -> Place:
    return as_place(str(given))


class JobSettings(_Section):
    """Jobs on archives that lie on the server's disk."""

    roots: tuple[Annotated[str | Path, AfterValidator(_place)], ...] = Field(
        (), description="Folders and addresses that jobs may read, links followed; none, no jobs"
    )
    folder: Path = Field(Path("jobs"), description="Where jobs keep their results")
    at_a_time: int = Field(1, ge=1)
    waiting: int = Field(100, ge=0, description="Jobs that may wait; more are refused")
    memory_mb: float | None = Field(
        None, gt=0, description="Memory of a job; None is half of the machine's"
    )
    time_limit_s: float = Field(86_400.0, gt=0, description="How long a job may run")
    end_s: float = Field(
        10.0, ge=0, description="How long a cancelled job may take to end before it is killed"
    )
    least_timechunk_min: float = Field(1.0, gt=0, description="Shortest time chunk of a job")
    keep: int = Field(1000, ge=0, description="Jobs that have ended and are kept")
    keep_days: float = Field(30.0, ge=0, description="How long they are kept")

    @model_validator(mode="after")
    def _results_are_no_input(self) -> JobSettings:
        for root in self.roots:
            if isinstance(root, Path) and self.folder.resolve().is_relative_to(root.resolve()):
                raise ValueError(
                    f"folder: {self.folder} lies in {root}, which all jobs may read; "
                    "keep results elsewhere"
                )
        return self


class StreamSettings(_Section):
    """The stream of picks: to each key, user or address those of its own requests."""

    enabled: bool = True
    shared: bool = Field(False, description="Whether all see the picks of all")
    keep: int = Field(10_000, ge=1, description="Picks of each that a client may come back for")
    keep_alive_s: float = Field(15.0, gt=0)
    subscribers: int = Field(100, ge=1)


class MetricsSettings(_Section):
    """What Prometheus reads."""

    enabled: bool = True
    namespace: str = Field("eqcctpro", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    path: str = Field("/metrics", pattern=r"^(/[A-Za-z0-9_-]+)+$")
    buckets_s: tuple[float, ...] = (
        *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
        *(1.0, 2.5, 5.0, 10.0, 30.0),
    )
    age_buckets_s: tuple[float, ...] = (1, 2, 5, 10, 20, 30, 60, 120, 300, 3600, 86_400)
    port: int | None = Field(None, ge=1, le=65535, description="A port of its own as well")

    @field_validator("path")
    @classmethod
    def _is_free(cls, value: str) -> str:
        # Metrics may need no key, and would take the place of what does.
        if value.split("/")[1] in ("v1", "health", "docs", "-"):
            raise ValueError(
                f"{value} is a path of the interface; choose another, such as /metrics"
            )
        return value

    @field_validator("buckets_s", "age_buckets_s")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("give buckets in ascending order, each once")
        return value


class LogSettings(_Section):
    """What is written to standard error."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    access: bool = Field(True, description="A line for each request")
    probes: bool = Field(False, description="Also for those to health and metrics that succeed")
    file: Path | None = None


class WatchdogSettings(_Section):
    """When a replica counts as broken, and how often one may break."""

    period_s: float = Field(10.0, gt=0)
    mean_request_s: float | None = Field(None, gt=0, description="Mean of the last requests")
    over_requests: int = Field(100, ge=1)
    self_test_s: float | None = Field(
        None, gt=0, description="How often the example is picked while nothing else is"
    )
    restarts: int = Field(10, ge=0, description="Replicas that may break before live fails")
    stop_on_error: bool = Field(False, description="End, when more have broken")


class GrpcSettings(_Section):
    """The same picks through gRPC, at `http.host` and with `http.tls`."""

    port: int | None = Field(None, ge=1, le=65535, description="None is no gRPC")


def _defaults(section: type[BaseModel]) -> Any:
    """A section of which nothing is given."""
    return Field(default_factory=lambda: section.model_validate({}))


class ServeSettings(_Section):
    """Everything that ``eqcctpro serve`` can be told."""

    models: tuple[ModelSettings, ...] = Field(
        default_factory=lambda: (ModelSettings.model_validate({"name": "EQTransformer/original"}),),
        min_length=1,
    )
    http: HttpSettings = _defaults(HttpSettings)
    grpc: GrpcSettings = _defaults(GrpcSettings)
    batching: BatchingSettings = _defaults(BatchingSettings)
    limits: LimitSettings = _defaults(LimitSettings)
    replicas: ReplicaSettings = _defaults(ReplicaSettings)
    security: SecuritySettings = _defaults(SecuritySettings)
    jobs: JobSettings = _defaults(JobSettings)
    stream: StreamSettings = _defaults(StreamSettings)
    metrics: MetricsSettings = _defaults(MetricsSettings)
    logs: LogSettings = _defaults(LogSettings)
    watchdog: WatchdogSettings = _defaults(WatchdogSettings)
    shutdown_s: float = Field(30.0, gt=0, description="For what was accepted to be finished")
    drain_s: float = Field(
        0.0,
        ge=0,
        description="How long it still takes requests, not ready, when it is to end; only "
        "http.listener=replica",
    )
    address: ClusterAddress | None = Field(None, description="A running Ray cluster to join")
    ray_temp_dir: Path | None = None

    @field_validator("models", mode="before")
    @classmethod
    def _names_will_do(cls, value: Any) -> Any:
        given = (value,) if isinstance(value, (str, dict)) else value
        if not isinstance(given, (list, tuple)):
            return value
        return tuple({"name": item} if isinstance(item, str) else item for item in given)

    @model_validator(mode="after")
    def _fits_together(self) -> ServeSettings:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("models: each once")
        if self.http.listener == "replica" and self.replicas.max is not None:
            raise ValueError(
                "replicas.max: Ray Serve sees the load of its proxy only; set http.listener=proxy"
            )
        return self

    @classmethod
    def checked(cls, values: dict[str, Any]) -> ServeSettings:
        """Validate, and report everything that is wrong in one `SettingsError`."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(sentences(error, cls))) from error
