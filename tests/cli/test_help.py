"""``-h`` beside ``--help``, on every command and every script."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

from eqcctpro.cli.help import EXAMPLES

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


def test_every_command_has_it() -> None:
    from click.testing import CliRunner
    from typer.main import get_command

    from eqcctpro.cli import app

    program = get_command(app)
    found = list(commands(program))
    assert len(found) > 25
    for words in found:
        short, long = (CliRunner().invoke(program, [*words, option]) for option in ("-h", "--help"))
        assert short.exit_code == 0 and "Usage" in short.stdout, words
        assert short.stdout == long.stdout, words


@pytest.fixture(scope="module")
def program() -> Any:
    from typer.main import get_command

    from eqcctpro.cli import app

    return get_command(app)


def said_by(program: Any, *words: str, width: int = 80) -> str:
    from click.testing import CliRunner

    return CliRunner(env={"COLUMNS": str(width)}).invoke(program, list(words)).output


@pytest.mark.slow
def test_every_command_has_an_example_that_parses(program: Any) -> None:
    found = dict.fromkeys(" ".join(words) for words in commands(program))
    assert EXAMPLES.keys() == found.keys()
    for name, examples in EXAMPLES.items():
        assert examples[0] in " ".join(said_by(program, *name.split(), "-h", width=200).split())
        for example in examples:
            caller, *words = shlex.split(example)
            command, above = program, None
            while words and getattr(command, "commands", None):
                if words[0] not in command.commands:
                    if not hasattr(command, "usual"):
                        break
                    words.insert(0, command.usual)
                above = command.make_context("eqcctpro", words.copy(), above)
                command = command.commands[words.pop(0)]
            assert caller == "eqcctpro" and (name == "" or name in example), example
            if words == ["--help"]:
                continue
            if name == "serve password":  # else it asks for it
                words += ["--password", "word"]
            assert not command.make_context(name, words, above).args, example


@pytest.mark.slow
def test_a_screen_shows_what_people_use(program: Any) -> None:
    assert len(said_by(program, "-h").splitlines()) <= 50
    short, everything = (said_by(program, "pick", name) for name in ("-h", "--help-all"))
    shown, known = (set(re.findall(r"^│ (--[\w-]+)", text, re.M)) for text in (short, everything))
    assert {"--model", "--stations", "--output", "--workers", "--report"} < shown < known
    assert len(shown) <= 20 and len(short.splitlines()) <= 70
    names = {item.opts[0] for item in program.commands["pick"].params}
    shown = set(re.findall(r"(--[\w-]+)", said_by(program, "pick", "--help-all", width=250)))
    assert {name for name in names if name.startswith("--")} <= shown
    assert "Exit codes" in everything and "Exit codes" not in short
    assert said_by(program, "pick", "-h") == short
    listed = said_by(program, "--help-all")
    assert all(" ".join(words) in listed for words in commands(program))


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("pick", "--ouput", "x"), "did you mean --output?"),
        (("pick", "--p_threshold", "0.1"), "did you mean --p-threshold?"),
        (("pick", "--cudnn-headrom", "0.1"), "did you mean --cudnn-headroom?"),
        (("status", "--jsn"), "did you mean --json?"),
        (("dataset", "download", "--netwroks", "XX"), "did you mean --networks?"),
        (("pik",), "Did you mean 'pick'?"),
    ],
)
def test_a_wrong_name_gets_the_right_one(program: Any, words: Any, meant: str) -> None:
    assert meant in said_by(program, *words)


def test_short_names_are_the_same_everywhere(program: Any) -> None:
    long = {"-o": "--output", "-m": "--model", "-w": "--workers", "-q": "--quiet"}
    long["-v"] = "--verbose"
    for words in commands(program):
        command = program
        for word in words:
            command = command.commands[word]
        for option in command.params:
            names = set(option.opts)
            assert {one for one in names if re.fullmatch("-.", one)} <= long.keys(), words
            assert all((short in names) == (name in names) for short, name in long.items()), words


# Each script is the main program of a fork of one process that has imported what scripts import.
FORKS = """
import os, runpy, sys
import pandas, scipy.signal, eqcctpro.cli, eqcctpro.synthetic.tiling
folder = sys.argv[1]
for number, script in enumerate(sys.argv[2:]):
    if (child := os.fork()) == 0:
        for stream, name in ((1, "out"), (2, "err")):
            file = os.open(f"{folder}/{number}.{name}", os.O_WRONLY | os.O_CREAT)
            os.dup2(file, stream)
        sys.argv, sys.path[0] = [script, "-h"], os.path.dirname(script)
        code = None
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else code is not None)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print(status)
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, tuple[int, str, str]]:
    """Exit code, output and messages of every Python script with ``-h``."""
    folder = tmp_path_factory.mktemp("said")
    scripts = [script for script in SCRIPTS if script.suffix == ".py"]
    done = subprocess.run(
        [sys.executable, "-c", FORKS, folder, *(ROOT / script for script in scripts)],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return {
        script: (
            int(code),
            (folder / f"{number}.out").read_text(),
            (folder / f"{number}.err").read_text(),
        )
        for number, (script, code) in enumerate(zip(scripts, done.stdout.split(), strict=True))
    }


@pytest.mark.slow
@pytest.mark.parametrize("script", [one for one in SCRIPTS if one.suffix == ".py"], ids=str)
def test_every_script_has_it(script: Path, said: dict[Path, tuple[int, str, str]]) -> None:
    code, output, messages = said[script]
    assert code == 0, messages
    assert output.strip() and not messages.strip()


@pytest.mark.parametrize(
    "script",
    [one for one in SCRIPTS if one.suffix == ".sh"] + [Path("experiments/main/run.py")],
    ids=str,
)
def test_a_script_of_its_own(script: Path) -> None:
    program = "bash" if script.suffix == ".sh" else sys.executable
    done = subprocess.run(
        [program, ROOT / script, "-h"], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() and not done.stderr.strip()
