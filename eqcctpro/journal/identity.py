"""Hashes that identify a computation: of each station task, and of a whole plan."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from eqcctpro.archive.file_table import FileTable
from eqcctpro.archive.tasks import StationTask
from eqcctpro.codes import printable
from eqcctpro.models.picker import Picker
from eqcctpro.pipeline.settings import PipelineSettings
from eqcctpro.places import Place, is_address

__all__ = ["FileStamps", "Stamp", "item_ids", "pick_settings", "plan_hash"]

#: Size in bytes and modification time in nanoseconds, or another stamp of the content.
Stamp = tuple[int, int]

ID_BYTES = 16

# Names of settings for users, by their names in the pipeline.
_USER_NAMES = {
    "grid": "window_grid",
    "start_ns": "start",
    "end_ns": "end",
    "flexible": "flexible_horizontal_components",
    "preparation.fill_gaps": "fill_gaps",
    "preparation.longest_gap_s": "longest_gap",
    "preparation.filters": "filters",
}
# Settings that earlier versions did not have, with the values that match their behaviour.
_UNDONE = {
    "preparation.fill_gaps": "none",
    "preparation.longest_gap_s": None,
    "preparation.filters": (),
}
# Settings that do not change any pick.
_WITHOUT_EFFECT = {"item_timeout_s", "storage", "input_roots"}


def pick_settings(
    picker: Picker, weights_sha256: str, device: str, settings: PipelineSettings
) -> dict[str, str]:
    """Everything except the data that a station's picks depend on, under names for users.

    Parameters
    ----------
    picker : Picker
    weights_sha256 : str
    device : str
        Only its kind counts: CPU or GPU.
    settings : PipelineSettings
    """
    named = {
        "model": picker.name,
        "weights": weights_sha256,
        "component_order": picker.components,
        "labels": ",".join(picker.labels),
        "norm": picker.norm or "",
        "sampling_rate": "" if picker.sampling_rate is None else f"{picker.sampling_rate:g}",
        "device": "cpu" if device == "cpu" else "cuda",
    }
    for name, value in _flat(dataclasses.asdict(settings)).items():
        if name.partition(".")[0] in _WITHOUT_EFFECT:
            continue
        if name in _UNDONE and value == _UNDONE[name]:
            continue
        if name == "annotations":
            value = value is not None  # where they are written changes nothing
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


class FileStamps(Mapping[str, Stamp]):
    """Stamp of every file of a plan, by its name below the input.

    Names are relative to the input, so that an archive may be mounted elsewhere when a run is
    resumed.

    Parameters
    ----------
    files : FileTable
    inputs : sequence of Path or str
    """

    def __init__(self, files: FileTable, inputs: Sequence[Place]) -> None:
        self._files = files
        self._names = RelativeNames(inputs)

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[str]:
        return (self._names(self._files.path(number)) for number in range(len(self)))

    def __getitem__(self, name: str) -> Stamp:
        return self._known[name]

    @cached_property
    def _known(self) -> dict[str, Stamp]:
        """Stamps by name, made on the first look-up by name."""
        return dict(self.pairs())

    def pairs(self) -> Iterator[tuple[str, Stamp]]:
        """Iterate over names and stamps."""
        for number, name in enumerate(self):
            yield name, self._files.stamp(number)


class RelativeNames:
    """Paths relative to the input folders; files that are inputs themselves keep their path.

    Parameters
    ----------
    inputs : sequence of Path or str
    """

    def __init__(self, inputs: Sequence[Place]) -> None:
        self._roots = [os.path.join(path, "") for path in inputs]  # noqa: PTH118 (text)

    def __call__(self, path: str) -> str:
        for number, root in enumerate(self._roots):
            if path.startswith(root):
                label = f"{number}:" if len(self._roots) > 1 else ""
                return printable(label + path[len(root) :])
        return path if is_address(path) else printable(str(Path(path).absolute()))


def item_ids(
    tasks: Iterable[StationTask], inputs: Sequence[Place], settings: Mapping[str, str]
) -> list[bytes]:
    """Hash of each station task; equal hashes mean equal picks.

    It covers the input files (name, size, time of the last change), the time chunk, the
    picker with its weights, and the settings.
    """
    base = hashlib.blake2b(
        json.dumps(settings, sort_keys=True).encode(), digest_size=ID_BYTES, person=b"eqcctpro"
    )
    name_of = RelativeNames(inputs)
    ids = []
    for task in tasks:
        chunk = task.chunk
        parts: list[object] = [task.name, task.folder, chunk.name]
        parts += [chunk.read_start_ns, chunk.read_end_ns, chunk.own_start_ns, chunk.own_end_ns]
        for path, stamp in zip(task.files + task.beside, task.stamps, strict=True):
            parts += [name_of(path), *stamp]
        digest = base.copy()
        digest.update("\0".join(map(str, parts)).encode("utf-8", "surrogateescape"))
        ids.append(digest.digest())
    return ids


def plan_hash(ids: Sequence[bytes]) -> str:
    """Hash of a plan, independent of the order of its station tasks."""
    return hashlib.sha256(b"".join(sorted(ids))).hexdigest()
