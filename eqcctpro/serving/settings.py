"""Settings of the online picker: one validated object."""

from __future__ import annotations

import ipaddress
import json
import re
from itertools import combinations
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from eqcctpro.config import (
    ClusterAddress,
    Precision,
    check_arithmetic,
    least_probability,
    parse_device,
    sentences,
)
from eqcctpro.errors import SettingsError
from eqcctpro.models.locations import COMPOSED_CLASSES, PICKER_CLASSES, canonical_class
from eqcctpro.places import Place, as_place
from eqcctpro.serving.renamed import with_new_names
from eqcctpro.serving.sections import Section, Texts, advanced, is_secret, matching
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
    "Scale",
    "ServeSettings",
    "StreamSettings",
    "WatchdogSettings",
]

_DAY_S = 86_400.0
# Of an address.
_PASSWORD = re.compile(r"://[^/@\s\"]+@")
_MOST_PROCESSES = 10_000
_HOST = re.compile(
    r"[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


class ModelSettings(Section):
    """A served model; its name alone is enough."""

    name: str = Field(description="Parent/child, or Parent/path of weights.")
    weights: str | None = Field(
        None, description="The same, where the name is only what clients call it."
    )
    p_threshold: float | None = least_probability("a P")
    s_threshold: float | None = least_probability("an S")
    detection_threshold: float | None = least_probability("a detection")
    bandpass: tuple[float, float] | Literal["off"] | None = Field(
        None, description="Corners of a band-pass in Hz, or off; none takes the model's own."
    )
    runtime: Literal["auto", "torch", "onnxruntime", "openvino", "tensorflow"] = Field(
        "auto", description="Library that executes the network; auto takes the fastest one."
    )
    device: str = Field("cpu", description="Where the network runs: cpu, cuda, cuda:N or mps.")
    precision: Precision = Field(
        "f32",
        description="Arithmetic of the network: f32; coarser and faster on some are bf16, and on "
        "GPUs tf32 and fp16.",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Arguments of the model, as of eqcctpro pick --set."
    )

    @model_validator(mode="after")
    def _fits_device(self) -> ModelSettings:
        if len(parse_device(self.device)[1]) > 1:
            raise ValueError(f"device {self.device}: a network runs on one GPU; write cuda:N")
        check_arithmetic(self.runtime, self.device, self.precision)
        return self

    @model_validator(mode="after")
    def _is_no_other_class(self) -> ModelSettings:
        named, of = (_class_of(text) for text in (self.name, self.weights or self.name))
        if named and of and named != of:
            raise ValueError(
                f"the name {self.name} says {named}, and the weights are of {of}; "
                f"call it {of}/{self.name.partition('/')[2]}"
            )
        return self


def _class_of(name: str) -> str | None:
    """The class of models that a name begins with, if it does."""
    found = canonical_class(name.partition("/")[0])
    return found if found in (*PICKER_CLASSES, *COMPOSED_CLASSES) else None


class TlsSettings(Section):
    """Files of a certificate, PEM."""

    certificate: Path = Field(description="File with the server's certificate and its chain.")
    key: Path = Field(description="File with the private key of the certificate.")
    client_authority: Path | None = Field(
        None, description="File with the authority that must have signed clients' certificates."
    )

    @field_validator("certificate", "key", "client_authority")
    @classmethod
    def _is_file(cls, path: Path | None) -> Path | None:
        if path is not None and not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path


class HttpSettings(Section):
    """Address, names and TLS of the HTTP server."""

    host: str = Field(
        "127.0.0.1",
        description="Address to listen at: 127.0.0.1 for this machine alone, 0.0.0.0 for all its "
        "networks.",
    )
    port: int = Field(8000, ge=1, le=65535, description="Port to listen at.")
    hosts: Texts = Field(
        (),
        description="More names that clients may call the service by; .example.org is all below "
        "it, * is any.",
    )
    trusted_proxies: Texts = Field(
        (), description="Addresses and networks of proxies in front, whose X-Forwarded-For counts."
    )
    tls: TlsSettings | None = Field(
        None, description="Files certificate, key and client_authority, which turn TLS on."
    )
    root_path: Annotated[
        str,
        matching(
            "(/[A-Za-z0-9._~-]+)*",
            "give a path such as /picker: parts of letters, digits and ._~-, each after a /",
        ),
    ] = advanced(
        "",
        description="Beginning of the path that a proxy in front cuts off.",
    )
    cors_origins: Texts = advanced(
        (), description="Web pages of other origins, such as https://example.org, that may ask."
    )

    keep_alive_s: ClassVar[int] = 75
    #: Bytes of an answer from which on it is compressed.
    compress_from_bytes: ClassVar[int] = 4096
    cors_headers: ClassVar[tuple[str, ...]] = (
        *("Authorization", "Content-Type", "Last-Event-ID", "X-API-Key", "X-Priority"),
        *("traceparent", "tracestate"),
    )
    cors_max_age_s: ClassVar[int] = 600

    @field_validator("host")
    @classmethod
    def _is_host(cls, value: str) -> str:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            # As for URLs, what ends in a number is an address or nothing.
            if not _HOST.fullmatch(value) or value.rsplit(".", 1)[-1].isdigit():
                raise ValueError(
                    f"{value!r} is no address and no name; give 127.0.0.1 for this machine alone, "
                    "0.0.0.0 for all its networks"
                ) from None
        return value

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

    @property
    def local(self) -> bool:
        """True if only this machine reaches the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


class GrpcSettings(Section):
    """The same picks through gRPC, at `http.host` and with `http.tls`."""

    port: int | None = Field(
        None, ge=1, le=65535, description="Port of gRPC, which is off without one."
    )


class BatchingSettings(Section):
    """Batching of the windows of several requests."""

    max_batch_size: int = advanced(
        64, ge=1, le=65_536, description="Most windows that the network executes at once."
    )
    max_wait_ms: float = advanced(
        0.0,
        ge=0,
        le=10_000,
        description="Milliseconds that an idle network waits for more windows; worth a try on "
        "GPUs.",
    )

    #: How long others wait for a request that has more than that to do.
    turn_ms: ClassVar[float] = 50.0
    #: How long batch requests wait for others until they have a turn.
    aging_s: ClassVar[float] = 2.0


class LimitSettings(Section):
    """Limits of requests: time, number, size and memory."""

    request_timeout_s: float = Field(
        30.0,
        gt=0,
        le=_DAY_S,
        description="Seconds that a request may take in all, from its headers to its answer.",
    )
    capacity: int = Field(
        256,
        ge=1,
        le=100_000,
        description="Requests of a replica that are accepted and not answered; more get 429.",
    )
    max_body_mb: float = Field(
        64.0, gt=0, le=100_000, description="MB of a request's body, after decompression."
    )
    bodies_mb: float = Field(
        1024.0,
        gt=0,
        description="MB of memory that all requests of a replica may take; more get 429.",
    )
    model_memory_mb: float | None = advanced(
        None,
        gt=0,
        description="MB of memory of a process beyond which it loads no other model; none is half "
        "of the machine's.",
    )
    connections: int = advanced(
        1000,
        ge=1,
        le=100_000,
        description="Open connections of a replica; idle ones make room for others.",
    )

    #: MB of a body with samples as lists of numbers, which take many times the memory.
    max_list_mb: ClassVar[float] = 2.0
    #: Gaps of all channels of a request, kB and number of its headers.
    max_pieces: ClassVar[int] = 100_000
    max_header_kb: ClassVar[float] = 32.0
    max_headers: ClassVar[int] = 100
    #: How fast a body must come, after its first seconds.
    body_kb_per_s: ClassVar[float] = 1.0
    retry_after_s: ClassVar[int] = 1

    @property
    def headers_timeout_s(self) -> float:
        """Seconds for a client to send its headers."""
        return min(10.0, self.request_timeout_s)

    @property
    def body_timeout_s(self) -> float:
        """Seconds for a client to send its body."""
        return self.request_timeout_s

    @property
    def forward_timeout_s(self) -> float:
        """Seconds of a batch in the network, after which nobody waits for it any more."""
        return self.request_timeout_s

    @property
    def max_samples(self) -> int:
        """Samples of all components of a request, after resampling."""
        return int(self.max_body_mb * 1_000_000)


class Scale(NamedTuple):
    """Bounds of the number of replicas.

    Attributes
    ----------
    least, most : int
    by_load : bool
        Whether they come and go with the load.
    """

    least: int
    most: int
    by_load: bool


def _count(value: Any) -> int | str:
    """A whole number, or two of them in a text, the smaller one first."""
    least, dash, most = str(value).replace(" ", "").partition("-")
    if isinstance(value, bool) or not least.isdigit() or not (most.isdigit() or not dash):
        raise ValueError(f"{value!r} is no number and no range such as 1-8")
    first, last = int(least), int(most or least)
    if not max(first, 1) <= last <= _MOST_PROCESSES:
        raise ValueError(
            f"{value}: give 1 to {_MOST_PROCESSES}, or a range with the smaller number first"
        )
    return f"{first}-{last}" if dash else first


def _count_or_none(value: Any) -> int | str | None:
    return None if value is None else _count(value)


#: ``4``, or ``1-8`` for as many as the load asks for.
Count = Annotated[int | str, BeforeValidator(_count)]


def _scale(count: int | str) -> Scale:
    if isinstance(count, int):
        return Scale(count, count, False)
    least, _, most = count.partition("-")
    return Scale(int(least), int(most), True)


class ReplicaSettings(Section):
    """Number of processes that pick, and the resources of each."""

    count: Count = Field(
        1,
        description="Processes that take requests: a number, or MIN-MAX for as many as the load "
        "asks for.",
    )
    networks: Annotated[int | str | None, BeforeValidator(_count_or_none)] = Field(
        None,
        description="With mode=staged, processes that execute each network: a number (1), or "
        "MIN-MAX.",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of a process's network; none takes all cores."
    )
    cpus: float = advanced(
        1.0, ge=0, description="Cores that Ray's scheduler counts for a process; no limit."
    )
    gpus: float | None = advanced(
        None,
        ge=0,
        description="GPUs, or a fraction of one, for a process with a network; none shares "
        "out the GPUs that models name; on a cluster it is 1.",
    )
    max_per_node: int | None = advanced(
        None, ge=1, description="Most processes of a kind on a node of a cluster."
    )
    network_nice: int = advanced(
        0,
        ge=0,
        le=19,
        description="Steps by which the network's threads stand behind those that read and pick.",
    )
    target_ongoing_requests: float = advanced(
        8.0, gt=0, description="Requests in progress for each process, where they come and go."
    )
    scale_delay_s: float = advanced(
        30.0,
        ge=0,
        description="Seconds of more load before processes are added; after 20 times as long with "
        "less they go.",
    )

    @property
    def scale(self) -> Scale:
        """Processes that take requests."""
        return _scale(self.count)

    @property
    def network_scale(self) -> Scale:
        """Processes that execute each network, where they are others."""
        return _scale(self.networks or 1)

    @property
    def by_load(self) -> bool:
        """True if the number of processes follows the load."""
        return self.scale.by_load or self.network_scale.by_load


def _place(given: str | Path) -> Place:
    return as_place(str(given))


def _places(value: Any) -> Any:
    return (value,) if isinstance(value, (str, Path)) else value


class JobSettings(Section):
    """Jobs on archives on the server's disk, or at addresses that it can reach."""

    roots: Annotated[
        tuple[Annotated[str | Path, AfterValidator(_place)], ...], BeforeValidator(_places)
    ] = Field(
        (), description="Folders and addresses that jobs may read; without any there are no jobs."
    )
    folder: Path = Field(Path("jobs"), description="Folder where jobs keep their results.")
    at_a_time: int = advanced(1, ge=1, le=1000, description="Jobs that run at the same time.")
    memory_mb: float | None = advanced(
        None, gt=0, description="MB of memory of a job; none is half of the machine's."
    )
    time_limit_s: float = advanced(_DAY_S, gt=0, description="Seconds that a job may run.")
    keep_days: float = advanced(
        30.0, ge=0, description="Days that jobs which have ended are kept, at most 1000 of them."
    )

    #: Jobs that may wait, and those that are kept.
    waiting: ClassVar[int] = 100
    keep: ClassVar[int] = 1000
    #: How long a cancelled job may take to end before it is killed.
    end_s: ClassVar[float] = 10.0
    #: Shortest time chunk of a job.
    least_timechunk_min: ClassVar[float] = 1.0

    @model_validator(mode="after")
    def _results_are_no_input(self) -> JobSettings:
        for root in self.roots:
            if isinstance(root, Path) and self.folder.resolve().is_relative_to(root.resolve()):
                raise ValueError(
                    f"folder: {self.folder} lies in {root}, which all jobs may read; "
                    "keep results elsewhere"
                )
        return self


class StreamSettings(Section):
    """Stream of picks: each key, user or address gets those of its own requests."""

    shared: bool = advanced(False, description="Whether everybody sees the picks of everybody.")

    #: Picks of each that a client may come back for, and clients that listen.
    keep: ClassVar[int] = 10_000
    subscribers: ClassVar[int] = 100
    keep_alive_s: ClassVar[float] = 15.0


class MetricsSettings(Section):
    """Metrics for Prometheus at ``/metrics``."""

    port: int | None = advanced(
        None, ge=1, le=65535, description="A port for the metrics alone, beside /metrics."
    )
    buckets_s: tuple[float, ...] = advanced(
        (
            *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
            *(1.0, 2.5, 5.0, 10.0, 30.0),
        ),
        description="Upper edges of the histogram of requests' durations, seconds.",
    )

    namespace: ClassVar[str] = "eqcctpro"
    path: ClassVar[str] = "/metrics"
    age_buckets_s: ClassVar[tuple[float, ...]] = (
        *(1, 2, 5, 10, 20, 30, 60, 120, 300, 3600, 86_400),
    )

    @field_validator("buckets_s")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value or list(value) != sorted(set(value)):
            raise ValueError("give buckets in ascending order, each once")
        return value


class LogSettings(Section):
    """Log on standard error, and traces."""

    format: Literal["text", "json"] = Field(
        "text", description="Lines for people, or JSON for programs."
    )
    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least importance of a line; debug adds requests to health and metrics."
    )
    access: bool = advanced(True, description="Whether there is a line for each request.")
    file: Path | None = advanced(None, description="File that gets the lines, too.")
    traces: (
        Annotated[
            str,
            matching(
                r"https?://[^/?#\s@]+(/[^?#\s]*)?",
                "give the address of a collector, such as http://127.0.0.1:4318, without a name, "
                "password or query; the variable OTEL_EXPORTER_OTLP_HEADERS is for passwords",
            ),
        ]
        | None
    ) = advanced(
        None,
        description="Address of an OpenTelemetry collector (OTLP over HTTP) that gets traces, such "
        "as http://127.0.0.1:4318; it may end in /v1/traces.",
    )

    @property
    def probes(self) -> bool:
        """True if successful requests to health and metrics are logged, too."""
        return self.level == "debug"


class WatchdogSettings(Section):
    """Detection of broken replicas, and the most that may break."""

    restarts: int = advanced(
        10, ge=0, description="Replicas that may break before /health/live fails."
    )
    stop_on_error: bool = advanced(
        False, description="Whether the service ends when more than that have broken."
    )
    self_test_s: float | None = advanced(
        None, gt=0, description="Seconds between picks of the example while nothing else is picked."
    )
    mean_request_s: float | None = advanced(
        None, gt=0, description="Mean seconds of the last 100 requests from which on one is broken."
    )

    over_requests: ClassVar[int] = 100

    @property
    def period_s(self) -> float:
        """Seconds between two looks of Ray Serve at a replica."""
        return min(10.0, self.self_test_s or 10.0)


def _defaults(section: type[BaseModel]) -> Any:
    """A section of which nothing is given."""
    return Field(default_factory=lambda: section.model_validate({}))


class ServeSettings(Section):
    """All settings of ``eqcctpro serve``."""

    models: tuple[ModelSettings, ...] = Field(
        default_factory=lambda: (ModelSettings.model_validate({"name": "EQTransformer/original"}),),
        description="Models that are served, by name or as tables; the first is the default.",
    )
    mode: Literal["single", "replicated", "staged"] = Field(
        "single",
        description="One process; several that do the same; or several that decode and pick, and "
        "others for the networks (for GPUs).",
    )
    address: ClusterAddress | None = Field(
        None, description="A running Ray cluster to join: HOST:PORT of its head, or auto."
    )
    replicas: ReplicaSettings = _defaults(ReplicaSettings)
    http: HttpSettings = _defaults(HttpSettings)
    grpc: GrpcSettings = _defaults(GrpcSettings)
    limits: LimitSettings = _defaults(LimitSettings)
    security: SecuritySettings = _defaults(SecuritySettings)
    jobs: JobSettings = _defaults(JobSettings)
    logs: LogSettings = _defaults(LogSettings)
    batching: BatchingSettings = _defaults(BatchingSettings)
    stream: StreamSettings = _defaults(StreamSettings)
    metrics: MetricsSettings = _defaults(MetricsSettings)
    watchdog: WatchdogSettings = _defaults(WatchdogSettings)
    drain_s: float = advanced(
        0.0,
        ge=0,
        le=3600,
        description="Seconds that it still takes requests, not ready, when it is to end.",
    )
    ray_temp_dir: Path | None = advanced(
        None, description="Folder of the Ray that is started, for its sockets and logs."
    )

    @model_validator(mode="before")
    @classmethod
    def _new_names(cls, values: Any) -> Any:
        return _with_mode(with_new_names(values)) if isinstance(values, dict) else values

    @field_validator("models", mode="before")
    @classmethod
    def _names_will_do(cls, value: Any) -> Any:
        given = (value,) if isinstance(value, (str, dict)) else value
        if not isinstance(given, (list, tuple)):
            return value
        if not given:
            raise ValueError("give at least one, such as EQTransformer/original")
        return tuple({"name": item} if isinstance(item, str) else item for item in given)

    @model_validator(mode="after")
    def _fits_together(self) -> ServeSettings:
        names = [model.name for model in self.models]
        if len(set(names)) < len(names):
            raise ValueError("models: each once")
        ports = {"http": self.http.port, "grpc": self.grpc.port, "metrics": self.metrics.port}
        for one, other in combinations(ports, 2):
            if ports[one] is not None and ports[one] == ports[other]:
                raise ValueError(f"{one}.port and {other}.port are the same: {ports[one]}")
        replicas = self.replicas
        if self.mode == "single" and replicas.count != 1:
            raise ValueError(
                f"mode: single is one process, and replicas.count is {replicas.count}; "
                "give mode=replicated, or leave replicas.count out"
            )
        if self.mode != "staged" and replicas.networks is not None:
            raise ValueError(
                f"replicas.networks: mode={self.mode} has no processes for networks alone; "
                "give mode=staged, or leave it out"
            )
        if not replicas.by_load:
            for name in ("target_ongoing_requests", "scale_delay_s"):
                if getattr(replicas, name) != ReplicaSettings.model_fields[name].default:
                    raise ValueError(
                        f"replicas.{name}: it is for processes that come and go; give "
                        "replicas.count as MIN-MAX, such as 1-8, or leave it out"
                    )
        if self.behind_proxy:
            self._fits_proxy()
        return self

    def _fits_proxy(self) -> None:
        why = "on a cluster (address) and where replicas come and go, Ray Serve's proxy listens"
        if self.drain_s:
            raise ValueError(f"drain_s: {why}, which drains by itself; leave it out")
        # It takes an authority's file, but lets clients without a certificate in.
        if self.http.tls is not None and self.http.tls.client_authority:
            raise ValueError(
                f"http.tls.client_authority: {why}, which does not ask clients for certificates; "
                "give keys (security.api_keys), or a fixed replicas.count on one machine"
            )

    @property
    def behind_proxy(self) -> bool:
        """True if Ray Serve's proxy takes requests; otherwise the replicas take them."""
        return self.address is not None or self.replicas.by_load

    @property
    def shared(self) -> bool:
        """True if several processes pick or execute networks, and need shared state."""
        scale = self.replicas.scale
        return self.mode == "staged" or scale.most > 1 or scale.by_load

    @property
    def shutdown_s(self) -> float:
        """Seconds for what was accepted to be finished."""
        return self.limits.request_timeout_s

    @classmethod
    def checked(cls, values: dict[str, Any]) -> ServeSettings:
        """Validate, and report everything that is wrong in one `SettingsError`."""
        try:
            return cls(**values)
        except ValidationError as error:
            raise SettingsError("; ".join(sentences(error, cls))) from error

    def shown(self) -> dict[str, Any]:
        """All settings for display, as JSON values without secrets."""
        shown: dict[str, Any] = json.loads(
            _PASSWORD.sub("://(not shown)@", json.dumps(_shown(self)))
        )
        return shown


def _with_mode(values: dict[str, Any]) -> dict[str, Any]:
    """Say which mode it is, where only the number of processes was given."""
    replicas = values.get("replicas")
    if "mode" in values or not isinstance(replicas, dict):
        return values
    alone = str(replicas.get("count", 1)) == "1"
    return {**values, "mode": "single" if alone else "replicated"}


def _shown(value: Any) -> Any:
    if isinstance(value, tuple) and any(isinstance(item, BaseModel) for item in value):
        return [_shown(item) for item in value]
    if not isinstance(value, BaseModel):
        return value
    plain = value.model_dump(mode="json")
    for name, field in type(value).model_fields.items():
        inner = getattr(value, name)
        if is_secret(field):
            plain[name] = "(not shown)"
        elif isinstance(inner, (BaseModel, tuple)):
            found = _shown(inner)
            plain[name] = plain[name] if found is inner else found
    return plain
