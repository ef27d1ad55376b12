"""``eqcctpro score``: picks against labels, or one set of picks against another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import folder_of, reporting_on
from eqcctpro.cli.lists import names_of
from eqcctpro.errors import InputError, SettingsError

__all__ = ["score"]


def score(
    picks: Annotated[
        Path, typer.Argument(metavar="PICKS", help="A file of picks, or the folder of a run.")
    ],
    labels: Annotated[
        Path,
        typer.Argument(
            metavar="LABELS",
            help="CSV, QuakeML, SeisBench metadata or a manifest; with --compare, other picks.",
        ),
    ],
    compare: Annotated[
        bool, typer.Option("--compare", help="Both are picks: say how alike they are.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(help="Seconds; 0.5, and 0.1 with --compare.")
    ] = None,
    per: Annotated[
        str, typer.Option(help="What a pair shares: station, location or instrument.")
    ] = "station",
    phases: Annotated[
        list[str] | None, typer.Option(help="Only these, such as P: where labels lack the others.")
    ] = None,
    station_hours: Annotated[
        float | None,
        typer.Option(help="Hours of data, summed over stations; a run's folder knows its own."),
    ] = None,
    start: Annotated[str | None, typer.Option(help="Only from this time on.")] = None,
    end: Annotated[str | None, typer.Option(help="Only before this time.")] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for JSON and CSV files.")
    ] = None,
) -> None:
    """Compare picks with labels, one to one, every pick and every label counted.

    Prints precision, recall, F1, false picks per station-hour, residuals and the area under the
    precision-recall curve of each phase; writes them with the single matches, the stations and
    the curve to the folder of -o.
    """
    with reporting_on(output, "score"):
        from eqcctpro.picks.reading import read_picks

        if compare:
            if phases or station_hours or start or end:
                raise SettingsError("--compare takes only --tolerance, --per and -o")
            from eqcctpro.scoring.compare import compare_picks
            from eqcctpro.scoring.score_files import parity_rows, write_parity

            parity = compare_picks(
                read_picks(picks),
                read_picks(labels),
                tolerance_s=0.1 if tolerance is None else tolerance,
                per=per,  # type: ignore[arg-type]
            )
            _show(parity_rows(parity))
            written = write_parity(parity, output) if output is not None else []
        else:
            from eqcctpro.scoring.labels import read_labels
            from eqcctpro.scoring.score import score_picks
            from eqcctpro.scoring.score_files import score_rows, write_scores

            hours = station_hours
            if hours is None and start is None and end is None:
                hours = _hours_of_run(picks)
            scores = score_picks(
                read_picks(picks),
                read_labels(labels),
                tolerance_s=0.5 if tolerance is None else tolerance,
                phases=names_of(phases) or None,
                per=per,  # type: ignore[arg-type]
                station_hours=hours,
                start=start,
                end=end,
            )
            _show(score_rows(scores))
            written = write_scores(scores, output) if output is not None else []
        for path in written:
            typer.echo(str(path))


def _hours_of_run(picks: Path) -> float | None:
    """Station hours in the summary beside the picks; None without a summary or in an older one."""
    summary = folder_of(picks) / "summary.json"
    if not summary.is_file():
        return None
    try:
        hours = json.loads(summary.read_text(encoding="utf-8")).get("station_hours")
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(
            f"cannot read {summary}: {error}", hint="give --station-hours, or move it away"
        ) from error
    return float(hours) if hours else None


def _show(rows: list[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells))
