"""Names that scripts import from EQCCTPro's ``tools``: columns of trials, stations of folders."""

from __future__ import annotations

import re
from pathlib import Path

from eqcctpro.evaluation.canonical import PUBLISHED_COLUMNS
from eqcctpro.evaluation.grid import published_station_counts
from eqcctpro.resources.nvml import read_gpus

__all__ = [
    "CANONICAL_CSV_HEADER",
    "build_station_list_from_dir",
    "generate_station_list",
    "list_gpu_ids",
    "looks_like_timechunk_id",
]

#: EQCCTPro 0.8.2's 38 columns.  Ours follow them: `eqcctpro.evaluation.canonical`.
CANONICAL_CSV_HEADER = list(PUBLISHED_COLUMNS)

_TIMECHUNK = re.compile(r"\d{8}T\d{6}Z_\d{8}T\d{6}Z")
_WAVEFORMS = (".mseed", ".sac")


def looks_like_timechunk_id(name: str) -> bool:
    """True if a folder's name is that of a time chunk: ``20241215T115800Z_20241215T120100Z``."""
    return _TIMECHUNK.fullmatch(name or "") is not None


def build_station_list_from_dir(input_dir: str | Path) -> list[str]:
    """Stations of a time chunk's folder, sorted.

    Parameters
    ----------
    input_dir : path
        It holds a folder for each station with ``.mseed`` or ``.sac`` files, or such files.

    Returns
    -------
    list of str
        Names of the folders, and of the files without their suffix.
    """
    found = set()
    for entry in Path(input_dir).glob("*"):
        if entry.is_file() and entry.suffix in _WAVEFORMS:
            found.add(entry.stem)
        elif entry.is_dir() and any(one.suffix in _WAVEFORMS for one in entry.iterdir()):
            found.add(entry.name)
    return sorted(name for name in found if not looks_like_timechunk_id(name))


def generate_station_list(
    starting_amount_of_stations: int, total_num_stations_to_use: int, station_list_step_size: int
) -> list[int]:
    """Station counts of a sweep, as `EvaluateSystem` takes them."""
    return list(
        published_station_counts(
            total_num_stations_to_use, starting_amount_of_stations, station_list_step_size
        )
    )


def list_gpu_ids() -> list[int]:
    """Numbers of the GPUs that CUDA shows to this process; empty without a driver."""
    return [gpu.index for gpu in read_gpus()[0]]
