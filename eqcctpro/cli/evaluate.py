"""``eqcctpro evaluate``: measure this machine in many configurations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.lists import joined, names_of, numbers_of

if TYPE_CHECKING:
    from eqcctpro.evaluation.sweep import EvaluationReport

__all__ = ["evaluate"]

Option = typer.Option

_WHAT, _AXES, _HOW = "What is picked", "Axes", "How it is measured"

# Trials of `--quick`, which ends within three minutes on two cores.
_QUICK_STATIONS = (10, 25, 50)


def evaluate(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Folder of an archive, or files.")
    ],
    output: Annotated[Path, Option("-o", "--output", help="Folder that trials work in.")],
    csv_dir: Annotated[
        Path | None, Option(help="Folder of the results; OUT by default.", rich_help_panel=_HOW)
    ] = None,
    model: Annotated[str, Option(help="Parent/child.", rich_help_panel=_WHAT)] = (
        "EQTransformer/original"
    ),
    start: Annotated[
        str | None, Option(help="Drop picks before this time.", rich_help_panel=_WHAT)
    ] = None,
    end: Annotated[
        str | None, Option(help="Drop picks from this time on.", rich_help_panel=_WHAT)
    ] = None,
    timechunk: Annotated[
        float | None, Option(help="Minutes of a time chunk.", rich_help_panel=_WHAT)
    ] = None,
    overlap: Annotated[
        float, Option(help="Minutes that chunks share.", rich_help_panel=_WHAT)
    ] = 0.0,
    station_counts: Annotated[
        list[str] | None, Option("--stations", help="Such as 10,50,100.", rich_help_panel=_AXES)
    ] = None,
    modes: Annotated[
        list[str] | None,
        Option(
            "--mode",
            help="Any of local,modelactor,ripper.",
            show_default="local,modelactor,ripper",
            rich_help_panel=_AXES,
        ),
    ] = None,
    cpus: Annotated[
        list[str] | None, Option(help="Numbers of cores; all by default.", rich_help_panel=_AXES)
    ] = None,
    gpus: Annotated[
        list[str] | None, Option(help="GPUs to measure, such as 0,1.", rich_help_panel=_AXES)
    ] = None,
    concurrency: Annotated[
        list[str] | None,
        Option(
            help="Workers, such as 1,2,4; percent for 20 to 100 % of the stations; or max.",
            show_default="percent",
            rich_help_panel=_AXES,
        ),
    ] = None,
    timechunk_concurrency: Annotated[
        list[str] | None,
        Option(help="Time chunks at once, such as 1,2.", show_default="1", rich_help_panel=_AXES),
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        Option(
            "--runtime",
            help="Any of auto,torch,onnxruntime,openvino.",
            show_default="auto",
            rich_help_panel=_AXES,
        ),
    ] = None,
    batch_sizes: Annotated[
        list[str] | None, Option("--batch-size", help="Such as 32,64.", rich_help_panel=_AXES)
    ] = None,
    baselines: Annotated[
        list[str] | None,
        Option(
            "--baseline",
            help="Other programs, such as seisbench-classify-merged.",
            rich_help_panel=_AXES,
        ),
    ] = None,
    repeats: Annotated[int, Option(help="Runs of each trial.", rich_help_panel=_HOW)] = 3,
    seed: Annotated[int, Option(help="Of the choice of stations.", rich_help_panel=_HOW)] = 0,
    timeout: Annotated[
        float, Option(help="Seconds after which a trial is ended.", rich_help_panel=_HOW)
    ] = 3600.0,
    retry_failed: Annotated[
        bool,
        Option(
            "--retry-failed/--skip-failed",
            help="Run trials again that failed before.",
            rich_help_panel=_HOW,
        ),
    ] = True,
    quick: Annotated[
        bool,
        Option("--quick", help="A few minutes: up to 50 stations, as many workers as cores."),
    ] = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Only show the trials and the estimated time.")
    ] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only errors.")] = False,
) -> None:
    """Measure how fast this machine picks in each configuration.

    Every trial is a row of cpu_test_results.csv or gpu_test_results.csv.  A sweep that is
    stopped goes on where it was when it is started again.  `eqcctpro optimal` answers from
    the results.

    Exit codes: as for `eqcctpro pick`; 10 means that trials failed, and their rows say why.
    Trials that failed before are run again.
    """
    values: dict[str, Any] = {
        "csv_dir": csv_dir or output,
        "modes": names_of(modes or "local,modelactor,ripper"),
        "runtimes": names_of(runtimes or "auto"),
        "baselines": names_of(baselines),
        "repeats": repeats,
        "seed": seed,
        "trial_timeout_s": timeout,
        "retry_failed": retry_failed,
        "eval_mode": "gpu" if gpus else "cpu",
    }
    pick: dict[str, Any] = {"input": tuple(inputs), "output": output, "model": model}
    pick |= {"start": start, "end": end, "timechunk": timechunk, "overlap": overlap}
    numbers = {
        "concurrency": concurrency,
        "timechunk_concurrency": timechunk_concurrency or ["1"],
        "batch_sizes": batch_sizes,
        "station_counts": station_counts,
    }
    with reporting(warn=not quiet):
        values |= _axes(numbers)
        report = _evaluate(
            pick, values, joined(cpus), joined(gpus), quick=quick, dry_run=dry_run, quiet=quiet
        )
        raise typer.Exit(10 if report.failed else 0)


def _axes(given: dict[str, list[str] | None]) -> dict[str, Any]:
    """Axes of numbers, from the options that give them."""
    options = {"batch_sizes": "batch-size", "station_counts": "stations"}
    values: dict[str, Any] = {"batch_sizes": (None,), "station_counts": None}
    for name, texts in given.items():
        if name == "concurrency" and (texts or ["percent"]) in (["percent"], ["max"]):
            values[name] = texts[0] if texts else "percent"
        elif texts:
            values[name] = numbers_of(options.get(name, name.replace("_", "-")), texts)
    return values


def _evaluate(
    pick: dict[str, Any],
    values: dict[str, Any],
    cpus: str | None,
    gpus: str | None,
    *,
    quick: bool,
    dry_run: bool,
    quiet: bool,
) -> EvaluationReport:
    from eqcctpro.config import PickConfig
    from eqcctpro.evaluation.settings import EvaluationConfig
    from eqcctpro.evaluation.sweep import Sweep, run_sweep
    from eqcctpro.resources.hardware import available_cores

    cores = available_cores()
    values["cpu_counts"] = numbers_of("cpus", cpus) if cpus else (len(cores),)
    values["gpu_counts"] = tuple(range(1, len(numbers_of("gpus", gpus)) + 1)) if gpus else (0,)
    if quick:
        values["station_counts"] = values["station_counts"] or _QUICK_STATIONS
        values["concurrency"] = tuple(sorted({1, len(cores)}))
    values["station_counts"] = values["station_counts"] or tuple(range(10, 101, 10))
    pick |= {"mode": "modelactor", "device": f"cuda:{gpus}" if gpus else "cpu"}
    pick["cpu_ids"] = tuple(cores)
    config = EvaluationConfig.checked(pick=PickConfig.checked(**pick), **values)
    if dry_run:
        sweep = Sweep(config)
        for line in [*sweep.report.notes, sweep.outlook()]:
            typer.echo(line)
        for spec in sweep.pending():
            typer.echo(f"  {spec.title}")
        return sweep.report
    return run_sweep(config, show=None if quiet else typer.echo)
