"""Synthetic network as a data set: waveforms, stations, earthquakes, true arrivals."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pymseed import MiniSEEDError

from eqcctpro.archive.timechunks import Timechunk, chunk_grid
from eqcctpro.errors import OutputError, SettingsError
from eqcctpro.picks.writers import atomic_file
from eqcctpro.synthetic.network import NETWORK
from eqcctpro.synthetic.scenario import Earth, Scenario, draw_scenario
from eqcctpro.synthetic.station_record import Defects, StationRecord
from eqcctpro.times import NS_PER_S, Time, format_utc, parse_utc, utc_text
from eqcctpro.waveform.encode import encode_file
from eqcctpro.waveform.segments import ChannelCode, Segment

__all__ = ["COUNTS_PER_M_S", "Synthesis", "synthesize", "write_events_xml", "write_station_xml"]

COMPONENTS = "ZNE"
LOCATION = "00"
INSTRUMENT = "HH"
_MOST_STATIONS = 9999
_LOWEST_RATE_HZ = 40.0
_SHORTEST_S = 60.0


@dataclass(frozen=True)
class Synthesis:
    """Settings of a synthetic data set.

    Attributes
    ----------
    stations : int
        1 to 9999.
    duration_s : float
        At least 60.
    sampling_rate : float
        Hz, at least 40.
    earthquakes : int or None
        None makes one in each full minute.
    seed : int
        The same settings and seed give the same files.
    start : str
        Time of the first sample, UTC.
    centre : tuple of float
        Latitude and longitude of the network.
    radius_km : float
    earth : {"homogeneous", "iasp91", "ak135"}
    timechunk_min : float or None
        Length of a chunk's folder in minutes; None writes one chunk.
    overlap_min : float
        How much earlier each chunk begins.
    defects : Defects
    """

    stations: int = 12
    duration_s: float = 300.0
    sampling_rate: float = 100.0
    earthquakes: int | None = None
    seed: int = 0
    start: Time = "2024-12-15T12:00:00Z"
    centre: tuple[float, float] = (31.5, -103.0)
    radius_km: float = 60.0
    earth: Earth = "homogeneous"
    timechunk_min: float | None = None
    overlap_min: float = 0.0
    defects: Defects = field(default_factory=Defects)

    def __post_init__(self) -> None:
        object.__setattr__(self, "start", utc_text(self.start, "start"))
        limits = {
            "stations": 1 <= self.stations <= _MOST_STATIONS,
            "duration": self.duration_s >= _SHORTEST_S,
            "sampling_rate": self.sampling_rate >= _LOWEST_RATE_HZ,
            "earthquakes": self.earthquakes is None or self.earthquakes >= 0,
            "seed": self.seed >= 0,
            "radius_km": 1 <= self.radius_km <= 300,
            "earth": self.earth in ("homogeneous", "iasp91", "ak135"),
            **{name: 0 <= share <= 1 for name, share in asdict(self.defects).items()},
        }
        if wrong := [name for name, right in limits.items() if not right]:
            raise SettingsError(
                f"out of range: {', '.join(wrong)}",
                hint=f"stations 1 to {_MOST_STATIONS}, duration from {_SHORTEST_S:g} s, sampling "
                f"rate from {_LOWEST_RATE_HZ:g} Hz, radius 1 to 300 km, shares 0 to 1",
            )

    @property
    def codes(self) -> list[str]:
        """Station codes; miniSEED 2 holds five letters."""
        return [f"S{number:04d}" for number in range(1, self.stations + 1)]

    @property
    def n_earthquakes(self) -> int:
        """Earthquakes in all."""
        return int(self.duration_s // 60) if self.earthquakes is None else self.earthquakes


def synthesize(path: str | Path, settings: Synthesis | None = None) -> dict[str, Any]:
    """Write a synthetic network with known arrivals.

    ``path/waveforms`` is the archive (EQCCTPro's layout, miniSEED 2, Steim-2);
    ``arrivals.csv`` holds the true P and S that were recorded, ``stations.csv`` and
    ``stations.xml`` (StationXML with responses) the stations, ``events.xml`` (QuakeML) the
    earthquakes, and ``manifest.json`` what was made, with the defects and the arrivals that fell
    into gaps.

    Parameters
    ----------
    path : path
        A folder; there must be no archive in it.
    settings : Synthesis, optional

    Returns
    -------
    dict
        The content of ``manifest.json``.

    Raises
    ------
    SettingsError
        A parameter is out of its range.
    OutputError
        The folder is in use, or cannot be written.
    """
    settings = settings or Synthesis()
    root = Path(path)
    if (root / "waveforms").exists():
        raise OutputError(
            f"{root / 'waveforms'} is there already", hint="choose another folder, or remove it"
        )
    scenario = draw_scenario(
        stations=settings.stations,
        duration_s=settings.duration_s,
        earthquakes=settings.n_earthquakes,
        seed=settings.seed,
        centre=settings.centre,
        radius_km=settings.radius_km,
        earth=settings.earth,
    )
    start_ns = parse_utc(settings.start, "start")
    end_ns = start_ns + round(settings.duration_s * NS_PER_S)
    chunks = chunk_grid(
        start_ns,
        end_ns,
        length_min=settings.timechunk_min or settings.duration_s / 60,
        overlap_min=settings.overlap_min,
    )
    rows: list[tuple[str, ...]] = []
    stations: list[dict[str, Any]] = []
    for index, code in enumerate(settings.codes):
        record = StationRecord(
            scenario,
            index,
            seed=settings.seed,
            duration_s=settings.duration_s,
            sampling_rate=settings.sampling_rate,
            defects=settings.defects,
        )
        _write_waveforms(root / "waveforms", code, record, chunks, start_ns, settings)
        recorded, lost = _arrivals(scenario, index, code, record, start_ns)
        rows += recorded
        stations.append(_station(code, record, lost, settings.sampling_rate))
    manifest = {
        "settings": asdict(settings),
        "start": format_utc(start_ns),
        "end": format_utc(end_ns),
        "earthquakes": settings.n_earthquakes,
        "arrivals": len(rows),
        "stations": stations,
    }
    _write_tables(root, settings, scenario, rows, manifest)
    write_station_xml(root / "stations.xml", settings.codes, scenario, settings.sampling_rate)
    write_events_xml(root / "events.xml", scenario, start_ns)
    return manifest


def _write_waveforms(
    root: Path,
    code: str,
    record: StationRecord,
    chunks: list[Timechunk],
    start_ns: int,
    settings: Synthesis,
) -> None:
    rate = settings.sampling_rate
    for chunk in chunks:
        first = max(0, _sample(chunk.read_start_ns, start_ns, rate))
        last = min(record.samples, _sample(chunk.read_end_ns, start_ns, rate))
        pieces = record.pieces(first, last)
        if not pieces:
            continue
        folder = root / chunk.name / code
        counts = record.counts(first, last)
        span = chunk.name.replace("_", "__")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for row, component in enumerate(COMPONENTS):
                channel = ChannelCode(NETWORK, code, LOCATION, INSTRUMENT + component)
                segments = [
                    Segment(
                        channel,
                        start_ns + round(begin / rate * NS_PER_S),
                        rate,
                        counts[row, begin - first : end - first],
                    )
                    for begin, end in pieces
                ]
                encode_file(folder / f"{channel}__{span}.mseed", segments)
        except (OSError, MiniSEEDError) as error:
            raise OutputError(
                f"cannot write the synthetic station {code} to {folder}: {error}",
                hint="choose a folder that may be written and has room",
            ) from error


def _sample(time_ns: int | None, start_ns: int, rate: float) -> int:
    return round(((time_ns or start_ns) - start_ns) / NS_PER_S * rate)


def _arrivals(
    scenario: Scenario, index: int, code: str, record: StationRecord, start_ns: int
) -> tuple[list[tuple[str, ...]], list[str]]:
    """Rows of ``arrivals.csv``, and what arrived in gaps or after the end."""
    recorded: list[tuple[str, ...]] = []
    lost = []
    for number, phase, seconds in _in_order(scenario, index):
        time = format_utc(start_ns + round(seconds * NS_PER_S))
        if record.in_gap(seconds) or seconds * record.sampling_rate >= record.samples:
            lost.append(f"{phase} {time}")
        else:
            recorded.append((NETWORK, code, LOCATION, INSTRUMENT, phase, time, str(number)))
    return recorded, lost


def _in_order(scenario: Scenario, index: int) -> Iterator[tuple[int, str, float]]:
    for number in range(len(scenario.origin_s)):
        yield number, "P", float(scenario.arrivals.p_s[number, index])
        yield number, "S", float(scenario.arrivals.s_s[number, index])


def _station(code: str, record: StationRecord, lost: list[str], rate: float) -> dict[str, Any]:
    return {
        "station": f"{NETWORK}.{code}",
        "gaps_s": [[begin / rate, end / rate] for begin, end in record.gaps],
        "glitches_s": [begin / rate for begin, *_ in record.glitches],
        "dead": None if record.dead is None else INSTRUMENT + COMPONENTS[record.dead],
        "not_recorded": lost,
    }


def _write_tables(
    root: Path,
    settings: Synthesis,
    scenario: Scenario,
    arrivals: list[tuple[str, ...]],
    manifest: dict[str, Any],
) -> None:
    header = ("network", "station", "location", "channel", "phase", "time", "event")
    _write_csv(root / "arrivals.csv", header, arrivals)
    places = zip(
        settings.codes,
        scenario.station_latitude.tolist(),
        scenario.station_longitude.tolist(),
        strict=True,
    )
    rows: list[tuple[str, ...]] = [
        (NETWORK, code, LOCATION, f"{latitude:.7f}", f"{longitude:.7f}", "0.0")
        for code, latitude, longitude in places
    ]
    names = ("network", "station", "location", "latitude", "longitude", "elevation_m")
    _write_csv(root / "stations.csv", names, rows)
    with atomic_file(root / "manifest.json") as file:
        file.write(json.dumps(manifest, indent=1).encode() + b"\n")


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


COUNTS_PER_M_S = 6.0e8
"""Sensitivity of every channel: common for a broadband seismometer on a 24-bit digitiser."""

# A seismometer with a corner period of 120 s and 0.7 of critical damping, rad/s.
_POLES = [-0.036614 + 0.037059j, -0.036614 - 0.037059j]
_ZEROS = [0j, 0j]
_ORIENTATION = {"Z": (0.0, -90.0), "N": (0.0, 0.0), "E": (90.0, 0.0)}


def write_station_xml(
    path: Path, codes: list[str], scenario: Scenario, sampling_rate: float
) -> None:
    """StationXML 1.2 with coordinates and responses."""
    from obspy.core.inventory import Channel, Inventory, Network, Response, Site, Station

    response = Response.from_paz(
        _ZEROS,
        _POLES,
        COUNTS_PER_M_S,
        stage_gain_frequency=1.0,
        input_units="M/S",
        output_units="COUNTS",
        normalization_frequency=1.0,
        normalization_factor=1.0,
    )
    stations = []
    places = zip(
        codes,
        scenario.station_latitude.tolist(),
        scenario.station_longitude.tolist(),
        strict=True,
    )
    for code, latitude, longitude in places:
        channels = [
            Channel(
                f"HH{component}",
                "00",
                latitude,
                longitude,
                0.0,
                0.0,
                azimuth=azimuth,
                dip=dip,
                sample_rate=sampling_rate,
                response=response,
            )
            for component, (azimuth, dip) in _ORIENTATION.items()
        ]
        stations.append(
            Station(code, latitude, longitude, 0.0, channels=channels, site=Site("made up"))
        )
    inventory = Inventory([Network(NETWORK, stations=stations)], source="eqcctpro")
    text = io.BytesIO()
    inventory.write(text, format="STATIONXML")
    with atomic_file(path) as file:
        file.write(text.getvalue())


def write_events_xml(path: Path, scenario: Scenario, start_ns: int) -> None:
    """QuakeML 1.2 with one origin for each earthquake."""
    from eqcctpro.picks.formats.quakeml import QUAKEML_FOOT, QUAKEML_HEAD

    hypocentres = zip(
        scenario.origin_s.tolist(),
        scenario.latitude.tolist(),
        scenario.longitude.tolist(),
        scenario.depth_km.tolist(),
        strict=True,
    )
    with atomic_file(path) as file:
        file.write(QUAKEML_HEAD.encode())
        for number, (seconds, latitude, longitude, depth) in enumerate(hypocentres):
            time = format_utc(start_ns + round(seconds * NS_PER_S))
            origin = f"smi:local/eqcctpro/synthetic/origin/{number}"
            file.write(
                f'<event publicID="smi:local/eqcctpro/synthetic/event/{number}">'
                f"<preferredOriginID>{origin}</preferredOriginID><type>earthquake</type>"
                f'<origin publicID="{origin}"><time><value>{time}</value></time>'
                f"<longitude><value>{longitude:.7f}</value></longitude>"
                f"<latitude><value>{latitude:.7f}</value></latitude>"
                f"<depth><value>{depth * 1000:.1f}</value></depth></origin></event>\n".encode()
            )
        file.write(QUAKEML_FOOT.encode())
