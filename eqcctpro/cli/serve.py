"""``eqcctpro serve``: the online picker."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eqcctpro.cli.client import serve_models
from eqcctpro.cli.ending import told_by_signals
from eqcctpro.cli.errors import reporting
from eqcctpro.cli.help import HelpfulApp
from eqcctpro.cli.lists import names_of
from eqcctpro.errors import SettingsError

if TYPE_CHECKING:
    from eqcctpro.serving.settings import ServeSettings
    from eqcctpro.serving.start import RunningService

__all__ = ["serve_app"]

Option = typer.Option

serve_app = HelpfulApp(
    name="serve",
    help="Pick over HTTP: the same picks as eqcctpro pick, as a service on Ray Serve.",
    invoke_without_command=True,
)

_Config = Annotated[Path | None, Option(help="Settings in TOML, YAML or JSON.")]
_Set = Annotated[
    list[str] | None,
    Option("--set", metavar="NAME=VALUE", help="Any other setting, such as limits.capacity=64."),
]
_Model = Annotated[
    list[str] | None, Option(help="Parent/child; several with commas, or given several times.")
]


@serve_app.callback()
def serve(
    context: typer.Context,
    model: _Model = None,
    host: Annotated[str | None, Option(help="Address to listen at (127.0.0.1).")] = None,
    port: Annotated[int | None, Option(help="Port to listen at (8000).")] = None,
    config: _Config = None,
    set_: _Set = None,
    mode: Annotated[
        str | None,
        Option(
            help="single: one process; replicated: several; staged: the networks in processes of "
            "their own, for GPUs."
        ),
    ] = None,
    replicas: Annotated[
        str | None,
        Option(help="Processes that take requests (1), or 1-8 for as many as the load asks for."),
    ] = None,
    threads: Annotated[int | None, Option(help="Threads of each process.")] = None,
    address: Annotated[str | None, Option(help="A running Ray cluster to join.")] = None,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Load, warm and pick the example, then end.")
    ] = False,
    show: Annotated[
        bool, Option("--show", help="Print the settings as JSON, without secrets, then end.")
    ] = False,
) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Settings come from options, from variables such as EQCCTPRO_SERVE_HTTP__PORT, from the file
    of --config, and from defaults: what comes first here counts. The page docs/serving.md lists
    all of them.

    SIGTERM, SIGHUP, SIGQUIT and Ctrl-C end it: what was accepted is finished first. A second
    Ctrl-C ends it at once.
    """
    if context.invoked_subcommand is not None:
        return
    with reporting(), nullcontext() if show or dry_run else told_by_signals() as ended:
        _require_extra()
        settings = _settings(
            config,
            set_,
            {
                "models": _models(model),
                "mode": mode,
                "http.host": host,
                "http.port": port,
                "replicas.count": replicas,
                "replicas.threads": threads,
                "address": address,
            },
        )
        if show:
            from eqcctpro.serving.start import check_files

            check_files(settings)
            typer.echo(json.dumps(settings.shown(), indent=1))
            return
        if ended is None:
            _dry_run(settings)
            return
        from eqcctpro.serving.start import serve_until_ended

        serve_until_ended(settings, ended, _say_ready)


def _say_ready(service: RunningService) -> None:
    names = ", ".join(model.name for model in service.settings.models)
    typer.echo(f"{names} at {service.url}", err=True)
    if not service.settings.http.local and not service.settings.security.closed:
        typer.echo(
            "everybody who reaches this machine can use it; "
            "eqcctpro serve key makes keys for the setting security.api_keys",
            err=True,
        )


def _dry_run(settings: ServeSettings) -> None:
    from eqcctpro.serving.start import check_start
    from eqcctpro.serving.trial import try_requests

    check_start(settings)
    for line in try_requests(settings):
        typer.echo(line)


@serve_app.command()
def schema() -> None:
    """Print the settings' JSON schema."""
    with reporting():
        _require_extra()
        from eqcctpro.serving.settings import ServeSettings

        typer.echo(json.dumps(ServeSettings.model_json_schema(), indent=1))


@serve_app.command()
def build(
    model: _Model = None,
    config: _Config = None,
    set_: _Set = None,
) -> None:
    """Print the service as a file for Ray Serve's own `serve deploy`, on a running cluster."""
    with reporting():
        _require_extra()
        from eqcctpro.serving.manifest import ray_serve_file

        # It runs on a cluster, where Ray Serve's proxy listens.
        given = {"models": _models(model), "address": "auto"}
        typer.echo(ray_serve_file(_settings(config, set_, given)), nl=False)


@serve_app.command()
def key(name: Annotated[str, typer.Argument(help="Whose it is.")]) -> None:
    """Make an API key, and print what the settings keep of it."""
    with reporting():
        _require_extra()
        from eqcctpro.serving.security import make_key

        secret, digest = make_key()
        typer.echo(f"key, which cannot be shown again: {secret}")
        typer.echo(f"for the settings: security.api_keys: [{{name: {name}, sha256: {digest}}}]")


@serve_app.command()
def password(
    name: Annotated[str, typer.Argument(help="Who logs in.")],
    word: Annotated[
        str, Option("--password", prompt=True, hide_input=True, confirmation_prompt=True)
    ],
) -> None:
    """Print what the settings keep of a name and a password."""
    with reporting():
        _require_extra()
        from eqcctpro.serving.security import hash_password

        typer.echo(f"security.users: [{{name: {name}, password_hash: '{hash_password(word)}'}}]")


serve_app.command("models")(serve_models)


def _settings(
    config: Path | None, assignments: list[str] | None, flags: dict[str, Any]
) -> ServeSettings:
    from eqcctpro.serving.sources import gather_settings

    return gather_settings(config, flags, assignments or ())


def _models(given: list[str] | None) -> list[str] | None:
    names = list(names_of(given))
    if given and not names:
        raise SettingsError("--model: it is empty", hint="write --model EQTransformer/original")
    return names or None


def _require_extra() -> None:
    """Say what to install where the service's packages are missing."""
    from importlib.util import find_spec

    needed = (
        *("fastapi", "uvicorn", "msgspec", "itsdangerous", "prometheus_client", "multipart"),
        "pydantic_settings",
    )
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise SettingsError(
            f"the service needs packages that are missing: {', '.join(missing)}",
            hint="pip install 'eqcctpro[serve]'",
        )
