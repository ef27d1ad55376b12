"""Use of a Ray that others have started or share: its resources, and waiting for them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from eqcctpro.errors import WorkerError
from eqcctpro.notices import WorkerWarning, warn_user
from eqcctpro.orchestration.cluster import shares_ray
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.ray_server import answer_of

__all__ = ["Waiting", "fit_to_ray", "free_text", "is_pending"]

logger = logging.getLogger("eqcctpro")

# Ray needs about a second to notice that workers have ended, those of a run before, say.
SETTLE_SECONDS = 5.0
LOOK_SECONDS = 0.2
# In which there must be room for a single worker.
PATIENCE_SECONDS = 120.0
# Until it is said for the first time that something is waited for.
FIRST_NOTICE_SECONDS = 10.0

_SHUT_DOWN = "ray.shutdown() before the run has it start a Ray of its own; mode='local' needs none"


class Waiting:
    """Messages about a wait, at increasing intervals.

    Parameters
    ----------
    first_s : float
        Until it is said for the first time.
    loudly : bool
        Also give a `WorkerWarning`, the first time.
    """

    def __init__(self, first_s: float = FIRST_NOTICE_SECONDS, *, loudly: bool = True) -> None:
        self._began = time.monotonic()
        self._next = first_s
        self._loudly = loudly

    @property
    def seconds(self) -> float:
        """Seconds since the wait began."""
        return time.monotonic() - self._began

    def is_due(self) -> bool:
        """True if it is time for the next message about the wait."""
        return self.seconds >= self._next

    def say(self, sentence: str, *, normal: bool = False) -> None:
        """Log a message about the wait: as a warning, unless it is `normal`."""
        self._next = max(2 * self._next, self.seconds)
        if normal:
            logger.info("%s", sentence)
            return
        logger.warning("%s", sentence)
        if self._loudly:
            self._loudly = False
            warn_user(sentence, WorkerWarning)


def fit_to_ray(ray: Any, placement: Placement, *, threads: int | None) -> Placement:
    """Reduce workers to the number for which a Ray that others have started has room.

    Parameters
    ----------
    ray : module
        Connected.
    placement : Placement
        Of a machine that nobody else uses.
    threads : int or None
        Threads of each worker that were asked for.

    Raises
    ------
    WorkerError
        It has none, or is not free for one worker in two minutes.
    """
    total = answer_of(ray, ray.cluster_resources)
    _require_any(total, placement)
    cores, gpus = _await_room(ray, placement, total)
    workers = placement.workers
    whole = cores >= placement.cores  # then as many workers as one likes share the cores
    if not whole:
        workers = min(workers, int(cores))
    if placement.gpu_fraction:
        workers = min(workers, _times(gpus, placement.gpu_fraction))
    if whole and workers == placement.workers:
        return placement
    workers = max(workers, 1)
    fair = max(int(min(cores, placement.cores)) // workers, 1)
    booked = placement.cpus_per_worker if whole else 1.0
    limits = placement.limits
    if workers < placement.workers:
        sentence = (
            f"Requested {placement.workers} workers, given {workers}: the Ray of this process, "
            f"which was started elsewhere, has {free_text(ray)}"
        )
        warn_user(sentence, WorkerWarning)
        limits = (*limits, sentence)
        logger.warning("%s", sentence)
    return replace(
        placement,
        workers=workers,
        threads=min(threads or fair, fair),
        cpus_per_worker=booked,
        limits=limits,
        slots=placement.slots[:workers],
        vram_limits_mb=placement.vram_limits_mb[:workers],
    )


def _require_any(total: Mapping[str, float], placement: Placement) -> None:
    """Refuse a Ray in which no worker would ever start."""
    if total.get("CPU", 0.0) < 1:
        raise WorkerError("the Ray of this process has no CPUs", hint=_SHUT_DOWN)
    if placement.gpu_fraction and total.get("GPU", 0.0) < placement.gpu_fraction:
        raise WorkerError(
            f"the Ray of this process has {total.get('GPU', 0.0):g} GPUs",
            hint=f"ray.init(num_gpus=...); {_SHUT_DOWN}",
        )


def _await_room(ray: Any, placement: Placement, total: Mapping[str, float]) -> tuple[float, float]:
    """Wait until there is room for a worker; returns the free CPUs and GPUs.

    More of them are waited for some seconds, as long as others have them.
    """
    needed = min(total["CPU"], placement.cores)
    on_gpus = min(total.get("GPU", 0.0), placement.gpu_fraction * placement.workers)
    waiting = Waiting()
    while True:
        free = answer_of(ray, ray.available_resources)
        cores, gpus = float(free.get("CPU", 0.0)), float(free.get("GPU", 0.0))
        if cores >= needed and gpus >= on_gpus - 1e-3:
            return cores, gpus
        one = cores >= 1 and gpus >= placement.gpu_fraction
        if one and waiting.seconds > SETTLE_SECONDS:
            return cores, gpus
        if waiting.is_due():
            waiting.say(f"waiting for Ray to have room for a worker: it has {free_text(ray)}")
        if waiting.seconds > PATIENCE_SECONDS and not shares_ray():
            raise WorkerError(
                f"the Ray of this process had no room for a worker in {PATIENCE_SECONDS:.0f} s: "
                f"it has {free_text(ray)}",
                hint=f"end other programs that use it; {_SHUT_DOWN}",
            )
        time.sleep(LOOK_SECONDS)


def free_text(ray: Any) -> str:
    """Free and total CPUs and GPUs of Ray, for messages."""
    total, free = answer_of(ray, ray.cluster_resources), answer_of(ray, ray.available_resources)
    kinds = [kind for kind in ("CPU", "GPU") if total.get(kind) or kind == "CPU"]
    return " and ".join(
        f"{free.get(kind, 0.0):g} of {total.get(kind, 0.0):g} {kind}s free" for kind in kinds
    )


def is_pending(ray: Any, handle: Any) -> bool:
    """True if Ray has not started an actor yet; False where Ray does not tell."""
    try:
        from ray._private.state import actors

        state = answer_of(ray, lambda: actors(actor_id=handle._actor_id.hex()))["State"]
    except WorkerError:
        raise
    except Exception as error:  # of a Ray that is built otherwise
        logger.debug("Ray does not say whether an actor has started: %s", error)
        return False
    return state in ("DEPENDENCIES_UNREADY", "PENDING_CREATION")


def _times(amount: float, share: float) -> int:
    return int(amount / share + 1e-9)
