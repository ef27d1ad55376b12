"""The thread that reads ahead of the network, and is used again."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from eqcctpro.archive.plan import InputSettings, StationTask, make_plan
from eqcctpro.config import PickConfig
from eqcctpro.errors import InputError
from eqcctpro.orchestration.model_choice import describe_run, find_run_weights
from eqcctpro.sources import feeder, files
from eqcctpro.sources.feeder import Feeder
from eqcctpro.sources.files import FileCache


@pytest.fixture
def feed(generated_network: Any, imported_model: str, tmp_path: Path) -> Any:
    """Makes feeders of the made-up network, or of tasks."""
    archive = generated_network[0]
    config = PickConfig.checked(input=archive, output=tmp_path, model=imported_model)
    picker, settings = describe_run(config, find_run_weights(config))
    plan = make_plan(InputSettings((archive,)))
    return SimpleNamespace(
        tasks=plan.tasks, of=lambda tasks=plan.tasks: Feeder(tasks, picker, settings)
    )


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system has no affinity")
def test_it_reads_on_the_cores_of_whoever_wants_it(
    feed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = os.sched_getaffinity(0)
    if len(before) < 2:
        pytest.skip("there is one core")
    seen = []

    class Watched(FileCache):
        def read(self, *arguments: Any) -> Any:
            seen.append((os.sched_getaffinity(0), threading.get_ident()))
            return super().read(*arguments)

    monkeypatch.setattr(feeder, "FileCache", Watched)
    chosen = ({min(before)}, {max(before)}, before)
    try:
        for cores in chosen:
            os.sched_setaffinity(0, cores)
            assert all(prepared.ended is None for _, prepared in feed.of())
            assert {tuple(found) for found, _ in seen} == {tuple(cores)}
            seen[:-1] = []
            last = seen.pop()
    finally:
        os.sched_setaffinity(0, before)
    assert last[1] != threading.get_ident()


def test_nothing_of_a_feeder_remains(feed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_such_object(address: str, stamp: object) -> bytes:
        raise InputError(f"{address} is gone")

    monkeypatch.setattr(files, "fetch", no_such_object)
    of_disk = feed.tasks[0]
    far = StationTask(
        0, *("XX", "FAR", "", "HH", "FAR"), of_disk.chunk, ("s3://bucket/a.mseed",), 9, ((9, 9),)
    )
    gc.collect()
    gc.disable()
    try:
        for tasks in ([of_disk], [far]):
            source = feed.of(tasks)
            died = weakref.ref(source)
            ((ticket, prepared),) = source
            assert ticket is tasks[0]
            assert (prepared.ended is None) == (tasks == [of_disk])
            del source, prepared, ticket
            for thread in threading.enumerate():
                if thread.name.startswith("eqcctpro-fetch"):
                    thread.join(5)
            assert died() is None
        assert not [t for t in threading.enumerate() if t.name.startswith("eqcctpro-fetch")]
    finally:
        gc.enable()


def test_a_feeder_that_is_left_lets_go(feed: Any) -> None:
    taking = iter(feed.of())
    next(taking)
    before = threading.active_count()
    taking.close()
    assert sum(1 for _ in feed.of()) == len(feed.tasks)
    assert threading.active_count() <= before
