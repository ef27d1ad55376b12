"""``eqcctpro status``: how far a run is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eqcctpro.cli.errors import reporting

if TYPE_CHECKING:
    from eqcctpro.journal.status import RunStatus

__all__ = ["status"]

# Failures that are listed; --json has all of them.
MOST_LISTED = 20


def status(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder of a run.")],
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Show how far the run in an output folder is: at work, dead, interrupted or finished.

    The counts add up to the plan: station tasks done, empty (with a reason), failed (with an
    error) and waiting. Reading the record disturbs nothing.
    """
    with reporting():
        from eqcctpro.journal.status import read_status

        found = read_status(output)
        if as_json:
            typer.echo(json.dumps(found.as_dict(), indent=2))
        else:
            _show(found)


def _show(found: RunStatus) -> None:
    last = found.attempts[-1] if found.attempts else None
    where = "nothing is recorded yet"
    if last is not None:
        where = f"process {last.pid} on {last.host}, mode {last.mode}"
    states = {
        "running": f"running ({where})",
        "dead": f"dead: it ended without a word ({where})",
        "interrupted": f"stopped: {found.ending}",
        "finished": "finished",
    }
    typer.echo(states[found.state])
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


def _show_counts(found: RunStatus) -> None:
    counts = found.counts
    typer.echo(
        f"{found.total} station tasks: {counts['done']} done, {counts['empty']} empty, "
        f"{counts['failed']} failed"
        + (f" ({found.quarantined} quarantined)" if found.quarantined else "")
        + f", {counts['waiting']} waiting"
    )
    left_out = [f"{n} {name.replace('_', ' ')}" for name, n in found.skipped.items() if n]
    if found.files_unusable:
        left_out.append(f"{found.files_unusable} unusable files")
    if left_out:
        typer.echo(f"left out: {', '.join(left_out)}")
