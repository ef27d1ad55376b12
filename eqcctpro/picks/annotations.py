"""Probability curves of stretches of data, and their files in miniSEED, beside the picks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pymseed import DataEncoding, MiniSEEDError

from eqcctpro.codes import channel_of, file_name, safe_name
from eqcctpro.errors import OutputError
from eqcctpro.picks.borders import samples_within
from eqcctpro.picks.writers import atomic_file
from eqcctpro.spans import Span
from eqcctpro.times import NS_PER_S
from eqcctpro.waveform.encode import Series, encode_series

__all__ = ["CURVE_FOLDER", "BlockCurves", "curve_channels", "curve_file", "write_curves"]

Float32 = NDArray[np.float32]
# Network, station, location, and band and instrument code.
Codes = tuple[str, str, str, str]

#: Where curves are, in the output folder of a run.
CURVE_FOLDER = "annotations"

_LETTERS = {"N": "X", "NOISE": "X"}
_OTHERS = "ABCFGHIJKLMOQRTUVWY"
# Components of waveforms: a curve must not look like one.
_COMPONENTS = "ZNE123"
# A curve is long and smooth: few large records.
RECORD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class BlockCurves:
    """Curves of one stretch of data without a gap.

    Attributes
    ----------
    start_ns : int
        Time of the first value.
    interval_ns : float
        Between values.
    values : ndarray of float32, shape (labels, samples)
        Probabilities of all of the picker's labels; NaN where no window reaches.  Where a model
        picks on single windows, which are not joined, the highest of all windows.
    """

    start_ns: int
    interval_ns: float
    values: NDArray[np.float32]

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Time of every value."""
        steps = np.arange(self.values.shape[1]) * self.interval_ns
        return self.start_ns + np.round(steps).astype(np.int64)

    def within(self, span: Span) -> tuple[int, int]:
        """First value in a span of time, and the first behind it."""
        return samples_within(self.start_ns, self.interval_ns, self.values.shape[1], span)


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


def curve_file(folder: str, codes: Codes, timechunk: str) -> Path:
    """File of an instrument's curves in a time chunk; always below `folder`."""
    return Path(folder, safe_name(timechunk), f"{file_name(*codes)}.mseed")


def write_curves(
    path: Path, codes: Codes, own: Span, labels: Sequence[str], curves: Sequence[BlockCurves]
) -> None:
    """Write the part of an instrument's curves that lies in a span of time.

    The files of neighbouring spans so join without overlapping.

    Parameters
    ----------
    path : Path
    codes : tuple of str
        Network, station, location, and band and instrument code.
    own : Span
    labels : sequence of str
        Of the rows of the curves.
    curves : sequence of BlockCurves

    Raises
    ------
    OutputError
        The file cannot be written, or miniSEED has no place for the codes.
    """
    with atomic_file(path, sync=False) as file:
        try:
            for record in encode_series(
                _series(codes, own, labels, curves), DataEncoding.FLOAT32, RECORD_BYTES
            ):
                file.write(record)
        except (MiniSEEDError, ValueError) as error:
            raise OutputError(
                f"{'.'.join(codes)}: its curves cannot be written as miniSEED: {error}",
                hint="its codes or times do not fit; pick it without curves",
            ) from error


def _series(
    codes: Codes, own: Span, labels: Sequence[str], curves: Sequence[BlockCurves]
) -> Iterator[Series]:
    network, station, location, instrument = codes
    channels = curve_channels(labels, instrument)
    for piece in curves:
        first, last = piece.within(own)
        for label, values in zip(labels, piece.values, strict=True):
            code = (network, station, location, channels[label])
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
