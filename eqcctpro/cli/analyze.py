"""``eqcctpro analyze``: how efficient the trials of a benchmark were."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.errors import SettingsError

__all__ = ["analyze"]

Option = typer.Option


def analyze(
    csv_or_dir: Annotated[
        Path | None,
        typer.Argument(metavar="[CSV_OR_DIR]", help="File of trials, or folder that holds one."),
    ] = None,
    output_dir: Annotated[
        Path, Option("-o", "--output-dir", "--output_dir", help="Folder for the results.")
    ] = Path("analysis_results"),
    desired_runtime: Annotated[
        float | None,
        Option("--desired-runtime", "--desired_runtime", help="Seconds to keep.", min=0),
    ] = None,
    batch: Annotated[
        bool, Option("--batch", help="Analyse every file of trials below --results_root.")
    ] = False,
    results_root: Annotated[
        Path, Option("--results-root", "--results_root", help="Folder of results.")
    ] = Path("results/csv/"),
    compare: Annotated[bool, Option("--compare", help="Compare the modes of one --model.")] = False,
    model: Annotated[
        str | None,
        Option(help="PhaseNet/original, phasenet_original, eqcct; names rows without a model too."),
    ] = None,
    trial_type: Annotated[
        str | None, Option("--trial-type", "--trial_type", help="cpu or gpu; both by default.")
    ] = None,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Print file names only.")] = False,
) -> None:
    """Say how efficiently trials used CPUs, workers and memory, with tables and figures.

    Reads files of eqcctpro evaluate, of every version of EQCCTPro, and of RAPID.
    """
    with reporting():
        from eqcctpro.analysis import efficiency

        if trial_type not in (None, "cpu", "gpu"):
            raise SettingsError(f"--trial_type: {trial_type!r} is neither cpu nor gpu")
        if compare:
            if model is None:
                raise SettingsError("--compare needs --model")
            done = efficiency.compare_methods(
                csv_or_dir or results_root,
                output_dir,
                model=model,
                trial_type_=trial_type,
                desired_runtime=desired_runtime,
            )
        elif batch:
            done = efficiency.analyze_batch(
                csv_or_dir or results_root, output_dir, model=model, desired_runtime=desired_runtime
            )
        elif csv_or_dir is not None:
            done = efficiency.analyze(
                csv_or_dir, output_dir, model=model, desired_runtime=desired_runtime
            )
        else:
            raise SettingsError(
                "CSV_OR_DIR is missing", hint="eqcctpro analyze RESULTS, or --batch or --compare"
            )
        for note in done.notes:
            typer.echo(f"note: {note}", err=True)
        if not quiet:
            typer.echo(done.text)
        for path in done.files:
            typer.echo(str(path))
