"""``eqcctpro optimal``: which configuration to run, from the CSV files of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.lists import joined, names_of, numbers_of
from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    from eqcctpro.evaluation.configuration import BestConfiguration
    from eqcctpro.evaluation.finders import (
        OptimalCPUConfigurationFinder,
        OptimalGPUConfigurationFinder,
    )

    Finder = OptimalCPUConfigurationFinder | OptimalGPUConfigurationFinder

__all__ = ["optimal"]


def optimal(
    csv_dir: Annotated[
        Path, typer.Argument(metavar="CSV_DIR", help="Folder that the benchmark wrote to.")
    ],
    mode: Annotated[
        str | None, typer.Option(help="cpu or gpu; by default what the folder holds.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Parent/child; all by default. Names rows without a model too."),
    ] = None,
    stations: Annotated[int | None, typer.Option(help="Stations to pick.", min=1)] = None,
    cpus: Annotated[
        int | None,
        typer.Option(help="CPUs: so many with --stations, otherwise at most so many.", min=1),
    ] = None,
    gpus: Annotated[list[str] | None, typer.Option(help="GPUs to use, such as 0,1.")] = None,
    memory_mb: Annotated[
        float | None, typer.Option(help="Fastest within so much memory, MB.", min=1)
    ] = None,
    deadline: Annotated[
        float | None, typer.Option(help="Smallest that needs at most so many seconds.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say which configuration is best, from what eqcctpro evaluate measured.

    Without further options: the fastest at the largest station count, for each model.
    """
    with reporting():
        asked = names_of(model)
        # Rows that name no model are of the one that is asked for, if it is one.
        finder = _finder(csv_dir, mode, joined(gpus), asked[0] if len(asked) == 1 else None)
        models: Sequence[str | None] = asked or finder.models or [None]
        gpu_ids = list(numbers_of("gpus", gpus)) or None
        answers = [
            _answer(finder, name, stations, cpus, gpu_ids, memory_mb, deadline) for name in models
        ]
        if as_json:
            report = {
                "answers": [answer.as_dict() for answer in answers],
                "notes": list(finder.notes),
            }
            typer.echo(json.dumps(report, indent=1))
            return
        for answer in answers:
            typer.echo(str(answer))
        for note in finder.notes:
            typer.echo(f"note: {note}", err=True)


def _answer(
    finder: Finder,
    model: str | None,
    stations: int | None,
    cpus: int | None,
    gpus: list[int] | None,
    memory_mb: float | None,
    deadline: float | None,
) -> BestConfiguration:
    """Ask what the options ask."""
    if deadline is not None:
        if stations is None:
            raise SettingsError("--deadline needs --stations")
        if (cpus, gpus, memory_mb) != (None, None, None):
            raise SettingsError("--deadline goes with --stations and --model only")
        return finder.find_smallest_for(deadline, stations, model)
    if stations is not None and cpus is not None and memory_mb is None:
        from eqcctpro.evaluation.finders import OptimalCPUConfigurationFinder

        if isinstance(finder, OptimalCPUConfigurationFinder):
            return finder.find_optimal_for(cpus, stations, model)
        if gpus is not None:
            return finder.find_optimal_for(cpus, gpus, stations, model)
    if (stations, cpus, gpus, memory_mb) == (None, None, None, None):
        return finder.find_best_overall_usecase(model)
    return finder.find_fastest_under(memory_mb, gpus, model, stations, cpus=cpus)


def _finder(csv_dir: Path, mode: str | None, gpus: str | None, model: str | None) -> Finder:
    from eqcctpro.evaluation.finders import (
        OptimalCPUConfigurationFinder,
        OptimalGPUConfigurationFinder,
    )
    from eqcctpro.evaluation.results import results_path

    if mode is None:
        only_gpu = (
            results_path(csv_dir, "gpu").exists() and not results_path(csv_dir, "cpu").exists()
        )
        mode = "gpu" if gpus or only_gpu else "cpu"
    if mode == "cpu":
        if gpus:
            raise SettingsError("--gpus needs --mode gpu")
        return OptimalCPUConfigurationFinder(csv_dir, model=model)
    if mode == "gpu":
        return OptimalGPUConfigurationFinder(csv_dir, model=model)
    raise SettingsError(f"--mode: {mode!r} is neither cpu nor gpu")
