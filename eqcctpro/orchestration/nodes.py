"""Nodes of a Ray cluster: which are alive, and which workers each runs."""

from __future__ import annotations

import socket
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eqcctpro.errors import WorkerError
from eqcctpro.orchestration.ray_server import answer_of

__all__ = ["Homes", "Node", "on_node", "worker_nodes"]

# In which a raylet's port is opened, if the raylet is there.
ANSWER_SECONDS = 2.0


@dataclass(frozen=True)
class Node:
    """A machine of a Ray cluster.

    Attributes
    ----------
    id : str
        Ray's name for it, in hexadecimal digits.
    host, address : str
    port : int
        Where its raylet listens.
    cores, gpus : int
        What Ray may book there.
    """

    id: str
    host: str
    address: str
    port: int
    cores: int
    gpus: int

    @property
    def name(self) -> str:
        """Host name and address, for messages."""
        return self.address if self.host in ("", self.address) else f"{self.host} ({self.address})"


def worker_nodes(ray: Any, *, gpus: bool = False) -> list[Node]:
    """The living nodes on which workers may run, in a fixed order.

    Parameters
    ----------
    ray : module
        Connected.
    gpus : bool
        Only those with GPUs.

    Raises
    ------
    WorkerError
        There is none.
    """
    nodes = [_node(entry) for entry in answer_of(ray, ray.nodes) if entry["Alive"]]
    found = [node for node in nodes if node.cores >= 1 and (node.gpus or not gpus)]
    if not found:
        what = "GPUs" if gpus else "cores"
        raise WorkerError(
            f"none of the cluster's {len(nodes)} nodes offers {what}",
            hint="start nodes with ray start --address=..., and see ray status",
        )
    return sorted(found, key=lambda node: (node.address, node.port, node.id))


def _node(entry: Mapping[str, Any]) -> Node:
    booked = entry.get("Resources", {})
    return Node(
        entry["NodeID"],
        entry.get("NodeManagerHostname") or "",
        entry["NodeManagerAddress"],
        int(entry["NodeManagerPort"]),
        int(booked.get("CPU", 0)),
        int(booked.get("GPU", 0)),
    )


def on_node(node_id: str) -> dict[str, Any]:
    """Options of a Ray task or actor that runs on that node and nowhere else."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node_id, soft=False)}


def _through_client() -> bool:
    """True if this process is connected through Ray Client and cannot reach nodes itself."""
    from ray.util.client import ray as client

    return bool(client.is_connected())


class Homes:
    """Node of each worker; nodes may be lost.

    Parameters
    ----------
    ray : module
    nodes : sequence of Node
        Those with workers, and those with room for some.
    rooms : mapping of str to int
        Most workers of each node, by its id.
    homes : sequence of str
        Id of each worker's node; empty where Ray runs on this machine alone.
    knock : bool, optional
        Whether the ports of nodes can be reached from here; by default unless this process
        talks to the cluster through Ray's client.
    """

    def __init__(
        self,
        ray: Any,
        nodes: Sequence[Node],
        rooms: Mapping[str, int],
        homes: Sequence[str],
        *,
        knock: bool | None = None,
    ) -> None:
        self._ray = ray
        self._nodes = {node.id: node for node in nodes}
        self._rooms = dict(rooms)
        self._homes = dict(enumerate(homes))
        self._lost: set[str] = set()
        self._knock = (bool(homes) and not _through_client()) if knock is None else knock

    def options(self, worker: int) -> dict[str, Any]:
        """Ray options that start a worker on its node; empty where Ray may choose."""
        return on_node(self._homes[worker]) if worker in self._homes else {}

    def name(self, worker: int) -> str:
        """A worker's node, for messages."""
        home = self._homes.get(worker)
        return "this machine" if home is None else self._nodes[home].name

    def is_lost(self, worker: int) -> bool:
        """True if the node of a worker has died."""
        home = self._homes.get(worker)
        if home is None:
            return False
        if home not in self._lost and not self._lives(home):
            self._lost.add(home)
        return home in self._lost

    def move(self, worker: int) -> bool:
        """Move a worker of a lost node to another one; False if no node has room."""
        home = self._homes.pop(worker)
        taken = Counter(self._homes.values())
        free = {
            node: room - taken[node]
            for node, room in self._rooms.items()
            if node not in self._lost and node != home and room > taken[node]
        }
        for node in sorted(free, key=lambda node: -free[node]):
            if self._lives(node):
                self._homes[worker] = node
                return True
            self._lost.add(node)
        return False

    def leave(self, worker: int) -> None:
        """Remove a worker that has ended."""
        self._homes.pop(worker, None)

    def _lives(self, node_id: str) -> bool:
        """True if a node is alive: Ray lists it as such, and its raylet accepts connections.

        Ray itself declares a node dead when its raylet has not answered for some time; until
        then the deaths of its workers would be blamed on what they picked.
        """
        alive = {
            entry["NodeID"] for entry in answer_of(self._ray, self._ray.nodes) if entry["Alive"]
        }
        if node_id not in alive:
            return False
        if not self._knock:
            return True
        node = self._nodes[node_id]
        try:
            socket.create_connection((node.address, node.port), timeout=ANSWER_SECONDS).close()
        except OSError:
            return False
        return True
