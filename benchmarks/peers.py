"""Our modes against SeisBench and rapid-seis on one workload: contenders, and the table."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from eqcctpro.child import module_command
from eqcctpro.config import PickConfig
from eqcctpro.errors import EQCCTProError, SettingsError
from eqcctpro.evaluation.baselines import baseline_names
from eqcctpro.evaluation.session_subject import pick_settings, run_outcome
from eqcctpro.evaluation.sidebyside import Contender, Measurement
from eqcctpro.evaluation.subject import Outcome, Workload
from eqcctpro.evaluation.subject_process import WorkloadSpec
from eqcctpro.orchestration.result import SOME_FAILED

__all__ = ["REFERENCES", "CommandSubject", "as_record", "peer_contenders", "ratio_table"]

#: Whom others are compared with.
REFERENCES = {"warm": "local", "cold": "eqcctpro pick local"}

_MODES = ("local", "modelactor", "ripper")

#: Batch sizes at which ``annotate`` of the merged network is run.
_ANNOTATE_BATCHES = (256, 512)


def peer_contenders(
    workload: Workload,
    *,
    threads: int | None = None,
    workers: int | None = None,
    runtime: str | None = None,
    device: str = "cpu",
    cold_repeats: int = 3,
    only: Sequence[str] = (),
    without: Sequence[str] = (),
) -> list[Contender]:
    """The floor, then all that can pick a workload: our modes first, then the baselines.

    Parameters
    ----------
    workload : Workload
    threads : int, optional
        Threads of all that is one process; None for one a core.
    workers : int, optional
        Of our modes on Ray; None leaves it to them.
    runtime : str, optional
        Of our modes; None leaves it to them.
    device : str
    cold_repeats : int
        Repeats of what loads everything in each run.
    only, without : sequence of str
        Patterns of names to take, or to leave out.

    Raises
    ------
    SettingsError
        A pattern matches no name.
    """

    def subject(who: str, **options: Any) -> WorkloadSpec:
        given = {name: value for name, value in options.items() if value is not None}
        return WorkloadSpec(who=who, workload=workload, options=given)

    contenders = [
        Contender("floor", subject("benchmarks.floor:FloorSubject", threads=threads, device=device))
    ]
    for mode in _MODES:
        where: dict[str, Any] = {"mode": mode, "runtime": runtime, "device": device}
        where |= {"threads": threads} if mode == "local" else {"workers": workers}
        repeats = cold_repeats if mode == "ripper" else None
        contenders += [
            Contender(mode, subject("session", **where), "warm", repeats),
            Contender(
                f"eqcctpro pick {mode}",
                subject("benchmarks.peers:CommandSubject", **where),
                "cold",
                cold_repeats,
            ),
        ]
    contenders += _baselines(workload, threads, device, cold_repeats)
    for pattern in (*only, *without):
        if not any(fnmatchcase(one.name, pattern) for one in contenders):
            names = ", ".join(one.name for one in contenders)
            raise SettingsError(f"{pattern!r} matches none of {names}")
    return [
        one
        for one in contenders
        if not any(fnmatchcase(one.name, pattern) for pattern in without)
        and (not only or any(fnmatchcase(one.name, pattern) for pattern in only))
    ]


def _baselines(
    workload: Workload, threads: int | None, device: str, cold_repeats: int
) -> list[Contender]:
    contenders = []
    for name in baseline_names():
        options: dict[str, str | int | None] = {"threads": threads, "device": device}
        slow = "reload" in name or "modelactor" in name
        warm = name.startswith("seisbench") or name.endswith("-warm")
        repeats = cold_repeats if slow or not warm else None
        if name == "seisbench-annotate-merged":
            for size in _ANNOTATE_BATCHES:
                sized = WorkloadSpec(
                    who=name, workload=workload, options={**options, "batch_size": size}
                )
                contenders.append(Contender(f"{name}-{size}", sized, "warm", repeats))
        else:
            subject = WorkloadSpec(who=name, workload=workload, options=options)
            contenders.append(Contender(name, subject, "warm" if warm else "cold", repeats))
    return contenders


class CommandSubject:
    """``eqcctpro pick`` in a process of its own for each run, loading included.

    Parameters
    ----------
    workload : Workload
    **where
        As for `SessionSubject`.
    """

    def __init__(self, workload: Workload, **where: Any) -> None:
        self._workload = workload
        self._where = where
        self._scratch: tempfile.TemporaryDirectory[str] | None = None

    def prepare(self) -> dict[str, Any]:
        """Write the settings; see `eqcctpro.evaluation.subject.Subject`."""
        settings = pick_settings(self._workload, self._where)
        config = PickConfig.checked(**settings, output=Path(tempfile.gettempdir()))
        self._scratch = tempfile.TemporaryDirectory(prefix="eqcctpro-command-")
        given = json.loads(config.model_dump_json(include=set(settings)))
        self._config_file.write_text(json.dumps(given), encoding="utf-8")
        return {
            "runtime": config.runtime,
            "device": config.device,
            "batch_size": config.batch_size,
            "workers": config.workers,
            "threads": config.threads,
            "notes": "a command for each run",
        }

    def run(self, output: Path) -> Outcome:
        """Pick the workload once; see `eqcctpro.evaluation.subject.Subject`.

        Raises
        ------
        EQCCTProError
            The command ended with an error.
        """
        command = module_command("eqcctpro", "pick", "--quiet")
        command += ["--config", str(self._config_file), "--output", str(output)]
        started = time.perf_counter()
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - started
        if ended.returncode not in (0, SOME_FAILED):
            raise EQCCTProError(
                f"eqcctpro pick ended with {ended.returncode}: {ended.stderr.strip()[-500:]}"
            )
        summary = json.loads((output / "summary.json").read_text(encoding="utf-8"))
        return run_outcome(seconds, summary)

    def close(self) -> None:
        """Remove the settings."""
        if self._scratch is not None:
            self._scratch.cleanup()

    @property
    def _config_file(self) -> Path:
        assert self._scratch is not None
        return Path(self._scratch.name) / "settings.json"


def as_record(measurement: Measurement) -> dict[str, Any]:
    """Everything of a measurement, for a JSON file."""
    typical = measurement.typical
    return {
        "name": measurement.contender.name,
        "temperature": measurement.contender.temperature,
        "median_s": measurement.median if measurement.outcomes else None,
        "seconds": measurement.seconds,
        "peak_mb": round(measurement.peak_mb, 1),
        "typical": None if typical is None else asdict(typical),
        "failure": measurement.failure,
        "facts": measurement.facts,
    }


def ratio_table(measurements: Sequence[Measurement], references: dict[str, str]) -> list[str]:
    """Lines of a table: every contender's median, and how many times the reference's it is.

    Parameters
    ----------
    measurements : sequence of Measurement
    references : dict of str to str
        Name of the contender that others of a temperature are compared with.
    """
    medians = {one.contender.name: one.median for one in measurements}
    return list(_lines(measurements, references, medians))


def _lines(
    measurements: Sequence[Measurement], references: dict[str, str], medians: dict[str, float]
) -> Iterator[str]:
    yield (
        f"{'':38s} {'median':>9s} {'from - to':>17s} {'ratio':>8s} {'peak MB':>8s} "
        f"{'done':>6s} {'failed':>6s}  picks"
    )
    for one in measurements:
        label = f"{one.contender.name} ({one.contender.temperature})"
        outcome = one.typical
        if outcome is None:
            yield f"{label:38s} not measured: {one.failure}"
            continue
        reference = medians.get(references.get(one.contender.temperature, ""), float("nan"))
        picks = ", ".join(f"{phase} {count}" for phase, count in sorted(outcome.picks.items()))
        span = f"{min(one.seconds):.2f} - {max(one.seconds):.2f}"
        # What failed is not fast.
        ratio = "failed" if one.failure else f"{one.median / reference:.2f} x"
        yield (
            f"{label:38s} {one.median:7.2f} s {span:>17s} {ratio:>8s} "
            f"{one.peak_mb:8.0f} {outcome.done:6d} {outcome.failed:6d}  {picks}"
        )
        if one.failure:
            yield f"{'':38s}   {one.failure}"
