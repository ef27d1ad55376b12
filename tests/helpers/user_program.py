"""Programs as users write them, each in a process of its own.

A program is text.  It is run as a script, from standard input, as ``python -c``, as a notebook and
in other ways, in a working folder that holds nothing of this package, with the environment of the
tests.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: Lines that a program prints for its test begin with this.
MARK = "RESULT "

# Programs say what came of them through this, wherever their output goes.
_SAY = f"""
def say(**values):
    import json
    print({MARK!r} + json.dumps(values, default=str), flush=True)
"""

TIMEOUT_S = 180


class Ended:
    """A program that has ended.

    Attributes
    ----------
    code : int
    out, err : str
    """

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def said(self) -> list[dict[str, Any]]:
        """What it said with ``say(...)``, call by call."""
        lines = self.out.splitlines()
        return [json.loads(line[len(MARK) :]) for line in lines if line.startswith(MARK)]

    @property
    def result(self) -> dict[str, Any]:
        """What it said in its only call of ``say(...)``, after it ended well."""
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        (said,) = self.said
        return said


def program(text: str) -> str:
    """A user's program: the text without indentation, and ``say`` to report with."""
    return _SAY + textwrap.dedent(text)


def run_command(
    command: list[str], folder: Path, *, text: str | None = None, **environment: str
) -> Ended:
    """Run a command in a working folder, with text on its standard input."""
    ended = subprocess.run(
        command,
        cwd=folder,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **environment},
    )
    return Ended(ended.returncode, ended.stdout, ended.stderr)


def as_script(text: str, folder: Path, **environment: str) -> Ended:
    """``python script.py``."""
    path = folder / "script.py"
    path.write_text(program(text), encoding="utf-8")
    return run_command([sys.executable, str(path)], folder, **environment)


def as_standard_input(text: str, folder: Path) -> Ended:
    """``python < script.py``."""
    return run_command([sys.executable], folder, text=program(text))


def as_argument(text: str, folder: Path) -> Ended:
    """``python -c TEXT``."""
    return run_command([sys.executable, "-c", program(text)], folder)


def as_package_main(text: str, folder: Path) -> Ended:
    """``python -m package.job``, the text being in ``main()``."""
    package = folder / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    body = textwrap.indent(textwrap.dedent(text), "    ")
    (package / "job.py").write_text(
        f"{_SAY}\ndef main():\n{body}\nif __name__ == '__main__':\n    main()\n", encoding="utf-8"
    )
    return run_command([sys.executable, "-m", "package.job"], folder)


def as_thread(text: str, folder: Path) -> Ended:
    """A script whose work is done by a thread."""
    return as_script(
        _wrapped(text)
        + """
import threading
failed = []
def body():
    try:
        work()
    except BaseException as error:
        failed.append(error)
thread = threading.Thread(target=body)
thread.start()
thread.join()
if failed:
    raise failed[0]
""",
        folder,
    )


def as_coroutine(text: str, folder: Path) -> Ended:
    """A script whose work is done while an asyncio loop runs in its thread."""
    call = "\nimport asyncio\nasync def main():\n    work()\nasyncio.run(main())\n"
    return as_script(_wrapped(text) + call, folder)


def as_pool_worker(text: str, folder: Path) -> Ended:
    """A script whose work is done by a worker of ``multiprocessing.Pool``, by fork."""
    call = """
import multiprocessing
if __name__ == "__main__":
    with multiprocessing.get_context("fork").Pool(1) as pool:
        pool.apply(work)
"""
    return as_script(_wrapped(text) + call, folder)


def as_notebook(text: str, folder: Path) -> Ended:
    """A cell of a notebook."""
    return _notebook([program(text)], folder)


def as_magic_run(text: str, folder: Path) -> Ended:
    """``%run script.py`` in a cell of a notebook."""
    (folder / "script.py").write_text(program(text), encoding="utf-8")
    return _notebook(["%run script.py"], folder)


WAYS: dict[str, Callable[[str, Path], Ended]] = {
    "script": as_script,
    "standard input": as_standard_input,
    "argument": as_argument,
    "package": as_package_main,
    "thread": as_thread,
    "coroutine": as_coroutine,
    "pool worker": as_pool_worker,
    "notebook": as_notebook,
    "%run": as_magic_run,
}


def _wrapped(text: str) -> str:
    """The text as the body of a function ``work``."""
    return "def work():\n" + textwrap.indent(textwrap.dedent(text), "    ")


def _notebook(cells: list[str], folder: Path) -> Ended:
    """Run cells in a kernel of their own; what they print is their output."""
    import pytest

    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    from nbformat.v4 import new_code_cell, new_notebook

    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(
        notebook,
        timeout=TIMEOUT_S,
        resources={"metadata": {"path": str(folder)}},
        allow_errors=True,
        kernel_name="python3",
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    text = {"stdout": "", "stderr": ""}
    code = 0
    for output in outputs:
        if output.output_type == "stream":
            text[output.name] += output.text
        elif output.output_type == "error":
            code = 1
            text["stderr"] += "\n".join(output.traceback)
    return Ended(code, text["stdout"], text["stderr"])
