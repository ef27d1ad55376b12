"""``-h`` beside ``--help``, on every command and every script."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

SCRIPTS = sorted(
    path.relative_to(ROOT)
    for folder in ("data/scripts", "experiments", "scripts")
    for path in (ROOT / folder).rglob("*")
    # The service of another program, which needs that program's interpreter.
    if path.suffix in {".py", ".sh"} and path.name != "serve_load_mosec.py"
    # A hook of the documentation.
    if path.name != "reference.py"
)


def commands(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of a command and of all below it."""
    yield words
    for name, below in getattr(command, "commands", {}).items():
        yield from commands(below, (*words, name))


def test_every_command_has_it(cli: Callable[..., Any]) -> None:
    from typer.main import get_command

    from eqcctpro.cli import app

    found = list(commands(get_command(app)))
    assert len(found) > 25
    for words in found:
        short, long = cli(*words, "-h"), cli(*words, "--help")
        assert short.exit_code == 0 and "Usage" in short.stdout, words
        assert short.stdout == long.stdout, words


@pytest.mark.parametrize("script", SCRIPTS, ids=str)
def test_every_script_has_it(script: Path) -> None:
    program = "bash" if script.suffix == ".sh" else sys.executable
    done = subprocess.run(
        [program, ROOT / script, "-h"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr.strip()
