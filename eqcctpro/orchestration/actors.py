"""Pool of the Ray actors of mode ``modelactor``: start, loading, replacement, end."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from eqcctpro.archive.plan import StationTask
from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.cluster import shares_ray
from eqcctpro.orchestration.dispatch import first_line, last_words, worker_failure
from eqcctpro.orchestration.foreign_ray import Waiting, free_text, is_pending
from eqcctpro.orchestration.nodes import Homes
from eqcctpro.orchestration.placement import Placement
from eqcctpro.orchestration.ray_server import answer_of, require_server
from eqcctpro.orchestration.worker import PickWorker, WorkerSpec
from eqcctpro.sources.task_settings import TaskSettings

__all__ = ["Actors", "Died"]

logger = logging.getLogger("eqcctpro")

# Actors that die one after the other while they load, before their place stays empty.
MOST_STARTS = 3

# Where others use Ray, too, an actor may wait for a core: how long it is waited for since the
# last one became ready, and how often that is looked at.
PATIENCE_SECONDS = 120.0
GLANCE_SECONDS = 5.0


@dataclass(frozen=True)
class Died:
    """Death of an actor during a call.

    Attributes
    ----------
    error : Exception
        Ray's.
    """

    error: Exception


class Actors:
    """A number of actors, each in a slot; one that dies is replaced in its slot.

    Parameters
    ----------
    ray : module
        Connected.
    spec : WorkerSpec
    placement : Placement
    homes : Homes
    worker : type
        What an actor is.

    Attributes
    ----------
    ready : dict of int to actor
        Those that have loaded their model, by slot.
    loading : dict of reference to int
        Slots of the others.
    """

    def __init__(
        self,
        ray: Any,
        spec: WorkerSpec,
        placement: Placement,
        homes: Homes,
        *,
        worker: type = PickWorker,
    ) -> None:
        self._ray = ray
        self._spec = spec
        self._placement = placement
        self._homes = homes
        self._remote = ray.remote(worker)
        errors = ray.exceptions
        self._fatal = (
            *(errors.RayActorError, errors.OutOfMemoryError, errors.ActorUnschedulableError),
            # The result was on a node that was lost.
            *(errors.ObjectLostError, errors.NodeDiedError),
        )
        self._handles: dict[int, Any] = {}
        self._starts: Counter[int] = Counter()
        self.ready: dict[int, Any] = {}
        self.loading: dict[Any, int] = {}
        for slot in range(placement.workers):
            self.start(slot)

    def __len__(self) -> int:
        return len(self._handles)

    def sentence(self) -> str:
        """Number of actors that are left, as the end of a log message."""
        return f"{len(self)} go on"

    def start(self, slot: int) -> None:
        """Start an actor and have it load its model."""
        spec = replace(
            self._spec,
            device=self._placement.device(slot),
            vram_mb=self._placement.vram_limit(slot),
        )
        options = self._placement.ray_options | self._homes.options(slot)
        handle = self._remote.options(**options).remote(spec)
        self._handles[slot] = handle
        self._starts[slot] += 1
        self.loading[handle.load.remote()] = slot

    def await_ready(self) -> float:
        """Wait until all models are loaded; returns the mean seconds of loading.

        Actors that Ray does not start in time are not waited for, once others are.

        Raises
        ------
        WorkerError
            An actor died, or none was started in time.
        EQCCTProError
            What the model raised.
        """
        seconds: list[float] = []
        waiting, notice = Waiting(), Waiting()
        while self.loading:
            require_server(self._ray)
            self._ray.wait(list(self.loading), num_returns=1, timeout=GLANCE_SECONDS)
            for reference in self._loaded_now():
                slot = self.loading[reference]
                died = self.outcome(slot, reference)
                if isinstance(died, Died):
                    self._after_early_death(slot, reference, died.error)
                else:
                    seconds.append(died)
                    self.loaded(reference)
                waiting = Waiting()
            if notice.is_due() and self.loading:
                self._say_waiting(notice)
            if waiting.seconds > PATIENCE_SECONDS:
                self._after_waiting()
        logger.info("%d actors ready, slowest load %.2f s", len(seconds), max(seconds))
        return float(sum(seconds) / len(seconds))

    def _pending(self) -> list[int]:
        """Slots of actors that Ray has not started yet; those of others load their model."""
        return [
            slot for slot in self.loading.values() if is_pending(self._ray, self._handles[slot])
        ]

    def _say_waiting(self, notice: Waiting) -> None:
        if pending := self._pending():
            notice.say(
                f"{len(pending)} of {len(self)} workers wait for Ray to start them: "
                f"it has {free_text(self._ray)}"
            )
        else:
            notice.say(
                f"{len(self.loading)} of {len(self)} workers have been loading the model for "
                f"{notice.seconds:.0f} s",
                normal=True,
            )

    def _after_waiting(self) -> None:
        """Give up actors that Ray does not start, after a long time without a ready one."""
        if not any(node["Alive"] for node in answer_of(self._ray, self._ray.nodes)):
            raise WorkerError("Ray has lost its last node: its raylet died")
        pending = self._pending()
        if not pending or (shares_ray() and not self._placement.homes):
            return  # another run of this process has the cores, and gives them back
        if len(pending) < len(self):
            self._give_up_waiting(pending)
            return
        free = free_text(self._ray)
        self.close()
        raise WorkerError(
            f"Ray started none of {len(pending)} workers in {PATIENCE_SECONDS:.0f} s: "
            f"it has {free}",
            hint="end other programs that use it, or use mode='local'",
        )

    def _loaded_now(self) -> Sequence[Any]:
        references = list(self.loading)
        ready: list[Any] = self._ray.wait(references, num_returns=len(references), timeout=0)[0]
        return ready

    def _after_early_death(self, slot: int, reference: Any, error: Exception) -> None:
        """Handle the death of an actor before anything was picked."""
        del self.loading[reference]
        if self._homes.is_lost(slot):
            logger.warning("node %s was lost before work began", self._homes.name(slot))
            if self.move(slot) or len(self):
                return
        where = f" on node {self._homes.name(slot)}" if self._placement.homes else ""
        self.close()
        raise WorkerError(
            f"a model actor died{where} while it was loaded: {last_words(error)}",
            hint="the same command goes on; or try --mode local",
        ) from error

    def _give_up_waiting(self, pending: Sequence[int]) -> None:
        """Drop actors that have not started, and continue with the others."""
        names = sorted({self._homes.name(slot) for slot in pending})
        logger.warning(
            "%d of %d workers did not start in %.0f s and are left out (%s): "
            "other programs may use the cores of their nodes",
            len(pending),
            len(self),
            PATIENCE_SECONDS,
            ", ".join(names),
        )
        for slot in pending:
            self.leave(slot)

    def send(
        self,
        slot: int,
        bundle: Sequence[StationTask],
        settings: TaskSettings,
        *,
        more: bool = False,
    ) -> Any:
        """Give a bundle to an actor; returns the reference of its result.

        Where `more` are to come, the actor may hold tasks back until then.
        """
        return self.ready[slot].pick.remote(list(bundle), settings, more=more)

    def outcome(self, slot: int, reference: Any) -> Any:
        """Return the result of an actor's call, or `Died` with the error if the actor died.

        Raises
        ------
        EQCCTProError
            What it raised.
        """
        try:
            return self._ray.get(reference)
        except self._fatal as error:
            return Died(error)
        except self._ray.exceptions.RayTaskError as error:
            node = self._homes.name(slot) if self._placement.homes else ""
            self.close()
            raise worker_failure(error, node) from None

    def loaded(self, reference: Any) -> tuple[int, Died | None]:
        """Note that an actor has loaded its model, or died over it; returns its slot."""
        slot = self.loading.pop(reference)
        outcome = self.outcome(slot, reference)
        if isinstance(outcome, Died):
            return slot, outcome
        self.ready[slot] = self._handles[slot]
        self._starts[slot] = 0
        return slot, None

    def replace(self, slot: int) -> None:
        """Start another actor in the place of one that died."""
        self._forget(slot)
        self.start(slot)

    def start_again(self, slot: int, error: Exception) -> str | None:
        """Replace an actor that died while loading, on another node or not at all.

        Returns
        -------
        str or None
            What to say, if there is one worker fewer now.

        Raises
        ------
        WorkerError
            It was the last one.
        """
        if self._homes.is_lost(slot):
            if self.move(slot):
                return None
        elif self._starts[slot] < MOST_STARTS:
            self.replace(slot)
            return None
        else:
            self.leave(slot)
        if not len(self):
            raise WorkerError(
                f"the last actor died while it was loaded: {first_line(error)}",
                hint="the same command goes on where the run stopped",
            ) from error
        return f"an actor does not start again, {self.sentence()}"

    def move(self, slot: int) -> bool:
        """Start an actor of a lost node on another one; False if there is no room."""
        self._forget(slot)
        if self._homes.move(slot):
            self._starts[slot] = 0
            self.start(slot)
            return True
        self._handles.pop(slot, None)
        return False

    def leave(self, slot: int) -> None:
        """Go on with one actor fewer."""
        self._forget(slot)
        self._handles.pop(slot, None)
        self._homes.leave(slot)

    def _forget(self, slot: int) -> None:
        """Kill an actor, even one that already seems dead, and stop waiting for it."""
        self.ready.pop(slot, None)
        for reference in [ref for ref, owner in self.loading.items() if owner == slot]:
            del self.loading[reference]
        if slot in self._handles:
            self._ray.kill(self._handles[slot])

    def close(self) -> None:
        """End all actors."""
        for handle in self._handles.values():
            self._ray.kill(handle)
        self._handles.clear()
