"""Replicas that come and go: with the load, and with the nodes of a cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from served import Served, replica_pids, served

httpx = pytest.importorskip("httpx", reason="the extra serve is not installed")
pytest.importorskip("ray.serve", reason="the extra serve is not installed")

from eqcctpro.serving.client import PickClient
from eqcctpro.serving.example import example_miniseed

pytestmark = pytest.mark.exhaustive

SECONDS = 120.0


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + SECONDS
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.3)


class Load:
    """Clients that ask for the example again and again, and what they were told."""

    def __init__(self, service: Served, clients: int) -> None:
        self.answers: list[list[tuple[str, str]]] = []
        self.errors: list[Exception] = []
        self._url = service.url
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]

    def _ask(self) -> None:
        body = example_miniseed()
        with PickClient(self._url, retries=20) as client:
            while not self._end.is_set():
                try:
                    answer = client.pick(body)
                except Exception as error:
                    self.errors.append(error)
                else:
                    picks = answer["picks"]
                    self.answers.append([(pick["phase"], pick["time"]) for pick in picks])

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)

    def more(self, count: int = 20) -> bool:
        """Whether so many answers come from now on."""
        want = len(self.answers) + count
        until(lambda: len(self.answers) >= want, f"no answers: {self.errors[-3:]}")
        return True


def test_replicas_come_and_go_with_the_load(imported_model: str, tmp_path: Path) -> None:
    scaled = ("replicas.count=1-2", "replicas.target_ongoing_requests=2")
    delays = ("replicas.scale_delay_s=0.1",)
    choice = (f"models=[{imported_model}]", "replicas.threads=1")
    strict = ("watchdog.restarts=0", "watchdog.stop_on_error=true")
    with served(tmp_path, *choice, *scaled, *delays, *strict) as service:
        assert len(replica_pids(service)) == 1
        for _ in range(2):
            with Load(service, 12) as load:
                until(lambda: len(replica_pids(service)) == 2, "no second replica")
                assert load.more(100)
            assert not load.errors
            assert load.answers[0] and all(answer == load.answers[0] for answer in load.answers)
            until(lambda: len(replica_pids(service)) == 1, "the second replica stays")
            assert httpx.get(f"{service.url}/health/live").status_code == 200
            assert httpx.get(f"{service.url}/v1/status").json()["restarts"] == 0
        with Load(service, 1) as load:
            assert load.more(3)
        assert not load.errors
        assert service.stop() == 0


@contextmanager
def two_nodes() -> Iterator[Any]:
    """A cluster's head that picks nothing, and two nodes with two cores each."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True, head_node_args={"include_dashboard": False, "num_cpus": 0}
    )
    try:
        nodes = [cluster.add_node(num_cpus=2) for _ in range(2)]
        cluster.wait_for_nodes()
        yield cluster, nodes
    finally:
        cluster.shutdown()


def test_a_service_on_a_cluster_outlives_a_node(imported_model: str, tmp_path: Path) -> None:
    with two_nodes() as (cluster, nodes):
        where = (f"address={cluster.address}", "replicas.threads=1")
        spread = ("replicas.count=2", "replicas.max_per_node=1", "watchdog.self_test_s=2")
        with served(tmp_path, f"models=[{imported_model}]", *where, *spread) as service:
            with Load(service, 4) as load:
                assert load.more()
                cluster.remove_node(nodes[1], allow_graceful=False)
                # What was in the lost replica may fail; what comes after must not.
                time.sleep(15)
                failed = len(load.errors)
                assert load.more(100)
                assert len(load.errors) == failed
                cluster.add_node(num_cpus=2)
                assert load.more(100)
                assert len(load.errors) == failed <= 8
            assert all(answer == load.answers[0] for answer in load.answers)
            assert service.stop() == 0
