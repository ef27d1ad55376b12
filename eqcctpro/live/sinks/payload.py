"""Messages as JSON of other programs, and as words of topics."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from eqcctpro.codes import channel_of
from eqcctpro.errors import SettingsError
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.sinks.base import RejectedError
from eqcctpro.live.sinks.target import Target
from eqcctpro.times import format_utc

__all__ = ["FORMATS_OPTION", "anss_pick", "glass3_pick", "payload_of", "topic_of"]

#: Options of sinks that send JSON.
FORMATS_OPTION = ("format", "agency")

_AUTHOR = "eqcctpro"
# What separates words of MQTT topics and NATS subjects, or stands for any of them.
_NOT_IN_WORDS = re.compile(r"[^\w~-]")


def payload_of(target: Target) -> Callable[[PickMessage], str]:
    """Function that makes the text of a message, as the options of a sink ask for.

    Raises
    ------
    SettingsError
        The format is unknown, or needs an agency.
    """
    wanted = target.options.get("format", "json")
    agency = target.options.get("agency", "")
    if wanted == "json":
        return PickMessage.as_json
    others: dict[str, Callable[[PickMessage, str], str]] = {
        "glass3": glass3_pick,
        "anss": anss_pick,
    }
    if wanted not in others:
        raise SettingsError(
            f"sink {target.name}: format={wanted} is unknown",
            hint=f"one of json, {', '.join(others)}",
        )
    make = others[wanted]
    require_agency(target, wanted)
    if target.send == "all":
        raise SettingsError(
            f"sink {target.name}: picks of {wanted} have no versions; send=all is not possible",
            hint="send=final, or send=first",
        )
    return lambda message: make(message, agency)


def require_agency(target: Target, wanted: str) -> str:
    """The agency of a sink whose format must have one.

    Raises
    ------
    SettingsError
        It is missing.
    """
    agency = target.options.get("agency", "")
    if not agency:
        raise SettingsError(
            f"sink {target.name}: picks of {wanted} name the agency that makes them",
            hint="give it: ?agency=CODE",
        )
    return agency


def topic_of(message: PickMessage) -> tuple[str, str, str]:
    """Network, station and phase as words of a topic; a word is never empty."""
    words = (message.network, message.station, message.phase)
    network, station, phase = (_NOT_IN_WORDS.sub(_escaped, word) or "-" for word in words)
    return network, station, phase


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"~{byte:02X}" for byte in found[0].encode())


def glass3_pick(message: PickMessage, agency: str) -> str:
    """A pick of neic-glass3, as in USGS's earthquake-detection-formats.

    Raises
    ------
    RejectedError
        It is retracted, which the format has no words for.
    """
    _refuse_retracted(message)
    content: dict[str, Any] = {
        "Type": "Pick",
        "ID": message.id,
        "Site": {
            "Station": message.station,
            "Channel": _channel(message),
            "Network": message.network,
            "Location": message.location or "--",
        },
        # Its readers take times of exactly this length.
        "Time": format_utc(message.time_ns, "milliseconds"),
        "Source": {"AgencyID": agency, "Author": _AUTHOR},
        "Phase": message.phase,
        "Picker": "other",
    }
    if message.snr is not None:
        content["Amplitude"] = {"SNR": message.snr}
    return _json(content)


def anss_pick(message: PickMessage, agency: str) -> str:
    """A pick of the ANSS formats.

    Raises
    ------
    RejectedError
        It is retracted, which the format has no words for.
    """
    _refuse_retracted(message)
    source = {"agencyID": agency, "author": _AUTHOR}
    properties = {
        "station": message.station,
        "channel": _channel(message),
        "network": message.network,
        "location": message.location or "--",
    }
    prediction = {
        "label": "phase",
        "value": message.phase,
        "probability": message.probability,
        "modelID": message.model,
        "modelVersion": message.weights,
        "source": source,
    }
    content: dict[str, Any] = {
        "type": "Pick",
        "id": message.id,
        "channel": {"type": "Feature", "properties": properties},
        "source": source,
        "time": format_utc(message.time_ns, "milliseconds"),
        "phase": message.phase,
        "method": message.origin,
        "analyticsInfo": {"predictions": [prediction]},
    }
    if message.snr is not None:
        content["amplitudeInfo"] = {"snr": message.snr}
    return _json(content)


def _refuse_retracted(message: PickMessage) -> None:
    if message.status == "retracted":
        raise RejectedError("the pick is retracted, which the format cannot say")


def _channel(message: PickMessage) -> str:
    """Channel code with a component: the vertical, or the first that had data."""
    component = "Z" if "Z" in message.components else message.components[:1]
    return channel_of(message.channel, component)


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"))
