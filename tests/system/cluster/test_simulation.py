"""The simulation of runs with more workers than there are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.simulation import RunCosts, _bundle_sizes, simulate_run
from eqcctpro.archive.plan import StationTask
from eqcctpro.archive.timechunks import Timechunk
from eqcctpro.orchestration.bundles import make_bundles

NOTHING = RunCosts(
    plan_task=0.0,
    start=0.0,
    start_actor=0.0,
    load=0.0,
    send_bundle=0.0,
    send_task=0.0,
    take_bundle=0.0,
    take_task=0.0,
    latency=0.0,
    work_bundle=0.0,
    work_task=0.01,
    work_spread=0.0,
    finish=0.0,
    finish_task=0.0,
    task_bytes=1e6,
)


def test_work_alone_scales_until_bundles_run_out() -> None:
    alone = simulate_run(NOTHING, 1200, 1)
    assert alone.total_s == pytest.approx(12.0) and alone.efficiency == pytest.approx(1.0)
    assert alone.read_mb_s == pytest.approx(100.0)
    four = simulate_run(NOTHING, 1200, 4)
    assert four.total_s == pytest.approx(3.0)
    many = simulate_run(NOTHING, 100, 80)
    assert many.pick_s == pytest.approx(0.02) and many.bottleneck == "the last bundles"


def test_a_driver_that_is_busy_all_the_time_is_the_limit() -> None:
    # It takes 1 ms for a task of 10 ms: ten workers at most are busy.
    costs = replace(NOTHING, take_task=0.001)
    few, many = simulate_run(costs, 100_000, 5), simulate_run(costs, 100_000, 100)
    assert few.efficiency > 0.9
    assert many.pick_s == pytest.approx(102.6, rel=0.01) and many.driver_busy > 0.97
    assert many.bottleneck == "the driver"
    assert many.efficiency == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("changed", "limit"),
    [
        ({"plan_task": 0.1}, "planning"),
        ({"start_actor": 1.0}, "starting workers"),
        ({"finish_task": 0.1}, "writing results"),
        ({"work_bundle": 1.0}, "small bundles"),
    ],
)
def test_the_largest_loss_is_named(changed: dict[str, float], limit: str) -> None:
    assert simulate_run(replace(NOTHING, **changed), 6400, 16).bottleneck == limit


def test_latency_is_hidden_by_the_bundle_that_waits() -> None:
    slow = simulate_run(replace(NOTHING, latency=0.05), 6400, 16)
    assert slow.pick_s < simulate_run(NOTHING, 6400, 16).pick_s + 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("tasks", "workers"), [(20, 2), (1000, 7), (20_000, 1000), (50, 80)])
def test_bundles_are_cut_as_real_ones(tasks: int, workers: int) -> None:
    chunk = Timechunk(0, "chunk", None, None, 0, 1)
    real = [
        StationTask(i, "N", f"S{i}", "", "HH", "S", chunk, (f"f{i}",), 100) for i in range(tasks)
    ]
    sizes = [len(bundle) for bundle in make_bundles(real, workers)]
    assert _bundle_sizes(tasks, workers) == sizes
