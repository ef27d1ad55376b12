"""``eqcctpro pick``: an archive in, a table of picks out."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.lists import device_of, joined
from eqcctpro.errors import ReplaceError, SettingsError

if TYPE_CHECKING:
    from eqcctpro.orchestration.result import RunResult

__all__ = ["as_given", "pick"]

_INPUT, _MODEL, _WHERE, _PICKS = "Input", "Model", "Where it runs", "Results"

Option = typer.Option


def pick(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT...",
            help="Folder of an archive, miniSEED files, a table of files, or s3://bucket/folder.",
        ),
    ] = None,
    output: Annotated[Path | None, Option("-o", "--output", help="Folder for the results.")] = None,
    model: Annotated[
        str | None,
        Option(
            help="Parent/child, or Parent/path of weights.",
            show_default="EQTransformer/original",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    p_model: Annotated[
        Path | None,
        Option("--p-model", help="File of EQCCT's P network (.h5, .pt).", rich_help_panel=_MODEL),
    ] = None,
    s_model: Annotated[
        Path | None,
        Option("--s-model", help="File of EQCCT's S network (.h5, .pt).", rich_help_panel=_MODEL),
    ] = None,
    layout: Annotated[
        str | None,
        Option(
            help="auto, chunks, files, sds, list, scedc, ncedc or earthscope.",
            show_default="auto",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    storage: Annotated[
        list[str] | None,
        Option(
            metavar="NAME=VALUE",
            help="An option of an object store, such as anon=true.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    start: Annotated[
        str | None,
        Option(
            help="Drop picks before this time, UTC: 2024-12-15T12:00 or 2024-350.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    end: Annotated[
        str | None, Option(help="Drop picks from this time on.", rich_help_panel=_INPUT)
    ] = None,
    timechunk: Annotated[
        float | None,
        Option(help="Cut time into chunks of so many minutes.", rich_help_panel=_INPUT),
    ] = None,
    overlap: Annotated[
        float | None,
        Option(
            help="Minutes that neighbouring chunks share.",
            show_default="0",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    window_grid: Annotated[
        str | None,
        Option(
            help="trace (SeisBench's placement) or absolute.",
            show_default="trace",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    contradictions: Annotated[
        str | None,
        Option(
            help="Records of a channel that contradict each other: cut out that stretch, or drop "
            "them, as SeisBench does.",
            show_default="cut",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    fill_gaps: Annotated[
        str | None,
        Option(
            help="Fill gaps: none, zero or interpolate, as ObsPy's merge does.",
            show_default="none",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    longest_gap: Annotated[
        float | None,
        Option(
            help="Seconds; longer gaps are not filled.",
            show_default="60",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        Option(
            "--filter",
            metavar="FILTER",
            help="As ObsPy filters: highpass:1, bandpass:3,15,zerophase or detrend:linear; "
            "several apply in their order.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    stations: Annotated[
        list[str] | None,
        Option(
            help="Patterns such as 'NC.*,PB35,TX.*.*.HH', or @FILE with one a line.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        Option(help="What to leave out of these, in the same way.", rich_help_panel=_INPUT),
    ] = None,
    stations_at_most: Annotated[
        int | None,
        Option(
            "--stations-at-most",
            "--stations2use",
            help="A random choice of so many stations, always the same.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    channel_priority: Annotated[
        list[str] | None,
        Option(
            help="Of each station only the first of these: HH,EH,BH,HN. By default all.",
            rich_help_panel=_INPUT,
        ),
    ] = None,
    mode: Annotated[
        str | None,
        Option(help="local, modelactor or ripper.", show_default="local", rich_help_panel=_WHERE),
    ] = None,
    workers: Annotated[int | None, Option(help="Ray workers.", rich_help_panel=_WHERE)] = None,
    address: Annotated[
        str | None, Option(help="A running Ray cluster to join.", rich_help_panel=_WHERE)
    ] = None,
    device: Annotated[
        list[str] | None,
        Option(help="cpu, cuda or cuda:0,1.", show_default="cpu", rich_help_panel=_WHERE),
    ] = None,
    runtime: Annotated[
        str | None,
        Option(
            help="auto, torch, onnxruntime, openvino or tensorflow.",
            show_default="auto",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    threads: Annotated[
        int | None, Option(help="Threads of each worker.", rich_help_panel=_WHERE)
    ] = None,
    inter_threads: Annotated[
        int | None, Option(help="Operators at a time, of TensorFlow only.", rich_help_panel=_WHERE)
    ] = None,
    vram_mb: Annotated[
        float | None,
        Option(help="GPU memory of each worker, MB.", rich_help_panel=_WHERE),
    ] = None,
    max_vram_mb: Annotated[
        float | None,
        Option(help="GPU memory of all workers, MB.", rich_help_panel=_WHERE),
    ] = None,
    gpu_vram_safety_cap: Annotated[
        float | None,
        Option(
            help="Share of a GPU's memory that may be full.",
            show_default="0.95",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    cudnn_headroom: Annotated[
        float | None,
        Option(
            help="Share of GPU memory left for workspaces.",
            show_default="0.25",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    ram_safety_cap: Annotated[
        float | None,
        Option(
            help="Share of available memory to fill.",
            show_default="0.9",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    precision: Annotated[
        str | None,
        Option(
            help="f32, or bf16: faster on some CPUs, other picks.",
            show_default="f32",
            rich_help_panel=_WHERE,
        ),
    ] = None,
    batch_size: Annotated[
        int | None, Option(help="Windows in a batch.", rich_help_panel=_WHERE)
    ] = None,
    p_threshold: Annotated[
        float | None, Option(help="Least probability of a P.", rich_help_panel=_MODEL)
    ] = None,
    s_threshold: Annotated[
        float | None, Option(help="Least probability of an S.", rich_help_panel=_MODEL)
    ] = None,
    detection_threshold: Annotated[
        float | None, Option(help="Least probability of a detection.", rich_help_panel=_MODEL)
    ] = None,
    bandpass: Annotated[
        str | None,
        Option(help="EQCCTPro's filter, such as 1,45 (Hz), or off.", rich_help_panel=_MODEL),
    ] = None,
    set_: Annotated[
        list[str] | None,
        Option(
            "--set",
            metavar="NAME=VALUE",
            help="An argument of the model, such as overlap=0.5.",
            rich_help_panel=_MODEL,
        ),
    ] = None,
    format_: Annotated[
        list[str] | None,
        Option(
            "--format",
            help="Any of csv,parquet,quakeml,scml,pyocto,gamma,phasenet,nonlinloc,eqcctpro.",
            show_default="csv,parquet",
            rich_help_panel=_PICKS,
        ),
    ] = None,
    amplitudes: Annotated[
        bool | None,
        Option("--amplitudes", help="Measure the amplitude of each pick.", rich_help_panel=_PICKS),
    ] = None,
    response: Annotated[
        Path | None,
        Option(help="StationXML: also velocity and Wood-Anderson.", rich_help_panel=_PICKS),
    ] = None,
    annotations: Annotated[
        bool | None,
        Option(
            "--annotations",
            help="Write the probability curves as miniSEED.",
            rich_help_panel=_PICKS,
        ),
    ] = None,
    overview: Annotated[
        bool | None,
        Option("--overview/--no-overview", help="Draw overview.png.", show_default="overview"),
    ] = None,
    report: Annotated[
        bool | None,
        Option(
            "--report/--no-report",
            help="Write report.html, a page on the run.",
            show_default="no-report",
        ),
    ] = None,
    resume: Annotated[
        bool, Option("--resume", help="Insist on going on with the unfinished run in OUT.")
    ] = False,
    fresh: Annotated[
        bool, Option("--fresh", help="Discard all that an earlier run left in OUT.")
    ] = False,
    retry_failed: Annotated[
        bool | None,
        Option(
            "--retry-failed/--keep-failed",
            help="On going on, pick again what failed.",
            show_default="retry-failed",
        ),
    ] = None,
    journal: Annotated[
        bool | None,
        Option(
            "--journal/--no-journal",
            help="Record what is done, to go on later.",
            show_default="journal",
        ),
    ] = None,
    item_timeout: Annotated[
        float | None, Option(help="Seconds in which a station must be read.", show_default="600")
    ] = None,
    config: Annotated[
        Path | None, Option(help="Settings from a TOML, YAML or JSON file; options win.")
    ] = None,
    keep_going: Annotated[
        bool, Option("--keep-going/--fail-fast", help="Go on when a station fails.")
    ] = True,
    quiet: Annotated[bool, Option("-q", "--quiet", help="Only errors.")] = False,
    verbose: Annotated[bool, Option("-v", "--verbose", help="Show the log.")] = False,
) -> None:
    """Pick P and S arrivals on the waveforms of a network.

    Results are written to the output folder: picks.csv, picks.parquet, summary.json, run.log,
    overview.png, and detections.csv and detections.parquet where the model yields detections.

    A run that was killed or interrupted goes on where it was when the same command is given
    again. eqcctpro status OUT shows how far it is. The results of a finished run are replaced by
    those of the same settings only; for others a terminal is asked, and --fresh discards them.

    Options that take a list take commas, or are given several times; of --filter, each is one.

    Exit codes: 0 all is well; 2 wrong settings; 3 unusable input; 4 model, weights or
    runtime; 5 results cannot be written; 6 Ray; 7 not enough memory for a single worker; 10 the
    run is complete, but stations or files in it failed (they are listed in summary.json); 130
    interrupted (Ctrl-C once finishes what is under way, twice stops at once).
    """
    options: dict[str, Any] = {
        "input": tuple(inputs) if inputs else None,
        "output": output,
        "model": model,
        "p_model": p_model,
        "s_model": s_model,
        "layout": layout,
        "start": start,
        "end": end,
        "timechunk": timechunk,
        "overlap": overlap,
        "window_grid": window_grid,
        "contradictions": contradictions,
        "fill_gaps": fill_gaps,
        "longest_gap": longest_gap,
        "filters": tuple(filter_) if filter_ else None,
        "stations": joined(stations),
        "exclude": joined(exclude),
        "stations_at_most": stations_at_most,
        "channel_priority": joined(channel_priority),
        "mode": mode,
        "workers": workers,
        "address": address,
        "device": device_of(device),
        "runtime": runtime,
        "threads": threads,
        "inter_threads": inter_threads,
        "vram_mb": vram_mb,
        "max_vram_mb": max_vram_mb,
        "gpu_vram_safety_cap": gpu_vram_safety_cap,
        "cudnn_headroom": cudnn_headroom,
        "ram_safety_cap": ram_safety_cap,
        "batch_size": batch_size,
        "precision": precision,
        "p_threshold": p_threshold,
        "s_threshold": s_threshold,
        "detection_threshold": detection_threshold,
        "formats": joined(format_),
        "amplitudes": amplitudes,
        "response": response,
        "annotations": annotations,
        "overview": overview,
        "report": report,
        "resume": _resume(resume, fresh),
        "retry_failed": retry_failed,
        "journal": journal,
        "item_timeout": item_timeout,
    }
    with reporting(warn=not quiet):
        if resume and fresh:
            raise SettingsError("--resume and --fresh exclude each other")
        options["storage"] = _storage(storage)
        result, folder = _run(options, bandpass, set_ or [], config, keep_going, quiet, verbose)
        if not quiet:
            _report(result, folder)
        raise typer.Exit(result.exit_code)


def _run(
    options: dict[str, Any],
    bandpass: str | None,
    arguments: list[str],
    config_file: Path | None,
    keep_going: bool,
    quiet: bool,
    verbose: bool,
) -> tuple[RunResult, Path]:
    """The result, and the output folder as it was given."""
    from eqcctpro.config import PickConfig
    from eqcctpro.config_files import load_config_file
    from eqcctpro.orchestration.run import run_picking

    settings = load_config_file(config_file) if config_file is not None else {}
    settings.update({name: value for name, value in options.items() if value is not None})
    if bandpass is not None:
        settings["bandpass"] = bandpass if bandpass == "off" else tuple(bandpass.split(","))
    if arguments:
        settings["model_arguments"] = {
            **settings.get("model_arguments", {}),
            **dict(_name_and_value(text) for text in arguments),
        }
    for name, how in (("input", "INPUT"), ("output", "-o OUT")):
        if name not in settings:
            raise SettingsError(f"{name} is missing", hint=f"eqcctpro pick INPUT -o OUT; add {how}")
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    else:
        # Packages that warn through the root logger have it print, then of all other loggers too.
        logging.getLogger("eqcctpro").propagate = False
    asked = PickConfig.checked(**settings)
    try:
        result = run_picking(asked, quiet=quiet, keep_going=keep_going)
    except ReplaceError as error:
        if quiet or not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise
        try:
            typer.confirm(f"{error.message}. Discard them and pick anew?", abort=True, err=True)
        except typer.Abort:  # no, Ctrl-C, or the end of the input
            raise error from None
        asked = asked.model_copy(update={"resume": "never"})
        result = run_picking(asked, quiet=quiet, keep_going=keep_going)
    return result, asked.output


def _resume(resume: bool, fresh: bool) -> str | None:
    return "require" if resume else "never" if fresh else None


def _storage(options: list[str] | None) -> dict[str, Any] | None:
    if options is None:
        return None
    words = {"true": True, "false": False}
    pairs = (_name_and_value(text, "--storage", "anon=true") for text in options)
    return {name: words.get(value.lower(), value) for name, value in pairs}


def _name_and_value(
    text: str, option: str = "--set", example: str = "overlap=0.5"
) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise SettingsError(f"{option} {text!r} is not NAME=VALUE", hint=f"{option} {example}")
    return name.strip(), value.strip()


def _report(result: RunResult, folder: Path) -> None:
    """The outcome in a few lines, failures first; `folder` is the output folder as given."""
    summary = result.summary
    for text in summary["weights"]["assumed"]:
        typer.echo(f"weights {text}", err=True)
    for line in result.problems:
        typer.echo(line, err=True)
    counts, picks = summary["tasks"], dict(summary["picks"])
    total = picks.pop("total")
    phases = ", ".join(f"{number} {phase}" for phase, number in picks.items())
    typer.echo(
        f"{total} picks"
        + (f" ({phases})" if phases else "")
        + f" on {sum(counts.values())} station tasks: {counts['done']} done, "
        f"{counts['empty']} empty, {counts['failed']} failed"
    )
    for kind in (
        "picks_csv",
        "picks_parquet",
        "amplitudes",
        "annotations",
        "detections_csv",
        "detections_parquet",
        "overview",
        "report",
        "tasks",
        "summary",
    ):
        if kind in summary["paths"]:
            typer.echo(as_given(summary["paths"][kind], folder))


def as_given(path: str, folder: Path) -> str:
    """A path below an absolute folder, as one below the folder as it was given."""
    return str(folder / Path(path).relative_to(folder.absolute()))
