"""``eqcctpro plot``: interactive pages of a benchmark's trials."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.errors import InputError, SettingsError

if TYPE_CHECKING:
    from eqcctpro.analysis.visualize import Pages

__all__ = ["plot"]

Option = typer.Option


def plot(
    csv_or_dir: Annotated[
        Path | None,
        typer.Argument(metavar="[CSV_OR_DIR]", help="File of trials, or folder that holds one."),
    ] = None,
    output_dir: Annotated[
        Path, Option("-o", "--output-dir", "--output_dir", help="Folder for the pages.")
    ] = Path("visualizations"),
    model: Annotated[
        str | None,
        Option(help="PhaseNet/original, phasenet_original, eqcct; names rows without a model too."),
    ] = None,
    threshold: Annotated[
        float | None, Option(help="Also draw the trials of at most so many seconds.", min=0)
    ] = None,
    desired_runtime: Annotated[
        float | None,
        Option("--desired-runtime", "--desired_runtime", help="Draw a line at so many seconds."),
    ] = None,
    batch: Annotated[
        bool, Option("--batch", help="Draw every file of trials below --results_root.")
    ] = False,
    results_root: Annotated[
        Path, Option("--results-root", "--results_root", help="Folder of results.")
    ] = Path("results/csv/"),
    compare: Annotated[bool, Option("--compare", help="Compare the modes of one --model.")] = False,
    optimal: Annotated[
        bool, Option("--optimal", help="Draw the best configurations only.")
    ] = False,
    trial_type: Annotated[
        str | None, Option("--trial-type", "--trial_type", help="cpu or gpu; both by default.")
    ] = None,
    monitor: Annotated[
        Path | None, Option(help="Draw CPU, memory and GPU of the run in this folder instead.")
    ] = None,
) -> None:
    """Draw trials as web pages that work without a network.

    Reads files of eqcctpro evaluate, of every version of EQCCTPro, and of RAPID. --compare without
    --trial_type compares ModelActor and Ripper on CPUs and GPUs; --optimal --compare --batch does
    so with the best configurations of every model that is found.
    """
    with reporting():
        if trial_type not in (None, "cpu", "gpu"):
            raise SettingsError(f"--trial_type: {trial_type!r} is neither cpu nor gpu")
        if monitor is not None:
            typer.echo(str(_monitor(monitor, output_dir)))
            return
        if not (batch or compare or csv_or_dir):
            raise SettingsError(
                "CSV_OR_DIR is missing", hint="eqcctpro plot RESULTS, or --batch or --compare"
            )
        if compare and not batch and model is None:
            raise SettingsError("--compare needs --model", hint="or --batch for all models")
        done = _draw(
            csv_or_dir or results_root,
            output_dir,
            model=model,
            threshold=threshold,
            desired_runtime=desired_runtime,
            batch=batch,
            compare=compare,
            optimal=optimal,
            trial_type=trial_type,
        )
        for note in done.notes:
            typer.echo(f"note: {note}", err=True)
        for path in done.files:
            typer.echo(str(path))


def _draw(
    source: Path,
    output_dir: Path,
    *,
    model: str | None,
    threshold: float | None,
    desired_runtime: float | None,
    batch: bool,
    compare: bool,
    optimal: bool,
    trial_type: str | None,
) -> Pages:
    from eqcctpro.analysis import visualize

    if optimal:
        return visualize.optimal(
            source, output_dir, model=model, by_model=batch, together=compare or not batch
        )
    if compare and model is not None:
        return visualize.compare(
            source,
            output_dir,
            model=model,
            trial_type_=trial_type,
            desired_runtime=desired_runtime,
        )
    if compare:
        return visualize.compare_batch(
            source, output_dir, trial_type_=trial_type, desired_runtime=desired_runtime
        )
    draw = visualize.visualize_batch if batch else visualize.visualize
    return draw(
        source, output_dir, model=model, threshold=threshold, desired_runtime=desired_runtime
    )


def _monitor(run: Path, output_dir: Path) -> Path:
    from eqcctpro.analysis.trials import output_folder
    from eqcctpro.report.monitor import write_monitor

    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}", hint="name the output folder of a run"
        ) from error
    return write_monitor(summary, output_folder(output_dir) / "monitor.html", run.name)
