"""Settings that were renamed or removed in earlier releases."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from eqcctpro.notices import OldNameWarning, warn_user

__all__ = ["GONE", "MOVED", "with_new_names"]

#: Old names that are still understood, and what is written today.
MOVED = {
    "replicas.placement": "mode",
    "replicas.front": "replicas.count",
    "replicas.min": "replicas.count",
    "replicas.max": "replicas.count",
}

_ONE_LIMIT = "limits.request_timeout_s is the one time limit of a request"
_FIXED = "it is fixed now"
_DERIVED = "it follows from {}"

#: Names that are gone, and what to do.
GONE = {
    "http.listener": "give mode; Ray Serve's proxy listens on a cluster (address) and where "
    "replicas.count is MIN-MAX, replicas themselves otherwise",
    "http.keep_alive_s": f"{_FIXED}, at 75 s",
    "http.compression": "answers are compressed where a client asks for it",
    "http.compress_from_bytes": f"{_FIXED}, at 4096 bytes",
    "http.cors_headers": f"{_FIXED}, at those that the interface reads",
    "http.cors_credentials": "pages of http.cors_origins send a token or key, no cookie",
    "http.cors_max_age_s": f"{_FIXED}, at 600 s",
    "batching.turn_ms": f"{_FIXED}, at 50 ms",
    "batching.slice": "slices fit the windows that there are",
    "limits.max_list_mb": f"{_FIXED}, at 2 MB; send samples as bytes",
    "limits.max_samples": _DERIVED.format("limits.max_body_mb, a million for each MB"),
    "limits.max_pieces": f"{_FIXED}, at 100,000",
    "limits.headers_timeout_s": _ONE_LIMIT,
    "limits.body_timeout_s": _ONE_LIMIT,
    "limits.forward_timeout_s": _ONE_LIMIT,
    "shutdown_s": f"{_ONE_LIMIT}, and what is accepted is finished in as long",
    "limits.body_kb_per_s": f"{_FIXED}, at 1 kB/s after the first 5 s",
    "limits.max_header_kb": f"{_FIXED}, at 32 kB",
    "limits.max_headers": f"{_FIXED}, at 100",
    "limits.retry_after_s": f"{_FIXED}, at 1 s",
    "replicas.upscale_delay_s": "give replicas.scale_delay_s",
    "replicas.downscale_delay_s": _DERIVED.format("replicas.scale_delay_s, 20 times as long"),
    "replicas.constructor_retries": f"{_FIXED}, at 1",
    "security.burst": _DERIVED.format("requests_per_s: as many as in a second, and at least 10"),
    "security.headers": "they are always sent",
    "security.same_site": f"{_FIXED}, at strict",
    "jobs.waiting": f"{_FIXED}, at 100 jobs",
    "jobs.keep": f"{_FIXED}, at 1000 jobs; jobs.keep_days is for how long",
    "jobs.end_s": f"{_FIXED}, at 10 s",
    "jobs.least_timechunk_min": f"{_FIXED}, at 1 minute",
    "stream.enabled": "there always is a stream",
    "stream.keep": f"{_FIXED}, at 10,000 picks",
    "stream.keep_alive_s": f"{_FIXED}, at 15 s",
    "stream.subscribers": f"{_FIXED}, at 100 clients",
    "metrics.enabled": "there always are metrics; security.open_metrics=false closes them",
    "metrics.namespace": f"{_FIXED}, at eqcctpro; Prometheus relabels if need be",
    "metrics.path": f"{_FIXED}, at /metrics",
    "metrics.age_buckets_s": _FIXED,
    "logs.probes": "logs.level=debug logs requests to health and metrics",
    "watchdog.period_s": f"{_FIXED}, at 10 s, or at watchdog.self_test_s where that is less",
    "watchdog.over_requests": f"{_FIXED}, at 100",
}


def with_new_names(values: dict[str, Any]) -> dict[str, Any]:
    """Translate settings into their present names.

    Parameters
    ----------
    values : dict
        Nested tables, which are left as they are.

    Warns
    -----
    OldNameWarning
        For an old name that is understood.

    Raises
    ------
    ValueError
        Names are gone; the message names them, and what to do.
    """
    problems = [
        f"{name}: there is no such setting any more: {why}"
        for name, why in GONE.items()
        if _has(values, name)
    ]
    old = [name for name in MOVED if _has(values, name)]
    if old and not problems:
        values = deepcopy(values)
        problems = _move(values, old)
    if problems:
        raise ValueError("; ".join(problems))
    return values


def _has(values: dict[str, Any], name: str) -> bool:
    section, _, inner = name.rpartition(".")
    table = values.get(section) if section else values
    return isinstance(table, dict) and inner in table


def _move(values: dict[str, Any], old: list[str]) -> list[str]:
    """Put what was given by old names to new ones; returns what is wrong with that."""
    replicas = values["replicas"]
    given = {name.partition(".")[2]: replicas.pop(name.partition(".")[2]) for name in old}
    problems = _count_from(replicas, given) + _mode_from(values, given)
    if problems:
        return problems
    new = [f"mode={values['mode']}"] if "mode" in values else []
    for name in ("count", "networks"):
        if name in replicas:
            new.append(f"replicas.{name}={replicas[name]}")
    said = f"write {', '.join(new)}" if new else "leave them out"
    warn_user(f"{', '.join(old)}: old names of settings; {said}", OldNameWarning)
    return []


def _count_from(replicas: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """A range in place of its ends."""
    ends = [given.get(name) for name in ("min", "max")]
    if ends == [None, None] and not {"min", "max"} & given.keys():
        return []
    if None in ends or replicas.get("count") is not None:
        return ["replicas.min and replicas.max: give replicas.count=MIN-MAX in place of them"]
    replicas["count"] = f"{ends[0]}-{ends[1]}"
    return []


def _mode_from(values: dict[str, Any], given: dict[str, Any]) -> list[str]:
    """A mode in place of a placement; a current name that says something else is named."""
    replicas, mode = values["replicas"], values.get("mode")
    placement, front = given.get("placement", "fused"), given.get("front")
    if placement not in ("fused", "staged"):
        return [
            "replicas.placement: an old name, which was fused or staged; give mode in place of it"
        ]
    if "placement" in given and mode is not None and (mode == "staged") != (placement == "staged"):
        return [
            f"mode and replicas.placement contradict each other: mode is {mode}, and "
            f"replicas.placement, an old name, is {placement}; leave replicas.placement out"
        ]
    current = [name for name in ("mode", "replicas.networks") if _has(values, name)]
    if "front" in given and (placement != "staged" or current):
        also = f" ({' and '.join(current)} given)" if current else ""
        return [f"replicas.front{also}: give mode=staged, and replicas.count in place of it"]
    if placement == "staged" and not current:
        # The count was of those that execute networks, and `front` of those that take requests.
        replicas["networks"] = replicas.get("count", 1)
        replicas["count"] = 1 if front is None else front
    if placement == "staged":
        values["mode"] = "staged"
    return []
