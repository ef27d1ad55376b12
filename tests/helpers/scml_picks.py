"""Picks of SCML as ObsPy reads them."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any


def scml_picks_through_obspy(path: Path) -> list[Any]:
    """All picks of an SCML file as ObsPy sees them, with an event that refers to them."""
    from lxml import etree
    from obspy import read_events

    document = etree.parse(str(path))
    parameters = document.getroot()[0]
    name = parameters.tag.removesuffix("EventParameters")
    arrivals = "".join(
        f"<arrival><pickID>{pick.get('publicID').replace('&', '&amp;')}</pickID>"
        "<phase>P</phase></arrival>"
        for pick in parameters.iterfind(f"{name}pick")
    )
    event = (
        f'<all xmlns="{name[1:-1]}"><origin publicID="o"><time><value>2024-12-15T12:00:00.0Z'
        "</value></time><latitude><value>0</value></latitude><longitude><value>0</value>"
        f'</longitude>{arrivals}</origin><event publicID="e"><preferredOriginID>o'
        "</preferredOriginID><originReference>o</originReference></event></all>"
    )
    for element in etree.fromstring(event):
        parameters.append(element)
    whole = io.BytesIO(etree.tostring(document))
    return list(read_events(whole, format="SCML")[0].picks)
