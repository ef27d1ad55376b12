"""Calls of rapid-seis in the interpreter that has it, one after another."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
from pathlib import Path
from typing import Any

from eqcctpro.errors import EQCCTProError

__all__ = ["CallFailedError", "CallServer", "run_to_the_end"]


class CallFailedError(EQCCTProError):
    """A call of rapid-seis did not end well."""


class CallServer:
    """A process that answers requests, one at a time.

    Parameters
    ----------
    command : list of str
        Runs `rapid_runner` with ``--serve``.
    log : Path
        Gets what rapid-seis prints.
    """

    def __init__(self, command: list[str], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )

    def ask(self, request: dict[str, Any], timeout_s: float) -> None:
        """Wait until a request is carried out.

        Raises
        ------
        CallFailedError
            It was not carried out, or the process has died.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            answered, _, _ = select.select([self._process.stdout], [], [], timeout_s)
            line = self._process.stdout.readline() if answered else ""
        except OSError:
            line = ""
        if not line:
            raise CallFailedError(f"rapid-seis did not answer: {_last_line(self._log)}")
        reply = json.loads(line)
        if "error" in reply:
            raise CallFailedError(reply["error"])

    def end(self) -> None:
        """Let the process end, and everything that it has started."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        _wait_or_kill(self._process, 20.0)
        self._process.stdout.close()


def run_to_the_end(command: list[str], log: Path, timeout_s: float) -> None:
    """Run a command, whatever it prints going to a file.

    Raises
    ------
    CallFailedError
        It ended with an error, or not in time.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        in_time = _wait_or_kill(process, timeout_s)
    if not in_time:
        raise CallFailedError(f"rapid-seis did not end within {timeout_s:.0f} s")
    if process.returncode:
        raise CallFailedError(f"rapid-seis ended with {process.returncode}: {_last_line(log)}")


def _wait_or_kill(process: subprocess.Popen[Any], timeout_s: float) -> bool:
    """True if a process ended by itself; what it started is ended with it."""
    try:
        process.wait(timeout_s)
        return True
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"
