"""Stations and earthquakes of a synthetic network as StationXML and QuakeML."""

from __future__ import annotations

import io
from pathlib import Path

from eqcctpro.picks.writers import atomic_file
from eqcctpro.synthetic.network import NETWORK
from eqcctpro.synthetic.scenario import Scenario
from eqcctpro.times import NS_PER_S, format_utc

__all__ = ["COUNTS_PER_M_S", "write_events_xml", "write_station_xml"]

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
