"""Metrics of the service for Prometheus."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    generate_latest,
    multiprocess,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from eqcctpro import __version__
from eqcctpro.errors import SettingsError
from eqcctpro.serving.online import BatchReport
from eqcctpro.serving.settings import MetricsSettings

__all__ = ["CONTENT_TYPE_LATEST", "SHARED_FOLDER", "Metrics", "metrics_server"]

#: Where the replicas of a machine keep their numbers, so that any of them can tell of all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

# What is read elsewhere is as old as this at most.
_REFRESH_S = 0.2

_SIZE_BUCKETS = tuple(float(4**power) for power in range(3, 15))
_COUNT_BUCKETS = tuple(float(2**power) for power in range(13))
_JOB_BUCKETS = (1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 3600.0, 14_400.0, 86_400.0)
_STAGE_BUCKETS = (*(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05), *(0.1, 0.5, 2.5))


class Metrics:
    """Counters, gauges and histograms of one replica.

    Parameters
    ----------
    settings : MetricsSettings
    """

    def __init__(self, settings: MetricsSettings) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_Processes(settings.namespace, lambda: (os.getpid(),)))
        self._settings = settings
        self._shared = bool(os.environ.get(SHARED_FOLDER))
        self.request_seconds = self._histogram(
            "request_duration_seconds", "Requests", settings.buckets_s, "endpoint", "code"
        )
        self.request_bytes = self._histogram(
            "request_bytes", "Bodies of requests", _SIZE_BUCKETS, "endpoint"
        )
        self.response_bytes = self._histogram(
            "response_bytes", "Bodies of answers", _SIZE_BUCKETS, "endpoint"
        )
        self.stage_seconds = self._histogram(
            "stage_seconds",
            "Decode, prepare and encode of a request, infer and pick of a batch",
            _STAGE_BUCKETS,
            "stage",
        )
        self._infer_seconds = self.stage_seconds.labels("infer")
        self._pick_seconds = self.stage_seconds.labels("pick")
        self.batch_windows = self._histogram("batch_windows", "Windows in a batch", _COUNT_BUCKETS)
        self.batch_stations = self._histogram(
            "batch_stations", "Stations in a batch", _COUNT_BUCKETS
        )
        self.batch_wait_seconds = self._histogram(
            "batch_wait_seconds", "The longest that a station of a batch waited", _STAGE_BUCKETS
        )
        self.data_age_seconds = self._histogram(
            "data_age_seconds",
            "From a request's last sample to its picks",
            settings.age_buckets_s,
        )
        self.windows = self._counter("windows", "Windows through the network")
        self.samples = self._counter("samples", "Samples decoded")
        self.stations = self._counter("stations", "Stations by what became of them", "status")
        self.picks = self._counter("picks", "Picks", "phase")
        self.refused = self._counter("refused", "Requests refused before any work", "reason")
        self.abandoned = self._counter("abandoned", "Requests whose client left")
        self.hung = self._gauge("hung_batches", "Batches given up since the replica began")
        self.in_progress = self._gauge("requests_in_progress", "Accepted and not answered")
        self.waiting = self._gauge("stations_waiting", "Stations that wait for a batch")
        self.capacity = self._gauge("capacity", "Requests that may be in progress")
        self.ready = self._gauge("replicas_ready", "Replicas that pick")
        self.jobs = self._gauge("jobs", "Jobs that wait or run", "state")
        self.job_seconds = self._histogram(
            "job_duration_seconds", "Jobs that have ended", _JOB_BUCKETS, "status"
        )
        self.job_stations = self._counter(
            "job_stations", "Stations of jobs that have ended, by what became of them", "status"
        )
        self.stream_clients = self._gauge("stream_clients", "Clients that listen to the stream")
        self.stream_events = self._counter("stream_events", "Picks sent in the stream")
        self.stream_dropped = self._counter(
            "stream_dropped", "Picks that a client of the stream should have got", "reason"
        )
        for reason in ("slow", "unreachable"):
            self.stream_dropped.labels(reason)
        self.log_dropped = self._gauge(
            "log_lines_dropped", "Lines of the log that nobody took fast enough"
        )
        self._watched: list[tuple[Gauge, Callable[[], float]]] = []
        if self._shared:
            threading.Thread(target=self._refresh, name="eqcctpro-metrics", daemon=True).start()

    def _histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(
            name,
            text,
            labels,
            namespace=self._settings.namespace,
            registry=self.registry,
            buckets=tuple(buckets),
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(
            name, text, labels, namespace=self._settings.namespace, registry=self.registry
        )

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(
            name,
            text,
            labels,
            namespace=self._settings.namespace,
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Have a gauge tell a value: when it is asked for, or within moments where it is shared."""
        if self._shared:
            self._watched.append((gauge, value))
        else:
            gauge.set_function(value)

    def _refresh(self) -> None:
        """Write down what others read."""
        told: dict[Gauge, float] = {}
        while True:
            for gauge, value in list(self._watched):
                if told.get(gauge) != (now := value()):
                    gauge.set(now)
                    told[gauge] = now
            time.sleep(_REFRESH_S)

    def job_ended(self, status: str, seconds: float | None, stations: Mapping[str, int]) -> None:
        """Count a job.

        Parameters
        ----------
        status : str
        seconds : float or None
            That it ran; None if it never began.
        stations : mapping of str to int
            By what became of them.
        """
        self.job_seconds.labels(status).observe(seconds or 0.0)
        for outcome, number in stations.items():
            if number:
                self.job_stations.labels(outcome).inc(number)

    def batch(self, report: BatchReport) -> None:
        """Count a batch of the network, and the time of inference and picking."""
        for windows in report.batches:
            self.batch_windows.observe(windows)
            self.windows.inc(windows)
        if report.stations:
            self.batch_stations.observe(report.stations)
            self.batch_wait_seconds.observe(report.waited_s)
        if report.infer_s:
            self._infer_seconds.observe(report.infer_s)
        if report.pick_s:
            self._pick_seconds.observe(report.pick_s)

    def text(self) -> bytes:
        """In Prometheus's text format; of all replicas of the machine where they share a folder."""
        if not self._shared:
            return generate_latest(self.registry)
        folder = Path(os.environ[SHARED_FOLDER])
        return generate_latest(_registry(folder, self._settings.namespace))


class _SharedCollector(multiprocess.MultiProcessCollector):
    """Sum of the metrics of all processes that share a folder; gauges of living ones."""

    def collect(self) -> Iterable[Metric]:
        _forget_dead(Path(self._path))
        found: Iterable[Metric] = super().collect()
        return found


class _Processes(Collector):
    """Processor time, memory, files and threads of the replicas, and their software versions.

    Parameters
    ----------
    namespace : str
    pids : callable
        Processes to tell of.
    """

    def __init__(self, namespace: str, pids: Callable[[], Iterable[int]]) -> None:
        self._namespace = namespace
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        cpu = CounterMetricFamily("process_cpu_seconds", "Seconds of cores", labels=("pid",))
        memory = GaugeMetricFamily("process_resident_memory_bytes", "Memory", labels=("pid",))
        files = GaugeMetricFamily("process_open_fds", "Open files", labels=("pid",))
        threads = GaugeMetricFamily("process_threads", "Threads", labels=("pid",))
        for pid in self._pids():
            with suppress(psutil.Error):
                process, label = psutil.Process(pid), (str(pid),)
                with process.oneshot():
                    times = process.cpu_times()
                    memory.add_metric(label, process.memory_info().rss)
                    files.add_metric(label, process.num_fds())
                    threads.add_metric(label, process.num_threads())
                    cpu.add_metric(label, times.user + times.system)
        yield from (cpu, memory, files, threads)
        build = GaugeMetricFamily(
            f"{self._namespace}_build_info", "What runs", labels=("version", "python")
        )
        build.add_metric((__version__, platform.python_version()), 1)
        yield build


def _registry(folder: Path, namespace: str) -> CollectorRegistry:
    registry = CollectorRegistry()
    _SharedCollector(registry, path=str(folder))
    registry.register(_Processes(namespace, lambda: _pids(folder)))
    return registry


@contextmanager
def metrics_server(host: str, settings: MetricsSettings, folder: Path) -> Iterator[None]:
    """Tell the numbers of all replicas at a port of their own meanwhile, if there is one.

    Raises
    ------
    SettingsError
        The port is taken.
    """
    port = settings.port
    if port is None:
        yield
        return
    registry = _registry(folder, settings.namespace)
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise SettingsError(
            f"metrics.port: cannot listen at {host}:{port}: {error.strerror or error}",
            hint="choose another port, or end what listens there",
        ) from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5.0)


def _pids(folder: Path) -> set[int]:
    """Processes that have gauges in a folder."""
    named = (path.stem.rpartition("_")[2] for path in folder.glob("gauge_live*_*.db"))
    return {int(pid) for pid in named if pid.isdigit()}


def _forget_dead(folder: Path) -> None:
    """Remove the gauges of processes that have ended from the sums."""
    for pid in _pids(folder):
        if not psutil.pid_exists(pid):
            multiprocess.mark_process_dead(pid, str(folder))
