"""Streams of records in any order, a network of numbers alone, and picks of whole records."""

from __future__ import annotations

import random
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding

from eqcctpro.codes import Code
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.packets import Packet
from eqcctpro.live.picker import LivePicker
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.pipeline.engine import Pipeline
from eqcctpro.pipeline.prepare import StationWaveforms, prepare
from eqcctpro.pipeline.settings import PipelineSettings, resolve_settings
from eqcctpro.runtimes.base import Runtime
from eqcctpro.times import parse_utc
from eqcctpro.waveform.decode import decode_records
from eqcctpro.waveform.encode import Series, encode_series

Float32 = NDArray[np.float32]
START_NS = parse_utc("2024-03-01T00:00:00")
LENGTH = 300


class PlainRuntime(Runtime):
    """Curves that depend on all samples of a window, and on their place in it."""

    kind: ClassVar[str] = "plain"

    def __init__(self, batch_size: int = 7) -> None:
        self.device, self.batch_size = "cpu", batch_size
        self._ramp = np.linspace(0.8, 1.0, LENGTH, dtype=np.float32)

    def predict(self, windows: Float32) -> Float32:
        """Heights of samples among those of the window."""
        heights = np.abs(windows - windows.mean(axis=2, keepdims=True))
        heights /= heights.max(axis=(1, 2), keepdims=True) + 1e-3
        heights[:, 1] = np.maximum(heights[:, 1], 0.7 * heights[:, 0])
        curves: Float32 = np.ascontiguousarray((heights * self._ramp).transpose(0, 2, 1))
        return curves


def plain_picker(stacking: str, overlap: int = 150, blinding: tuple[int, int] = (20, 30)) -> Picker:
    """Description of the network of `PlainRuntime`."""
    windows = WindowSettings(overlap, 0, stacking, blinding)  # type: ignore[arg-type]
    return Picker(
        model="Plain",
        weights=stacking,
        weights_sha256="",
        sampling_rate=100.0,
        components="ZNE",
        in_samples=LENGTH,
        output="array",
        pred_sample=(0, LENGTH),
        out_samples=LENGTH,
        labels=("P", "S", "N"),
        phases=("P", "S"),
        detection_label=None,
        windows=windows,
        thresholds={"P": 0.5, "S": 0.4},
    )


def plain_settings(picker: Picker) -> PipelineSettings:
    return resolve_settings(picker, grid="absolute")


Key = tuple[str, str, str, str, str, int, int, int, float]


def picked_at_once(packets: list[Packet], picker: Picker, settings: PipelineSettings) -> list[Key]:
    """Picks of the same records by the pipeline, each instrument at once."""
    instruments: dict[Code, list[Any]] = {}
    content = b"".join(packet.record for packet in packets)
    for segment in decode_records(content, "records").segments:
        network, station, location, channel = segment.code
        instruments.setdefault((network, station, location, channel[:2]), []).append(segment)
    pipeline = Pipeline(picker, PlainRuntime(), settings)
    found: list[Key] = []
    for code, segments in instruments.items():
        picks = pipeline.pick_one(prepare(StationWaveforms(segments), picker, settings)).picks
        columns = (picks.label, picks.time_ns, picks.start_ns, picks.end_ns, picks.probability)
        for label, time, start, end, value in zip(*(one.tolist() for one in columns), strict=True):
            found.append((*code, picker.labels[label], time, start, end, value))
    return sorted(found)


def keys_of(messages: list[PickMessage]) -> list[Key]:
    """What batch and real-time picks have in common, of the last version of each pick."""
    last = {message.id: message for message in messages}
    return sorted(
        (
            *(one.network, one.station, one.location, one.channel, one.phase),
            *(one.time_ns, one.start_ns, one.end_ns, one.probability),
        )
        for one in last.values()
        if one.status == "final"
    )


class Stream(NamedTuple):
    """Packets in the order of arrival, as a server numbers them."""

    packets: list[Packet]

    def behind(self, positions: dict[str, Any], time: float) -> list[Packet]:
        """Packets that a server sends again to one who comes back at a time."""
        again = []
        for packet in self.packets:
            position = positions.get(packet.station)
            if packet.received <= time and (
                position is None or packet.sequence > position.sequence
            ):
                again.append(packet)
        return again


def made_stream(
    seed: int, *, stations: int = 2, delay_s: float = 6.0, gaps: float = 0.12
) -> Stream:
    """Records of some stations with gaps, of which some come late or twice."""
    drawn, noise = random.Random(seed), np.random.default_rng(seed)
    arriving: list[tuple[float, Code, bytes]] = []
    for number in range(stations):
        begins = drawn.randrange(500)
        shift_ns = drawn.choice([0, 0, drawn.randrange(-4_000_000, 4_000_000)])
        for component in drawn.sample("ENZ", drawn.randint(1, 3)):
            code = ("TX", f"PB{number:02d}", "00", f"HH{component}")
            sample, ends, first = begins + drawn.choice([0, drawn.randrange(100)]), 6000, True
            while sample < ends:
                n = min(drawn.randint(2, 60 if first else 350), ends + 100 - sample)
                values = noise.normal(0, 20, n)
                for _ in range(drawn.randint(0, 2)):
                    at, wide = noise.integers(n), drawn.uniform(1, 9)
                    values += noise.normal(0, 2000) * np.exp(-(((np.arange(n) - at) / wide) ** 2))
                series = Series(
                    code, START_NS + sample * 10_000_000 + shift_ns, 100.0, values.astype(np.int32)
                )
                (record,) = encode_series([series], DataEncoding.INT32, 4096)
                sample += n
                late = drawn.uniform(0, delay_s) if drawn.random() < 0.2 and not first else 0.0
                first = False
                arriving.append((sample / 100 + late, code, record))
                if drawn.random() < 0.05:
                    arriving.append((sample / 100 + late + 1, code, record))
                if drawn.random() < gaps:
                    sample += drawn.choice([drawn.randint(2, 30), drawn.randint(30, 1500)])
    arriving.sort(key=lambda one: one[0])
    base = START_NS / 1e9 + 1000
    return Stream(
        [
            Packet(code, number, record, base + time)
            for number, (time, code, record) in enumerate(arriving, 1)
        ]
    )


def in_ticks(picker: LivePicker, packets: list[Packet], tick_s: float) -> list[PickMessage]:
    """Messages while packets arrive, which are looked at every some seconds."""
    messages: list[PickMessage] = []
    if not packets:
        return messages
    now, at = packets[0].received, 0
    while at < len(packets):
        now += tick_s
        batch = []
        while at < len(packets) and packets[at].received <= now:
            batch.append(packets[at])
            at += 1
        picker.take(batch)
        messages += picker.step(now)
    return messages
