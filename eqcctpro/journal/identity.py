"""Names for what is to be computed: of each station task, and of a whole plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eqcctpro.archive.plan import Plan, StationTask
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.places import Place, is_address

__all__ = ["Stamp", "file_stamps", "item_ids", "pick_settings", "plan_hash"]

#: Size in bytes and time of the last change in nanoseconds, or another stamp of the content.
Stamp = tuple[int, int]

ID_BYTES = 16

# Names that a user knows for what the pipeline calls otherwise.
_USER_NAMES = {
    "grid": "window_grid",
    "start_ns": "start",
    "end_ns": "end",
    "flexible": "flexible_horizontal_components",
}
# What changes no pick.
_WITHOUT_EFFECT = {"item_timeout_s", "storage"}


def pick_settings(
    picker: Picker, weights_sha256: str, device: str, settings: PipelineSettings
) -> dict[str, str]:
    """Everything but the data that a station's picks depend on, by names a user knows.

    Parameters
    ----------
    picker : Picker
    weights_sha256 : str
    device : str
        Only whether it is a GPU counts.
    settings : PipelineSettings
    """
    named = {
        "model": picker.name,
        "weights": weights_sha256,
        "device": "cpu" if device == "cpu" else "cuda",
    }
    for name, value in _flat(dataclasses.asdict(settings)).items():
        if name.partition(".")[0] in _WITHOUT_EFFECT:
            continue
        if name == "annotations":
            value = value is not None
        group, _, last = name.rpartition(".")
        known = f"{last.lower()}_threshold" if group == "thresholds" else _USER_NAMES.get(name)
        named[known or name] = _text(value)
    return named


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)


def file_stamps(plan: Plan, inputs: Sequence[Place]) -> dict[str, Stamp]:
    """Stamp of every file of a plan, by its name below the input.

    Names do not hold where the input lies, so that an archive may be mounted elsewhere when
    a run goes on.
    """
    names = relative_names((file.path for file in plan.files), inputs)
    return {names[file.path]: (file.size, file.mtime_ns) for file in plan.files}


def relative_names(paths: Any, inputs: Sequence[Place]) -> dict[str, str]:
    """Names below the input folders; files that were named themselves keep their path."""
    roots = [os.path.join(path, "") for path in inputs]  # noqa: PTH118 (text, not a path)
    names = {}
    for path in paths:
        for number, root in enumerate(roots):
            if path.startswith(root):
                label = f"{number}:" if len(roots) > 1 else ""
                names[path] = label + path[len(root) :]
                break
        else:
            names[path] = path if is_address(path) else str(Path(path).absolute())
    return names


def item_ids(
    tasks: Sequence[StationTask], inputs: Sequence[Place], settings: Mapping[str, str]
) -> list[bytes]:
    """A name for each station task that is the same only where its picks are.

    It covers the input files (name, size, time of the last change), the time chunk, the
    picker with its weights, and the settings.
    """
    base = hashlib.blake2b(
        json.dumps(settings, sort_keys=True).encode(), digest_size=ID_BYTES, person=b"eqcctpro"
    )
    names = relative_names({path for task in tasks for path in task.files}, inputs)
    ids = []
    for task in tasks:
        chunk = task.chunk
        parts: list[object] = [task.name, task.folder, chunk.name]
        parts += [chunk.read_start_ns, chunk.read_end_ns, chunk.own_start_ns, chunk.own_end_ns]
        for path, stamp in zip(task.files, task.stamps, strict=True):
            parts += [names[path], *stamp]
        digest = base.copy()
        digest.update("\0".join(map(str, parts)).encode("utf-8", "surrogateescape"))
        ids.append(digest.digest())
    return ids


def plan_hash(ids: Sequence[bytes]) -> str:
    """A name for a plan, whatever the order of its items."""
    return hashlib.sha256(b"".join(sorted(ids))).hexdigest()
