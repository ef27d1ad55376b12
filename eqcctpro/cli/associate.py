"""``eqcctpro associate``: from picks to events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.errors import folder_of, reporting_on
from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    import pyarrow as pa

    from eqcctpro.association import Association

__all__ = ["associate"]

Option = typer.Option
_EVENTS, _EARTH, _SIZE = "What an event is", "The earth", "Magnitudes"


def associate(
    picks: Annotated[
        Path, typer.Argument(metavar="PICKS", help="The folder of a run, or a file of picks.")
    ],
    stations: Annotated[
        list[Path],
        Option(help="StationXML, or CSV: network,station,latitude,longitude,elevation_m."),
    ],
    output: Annotated[
        Path | None,
        Option("-o", "--output", help="Folder for the events; by default that of the picks."),
    ] = None,
    p_velocity: Annotated[float | None, Option(help="km/s (6.0).", rich_help_panel=_EARTH)] = None,
    s_velocity: Annotated[
        float | None, Option(help="km/s (P over 1.73).", rich_help_panel=_EARTH)
    ] = None,
    travel_times: Annotated[
        Path | None, Option(help="PyOcto's table of a layered model.", rich_help_panel=_EARTH)
    ] = None,
    tolerance: Annotated[
        float | None, Option(help="Error of travel times, s (1.5).", rich_help_panel=_EARTH)
    ] = None,
    pick_tolerance: Annotated[
        float | None, Option(help="Largest residual of a pick, s (1.5).", rich_help_panel=_EVENTS)
    ] = None,
    depth: Annotated[
        str | None, Option(metavar="MIN,MAX", help="km (0,30).", rich_help_panel=_EARTH)
    ] = None,
    margin: Annotated[
        float | None, Option(help="km beyond the stations (30).", rich_help_panel=_EARTH)
    ] = None,
    cutoff: Annotated[
        float | None, Option(help="Farthest station, km (150).", rich_help_panel=_EARTH)
    ] = None,
    n_picks: Annotated[
        int | None,
        Option(help="Least picks (10, or 2 for each station but one).", rich_help_panel=_EVENTS),
    ] = None,
    n_p: Annotated[int | None, Option(help="Least P (3, or 2).", rich_help_panel=_EVENTS)] = None,
    n_s: Annotated[int | None, Option(help="Least S (3, or 2).", rich_help_panel=_EVENTS)] = None,
    n_p_and_s: Annotated[
        int | None,
        Option(help="Least stations with both (3, or 2).", rich_help_panel=_EVENTS),
    ] = None,
    response: Annotated[
        Path | None,
        Option(
            help="StationXML with responses: measure amplitudes and write local magnitudes.",
            rich_help_panel=_SIZE,
        ),
    ] = None,
    waveforms: Annotated[
        list[str] | None,
        Option(
            help="Waveforms to measure them on; by default those of the run.", rich_help_panel=_SIZE
        ),
    ] = None,
    attenuation: Annotated[
        str,
        Option(
            help="hutton-boore (southern California, IASPEI), bakun-joyner (central California) "
            "or langston (Tanzania).",
            rich_help_panel=_SIZE,
        ),
    ] = "hutton-boore",
    threads: Annotated[int | None, Option(help="By default all cores.")] = None,
    agency: Annotated[str, Option(help="Agency, for QuakeML.")] = "",
    install: Annotated[
        bool, Option("--install/--no-install", help="Install PyOcto if it is not here.")
    ] = True,
) -> None:
    """Put picks together to events with PyOcto, and write them as QuakeML and SCML.

    Writes events.quakeml, events.scml, events.csv, event_picks.csv, and for NonLinLoc events.obs
    and its control file events.in.
    Local magnitudes are written with --response, or where amplitudes.csv beside the picks has
    Wood-Anderson amplitudes.
    PyOcto runs in an environment of its own where it cannot share this one; that is made on first
    use.
    """
    folder = output or folder_of(picks)
    with reporting_on(folder, "associate"):
        from eqcctpro.association import ATTENUATIONS, local_magnitudes, read_stations
        from eqcctpro.association import associate as run
        from eqcctpro.association.settings import AssociationSettings
        from eqcctpro.association.writers import write_association
        from eqcctpro.picks.formats import ExportOptions
        from eqcctpro.picks.reading import read_picks

        if p_velocity is not None and s_velocity is None:
            s_velocity = p_velocity / 1.73
        given: dict[str, Any] = {
            "p_velocity": p_velocity,
            "s_velocity": s_velocity,
            "travel_times": travel_times,
            "tolerance_s": tolerance,
            "pick_tolerance_s": pick_tolerance,
            "depth_km": _range(depth),
            "margin_km": margin,
            "cutoff_km": cutoff,
            "n_picks": n_picks,
            "n_p": n_p,
            "n_s": n_s,
            "n_p_and_s": n_p_and_s,
            "threads": threads,
        }
        if attenuation not in ATTENUATIONS:
            raise SettingsError(
                f"attenuation: {attenuation!r} is unknown",
                hint=f"one of {', '.join(ATTENUATIONS)}",
            )
        if waveforms and response is None:
            raise SettingsError("--waveforms are for magnitudes", hint="give --response, too")
        settings = AssociationSettings(**{k: v for k, v in given.items() if v is not None})
        table = read_picks(picks)
        places = read_stations(*stations)
        found = run(table, places, settings, install=install)
        for what, names in (
            ("no coordinates of", found.without_coordinates),
            ("left out: picks outside of the epochs of", found.outside_epochs),
        ):
            if names:
                typer.echo(
                    f"{what} {len(names)} stations: {', '.join(names[:10])}"
                    + (" ..." if len(names) > 10 else ""),
                    err=True,
                )
        amplitudes = _amplitudes(picks, found, response, waveforms)
        sizes = None
        if amplitudes is not None:
            sizes = local_magnitudes(found, amplitudes, places, attenuation)
        paths = write_association(found, folder, ExportOptions(agency=agency), sizes, places)
        typer.echo(
            f"an event has at least {found.settings.n_picks} picks: {found.settings.n_p} P, "
            f"{found.settings.n_s} S, and both at {found.settings.n_p_and_s} of "
            f"{found.stations} stations"
        )
        typer.echo(
            f"{found.events.num_rows} events of {found.assignments.num_rows} picks; "
            f"{table.num_rows} picks were given"
        )
        if sizes is not None:
            known = sizes.events.num_rows - sizes.events["local_magnitude"].null_count
            typer.echo(f"{known} local magnitudes: {sizes.attenuation.source}")
        for path in paths:
            typer.echo(str(path))


def _amplitudes(
    picks: Path, found: Association, response: Path | None, waveforms: list[str] | None
) -> pa.Array | None:
    """Wood-Anderson amplitudes of the picks, measured now or before; None where there are none."""
    from eqcctpro.association.magnitudes import amplitudes_of
    from eqcctpro.picks.reading import read_pick_batches
    from eqcctpro.picks.table import MEASURED_SCHEMA

    if response is None:
        file = folder_of(picks) / "amplitudes.csv"
        if not file.is_file():
            return None
        import pyarrow as pa

        batches = list(read_pick_batches(file, amplitudes=True))
        before = pa.Table.from_batches(batches, schema=MEASURED_SCHEMA)
        known = before["wood_anderson_mm"].null_count < len(before)
        return amplitudes_of(found.picks, before) if known else None
    from eqcctpro.amplitudes.measure import measure_amplitudes

    archive: dict[str, Any] = {"archive": tuple(waveforms or ())}
    if not waveforms:
        from eqcctpro.report.run_data import load_summary

        asked = load_summary(folder_of(picks))["settings"]
        archive = {"archive": tuple(asked["input"]), "layout": asked["layout"]}
    members = found.picks.take(found.assignments["pick"])
    return amplitudes_of(found.picks, measure_amplitudes(members, response=response, **archive))


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingsError(f"depth: {text!r} is not two numbers", hint="0,30") from error
    return low, high
