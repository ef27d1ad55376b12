"""Numbers of a live run as metrics of Prometheus."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.registry import Collector

from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks.publisher import DELAY_BOUNDS_S
from eqcctpro.times import NS_PER_S

__all__ = ["CONTENT_TYPE_LATEST", "LiveMetrics"]

_PREFIX = "eqcctpro_live"
#: Ages of picks are longer than delays of sinks.
_AGE_BOUNDS_S = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 120.0, 600.0)
#: What a sink's state says, as counters and as gauges, with what they are.
_SINK_COUNTERS = {
    "sent": "Messages that the sink took.",
    "errors": "Failures to connect or to send.",
    "rejected": "Messages that the sink refused.",
    "skipped": "Messages that the outbox removed before the sink took them.",
}
_SINK_GAUGES = {
    "behind": "Messages of the outbox behind the sink's cursor.",
    "lag_s": "Age of the oldest message that waits for the sink.",
}


class LiveMetrics(Collector):
    """Metrics of a live run, made when they are asked for.

    Parameters
    ----------
    status : callable
        Returns `eqcctpro.live.status.LiveStatus` as a mapping.
    outbox : Outbox
    """

    def __init__(self, status: Callable[[], Mapping[str, Any]], outbox: Outbox) -> None:
        self._status, self._outbox = status, outbox
        self._lock = threading.Lock()
        self._delays: dict[tuple[str, str], _Delays] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def note(self, messages: Iterable[PickMessage]) -> None:
        """Take the delays of messages that are new in the outbox."""
        with self._lock:
            for one in messages:
                for stage, begin_ns, end_ns in (
                    ("telemetry", one.data_end_ns, one.received_ns),
                    ("picking", one.received_ns, one.created_ns),
                    ("age", one.time_ns, one.created_ns),
                ):
                    key = stage, one.status
                    bounds = _AGE_BOUNDS_S if stage == "age" else DELAY_BOUNDS_S
                    delays = self._delays.setdefault(key, _Delays(bounds))
                    delays.add((end_ns - begin_ns) / NS_PER_S)

    def text(self) -> bytes:
        """All metrics in the format of Prometheus."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that no status is asked for before the run has one."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics, as of now."""
        status = self._status()
        yield _gauge("running", "1 while picks are made.", status.get("state") == "running")
        yield _gauge("behind_seconds", "Age of data that wait to be picked.", status["behind_s"])
        yield _gauge("alarms", "Things that are wrong.", len(status["alarms"]))
        yield _counter("packets", "Packets of records.", status["packets"])
        yield _counter("windows", "Windows that were picked.", status["windows"])
        yield _counter("late_samples", "Samples that came too late.", status["late_samples"])
        yield _counter("given_up", "Windows that waited in vain.", status["given_up"])
        yield _by("picks", "Messages about picks.", "status", status["picks"])
        yield _by("records", "What became of records.", "kind", status["records"])
        stations = GaugeMetricFamily(
            f"{_PREFIX}_stations", "Stations by the state of their data.", labels=["state"]
        )
        for state, number in status["stations"].items():
            stations.add_metric([state], number)
        yield stations
        yield from _of_sources(status["sources"])
        yield from _of_sinks(status["sinks"])
        state = self._outbox.state()
        yield _gauge("outbox_bytes", "Size of the outbox.", state.bytes)
        yield _gauge("outbox_limit_bytes", "Largest size of the outbox.", state.limit_bytes)
        yield _gauge("outbox_messages", "Messages in the outbox.", state.messages)
        delays = HistogramMetricFamily(
            f"{_PREFIX}_pick_delay_seconds",
            "Time from the end of data to their arrival (telemetry), from there to the message "
            "(picking), and from the pick to its message (age).",
            labels=["stage", "status"],
        )
        with self._lock:
            for key, one in self._delays.items():
                delays.add_metric(list(key), one.buckets(), one.sum_s)
        yield delays


class _Delays:
    """Counts of delays by classes."""

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s = bounds_s
        self._counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, delay_s: float) -> None:
        """Count one; clocks that disagree make none that is negative."""
        delay_s = max(delay_s, 0.0)
        self._counts[bisect_left(self._bounds_s, delay_s)] += 1
        self.sum_s += delay_s

    def buckets(self) -> list[tuple[str, int]]:
        """As Prometheus counts them: of each bound, all that are no longer."""
        return _buckets(self._bounds_s, self._counts)


def _buckets(bounds_s: Sequence[float], counts: Sequence[int]) -> list[tuple[str, int]]:
    found, total = [], 0
    for bound, count in zip([*map(str, bounds_s), "+Inf"], counts, strict=True):
        total += count
        found.append((bound, total))
    return found


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=float(value))


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"{_PREFIX}_{name}", text, value=float(value))


def _by(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"{_PREFIX}_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def _of_sources(sources: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    streaming = GaugeMetricFamily(
        f"{_PREFIX}_source_streaming", "1 while the source sends.", labels=["source"]
    )
    events = CounterMetricFamily(
        f"{_PREFIX}_source_events", "What happened to the source.", labels=["source", "kind"]
    )
    for one in sources:
        streaming.add_metric([one["address"]], float(one["state"] == "streaming"))
        for name, value in one.items():
            if isinstance(value, int) and not isinstance(value, bool):
                events.add_metric([one["address"], name], value)
    yield streaming
    yield events


def _of_sinks(sinks: Sequence[Mapping[str, Any]]) -> Iterator[Metric]:
    ok = GaugeMetricFamily(f"{_PREFIX}_sink_ok", "1 while the sink takes picks.", labels=["sink"])
    delays = HistogramMetricFamily(
        f"{_PREFIX}_sink_delay_seconds",
        "Time from a message until the sink had it.",
        labels=["sink"],
    )
    for one in sinks:
        ok.add_metric([one["name"]], float(one["state"] == "ok"))
        delays.add_metric(
            [one["name"]], _buckets(DELAY_BOUNDS_S, one["delays"]), one["delay_sum_s"]
        )
    yield ok
    yield delays
    for name, text in _SINK_COUNTERS.items():
        counter = CounterMetricFamily(f"{_PREFIX}_sink_{name}", text, labels=["sink"])
        for one in sinks:
            counter.add_metric([one["name"]], one[name])
        yield counter
    for name, text in _SINK_GAUGES.items():
        full = f"{_PREFIX}_sink_{name.replace('lag_s', 'lag_seconds')}"
        gauge = GaugeMetricFamily(full, text, labels=["sink"])
        for one in sinks:
            gauge.add_metric([one["name"]], one[name])
        yield gauge
