"""Check of a running service, by requests with the examples."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np

from eqcctpro.serving.client import PickClient, ServiceError
from eqcctpro.serving.example import example_miniseed, example_segments

__all__ = ["CheckResult", "check_service"]

_TOLERANCE = 1e-5
# Synthetic picks are of no use to clients of the stream.
_PRIVATE = "/v1/pick?private=true"


@dataclass(frozen=True)
class CheckResult:
    """Result of one check.

    Attributes
    ----------
    name : str
    ok : bool
    found : str
    tried : bool
        False where another check failed that it needs.
    """

    name: str
    ok: bool
    found: str
    tried: bool = True


class _CheckError(Exception):
    """A check has failed."""


def check_service(
    url: str, *, key: str | None = None, verify: bool | str = True
) -> Iterator[CheckResult]:
    """Check a running service with the examples.

    Parameters
    ----------
    url : str
    key : str, optional
    verify : bool or str
        As for `PickClient`.
    """
    with PickClient(url, key=key, verify=verify) as client:
        checks = _Checks(client, url, key, verify)
        models, picks = "models", "picks of the example"
        failed: set[str] = set()
        for name, check, needs in (
            ("health", checks.health, None),
            (models, checks.models, None),
            (picks, checks.picks, models),
            ("arrays give the same picks", checks.arrays, picks),
            ("other formats", checks.formats, picks),
            ("curves", checks.curves, models),
            ("wrong requests are refused", checks.refusals, models),
            ("the interface's own example", checks.description, models),
            ("metrics", checks.metrics, None),
        ):
            if needs in failed:
                result = CheckResult(name, False, f"not tried: it needs {needs!r}", tried=False)
            else:
                result = _run(name, check)
            if not result.ok:
                failed.add(name)
            yield result


def _run(name: str, check: Callable[[], str]) -> CheckResult:
    try:
        return CheckResult(name, True, check())
    except _CheckError as error:
        return CheckResult(name, False, str(error))
    except (ServiceError, httpx.HTTPError) as error:
        return CheckResult(name, False, str(error))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return CheckResult(
            name, False, f"an answer of another form: {type(error).__name__} {error}"
        )


class _Checks:
    def __init__(self, client: PickClient, url: str, key: str | None, verify: bool | str) -> None:
        self._client = client
        headers = {} if key is None else {"X-API-Key": key}
        self._http = httpx.Client(
            base_url=url.rstrip("/"), headers=headers, timeout=60.0, verify=verify
        )
        self._names: list[str] = []
        self._picks: dict[str, list[dict[str, Any]]] = {}

    def health(self) -> str:
        for name in ("startup", "live", "ready"):
            response = self._http.get(f"/health/{name}")
            if response.status_code != httpx.codes.OK:
                raise _CheckError(f"/health/{name}: {response.status_code} {response.text[:200]}")
        return "started, alive and ready"

    def models(self) -> str:
        self._names = [model["name"] for model in self._client.models()]
        if not self._names:
            raise _CheckError("none is served")
        return ", ".join(self._names)

    def picks(self) -> str:
        found = []
        for name in self._names:
            answer = self._client.pick(example_miniseed(), model=name, private=True)
            (station,) = answer["stations"]
            if station["status"] == "failed":
                raise _CheckError(f"{name}: {station['reason']}")
            self._picks[name] = answer["picks"]
            found.append(f"{len(answer['picks'])} with {name}")
        return ", ".join(found)

    def arrays(self) -> str:
        segments = example_segments()
        samples = np.stack([segment.samples for segment in segments]).astype("<i4")
        station = {
            **dict(zip(("network", "station", "location"), segments[0].code[:3], strict=True)),
            "channels": [segment.code.channel for segment in segments],
            "start": segments[0].start_ns,
            "sampling_rate": segments[0].sampling_rate,
            "dtype": "int32",
            "samples": base64.b64encode(samples.tobytes()).decode(),
        }
        answer = self._http.post(_PRIVATE, json={"stations": [station]}).json()
        _same(answer["picks"], self._picks[self._names[0]])
        return "JSON and miniSEED"

    def formats(self) -> str:
        wanted = self._picks[self._names[0]]
        text = self._client.pick_as("text/csv", example_miniseed(), private=True).decode()
        lines = text.strip().splitlines()
        if len(lines) != len(wanted) + 1:
            raise _CheckError(f"CSV has {len(lines) - 1} picks, not {len(wanted)}")
        xml = self._client.pick_as("application/xml", example_miniseed(), private=True).decode()
        if xml.count("<pick ") != len(wanted):
            raise _CheckError(f"QuakeML has {xml.count('<pick ')} picks, not {len(wanted)}")
        return "CSV and QuakeML"

    def curves(self) -> str:
        answer = self._client.annotate(example_miniseed(), private=True)
        labels = {label for piece in answer["curves"] for label in piece["labels"]}
        if not labels:
            raise _CheckError("no curve")
        return ", ".join(sorted(labels))

    def refusals(self) -> str:
        for content, media_type, status in (
            (b"", "", 400),
            (b"no records", "application/vnd.fdsn.mseed", 400),
            (b"{}", "application/json", 422),
            (b"x", "text/html", 415),
        ):
            headers = {"Content-Type": media_type} if media_type else {}
            response = self._http.post(_PRIVATE, content=content, headers=headers)
            if response.status_code != status:
                raise _CheckError(
                    f"{content!r} as {media_type!r}: {response.status_code}, not {status}"
                )
        return "400, 415, 422"

    def description(self) -> str:
        description = self._http.get("/openapi.json").json()
        operation = description["paths"]["/v1/pick"]["post"]
        example = operation["requestBody"]["content"]["application/json"]["example"]
        response = self._http.post(_PRIVATE, json=example)
        if response.status_code != httpx.codes.OK:
            raise _CheckError(f"{response.status_code} {response.text[:200]}")
        return f"{len(description['paths'])} paths"

    def metrics(self) -> str:
        text = self._client.metrics()
        lines = [line for line in text.splitlines() if "request_duration_seconds_count" in line]
        if not lines:
            raise _CheckError("no duration of requests")
        return f"{len(text.splitlines())} lines"


def _same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    """True if both answers hold the same picks."""
    if len(left) != len(right):
        raise _CheckError(f"{len(left)} picks, not {len(right)}")
    for one, other in zip(left, right, strict=True):
        if (one["time"], one["phase"]) != (other["time"], other["phase"]):
            raise _CheckError(f"{one['phase']} {one['time']}, not {other['phase']} {other['time']}")
        if abs(one["probability"] - other["probability"]) > _TOLERANCE:
            raise _CheckError(f"probability {one['probability']}, not {other['probability']}")
