"""``eqcctpro client``, ``serve-check`` and ``serve models``: ask a running service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from eqcctpro.cli.errors import reporting
from eqcctpro.errors import InputError, OutputError, SettingsError

__all__ = ["client", "serve_check", "serve_models"]

Option = typer.Option

_TYPES = {
    "csv": "text/csv",
    "json": "application/json",
    "quakeml": "application/xml",
    "arrow": "application/vnd.apache.arrow.stream",
    "msgpack": "application/msgpack",
}

_Key = Annotated[
    str | None, Option(help="An API key; better in the variable.", envvar="EQCCTPRO_API_KEY")
]
_Authority = Annotated[
    Path | None, Option("--authority", help="File of authorities that sign certificates.")
]


def client(
    url: Annotated[str, typer.Argument(help="Of the service, such as http://127.0.0.1:8000.")],
    files: Annotated[list[Path], typer.Argument(help="miniSEED files, or folders of them.")],
    output: Annotated[
        Path | None, Option("-o", "--output", help="File for the picks; else standard output.")
    ] = None,
    format_: Annotated[
        str, Option("--format", help="csv, json, quakeml, arrow or msgpack.")
    ] = "csv",
    model: Annotated[str | None, Option(help="One that is served.")] = None,
    p_threshold: Annotated[float | None, Option()] = None,
    s_threshold: Annotated[float | None, Option()] = None,
    detection_threshold: Annotated[float | None, Option()] = None,
    private: Annotated[
        bool, Option("--private", help="Keep the picks out of the service's stream.")
    ] = False,
    batch: Annotated[
        bool, Option("--batch", help="Let requests of others go first, for whole archives.")
    ] = False,
    key: _Key = None,
    authority: _Authority = None,
) -> None:
    """Have a running service pick files, all in one request."""
    with reporting():
        if format_ not in _TYPES:
            raise SettingsError(
                f"format: {format_!r} is unknown", hint=f"one of {', '.join(_TYPES)}"
            )
        _require_extra()
        from eqcctpro.serving.client import PickClient

        verify = True if authority is None else str(authority)
        with PickClient(url, key=key, verify=verify) as service:
            content = service.pick_as(
                _TYPES[format_],
                _files(files),
                model=model,
                p_threshold=p_threshold,
                s_threshold=s_threshold,
                detection_threshold=detection_threshold,
                private=private or None,
                priority="batch" if batch else None,
            )
        if output is None:
            typer.get_binary_stream("stdout").write(content)
            return
        try:
            output.write_bytes(content)
        except OSError as error:
            raise OutputError(f"cannot write {output}: {error.strerror or error}") from error


def _files(given: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in given:
        found.extend(
            sorted(item for item in path.rglob("*") if item.is_file()) if path.is_dir() else [path]
        )
    if not found:
        raise InputError("no file to pick", hint="name miniSEED files")
    return found


def serve_check(
    url: Annotated[str, typer.Argument(help="Of the service.")],
    key: _Key = None,
    authority: _Authority = None,
) -> None:
    """Ask a running service for the examples, and say whether it does what it should.

    Ends with exit code 1 when it does not.
    """
    with reporting():
        _require_extra()
        from eqcctpro.serving.check import check_service

        failed = 0
        verify = True if authority is None else str(authority)
        for result in check_service(url, key=key, verify=verify):
            failed += not result.ok
            said = "ok" if result.ok else "FAIL" if result.tried else "-"
            typer.echo(f"{said:<4}  {result.name}: {result.found}")
        if failed:
            raise typer.Exit(1)


def serve_models(
    url: Annotated[str, typer.Argument(help="Of the service.")],
    load: Annotated[
        str | None, Option(metavar="NAME", help="Load a model, or other weights of one.")
    ] = None,
    weights: Annotated[
        str | None,
        Option(help="What to load: Parent/child, or Parent/path in security.model_roots."),
    ] = None,
    unload: Annotated[str | None, Option(metavar="NAME", help="Serve a model no more.")] = None,
    default: Annotated[
        str | None,
        Option(metavar="NAME", help="With --unload, what requests that name no model get."),
    ] = None,
    key: _Key = None,
    authority: _Authority = None,
) -> None:
    """Say which models a running service has, and load or unload some without a restart."""
    with reporting():
        if weights is not None and load is None:
            raise SettingsError("--weights says what --load loads", hint="give --load NAME, too")
        if default is not None and unload is None:
            raise SettingsError(
                "--default says what takes the place of what --unload unloads",
                hint="give --unload NAME, too",
            )
        _require_extra()
        from eqcctpro.serving.client import PickClient

        verify = True if authority is None else str(authority)
        with PickClient(url, key=key, verify=verify, timeout_s=120.0) as service:
            loaded = None if load is None else service.load_model(load, weights)
            if unload is not None:
                service.unload_model(unload, default)
            for model in service.models():
                typer.echo(
                    f"{model['name']}: {model['state']}, weights {model['weights']} "
                    f"({model['weights_sha256'][:12]}), {model['runtime']} on {model['device']}"
                    f"{', the default' if model['default'] else ''}"
                )
            if loaded is not None:
                typer.echo(
                    "until the service ends: to keep it, add to models in the service's settings "
                    f"{json.dumps(loaded['settings'])}"
                )


def _require_extra() -> None:
    from importlib.util import find_spec

    if find_spec("httpx") is None:
        raise SettingsError(
            "the client needs httpx, which is missing", hint="pip install 'eqcctpro[serve]'"
        )
