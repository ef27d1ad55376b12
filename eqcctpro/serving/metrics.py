"""What Prometheus reads of the service."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

from eqcctpro.serving.online import BatchReport
from eqcctpro.serving.settings import MetricsSettings

__all__ = ["CONTENT_TYPE_LATEST", "SHARED_FOLDER", "Metrics"]

#: Where the replicas of a machine keep their numbers, so that any of them can tell of all.
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"

_SIZE_BUCKETS = tuple(float(4**power) for power in range(3, 15))
_COUNT_BUCKETS = tuple(float(2**power) for power in range(13))
_STAGE_BUCKETS = (*(1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05), *(0.1, 0.5, 2.5))


class Metrics:
    """Counters, gauges and histograms of one replica.

    Parameters
    ----------
    settings : MetricsSettings
    """

    def __init__(self, settings: MetricsSettings) -> None:
        self.registry = CollectorRegistry()
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
            "Decode and encode of a request, infer and pick of a batch",
            _STAGE_BUCKETS,
            "stage",
        )
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

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(
            name,
            text,
            namespace=self._settings.namespace,
            registry=self.registry,
            multiprocess_mode="livesum",
        )

    def watch(self, gauge: Gauge, value: Callable[[], float]) -> None:
        """Read a gauge's value when it is asked for, where nothing is shared."""
        if not self._shared:
            gauge.set_function(value)

    def batch(self, report: BatchReport) -> None:
        """Count a batch."""
        self.batch_windows.observe(report.windows)
        self.batch_stations.observe(report.stations)
        self.batch_wait_seconds.observe(report.waited_s)
        self.stage_seconds.labels("infer").observe(report.infer_s)
        self.stage_seconds.labels("pick").observe(report.pick_s)
        self.windows.inc(report.windows)

    def text(self) -> bytes:
        """In Prometheus's text format; of all replicas of the machine where they share a folder."""
        if not self._shared:
            return generate_latest(self.registry)
        together = CollectorRegistry()
        multiprocess.MultiProcessCollector(together)
        return generate_latest(together)


def forget_dead(folder: Path) -> None:
    """Leave the gauges of processes that have ended out of the sums."""
    for path in folder.glob("gauge_live*_*.db"):
        pid = path.stem.rpartition("_")[2]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            multiprocess.mark_process_dead(int(pid), str(folder))
