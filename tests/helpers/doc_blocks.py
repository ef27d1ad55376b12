"""Code blocks of Markdown pages, and sessions that run them.

How a block is treated is said by its language and by HTML comments before it, which readers do
not see; CONTRIBUTING.md lists them.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from repository import ROOT

SHELL, PYTHON = "sh", "python"
SHOWN = frozenset(
    {"text", "toml", "yaml", "json", "csv", "xml", "dockerfile", "ini", "proto", "mermaid"}
)
MARKS = frozenset({"not run", "run by", "slow", "needs", "exit code", "file", "output"})
SECONDS, SECONDS_IF_SLOW = 180, 1800

# Pages show one way to pick after the other, all of them into OUT; results of other settings are
# not replaced, and so OUT is empty for each.  What goes on with a run finds it there.
_EMPTY_OUT = """eqcctpro() {
if [ "${1:-}" = pick ] && [[ " $* " == *" -o OUT "* && " $* " != *" --resume "* ]]; then
rm -rf OUT
fi
command eqcctpro "$@"
}
"""

_FENCE = re.compile(r"^( *)(`{3,}|~{3,}) *([\w+-]*)")
_MARK = re.compile(r"^ *<!-- (" + "|".join(sorted(MARKS)) + r")(?:: (.*?))? -->$")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes
    ----------
    page : Path
        Below the root of the repository.
    line : int
        Of the fence, from 1.
    language : str
        Empty where the fence names none.
    text : str
    marks : dict
        What the comments before it say.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_run(self) -> bool:
        return self.language in (SHELL, PYTHON) and not self.marks.keys() & {"not run", "run by"}

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return list(_blocks((ROOT / page).read_text(encoding="utf-8").splitlines(), page))


def _blocks(lines: list[str], page: Path) -> Iterator[Block]:
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        if mark := _MARK.match(line):
            marks[mark[1]] = (mark[2] or "").strip()
        elif fence := _FENCE.match(line):
            indent, ticks, language = fence.groups()
            start = number
            number += 1
            inside = []
            while number < len(lines) and lines[number].strip() != ticks:
                inside.append(lines[number].removeprefix(indent))
                number += 1
            yield Block(page, start + 1, language, "\n".join(inside) + "\n", marks)
            marks = {}
        elif line.strip():
            marks = {}
        number += 1


def indented_code(page: Path) -> list[int]:
    """Numbers of the lines that Markdown takes for code because they are indented."""
    found, in_fence, in_list, blank = [], False, False, True
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        if _FENCE.match(line):
            in_fence = not in_fence
        elif not in_fence and line.strip():
            in_list = bool(re.match(r" *([-*+]|\d+\.) ", line)) or (in_list and line[0] == " ")
            if line.startswith("    ") and blank and not in_list:
                found.append(number)
        blank = not line.strip()
    return found


class Session:
    """Runs the blocks of a page one after the other, in a folder of its own.

    Shell blocks are programs of bash that end at the first failure; each Python block is a script
    of its own, in a process of its own.

    Parameters
    ----------
    folder : Path
    environment : mapping
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.said = ""

    def run(self, block: Block) -> None:
        """Run a block, write a file, or compare with what the last one said."""
        if block.language == SHELL:
            self._shell(block)
        elif block.language == PYTHON:
            self._python(block)
        elif "file" in block.marks:
            (self.folder / block.marks["file"]).write_text(block.text, encoding="utf-8")
        elif "output" in block.marks:
            exact = block.marks["output"] == "exact"
            missing = lines_not_said(block.text, self.said, exact=exact)
            assert not missing, f"{block.where}: not said: {missing}\n--- said:\n{self.said}"

    def _shell(self, block: Block) -> None:
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", _EMPTY_OUT + block.text],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SECONDS_IF_SLOW if "slow" in block.marks else SECONDS,
            check=False,
        )
        self.said = done.stdout
        expected = int(block.marks.get("exit code", 0))
        assert done.returncode == expected, (
            f"{block.where} ended with {done.returncode}, not {expected}:\n"
            f"{block.text}--- said:\n{done.stdout}"
        )

    def _python(self, block: Block) -> None:
        # A plain script in a process of its own, as a reader would save and start it.
        script = self.folder / f"{block.page.stem}_line_{block.line}.py"
        script.write_text(block.text, encoding="utf-8")
        done = subprocess.run(
            [sys.executable, script.name],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        self.said = done.stdout
        assert done.returncode == 0, f"{block.where} ended with {done.returncode}:\n{done.stderr}"


def lines_not_said(expected: str, said: str, *, exact: bool = False) -> list[str]:
    """Lines of an example that were not said, in their order.

    Any space stands for any other, and ``...`` for anything.  Any number stands for any other,
    unless they are `exact`; then lines are whole lines, and one follows right after the other.
    """
    if exact:
        return _lines_not_shown(expected, said)
    missing, start = [], 0
    for line in filter(str.strip, expected.splitlines()):
        pattern = re.escape(line.strip())
        pattern = pattern.replace(re.escape("..."), ".*")
        pattern = _NUMBER.sub("#", pattern.replace(r"\.", "."))
        pattern = re.sub(r"(?:\\? )+|\\\t", r"\\s+", pattern).replace("#", r"[\d.]+")
        found = re.compile(pattern).search(said, start)
        if found is None:
            missing.append(line)
        else:
            start = found.end()
    return missing


def _lines_not_shown(expected: str, said: str) -> list[str]:
    shown = [line.strip() for line in said.splitlines() if line.strip()]
    wanted = [line.strip() for line in expected.splitlines() if line.strip()]
    patterns = [_pattern(line) for line in wanted]
    missing = wanted
    for start in range(len(shown)):
        there = shown[start : start + len(wanted)]
        there += [""] * (len(wanted) - len(there))
        left = [
            line
            for line, pattern, other in zip(wanted, patterns, there, strict=True)
            if pattern.fullmatch(other) is None
        ]
        missing = min(missing, left, key=len)
    return missing


def _pattern(line: str) -> re.Pattern[str]:
    text = re.escape(line).replace(re.escape("..."), ".*")
    return re.compile(re.sub(r"(?:\\ )+", r"\\s+", text))


def shell_environment(programs: Path) -> dict[str, str]:
    """The environment of shell blocks: `programs` come first, then those of this Python."""
    path = os.pathsep.join(
        [str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    return {**os.environ, "PATH": path, "MPLBACKEND": "Agg", "NO_COLOR": "1"}
