"""``eqcctpro status``: how far a run is."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eqcctpro.cli.errors import reporting

if TYPE_CHECKING:
    from eqcctpro.journal.station_status import StationTaskStatus
    from eqcctpro.journal.status import PartitionReach, RunStatus

__all__ = ["status"]

# Failures that are listed; --json has all of them.
MOST_LISTED = 20


def status(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.")],
    station: Annotated[
        str | None,
        typer.Argument(metavar="[STATION]", help="NET.STA or STA: what became of this station."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show how far the run in an output folder is: at work, dead, interrupted or finished.

    The counts add up to the plan: station tasks done, empty (with a reason), failed (with an
    error) and waiting. Reading the record disturbs nothing.

    With a station: how each of its station tasks ended and, where there are no picks, why, with
    the highest probability of P and S and the threshold that it was compared with.
    """
    with reporting():
        if station is not None:
            from eqcctpro.journal.station_status import read_station_status

            tasks = read_station_status(output, station)
            if as_json:
                typer.echo(json.dumps([task.as_dict() for task in tasks], indent=2))
            else:
                _show_station(tasks)
            return
        from eqcctpro.journal.status import read_status

        found = read_status(output)
        if as_json:
            typer.echo(json.dumps(found.as_dict(), indent=2))
        else:
            _show(found)


def _show_station(tasks: list[StationTaskStatus]) -> None:
    """All tasks of a station; of many those that have picks are only counted."""
    shown = tasks
    if len(tasks) > MOST_LISTED:
        counts = Counter(task.status for task in tasks)
        text = ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
        shown = [task for task in tasks if not task.picks]
        typer.echo(
            f"{len(tasks)} station tasks: {text}; "
            f"{sum(task.picks or 0 for task in tasks)} picks in {len(tasks) - len(shown)} of them"
        )
    for task in shown[:MOST_LISTED]:
        typer.echo(f"{task.name} {task.timechunk}: {task.why}")
        for note in task.notes:
            typer.echo(f"  {note}")
    if len(shown) > MOST_LISTED:
        typer.echo(f"and {len(shown) - MOST_LISTED} more without picks (--json lists all)")


def _show(found: RunStatus) -> None:
    last = found.attempts[-1] if found.attempts else None
    where = "nothing is recorded yet"
    if found.holder is not None:
        where = f"{found.holder}, {where}"
    if last is not None:
        where = f"process {last.pid} on {last.host}, mode {last.mode}"
    states = {
        "running": f"running ({where})",
        "dead": f"dead: it ended without a word ({where})",
        "interrupted": f"stopped: {found.ending}",
        "finished": "finished",
    }
    typer.echo(states[found.state])
    if found.reach is not None:
        _show_reach(found.reach)
    if found.total:
        _show_counts(found)
    if found.rate is not None:
        left = f", {found.seconds_left:.0f} s left" if found.seconds_left is not None else ""
        typer.echo(f"{found.rate:.1f} station tasks/s{left}")
    for item in found.failures[:MOST_LISTED]:
        typer.echo(f"failed: {item['station']} {item['timechunk']}: {item['reason']}")
    if len(found.failures) > MOST_LISTED:
        typer.echo(f"and {len(found.failures) - MOST_LISTED} more (--json lists all)")
    if found.advice is not None:
        typer.echo(found.advice)


def _show_reach(reach: PartitionReach) -> None:
    where = "" if reach.reached is None else f", to {reach.reached} of {reach.end}"
    days = f"{reach.station_days:.1f} station-days"
    if reach.times_real_time is not None:
        days += f", {reach.times_real_time:.3g} times real time"
    typer.echo(f"{reach.partitions} partitions finished{where}: {days}")


def _show_counts(found: RunStatus) -> None:
    counts = found.counts
    typer.echo(
        f"{found.total} station tasks: {counts['done']} done, {counts['empty']} empty, "
        f"{counts['failed']} failed"
        + (f" ({found.quarantined} quarantined)" if found.quarantined else "")
        + (", about" if found.reach is not None else ",")
        + f" {counts['waiting']} waiting"
    )
    left_out = [f"{n} {name.replace('_', ' ')}" for name, n in found.skipped.items() if n]
    if found.files_unusable:
        left_out.append(f"{found.files_unusable} unusable files")
    if left_out:
        typer.echo(f"left out: {', '.join(left_out)}")
