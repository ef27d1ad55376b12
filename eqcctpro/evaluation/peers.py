"""Our modes against SeisBench and rapid-seis on one workload, in one go."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from eqcctpro.errors import SettingsError
from eqcctpro.evaluation.baselines import baseline_names
from eqcctpro.evaluation.sidebyside import Contender
from eqcctpro.evaluation.subject import Workload
from eqcctpro.evaluation.subject_process import WorkloadSpec

__all__ = ["REFERENCES", "peer_contenders"]

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

    contenders = [Contender("floor", subject("floor", threads=threads, device=device))]
    for mode in _MODES:
        where: dict[str, Any] = {"mode": mode, "runtime": runtime, "device": device}
        where |= {"threads": threads} if mode == "local" else {"workers": workers}
        repeats = cold_repeats if mode == "ripper" else None
        contenders += [
            Contender(mode, subject("session", **where), "warm", repeats),
            Contender(f"eqcctpro pick {mode}", subject("command", **where), "cold", cold_repeats),
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
