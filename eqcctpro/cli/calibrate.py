"""``eqcctpro calibrate``: what a worker needs on this machine, for every later plan."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.cli.lists import names_of
from eqcctpro.errors import ModelError, SettingsError

if TYPE_CHECKING:
    from eqcctpro.resources.footprints import Footprint

__all__ = ["calibrate"]

_ON_CPU = ("openvino", "onnxruntime", "torch")


def calibrate(
    model: Annotated[
        list[str] | None,
        typer.Option(help="Parent/child; several with commas, or given several times."),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="torch, onnxruntime, openvino or tensorflow; all by default."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    batch_size: Annotated[int | None, typer.Option(help="Windows in a batch.", min=1)] = None,
) -> None:
    """Measure the memory of workers, each in a fresh process, and remember it.

    Without --model, all models whose weights are on this machine are measured.  Plans of
    later runs use the measured values instead of published ones.
    """
    with reporting():
        names = names_of(model) or _local_models()
        runtimes = names_of(runtime) or _runtimes(device)
        typer.echo(
            _line("model", "runtime", "device", "load MB", "peak MB", "window MB", "VRAM MB")
        )
        failed = [
            f"{name} on {kind}: {problem}"
            for name in names
            for kind in runtimes
            if (problem := _measure(name, kind, device, batch_size))
        ]
        for problem in failed:
            typer.echo(f"not measured: {problem}", err=True)
        if len(failed) == len(names) * len(runtimes):
            raise ModelError("nothing could be measured", hint="see eqcctpro doctor")
        from eqcctpro.resources.footprints import footprints_path

        typer.echo(str(footprints_path()))


def _measure(name: str, runtime: str, device: str, batch_size: int | None) -> str:
    """Measure, remember and print one footprint; returns what went wrong."""
    from eqcctpro.errors import WorkerError
    from eqcctpro.orchestration.probe import measure_footprint
    from eqcctpro.resources.footprints import save_footprints

    try:
        measured = measure_footprint(name, runtime=runtime, device=device, batch_size=batch_size)
    except WorkerError as error:
        return error.message
    # Kept at once: measuring many models takes minutes and may be interrupted.
    save_footprints([measured])
    typer.echo(_row(measured))
    return ""


def _local_models() -> list[str]:
    from eqcctpro.models.inventory import list_local

    names = sorted({row.name for row in list_local()})
    if not names:
        raise SettingsError("there are no weights on this machine", hint="name a --model")
    return names


def _runtimes(device: str) -> list[str]:
    if device != "cpu":
        return ["torch"]
    return [kind for kind in _ON_CPU if find_spec(kind) is not None]


def _row(item: Footprint) -> str:
    return _line(
        item.model,
        item.runtime,
        item.device,
        f"{item.load_mb:.0f}",
        f"{item.ram_mb:.0f}",
        f"{item.ram_per_window_mb:.2f}",
        f"{item.vram_mb:.0f}",
    )


def _line(model: str, runtime: str, device: str, *numbers: str) -> str:
    columns = "".join(f"{number:>11}" for number in numbers)
    return f"{model:<40} {runtime:<12} {device:<7}{columns}"
