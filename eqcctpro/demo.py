"""Demonstration: a synthetic network, picked with a model that is installed on this machine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eqcctpro.errors import ModelError, OutputError, WeightsNotFoundError
from eqcctpro.synthetic import TrueArrival, synthetic_network
from eqcctpro.times import NS_PER_S

if TYPE_CHECKING:
    import pyarrow as pa

    from eqcctpro.models.weight_files import WeightFiles
    from eqcctpro.orchestration.result import RunResult

__all__ = ["DemoResult", "DemoScore", "make_demo", "score"]

TOLERANCE_S = 0.5
"""A pick this close to a true arrival has found it."""

_PREFERRED = (
    "EQTransformer/original",
    "PhaseNet/original",
    "EQTransformer/original_nonconservative",
    "PhaseNetLight/ethz",
    "GPD/original",
)
_MARKER = "demo.json"


@dataclass(frozen=True, slots=True)
class DemoScore:
    """Comparison of the picks of one phase with the true arrivals.

    Attributes
    ----------
    phase : str
    found, true : int
        Arrivals that a pick found, and arrivals that there are.
    extra : int
        Picks that belong to no arrival.
    residual_s : float or None
        Median of pick minus true time over the arrivals found, in s.
    """

    phase: str
    found: int
    true: int
    extra: int
    residual_s: float | None


@dataclass(frozen=True)
class DemoResult:
    """Result of the demonstration.

    Attributes
    ----------
    weights : WeightFiles
        The model that was used, and where its weights are from.
    passed_over : list of str
        Models that were preferred but could not be used, and why.
    stations : int
    scores : list of DemoScore
        P and S.
    run : RunResult
    """

    weights: WeightFiles
    passed_over: list[str]
    stations: int
    scores: list[DemoScore]
    run: RunResult = field(repr=False)


def make_demo(
    out: str | Path,
    *,
    stations: int = 12,
    mode: str = "local",
    workers: int | None = None,
    model: str | None = None,
    seed: int = 0,
    quiet: bool = True,
) -> DemoResult:
    """Make a small network, pick it, and compare the picks with the true arrivals.

    Writes ``out/network`` (the archive), ``out/picks`` (the run's results) and ``out/demo.json``
    (the comparison).  What an earlier demonstration left there is replaced.  Nothing is
    downloaded.

    Parameters
    ----------
    out : path
    stations : int
        Stations of the network, 1 to 999.
    mode : {"local", "modelactor", "ripper"}
    workers : int, optional
        Ray workers of the modes modelactor and ripper.
    model : str, optional
        ``Parent/child``; None takes the first one of a list that is here.
    seed : int
        Another seed makes other earthquakes.
    quiet : bool
        Show no progress.

    Returns
    -------
    DemoResult

    Raises
    ------
    WeightsNotFoundError
        No weights of a picker are on this machine.
    OutputError
        The results cannot be written, or `out` holds a network that no demonstration made.
    EQCCTProError
        The run failed.
    """
    from eqcctpro.config import PickConfig
    from eqcctpro.orchestration.run import run_picking

    folder = Path(out)
    weights, passed_over = _find_model(model)
    _clear(folder)
    truth = synthetic_network(folder / "network", stations=stations, seed=seed)
    config = PickConfig.checked(
        input=folder / "network",
        output=folder / "picks",
        model=weights.name,
        mode=mode,
        workers=workers,
    )
    run = run_picking(config, quiet=quiet)
    result = DemoResult(weights, passed_over, stations, score(run.table, truth), run)
    _write_report(folder / _MARKER, result)
    return result


def score(picks: pa.Table, truth: Sequence[TrueArrival]) -> list[DemoScore]:
    """Compare picks with true arrivals.

    Parameters
    ----------
    picks : pyarrow.Table
        With the columns network, station, phase and time.
    truth : sequence of TrueArrival

    Returns
    -------
    list of DemoScore
        One for each phase in `truth`, in alphabetical order.
    """
    import pyarrow as pa

    from eqcctpro.scoring.matching import match

    times = picks["time"].cast(pa.timestamp("ns", tz="UTC")).cast(pa.int64()).to_numpy()
    codes = zip(picks["network"].to_pylist(), picks["station"].to_pylist(), strict=True)
    places: dict[tuple[str, str], int] = {}
    place = _numbers(codes, places)
    phases = np.array(picks["phase"].to_pylist(), dtype=str)
    scores = []
    for phase in sorted({arrival.phase for arrival in truth}):
        wanted = [arrival for arrival in truth if arrival.phase == phase]
        true = np.array([arrival.time_ns for arrival in wanted], np.int64)
        where = _numbers(((arrival.network, arrival.station) for arrival in wanted), places)
        mine = phases == phase
        partner = match(place[mine], times[mine], where, true, round(TOLERANCE_S * NS_PER_S))
        found = partner >= 0
        residuals = (times[mine][found] - true[partner[found]]) / NS_PER_S
        middle = float(np.median(residuals)) if found.any() else None
        hits = int(found.sum())
        scores.append(DemoScore(phase, hits, len(wanted), int(mine.sum()) - hits, middle))
    return scores


def _numbers(
    codes: Iterable[tuple[str, str]], known: dict[tuple[str, str], int]
) -> NDArray[np.int64]:
    return np.array([known.setdefault(code, len(known)) for code in codes], np.int64)


def _find_model(asked_for: str | None) -> tuple[WeightFiles, list[str]]:
    """Find weights to use, and the reasons why preferred ones cannot be used."""
    from eqcctpro.models.inventory import list_local
    from eqcctpro.models.weight_files import split_name
    from eqcctpro.models.weights import find_weights

    if asked_for is not None:
        return find_weights(*split_name(asked_for), fetch=False), []
    here = {row.name for row in list_local()}
    passed_over: list[str] = []
    for name in _PREFERRED:
        if name not in here:
            continue
        try:
            return find_weights(*split_name(name), fetch=False), passed_over
        except ModelError as error:
            passed_over.append(f"{name}: {error.message}")
    raise WeightsNotFoundError(
        f"none of {', '.join(_PREFERRED)} is on this machine"
        + "".join(f"; {reason}" for reason in passed_over),
        hint="run: pip install 'eqcctpro[weights]', or: eqcctpro models fetch PhaseNet/original",
    )


def _clear(folder: Path) -> None:
    """Remove the files of an earlier demonstration, and no others."""
    marker = folder / _MARKER
    made = [folder / "network", folder / "picks"]
    try:
        taken = [path for path in made if path.exists()]
        if taken and not marker.is_file():
            raise OutputError(
                f"{taken[0]} is there already and no demonstration made it",
                hint="choose another folder with --out",
            )
        for path in taken:
            shutil.rmtree(path)
        folder.mkdir(parents=True, exist_ok=True)
        marker.write_text("{}\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"cannot write the demonstration to {folder}: {error.strerror or error}",
            hint="choose another folder with --out",
        ) from error


def _write_report(path: Path, result: DemoResult) -> None:
    report = {
        "model": result.weights.name,
        "weights": str(result.weights.weight_path),
        "sha256": result.weights.sha256,
        "stations": result.stations,
        "scores": [asdict(phase) for phase in result.scores],
    }
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
