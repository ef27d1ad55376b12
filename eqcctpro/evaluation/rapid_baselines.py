"""rapid-seis as benchmark subjects: what it publishes, called in the interpreter that has it.

It may live in a virtual environment of its own, named by ``$EQCCTPRO_RAPID_PYTHON``.
Tested with rapid-seis 1.0.2.
"""

from __future__ import annotations

import csv
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Literal

from eqcctpro.errors import EQCCTProError, RuntimeUnavailableError, SettingsError
from eqcctpro.evaluation import rapid_runner
from eqcctpro.evaluation.baseline_input import (
    BaselineInput,
    failure_text,
    list_stations,
    resolve_job,
)
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.runtimes.slices import available_cores
from eqcctpro.times import NS_PER_S, format_utc

__all__ = [
    "RAPID_VARIABLE",
    "CallFailedError",
    "CallServer",
    "RapidSubject",
    "Strategy",
    "rapid_python",
    "run_to_the_end",
]

#: Names the interpreter that rapid-seis is installed for.
RAPID_VARIABLE = "EQCCTPRO_RAPID_PYTHON"

Strategy = Literal["classify", "slipstream", "slipstream-fp32", "modelactor"]

#: What rapid-seis takes when it is not told.
_RAPID_BATCH_SIZE = 256

#: Folder below the output that holds what it writes in a run; emptied before the next one.
_RESULTS = "rapid-seis"

_FUNCTIONS = {"modelactor": "pick", "slipstream-fp32": "slipstream"}

_MINUTE_NS = 60 * NS_PER_S


def rapid_python() -> Path:
    """The interpreter that rapid-seis is installed for.

    Raises
    ------
    RuntimeUnavailableError
        There is none.
    """
    path = Path(os.environ.get(RAPID_VARIABLE) or sys.executable).expanduser()
    hint = (
        "pip install 'rapid-seis[orchestration]==1.0.2' into an environment, and name its python "
        f"in {RAPID_VARIABLE}"
    )
    try:
        asked = subprocess.run(
            [path, "-I", "-c", "import importlib.metadata as m; m.version('rapid-seis')"],
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise RuntimeUnavailableError(
            f"{RAPID_VARIABLE}: {path} cannot be run: {error.strerror}", hint=hint
        ) from error
    if asked.returncode:
        raise RuntimeUnavailableError(f"rapid-seis is not installed for {path}", hint=hint)
    return path


class RapidSubject:
    """Calls a public function of rapid-seis on a copy of the workload.

    It is given folders of stations with all their files, as it expects them, and takes them
    as one time chunk.  Its functions take the number of threads (``classify``,
    ``slipstream``) or of one-threaded actors (``pick``), here the same number.

    Parameters
    ----------
    workload : Workload
    strategy : {"classify", "slipstream", "slipstream-fp32", "modelactor"}
        ``classify(batched=True)``; ``slipstream``, as it is by default in bfloat16, or in
        float32; ``pick(strategy="modelactor")`` with the thresholds of the workload.
    warm : bool
        Call it time and again in one process, instead of in a new process for each run.
        Its functions load the model whenever they are called, and ``pick`` starts and stops
        Ray: what is warm are its imports.
    threads : int, optional
        None for one a core.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    batch_size : int, optional
        None for its own.
    timeout_s : float
        After this long, a call is ended and counts as failed.

    Notes
    -----
    No stages are reported: its functions do not tell them apart.  A station counts as failed
    if the call fails, if it yields nothing for it (``modelactor``), or if one of its files is
    unreadable (which it leaves out).  Stations without three components, which ``slipstream``
    leaves out, count as empty.
    """

    def __init__(
        self,
        workload: Workload,
        strategy: Strategy,
        *,
        warm: bool = False,
        threads: int | None = None,
        device: str = "cpu",
        batch_size: int | None = None,
        timeout_s: float = 3600.0,
    ) -> None:
        self._workload = workload
        self._strategy: Strategy = strategy
        self._warm = warm
        self._threads = threads or available_cores()
        self._device = device
        self._batch_size = batch_size or _RAPID_BATCH_SIZE
        self._timeout_s = timeout_s
        self._scratch: Path | None = None
        self._server: CallServer | None = None

    def prepare(self) -> dict[str, Any]:
        """Copy the workload; see `eqcctpro.evaluation.subject.Subject`.

        Raises
        ------
        EQCCTProError
            rapid-seis is not here, or cannot do what the workload asks for.
        """
        self._python = rapid_python()
        self._job = resolve_job(self._workload)
        if self._job.weights.parts:
            raise SettingsError(
                f"rapid-seis's functions take one network, and {self._workload.model} has two"
            )
        for name in ("model_arguments", "start", "end"):
            if getattr(self._job.config, name):
                raise SettingsError(f"{name}: rapid-seis is run on all of the data, without")
        self._input = list_stations(self._job)
        # Not a folder of this package: Ray's workers look for modules where the script lies.
        self._scratch = Path(tempfile.mkdtemp(prefix="eqcctpro-rapid-"))
        self._runner = self._scratch / "run_rapid.py"
        shutil.copyfile(rapid_runner.__file__, self._runner)
        self._folders = _copy_stations(self._input, self._scratch / "original")
        versions = self._call("facts", {}, warm=False)
        if self._warm:
            self._server = CallServer(self._command("--serve"), self._scratch / "server.log")
        one_each = self._strategy == "modelactor"
        return {
            "runtime": "torch",
            "device": self._device,
            "batch_size": self._batch_size,
            "workers": self._threads if one_each else 1,
            "threads": 1 if one_each else self._threads,
            "notes": f"rapid-seis {versions['rapid-seis']} {self._strategy}, "
            + ("imports loaded" if self._warm else "a process for each run"),
            "versions": versions,
        }

    def run(self, output: Path) -> Outcome:
        """Pick the workload once; see `eqcctpro.evaluation.subject.Subject`."""
        assert self._scratch is not None
        copy = self._scratch / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        # It writes into its input, and would find what an earlier run has left there.
        shutil.copytree(self._scratch / "original", copy)
        results = output / _RESULTS
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        started = time.perf_counter()
        try:
            told = self._call(
                _FUNCTIONS.get(self._strategy, self._strategy),
                self._arguments(copy, results),
                warm=self._warm,
            )
        except CallFailedError as failure:
            names = [station.name for station in self._input.stations]
            text = failure_text(dict.fromkeys(names, str(failure)))
            return Outcome(time.perf_counter() - started, {}, 0, 0, len(names), {}, text)
        return self._outcome(time.perf_counter() - started, told, results)

    def close(self) -> None:
        """End the process that was kept, and remove the copy."""
        if self._server is not None:
            self._server.end()
            self._server = None
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)
            self._scratch = None

    def _arguments(self, source: Path, output: Path) -> dict[str, Any]:
        common = {
            "input_dir": str(source),
            "output_dir": str(output),
            "model": self._workload.model,
        }
        if self._strategy == "modelactor":
            return common | self._span() | self._actors()
        common |= {"device": self._device, "torch_threads": self._threads}  # type: ignore[dict-item]
        if self._strategy == "classify":
            given = self._job.given_thresholds
            return {**common, **given, "batched": True, "batch_size": self._batch_size}
        thresholds = self._job.settings.thresholds
        return {
            **common,
            "batch_size": self._batch_size,
            "dtype": "fp32" if self._strategy == "slipstream-fp32" else "bf16",
            "p_threshold": thresholds.get("P", 0.3),
            "s_threshold": thresholds.get("S", 0.3),
        }

    def _actors(self) -> dict[str, Any]:
        thresholds = self._job.settings.thresholds
        index = self._device.partition(":")[2] or "0"
        return {
            "strategy": "modelactor",
            "n_workers": self._threads,
            "cpu_ids": _usable_cpus()[: self._threads],
            "gpus": None if self._device == "cpu" else [int(index)],
            "batch_size": self._batch_size,
            "p_threshold": thresholds.get("P", 0.3),
            "s_threshold": thresholds.get("S", 0.3),
            "detection_threshold": thresholds.get("Detection", 0.3),
        }

    def _span(self) -> dict[str, Any]:
        """All of the workload's time as one chunk, in whole seconds."""
        start_ns = self._input.start_ns // NS_PER_S * NS_PER_S
        end_ns = -(-self._input.end_ns // NS_PER_S) * NS_PER_S
        texts = [format_utc(time_ns, "seconds") for time_ns in (start_ns, end_ns)]
        start, end = (text.rstrip("Z").replace("T", " ") for text in texts)
        minutes = max(1, -(-(end_ns - start_ns) // _MINUTE_NS))
        return {"start_time": start, "end_time": end, "timechunk_dt": minutes}

    def _outcome(self, seconds: float, told: dict[str, Any], output: Path) -> Outcome:
        stations = self._input.stations
        failures = {one: "holds unreadable files" for one in stations if one.unreadable}
        picks = Counter(told.get("picks", {}))
        empty = 0
        if self._strategy == "modelactor":
            found = {
                folder: list(output.glob(f"*/{folder}_outputs/*_prediction_results.csv"))
                for folder in set(self._folders.values())
            }
            picks = _count_picks([path for files in found.values() for path in files])
            for one in stations:
                if not found[self._folders[one.name]]:
                    failures.setdefault(one, "rapid-seis wrote nothing for it")
        elif "stations" in told:
            empty = max(0, len(set(self._folders.values())) - told["stations"] - len(failures))
        return Outcome(
            seconds,
            {},
            len(stations) - len(failures) - empty,
            empty,
            len(failures),
            dict(picks),
            failure_text({one.name: reason for one, reason in failures.items()}),
        )

    def _call(self, function: str, arguments: dict[str, Any], *, warm: bool) -> dict[str, Any]:
        assert self._scratch is not None
        result = self._scratch / "result.json"
        result.unlink(missing_ok=True)
        request = {"function": function, "arguments": arguments, "result": str(result)}
        if warm and self._server is not None:
            self._server.ask(request, self._timeout_s)
        else:
            path = self._scratch / "request.json"
            path.write_text(json.dumps(request), encoding="utf-8")
            run_to_the_end(self._command(str(path)), self._scratch / "cold.log", self._timeout_s)
        told: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
        return told

    def _command(self, *arguments: str) -> list[str]:
        # -I: what this process sees on PYTHONPATH is not for that interpreter.
        return [str(self._python), "-I", str(self._runner), *arguments]


def _copy_stations(source: BaselineInput, target: Path) -> dict[str, str]:
    """Copy files into a folder for each station; returns the folder of each station's name."""
    owners: dict[str, str] = {}
    folders: dict[str, str] = {}
    copied: set[str] = set()
    networks = Counter(
        station for _, station in {one.code[:2] for one in source.stations if one.code}
    )
    for one in source.stations:
        ambiguous = bool(one.code) and networks[one.station] > 1
        name = f"{one.code[0]}_{one.station}" if ambiguous else one.station
        folders[one.name] = name
        (target / name).mkdir(parents=True, exist_ok=True)
        for path in one.files:
            if owners.setdefault(path, name) != name:
                raise SettingsError(
                    f"{path} holds several stations, and rapid-seis takes a folder for each",
                    hint="split the file by station",
                )
            if path in copied:  # for another instrument, or another time chunk
                continue
            copied.add(path)
            copy = target / name / Path(path).name
            if copy.exists():
                copy = copy.with_name(f"{len(copied)}_{copy.name}")
            shutil.copyfile(path, copy)
    return folders


def _count_picks(files: list[Path]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                for phase in ("P", "S"):
                    counts[phase] += bool(row.get(f"{phase.lower()}_arrival_time"))
    return counts


def _usable_cpus() -> list[int]:
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


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
