"""Archives of any make: what stations recorded, and how somebody laid it out on a disk.

An archive is drawn as what instruments recorded (`Recorded`) and as a way to put that on a disk
(`LaidOut`).  The same recordings as one tidy file for each channel are what it is compared with.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from field_records import in_time_order, records_of, start_of
from hypothesis import strategies as st
from numpy.typing import NDArray
from pymseed import MS3Record
from stamped import TICK_NS, by_clock

from eqcctpro.times import NS_PER_S, chunk_name, parse_utc

MINUTE_NS = 60 * NS_PER_S
DAY_NS = 1440 * MINUTE_NS
#: Chunk folders share so much: two windows of 30 s on either side of the border.
OVERLAP_NS = 2 * MINUTE_NS

_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


@dataclass(frozen=True)
class Channel:
    """What one channel recorded.

    Attributes
    ----------
    code : str
    rate : float
        Hz.
    start_ns : int
    seed : int
        Of its samples.
    pieces : tuple of (int, int)
        First samples, and those after the last ones; gaps between.
    record_bytes : int
    drift_ppm : float
    copies : tuple of (int, int)
        Stretches that other records hold too, in samples.
    contradictions : tuple of (int, int)
        Stretches for which other records say something else, in samples.
    """

    code: str
    rate: float
    start_ns: int
    seed: int
    pieces: tuple[tuple[int, int], ...]
    record_bytes: int = 512
    drift_ppm: float = 0.0
    copies: tuple[tuple[int, int], ...] = ()
    contradictions: tuple[tuple[int, int], ...] = ()

    def samples(self) -> NDArray[np.int32]:
        """Noise, and signals that begin at the same times on all components of a station."""
        recorded = max(last for _, last in self.pieces)
        length = max(recorded, 50)  # no shorter than the mean that is taken off
        samples = np.random.default_rng(self.seed).normal(0, 40, length).cumsum()
        samples -= np.convolve(samples, np.ones(50) / 50, "same")
        times = np.arange(length) / self.rate
        for arrival, hertz, size in _arrivals(self.code.split(".")[1]):
            behind = np.maximum(times - arrival, 0)
            samples += size * behind * np.exp(-behind) * np.sin(2 * np.pi * hertz * behind)
        return np.rint(samples[:recorded]).astype(np.int32)

    def _records(self, samples: NDArray[np.int32], first: int) -> list[bytes]:
        start_ns = self.start_ns + round(first / self.rate * NS_PER_S)
        made = records_of(
            self.code, samples, start_ns=start_ns, rate=self.rate, length=self.record_bytes
        )
        if self.drift_ppm:
            before = (start_ns - self.start_ns) * self.drift_ppm * 1e-6
            start_ns = (start_ns + round(before)) // TICK_NS * TICK_NS
            made = by_clock(made, start_ns, self.rate, lambda t: t * (1 + self.drift_ppm * 1e-6))
        return made

    def records(self) -> list[bytes]:
        """Records of all pieces, and those that overlap with them."""
        samples = self.samples()
        parts = [(first, samples[first:last]) for first, last in self.pieces]
        parts += [(first, samples[first:last]) for first, last in self.copies]
        parts += [(first, samples[first:last] + 7) for first, last in self.contradictions]
        return [record for first, part in parts for record in self._records(part, first)]

    def tidy_records(self) -> list[bytes]:
        """Records in the order of time, none twice, without what contradicts."""
        samples = self.samples()
        records: list[bytes] = []
        for first, last in self.pieces:
            for begin, end in _without([(first, last)], self.contradictions):
                records += self._records(samples[begin:end], begin)
        return records


def _arrivals(station: str) -> list[tuple[float, float, float]]:
    """Times, frequencies and sizes of a station's signals."""
    random = np.random.default_rng(list(station.encode()))
    found = []
    for start in np.arange(15, 420, 40):
        p = start + random.uniform(0, 15)
        found += [(p, 9.0, 3000.0), (p + random.uniform(2, 9), 4.0, 9000.0)]
    return found


def _without(
    spans: list[tuple[int, int]], holes: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    for begin, end in holes:
        spans = [
            part
            for first, last in spans
            for part in ((first, min(last, begin)), (max(first, end), last))
            if part[0] < part[1]
        ]
    return spans


@dataclass(frozen=True)
class LaidOut:
    """How recordings lie on a disk.

    Attributes
    ----------
    kind : str
        ``flat``, ``stations``, ``sds``, ``chunks`` or ``table``.
    together : str
        What a file holds: a ``channel``, an ``instrument``, a ``station`` or ``everything``.
    order : str
        Of records within a file: by ``channel``, by ``time``, ``reversed`` or ``shuffled``.
    cuts_s : tuple of float
        When files end and others begin, in seconds behind the start.
    day_hour : float
        Hour at which day files begin.
    chunk_min : float
        Length of chunk folders without what they share.
    suffix, compressed : str
    links : bool
        Whether files or folders are links to another disk.
    seed : int
        Of what is shuffled.
    """

    kind: str
    together: str = "channel"
    order: str = "time"
    cuts_s: tuple[float, ...] = ()
    day_hour: float = 0.0
    chunk_min: float = 3.0
    suffix: str = ".mseed"
    compressed: str = ""
    links: bool = False
    seed: int = 0


@dataclass(frozen=True)
class AnyArchive:
    """Recordings and the way they are laid out.

    Attributes
    ----------
    channels : tuple of Channel
    layout : LaidOut
    start_ns : int
        When the first of them begins.
    cut_min : tuple of float
        Length and overlap of time chunks to pick it in.
    """

    channels: tuple[Channel, ...]
    layout: LaidOut
    start_ns: int
    cut_min: tuple[float, float] = (2.0, 0.0)
    files: list[Path] = field(default_factory=list, compare=False, repr=False)

    @property
    def drifts(self) -> bool:
        """Whether a clock drifts: where windows begin then depends on where files begin."""
        return any(channel.drift_ppm for channel in self.channels)

    @property
    def is_whole(self) -> bool:
        """Whether what one channel recorded lies in one file."""
        return self.layout.kind not in ("sds", "chunks") and not self.layout.cuts_s

    def write_tidy(self, root: Path) -> Path:
        """One file for each channel."""
        for channel in self.channels:
            _write(root / f"{channel.code}.mseed", channel.tidy_records())
        return root

    def write(self, root: Path) -> Path:
        """The archive as it is laid out; returns what is to be picked."""
        self.files.clear()
        layout = self.layout
        random = np.random.default_rng(layout.seed)
        archive, disk = root / "archive", root / "disk"
        held: dict[Path, list[bytes]] = {}
        for channel in self.channels:
            for record in channel.records():
                for place in self._places(channel, record):
                    held.setdefault(place, []).append(record)
        table = ["path"]
        for number, (place, records) in enumerate(sorted(held.items())):
            content = b"".join(_ordered(records, layout.order, random))
            path = archive / place
            if layout.compressed:
                content = _COMPRESS[layout.compressed](content)
                path = path.with_name(path.name + layout.compressed)
            real = disk / f"{number}" if layout.links else path
            _write(real, [content])
            self.files.append(real)
            if layout.links:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(real)
            table.append(str(path))
        if layout.kind != "table":
            return archive
        (root / "files.csv").write_text("\n".join(table))
        return root / "files.csv"

    def _places(self, channel: Channel, record: bytes) -> list[Path]:
        """Files that a record lies in."""
        layout, code = self.layout, channel.code
        network, station, location, name = code.split(".")
        begins = start_of(record)
        if layout.kind == "sds":
            day_ns = begins - round(layout.day_hour * 60) * MINUTE_NS
            day = np.datetime64(day_ns // DAY_NS, "D")
            year = int(str(day)[:4])
            number = int((day - np.datetime64(f"{year}-01-01")).astype(int)) + 1
            folder = Path(str(year), network, station, f"{name}.D")
            return [folder / f"{code}.D.{year}.{number:03d}"]
        parts = {
            "channel": code,
            "instrument": f"{network}.{station}.{location}.{name[:-1]}",
            "station": f"{network}.{station}",
            "everything": "data",
        }
        file = parts[layout.together]
        behind = (begins - self.start_ns) / NS_PER_S
        piece = sum(behind >= cut for cut in layout.cuts_s)
        file = f"{file}.{piece}{layout.suffix}"
        if layout.kind == "chunks":
            first, last = begins, MS3Record.parse(record).endtime
            return [Path(name, station, file) for name in self._chunks_of(first, last)]
        if layout.kind == "stations":
            return [Path(f"{network}.{station}" if layout.seed % 2 else station, file)]
        return [Path(file)]

    def _chunks_of(self, first_ns: int, last_ns: int) -> list[str]:
        length = round(self.layout.chunk_min * 60) * NS_PER_S
        origin = self.start_ns // MINUTE_NS * MINUTE_NS
        least = (first_ns - origin - OVERLAP_NS) // length
        names = []
        for number in range(least, (last_ns - origin) // length + 1):
            begin = origin + number * length
            end = begin + length + OVERLAP_NS
            if first_ns < end and last_ns >= begin:
                names.append(chunk_name(begin, end))
        return names

    def samples(self) -> int:
        """Samples of all records, those of every copy."""
        counts = 0
        for channel in self.channels:
            counts += sum(MS3Record.parse(record).samplecnt for record in channel.records())
        return counts


def _ordered(records: list[bytes], order: str, random: np.random.Generator) -> list[bytes]:
    if order == "time":
        return in_time_order(records)
    if order == "reversed":
        return in_time_order(records)[::-1]
    if order == "shuffled":
        return [records[at] for at in random.permutation(len(records))]
    return records


def _write(path: Path, records: list[bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(records))


def write_network(path: Path) -> None:
    """A small network with weights by chance, whose probabilities depend on all of a window."""
    import seisbench.models as sbm
    import torch

    torch.manual_seed(0)
    model = sbm.PhaseNet(phases="PSN", norm="peak", component_order="ZNE")
    codes = [f"XX.AAA..HH{component}" for component in "ZNE"]
    channels = [Channel(c, 100.0, 0, seed, ((0, 30_000),)) for seed, c in enumerate(codes)]
    rows = np.array([channel.samples() for channel in channels], dtype=np.float32)
    windows = np.stack([rows[:, at : at + 3001] for at in range(0, 27_000, 500)])
    windows -= windows.mean(-1, keepdims=True)
    windows /= np.abs(windows).max((1, 2), keepdims=True)
    with torch.no_grad():
        model.train()
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm1d):
                layer.momentum = None  # the mean of all that it sees
        model(torch.tensor(windows))
    model.eval().save(str(path))


# Strategies.

STARTS = ("2024-12-15T12:00:00", "2024-12-31T23:57:10", "2024-03-01T23:56:30.5")
STATIONS = ("AAA", "B1", "STA05")


@st.composite
def _pieces(draw: st.DrawFn, length: int, rate: float) -> tuple[tuple[int, int], ...]:
    """Up to three gaps, of a sample to a minute."""
    spans = [(0, length)]
    for _ in range(draw(st.integers(0, 3))):
        begin = draw(st.integers(1, length - 2))
        gap = draw(st.sampled_from((1, 2, 7, round(rate), round(20 * rate), round(60 * rate))))
        spans = _without(spans, [(begin, begin + gap)])
    return tuple(sorted(spans))


@st.composite
def _stretches(
    draw: st.DrawFn, pieces: tuple[tuple[int, int], ...], rate: float
) -> tuple[tuple[int, int], ...]:
    """Up to two stretches within pieces, that are further apart than two seconds."""
    found: list[tuple[int, int]] = []
    for _ in range(draw(st.integers(0, 2))):
        first, last = draw(st.sampled_from(pieces))
        begin = draw(st.integers(first, last - 1))
        end = min(begin + draw(st.integers(2, round(40 * rate))), last)
        apart = round(2 * rate)
        if end - begin > 1 and all(end + apart < b or e + apart < begin for b, e in found):
            found.append((begin, end))
    return tuple(sorted(found))


@st.composite
def _instrument(
    draw: st.DrawFn, station: str, band: str, start_ns: int, rates: tuple[float, ...]
) -> list[Channel]:
    rate = draw(st.sampled_from(rates))
    location = draw(st.sampled_from(("", "00")))
    components = draw(st.sampled_from(("ZNE", "ZNE", "Z12", "Z", "ZNEU", "123")))
    late_ns = draw(st.sampled_from((0, 0, 3_700_000, 41 * NS_PER_S)))
    length = round(draw(st.integers(70, 330)) * rate)
    drift = draw(st.sampled_from((0.0, 0.0, 0.0, 80.0, -237.0)))
    shared = draw(_pieces(length, rate))
    alike = draw(st.booleans())
    channels = []
    for seed, component in enumerate(components):
        pieces = shared if alike else draw(_pieces(length, rate))
        copies = contradictions = ()
        if not drift:
            what = draw(st.sampled_from(("nothing", "copies", "contradictions")))
            if what == "copies":
                copies = draw(_stretches(pieces, rate))
            elif what == "contradictions":
                contradictions = draw(_stretches(pieces, rate))
        channels.append(
            Channel(
                f"XX.{station}.{location}.{band}{component}",
                rate,
                start_ns + late_ns,
                seed,
                pieces,
                draw(st.sampled_from((512, 256, 4096))),
                drift,
                copies,
                contradictions,
            )
        )
    return channels


@st.composite
def _layouts(draw: st.DrawFn) -> LaidOut:
    kind = draw(st.sampled_from(("flat", "stations", "sds", "chunks", "table")))
    alone = kind == "sds"
    return LaidOut(
        kind,
        "channel"
        if alone
        else draw(st.sampled_from(("channel", "instrument", "station", "everything"))),
        draw(st.sampled_from(("channel", "time", "reversed", "shuffled"))),
        tuple(sorted(draw(st.lists(st.integers(1, 330).map(float), max_size=3)))),
        draw(st.sampled_from((0.0, 0.0, -0.02, 0.03, 6.0))),
        draw(st.sampled_from((1.0, 2.0, 3.0))),
        draw(st.sampled_from((".mseed", ".ms", "", ".2024", ".msd"))),
        draw(st.sampled_from(("", "", "", *_COMPRESS))) if not alone else "",
        draw(st.booleans()),
        draw(st.integers(0, 9)),
    )


@st.composite
def archives(draw: st.DrawFn, rates: tuple[float, ...] = (100.0,)) -> AnyArchive:
    """Archives of one to three stations."""
    start_ns = parse_utc(draw(st.sampled_from(STARTS)))
    channels: list[Channel] = []
    for station in STATIONS[: draw(st.integers(1, 3))]:
        for band in draw(st.sampled_from((("HH",), ("EH",), ("HH", "HN")))):
            channels += draw(_instrument(station, band, start_ns, rates))
    cut = draw(st.sampled_from(((1.0, 0.0), (2.0, 0.5), (1.5, 1.0), (30.0, 2.0))))
    return AnyArchive(tuple(channels), draw(_layouts()), start_ns, cut)
