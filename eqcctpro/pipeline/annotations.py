"""Probability curves as miniSEED, beside the picks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MiniSEEDError

from eqcctpro.archive.plan import StationTask
from eqcctpro.codes import channel_of, file_name, safe_name
from eqcctpro.errors import OutputError
from eqcctpro.picks.writers import atomic_file
from eqcctpro.pipeline.records import BlockCurves
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.encode import Series, encode_series

__all__ = ["CURVE_FOLDER", "curve_channels", "curve_file", "write_curves"]

Float32 = NDArray[np.float32]

#: Where curves are, in the output folder of a run.
CURVE_FOLDER = "annotations"

_LETTERS = {"N": "X", "NOISE": "X"}
_OTHERS = "ABCFGHIJKLMOQRTUVWY"
# Components of waveforms: a curve must not look like one.
_COMPONENTS = "ZNE123"
# A curve is long and smooth: few large records.
RECORD_BYTES = 4096


def curve_channels(labels: Sequence[str], instrument: str) -> dict[str, str]:
    """Channel code of each curve: band and instrument of the waveforms, and a letter.

    SeisBench names a curve ``PhaseNet_P``, and a channel of miniSEED 2 has three letters: the
    third is the label's first, such as ``HHP``, ``HHS`` and ``HHD`` (detection); ``HHX`` is noise.
    Of labels that begin alike, such as Pg and Pn, later ones take another letter.
    """
    codes: dict[str, str] = {}
    for label in labels:
        upper = label.upper()
        wanted = [_LETTERS.get(upper, upper[:1]), *upper[1:], *_OTHERS]
        letter = next(
            one
            for one in wanted
            if one.isalnum() and one not in _COMPONENTS and one not in codes.values()
        )
        codes[label] = letter
    return {label: channel_of(instrument, letter) for label, letter in codes.items()}


def curve_file(folder: str, task: StationTask) -> Path:
    """The file of a station task's curves; always below `folder`."""
    name = file_name(task.network, task.station, task.location, task.instrument)
    return Path(folder, safe_name(task.chunk.name), f"{name}.mseed")


def write_curves(
    path: Path, task: StationTask, labels: Sequence[str], pieces: Sequence[BlockCurves]
) -> None:
    """Write what a task's chunk owns of its curves.

    The files of neighbouring chunks so join without overlapping.

    Raises
    ------
    OutputError
        The file cannot be written, or miniSEED has no place for the codes.
    """
    with atomic_file(path, sync=False) as file:
        try:
            for record in encode_series(
                _series(task, labels, pieces), DataEncoding.FLOAT32, RECORD_BYTES
            ):
                file.write(record)
        except (MiniSEEDError, ValueError) as error:
            raise OutputError(
                f"{task.name}: its curves cannot be written as miniSEED: {error}",
                hint="its codes or times do not fit; pick it without curves",
            ) from error


def _series(
    task: StationTask, labels: Sequence[str], pieces: Sequence[BlockCurves]
) -> Iterator[Series]:
    codes = curve_channels(labels, task.instrument)
    for piece in pieces:
        first, last = piece.owned(task.chunk.own_start_ns, task.chunk.own_end_ns)
        for label, values in zip(labels, piece.values, strict=True):
            code = (task.network, task.station, task.location, codes[label])
            for start, end in _known(values[first:last]):
                begin = first + start
                yield Series(
                    code,
                    piece.start_ns + round(begin * piece.interval_ns),
                    NS_PER_S / piece.interval_ns,
                    np.asarray(values[begin : first + end], dtype=np.float32),
                )


def _known(values: Float32) -> list[tuple[int, int]]:
    """Stretches that are numbers."""
    edges = np.flatnonzero(np.diff(np.isfinite(values), prepend=False, append=False)).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))
