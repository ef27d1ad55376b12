"""``eqcctpro tune``: find a good configuration for this machine, without a full sweep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.lists import joined, names_of, numbers_of

if TYPE_CHECKING:
    from eqcctpro.evaluation.grid import TrialSpec
    from eqcctpro.evaluation.sweep import EvaluationReport
    from eqcctpro.evaluation.trial import TrialResult
    from eqcctpro.evaluation.tuning import Tuner, TuningReport

__all__ = ["tune"]

Option = typer.Option

#: Exit code where the deadline cannot be kept.
MISSED = 11

#: What `--batch-size` and `--runtime` search by default.
_BATCH_SIZES = "16,32,64,128,256"
_RUNTIMES = ("openvino", "onnxruntime", "torch")


def tune(
    inputs: Annotated[
        list[Path], typer.Argument(metavar="INPUT", help="Folder of an archive, or files.")
    ],
    output: Annotated[Path, Option("-o", "--output", help="Folder for trials and the answer.")],
    model: Annotated[str, Option(help="Parent/child.")] = "EQTransformer/original",
    deadline: Annotated[
        float | None, Option(help="Seconds in which all stations have to be picked.")
    ] = None,
    stations: Annotated[
        int | None, Option(help="Stations to be picked; all of INPUT by default.")
    ] = None,
    modes: Annotated[
        list[str] | None,
        Option("--mode", help="Any of local,modelactor,ripper.", show_default="local,modelactor"),
    ] = None,
    runtimes: Annotated[
        list[str] | None, Option("--runtime", help="Any of torch,onnxruntime,openvino.")
    ] = None,
    batch_sizes: Annotated[
        list[str] | None,
        Option("--batch-size", help="Sizes to try.", show_default=_BATCH_SIZES),
    ] = None,
    workers: Annotated[
        list[str] | None,
        Option(help="Numbers of workers to try; up to twice the cores by default."),
    ] = None,
    cpus: Annotated[int | None, Option(help="Cores to use; all by default.")] = None,
    gpus: Annotated[list[str] | None, Option(help="GPUs to use, such as 0,1.")] = None,
    repeats: Annotated[int, Option(help="Runs of each trial.")] = 3,
    dry_run: Annotated[
        bool,
        Option("--dry-run", help="Only show how many configurations there are, and their time."),
    ] = False,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only the answer.")] = False,
) -> None:
    """Find the fastest configuration for this machine with few trials.

    Runtimes, batch sizes, modes and workers are searched one after the other, each from the
    best found before.  The answer is written to OUT/tuned.json: eqcctpro pick --config takes
    it.  Exit code 11 means that the deadline is missed; others are as for `eqcctpro pick`.
    """
    pick: dict[str, Any] = {"input": tuple(inputs), "output": output, "model": model}
    with reporting(warn=not quiet):
        tuner = _tuner(
            pick,
            names_of(modes or "local,modelactor"),
            names_of(runtimes),
            numbers_of("batch-size", batch_sizes or _BATCH_SIZES),
            numbers_of("workers", workers),
            cpus,
            joined(gpus),
            repeats,
            stations,
            deadline,
        )
        if not quiet:
            from eqcctpro.evaluation.sweep import duration

            seconds = tuner.sweep.estimate_s(tuner.space)
            typer.echo(
                f"{len(tuner.space)} configurations; all of them would take about "
                f"{duration(seconds)}, tuning takes a part of it"
            )
        if dry_run:
            return
        report = tuner.run(on_trial=None if quiet else _show)
        _conclude(report, output)
        raise typer.Exit(0 if report.keeps_deadline in (None, True) else MISSED)


def _tuner(
    pick: dict[str, Any],
    modes: tuple[str, ...],
    runtimes: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    workers: tuple[int, ...],
    cpus: int | None,
    gpus: str | None,
    repeats: int,
    stations: int | None,
    deadline: float | None,
) -> Tuner:
    from importlib.util import find_spec

    from eqcctpro.archive.plan import InputSettings, make_plan
    from eqcctpro.config import PickConfig
    from eqcctpro.evaluation.settings import EvaluationConfig
    from eqcctpro.evaluation.tuning import Tuner
    from eqcctpro.resources.hardware import available_cores

    cores = available_cores()[:cpus]
    installed = tuple(name for name in _RUNTIMES if find_spec(name) is not None)
    chosen = runtimes or (("torch",) if gpus else installed)
    plan = make_plan(InputSettings(pick["input"]))
    there = len({(task.network, task.station) for task in plan.tasks})
    most = min(stations or there, there)
    # A second number of stations tells how time grows, where more are wanted than there are.
    counts = (most,) if most == (stations or there) else (max(most // 2, 1), most)
    pick |= {
        "mode": "modelactor",
        "device": f"cuda:{gpus}" if gpus else "cpu",
        "cpu_ids": tuple(cores),
    }
    config = EvaluationConfig.checked(
        pick=PickConfig.checked(**pick),
        eval_mode="gpu" if gpus else "cpu",
        csv_dir=pick["output"],
        cpu_counts=(len(cores),),
        gpu_counts=(len(numbers_of("gpus", gpus)),) if gpus else (0,),
        station_counts=counts,
        concurrency=workers or _worker_counts(len(cores)),
        modes=modes,
        runtimes=chosen,
        batch_sizes=batch_sizes,
        repeats=repeats,
    )
    return Tuner(config, stations=stations, deadline_s=deadline)


def _worker_counts(cores: int) -> tuple[int, ...]:
    """1, 2, 4 ... up to twice the cores, and the number of cores."""
    doubling = [2**power for power in range((2 * cores).bit_length())]
    return tuple(sorted({*(count for count in doubling if count <= 2 * cores), cores}))


def _show(spec: TrialSpec, result: TrialResult, report: EvaluationReport) -> None:
    from eqcctpro.evaluation.sweep import trial_line

    typer.echo(f"[{report.succeeded + report.failed}] {trial_line(spec, result)}")


def _conclude(report: TuningReport, output: Path) -> None:
    typer.echo(str(report.best))
    for note in report.notes:
        typer.echo(f"note: {note}")
    if report.deadline_s is not None:
        typer.echo(report.verdict())
    if report.smallest is not None and report.smallest.settings != report.best.settings:
        typer.echo(f"the smallest that keeps it: {report.smallest}")
    path = report.write(output / "tuned.json")
    typer.echo(f"{report.trials} trials of {report.space} configurations")
    typer.echo(f"eqcctpro pick INPUT -o OUT --config {path}")
