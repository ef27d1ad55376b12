"""Distribution of workers over the nodes of a cluster, by their cores and memory."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eqcctpro.config import PickConfig
from eqcctpro.errors import ResourceError, SettingsError
from eqcctpro.orchestration.nodecheck import NodeReport
from eqcctpro.orchestration.nodes import Node
from eqcctpro.orchestration.placement import Placement, find_run_footprint, memory_settings
from eqcctpro.resources.calculators import WorkerPlan, plan_workers
from eqcctpro.resources.footprints import Footprint

__all__ = ["NodeShare", "place_on_nodes"]

# Ray books hundredths of a core.
CORE_STEP = 0.01


@dataclass(frozen=True)
class NodeShare:
    """Workers that one node of a cluster runs, and its memory plan.

    Attributes
    ----------
    node : Node
    workers : int
    room : int
        Most workers that its cores and its memory hold.
    plan : WorkerPlan or None
        None where the model's footprint is not known.
    """

    node: Node
    workers: int
    room: int
    plan: WorkerPlan | None

    def as_dict(self) -> dict[str, Any]:
        """Values for a JSON file."""
        return {
            "node": self.node.name,
            "cores": self.node.cores,
            "gpus": self.node.gpus,
            "workers": self.workers,
            "most_workers": self.room,
            "memory_plan": None if self.plan is None else self.plan.as_dict(),
        }


def place_on_nodes(
    config: PickConfig,
    nodes: Sequence[Node],
    reports: Mapping[str, NodeReport],
    *,
    batch_size: int | None = None,
    waveforms_mb: float = 0.0,
    footprint: Footprint | None = None,
) -> tuple[Placement, list[NodeShare]]:
    """Share the workers that are asked for among nodes.

    Parameters
    ----------
    config : PickConfig
    nodes : sequence of Node
    reports : mapping of str to NodeReport
        What each node said of itself; nodes without one are left out.
    batch_size : int, optional
        Windows in a worker's batch, where it is known.
    waveforms_mb : float
        What a worker needs for the waveforms of its largest station task, beyond what a
        short one needs.
    footprint : Footprint, optional
        Of one worker; found out by default.

    Returns
    -------
    Placement
    list of NodeShare
        Of all nodes that may hold a worker.

    Raises
    ------
    ResourceError
        There is not enough memory for a single worker on any node.
    SettingsError
        GPU shares exceed the GPUs.
    """
    nodes = [node for node in nodes if node.id in reports]
    on_gpus = bool(config.gpu_ids)
    units = {node.id: node.gpus if on_gpus else node.cores for node in nodes}
    requested = config.workers or sum(units.values())
    booked = _booked_cores([node.cores for node in nodes], requested)
    footprint = footprint or find_run_footprint(config)
    plans: dict[str, WorkerPlan | None] = {}
    rooms: dict[str, int] = {}
    for node in nodes:
        # Where many workers share a GPU, memory says how many.
        most = requested if on_gpus else min(requested, _fit(node.cores, booked))
        plans[node.id] = _plan(config, node, reports, footprint, (most, batch_size, waveforms_mb))
        plan = plans[node.id]
        rooms[node.id] = most if plan is None else plan.workers
    workers = min(requested, sum(rooms.values()))
    limits = _why_fewer(nodes, plans) if workers < requested else []
    if workers == 0:
        raise ResourceError(
            "; ".join(limits) or "no node has room for a worker",
            hint="free memory on the nodes, raise ram_safety_cap, or choose a smaller batch_size",
        )
    counts = _by_size([units[node.id] for node in nodes], [*rooms.values()], workers)
    shares = []
    for node, count in zip(nodes, counts, strict=True):
        wanted = (count, batch_size, waveforms_mb)
        plan = _plan(config, node, reports, footprint, wanted) if count else None
        shares.append(NodeShare(node, count, rooms[node.id], plan))
    used = [share for share in shares if share.workers]
    if workers < requested:
        limits.append(f"Requested {requested} workers on {len(nodes)} nodes, given {workers}")
    fair = min(max(share.node.cores // share.workers, 1) for share in used)
    processors = sorted({reports[share.node.id].processor for share in used})
    if len(processors) > 1:
        limits.append(
            f"nodes have different processors ({', '.join(processors)}): the last digit of a "
            "probability may depend on where it was computed"
        )
    placement = Placement(
        workers=workers,
        threads=config.threads or fair,
        cores=sum(node.cores for node in nodes),
        gpu_ids=config.gpu_ids,
        gpu_fraction=_gpu_fraction(config, used) if on_gpus else 0.0,
        cpus_per_worker=booked,
        limits=tuple(limits),
        vram_limits_mb=_vram_limits(config, used, workers) if on_gpus else (),
        homes=_in_turn(used),
    )
    return placement, shares


def _plan(
    config: PickConfig,
    node: Node,
    reports: Mapping[str, NodeReport],
    footprint: Footprint | None,
    wanted: tuple[int, int | None, float],
) -> WorkerPlan | None:
    requested, batch_size, waveforms_mb = wanted
    hardware = reports[node.id].hardware
    if footprint is None or hardware is None:
        return None
    return plan_workers(
        hardware,
        footprint,
        memory_settings(config),
        mode=config.mode,
        requested=requested,
        gpu_ids=tuple(gpu.index for gpu in hardware.gpus[: node.gpus]) if config.gpu_ids else (),
        batch_size=batch_size,
        waveforms_mb=waveforms_mb,
    )


def _why_fewer(nodes: Sequence[Node], plans: Mapping[str, WorkerPlan | None]) -> list[str]:
    """Explain, node by node, why there is no memory for more workers."""
    return [
        f"node {node.name}: {sentence}"
        for node in nodes
        if (plan := plans[node.id]) is not None
        for sentence in plan.sentences
    ]


def _by_size(sizes: Sequence[int], rooms: Sequence[int], workers: int) -> list[int]:
    """Workers of each node, so that all are about equally full and none is overfull."""
    counts = [0] * len(sizes)
    waiting = [(1 / size, index) for index, size in enumerate(sizes) if rooms[index]]
    heapq.heapify(waiting)
    for _ in range(workers):
        _, index = heapq.heappop(waiting)
        counts[index] += 1
        if counts[index] < rooms[index]:
            heapq.heappush(waiting, ((counts[index] + 1) / sizes[index], index))
    return counts


def _booked_cores(cores: Sequence[int], workers: int) -> float:
    """CPUs that Ray books for each worker: one, or a share so small that all workers fit."""
    share = min(1.0, int(sum(cores) / workers / CORE_STEP) * CORE_STEP)
    while share > CORE_STEP and sum(_fit(n, share) for n in cores) < workers:
        share -= CORE_STEP
    return round(max(share, CORE_STEP), 2)


def _fit(cores: int, booked: float) -> int:
    return int(cores / booked + 1e-9)


def _in_turn(shares: Sequence[NodeShare]) -> tuple[str, ...]:
    """The node of each worker, one of each node in turn: the first bundles go everywhere."""
    most = max(share.workers for share in shares)
    return tuple(share.node.id for turn in range(most) for share in shares if turn < share.workers)


def _gpu_fraction(config: PickConfig, shares: Sequence[NodeShare]) -> float:
    """Share of a GPU that Ray books for each worker, the same on all nodes."""
    most = max(-(-share.workers // share.node.gpus) for share in shares)
    fair = 1.0 if most == 1 else int(10_000 / most) / 10_000
    fraction = config.gpu_fraction or fair
    if fraction > fair:
        raise SettingsError(
            f"gpu_fraction: {fraction} of a GPU for each worker does not fit, {most} share one",
            hint=f"use at most {fair}, or fewer workers",
        )
    return fraction


def _vram_limits(
    config: PickConfig, shares: Sequence[NodeShare], workers: int
) -> tuple[float, ...]:
    """GPU memory of each worker: the safe share on the node that has the least per worker."""
    safe = [
        max(limit - share.plan.vram_context_mb, 0.0)
        for share in shares
        if share.plan is not None
        for limit, count in zip(share.plan.vram_limit_mb, share.plan.workers_per_gpu, strict=True)
        if count
    ]
    limit = min(safe, default=config.vram_mb or 0.0)
    return (limit,) * workers if limit else ()
