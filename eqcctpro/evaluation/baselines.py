"""Other ways to pick the same archive, by name: SeisBench's own, and rapid-seis.

They are subjects like our modes: the same workload, from files to a file of picks, timed by
the same clock.
"""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from typing import Final

from eqcctpro.errors import SettingsError
from eqcctpro.evaluation.rapid_baselines import RapidSubject, rapid_python
from eqcctpro.evaluation.seisbench_baselines import SeisbenchSubject
from eqcctpro.evaluation.subject import Subject, Workload

__all__ = ["baseline_names", "open_baseline"]

_SEISBENCH: Final[dict[str, Callable[..., Subject]]] = {
    "seisbench-classify-stations": partial(SeisbenchSubject, way="classify-stations"),
    "seisbench-reload-stations": partial(SeisbenchSubject, way="reload-stations"),
    "seisbench-classify-merged": partial(SeisbenchSubject, way="classify-merged"),
    "seisbench-annotate-merged": partial(SeisbenchSubject, way="annotate-merged"),
}
_RAPID: Final[dict[str, Callable[..., Subject]]] = {
    "rapid-seis-classify": partial(RapidSubject, strategy="classify"),
    "rapid-seis-classify-warm": partial(RapidSubject, strategy="classify", warm=True),
    "rapid-seis-slipstream": partial(RapidSubject, strategy="slipstream"),
    "rapid-seis-slipstream-warm": partial(RapidSubject, strategy="slipstream", warm=True),
    "rapid-seis-slipstream-fp32": partial(RapidSubject, strategy="slipstream-fp32"),
    "rapid-seis-slipstream-fp32-warm": partial(RapidSubject, strategy="slipstream-fp32", warm=True),
    "rapid-seis-modelactor": partial(RapidSubject, strategy="modelactor"),
    "rapid-seis-modelactor-warm": partial(RapidSubject, strategy="modelactor", warm=True),
}


def baseline_names() -> tuple[str, ...]:
    """Names that `open_baseline` knows, whether or not what they need is installed.

    Those that begin with ``rapid-seis`` run a process for each run, unless they end in
    ``warm``; those that begin with ``seisbench`` run in the process that opens them.
    """
    return (*_SEISBENCH, *_RAPID)


def open_baseline(
    name: str,
    workload: Workload,
    *,
    threads: int | None = None,
    device: str = "cpu",
    batch_size: int | None = None,
) -> Subject:
    """Open a baseline.

    Parameters
    ----------
    name : str
        One of `baseline_names`.
    workload : Workload
        Its settings may hold what SeisBench's models know: thresholds, times, model
        arguments.
    threads : int, optional
        Threads on a CPU, or one-threaded workers where it has workers; None for one a core.
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    batch_size : int, optional
        Windows in a batch; None for the baseline's own default.

    Raises
    ------
    SettingsError
        There is no baseline of that name.
    RuntimeUnavailableError
        What the baseline runs is not installed.
    """
    known = _SEISBENCH | _RAPID
    if name not in known:
        close = get_close_matches(name, known, n=1)
        raise SettingsError(
            f"there is no baseline {name!r}",
            hint=f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}",
        )
    if name in _RAPID:
        rapid_python()
    return known[name](workload, threads=threads, device=device, batch_size=batch_size)
