"""The engine on a device, here the CPU, gives what the engine on arrays gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from slow_queue import SlowQueue  # noqa: E402

from eqcctpro.errors import ResourceError  # noqa: E402
from eqcctpro.models.picker import Picker, WindowSettings  # noqa: E402
from eqcctpro.picks.device_trigger import find_triggers_along, highest_along  # noqa: E402
from eqcctpro.picks.trigger import find_triggers_on  # noqa: E402
from eqcctpro.pipeline.device_engine import DevicePipeline  # noqa: E402
from eqcctpro.pipeline.engine import Pipeline  # noqa: E402
from eqcctpro.pipeline.opening import pipeline_on  # noqa: E402
from eqcctpro.pipeline.prepare import Prepared  # noqa: E402
from eqcctpro.pipeline.records import PickResult  # noqa: E402
from eqcctpro.pipeline.settings import resolve_settings  # noqa: E402
from eqcctpro.runtimes.device_runtime import DeviceRuntime  # noqa: E402
from eqcctpro.runtimes.torch_runtime import TorchRuntime  # noqa: E402
from eqcctpro.spans import Span  # noqa: E402
from eqcctpro.waveform.blocks import Block  # noqa: E402
from eqcctpro.windows.device_stacking import (  # noqa: E402
    finished,
    stack_on,
    windows_over_a_sample,
)
from eqcctpro.windows.placement import window_offsets  # noqa: E402
from eqcctpro.windows.stacking import CurveStack, StackLayout  # noqa: E402

LENGTH = 60


class Network(torch.nn.Module):  # type: ignore[misc]
    """Three curves of every window, sample by sample, so that no sum can be in another order."""

    point = False

    def forward(self, windows: Any) -> Any:
        x, y, z = windows.unbind(1)
        curves = torch.stack([x / (1 + x.abs()), y.abs() / (1 + y.abs()), z * z / (1 + z * z)], 2)
        return curves[:, 7:8] if self.point else curves


class PointNetwork(Network):
    point = True


def picker(**changed: Any) -> Picker:
    windows = WindowSettings(overlap=25, stride=10, stacking="avg", blinding=(4, 3))
    base = Picker(
        "Made", "up", "0" * 64, 100.0, "ZNE", LENGTH, "array", (0, LENGTH), LENGTH,
        ("P", "S", "Detection"), ("P", "S"), "Detection", windows,
        {"P": 0.5, "S": 0.6, "Detection": 0.55},
    )  # fmt: skip
    return replace(base, **changed)


KINDS = {
    "mean": picker(),
    "max": picker(windows=replace(picker().windows, stacking="max", blinded=(20, 21))),
    "much overlap": picker(windows=replace(picker().windows, overlap=52)),
    "no overlap": picker(windows=replace(picker().windows, overlap=0, blinding=(0, 0))),
    "points": picker(output="point", out_samples=1, pred_sample=(0, 7)),
    "far points": picker(
        output="point", out_samples=1, pred_sample=(0, 7),
        windows=replace(picker().windows, stride=90),
    ),
    "peaks": picker(windows=replace(picker().windows, picking="window_peak")),
}  # fmt: skip


def made_up(kind: Picker, seed: int) -> list[Prepared]:
    """Stations with blocks of many lengths, some longer than a batch, some with NaN."""
    rng = np.random.default_rng(seed)
    settings = resolve_settings(kind)
    stations = []
    for number in range(14):
        own = Span(-(10**18), 10**18) if number % 3 else Span(2 * 10**8, 30 * 10**8)
        prepared = Prepared(own, keep_curves=number % 4 == 1)
        if number % 5 == 2:
            prepared.thresholds = {"P": 0.7, "S": 0.4, "Detection": 0.8}
        lengths = [LENGTH] if number == 3 else rng.integers(LENGTH, 300, rng.integers(1, 4))
        if number == 7:
            lengths = [40 * LENGTH, LENGTH + 1]
        for length in lengths:
            data = rng.normal(0, 1, (3, int(length))).astype(np.float32)
            data = np.cumsum(data, axis=1).astype(np.float32) / 3
            if number == 9:
                data[1] = 0.0
            if number == 11:
                data[0, 30:35] = np.nan
            block = Block(int(rng.integers(0, 10)) * 10**8, 100.0, data, 0)
            offsets = window_offsets(kind, settings.windows, int(length))
            prepared.blocks.append((block, offsets))
        stations.append(prepared)
    return stations


def shown(results: list[PickResult]) -> dict[int, Any]:
    """Everything about results, exactly."""
    found = {}
    for result in results:
        columns = [
            [column.tolist() for column in picks.columns()]
            for picks in (result.picks, result.detections)
        ]
        curves = [
            (piece.start_ns, piece.interval_ns, piece.values.tobytes()) for piece in result.curves
        ]
        outcome = result.outcome
        highest = (outcome.highest_p, outcome.highest_s)
        found[result.ticket] = (columns, curves, highest, outcome.n_windows, outcome.n_outside)
    return found


def picked(pipeline: Pipeline, stations: list[Prepared]) -> dict[int, Any]:
    for number, prepared in enumerate(stations):
        pipeline.feed(number, prepared)
    pipeline.drain()
    return shown(list(pipeline.finished()))


def on_arrays(kind: Picker, network: Any, batch: int = 32) -> Pipeline:
    runtime = TorchRuntime(network, batch_size=batch, threads=1)
    return Pipeline(kind, runtime, resolve_settings(kind))


def on_device(kind: Picker, network: Any, **options: Any) -> Pipeline:
    given = {"batch_size": 32, "part": 8} | options
    runtime = DeviceRuntime(network, components=3, in_samples=LENGTH, **given)
    return pipeline_on(kind, runtime, resolve_settings(kind))


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest) -> Iterator[tuple[Picker, Any]]:
    kind = KINDS[request.param]
    yield kind, PointNetwork() if kind.output == "point" else Network()


class TestPicks:
    @pytest.mark.parametrize("seed", range(3))
    def test_are_the_same_to_the_last_bit(self, case: Any, seed: int) -> None:
        kind, network = case
        expected = picked(on_arrays(kind, network), made_up(kind, seed))
        there = on_device(kind, network)
        assert isinstance(there, DevicePipeline)
        assert picked(there, made_up(kind, seed)) == expected
        assert sum(len(columns[0][0]) for columns, *_ in expected.values()) > 20
        assert any(curves for _, curves, *_ in expected.values())

    def test_with_batches_under_way(self, case: Any) -> None:
        kind, network = case
        queue = SlowQueue()
        there = on_device(kind, network, queue=queue, ahead=3)
        expected = picked(on_arrays(kind, network), made_up(kind, 5))
        assert picked(there, made_up(kind, 5)) == expected
        assert queue.most == 3  # each lane was filled again while others were on their way
        there.runtime.close()

    def test_where_windows_of_stations_alternate(self, case: Any) -> None:
        """As the service packs requests: a few windows of each in turn."""
        kind, network = case
        there = on_device(kind, network)
        waiting = [there.open(n, prepared) for n, prepared in enumerate(made_up(kind, 8))]
        while any(windows.left for windows in waiting):
            for windows in waiting:
                there.pack(windows, 3)
                if not there.room:
                    there.flush()
                    if there.under_way >= there.runtime.ahead:
                        there.wait()
                        there.settle()
        there.drain()
        found = shown(list(there.finished()))
        assert found == picked(on_arrays(kind, network), made_up(kind, 8))

    def test_again_after_what_was_abandoned(self) -> None:
        kind = KINDS["mean"]
        there = on_device(kind, Network())
        for number, prepared in enumerate(made_up(kind, 1)[:4]):
            there.feed(number, prepared)
        there.reset()
        expected = picked(on_arrays(kind, Network()), made_up(kind, 2))
        assert picked(there, made_up(kind, 2)) == expected


class TestMemory:
    @pytest.mark.parametrize("said", ["CUDA out of memory", "CUDNN_STATUS_ALLOC_FAILED"])
    def test_exhausted_halves_what_is_seen_at_once(self, said: str) -> None:
        kind = KINDS["mean"]
        queue = SlowQueue({1: RuntimeError(said), 2: RuntimeError(said)})
        there = on_device(kind, Network(), queue=queue)
        expected = picked(on_arrays(kind, Network()), made_up(kind, 4))
        assert picked(there, made_up(kind, 4)) == expected
        assert there.runtime.take_notes() == [
            "memory was exhausted by 8 windows at once, now 4",
            "memory was exhausted by 4 windows at once, now 2",
        ]
        assert there.runtime.take_notes() == [] and queue.released == 2
        there.runtime.close()

    def test_for_one_window_is_an_error(self) -> None:
        failing: dict[int, Exception] = {n: torch.OutOfMemoryError("none") for n in range(9)}
        there = on_device(KINDS["mean"], Network(), queue=SlowQueue(failing))
        with pytest.raises(ResourceError, match="one window does not fit"):
            picked(there, made_up(KINDS["mean"], 4))
        there.runtime.close()

    def test_other_errors_are_told_as_they_are(self) -> None:
        broken = SlowQueue({0: RuntimeError("illegal memory access")})
        there = on_device(KINDS["mean"], Network(), queue=broken)
        with pytest.raises(RuntimeError, match="illegal memory access"):
            picked(there, made_up(KINDS["mean"], 4))
        there.runtime.close()
        there.runtime.close()
        with pytest.raises(RuntimeError, match="closed"):
            DeviceRuntime._predictions(there.runtime, None, 0)


def test_a_lane_sends_each_sample_once() -> None:
    kind = KINDS["much overlap"]
    there = on_device(kind, Network())
    (prepared,) = made_up(kind, 1)[7:8]
    block = prepared.blocks[0][0]
    windows = there.open(0, prepared)
    there.pack(windows, 32)
    lane = there.runtime.lanes[0]
    assert lane.used == 31 * 8 + LENGTH < 32 * LENGTH
    parts = torch.cat(lane.windows_there(lane.windows, 8)).numpy()
    for row in range(32):
        np.testing.assert_array_equal(parts[row], block.data[:, 8 * row : 8 * row + LENGTH])


@pytest.mark.parametrize("average", [True, False])
@pytest.mark.parametrize("seed", range(20))
def test_stacking_equals_that_of_arrays(seed: int, average: bool) -> None:
    rng = np.random.default_rng(seed)
    length = int(rng.integers(5, 40))
    starts = np.cumsum(rng.integers(0, length, 30)).astype(np.intp)
    edges = np.sort(rng.choice(length, 2, replace=False))
    keep = (slice(int(edges[0]), int(edges[1])), slice(int(edges[1]) + 1, length))
    layout = StackLayout(False, average, keep, starts, int(starts[-1]) + length)
    predictions = rng.random((30, length, 2)).astype(np.float32)
    predictions[4, 2:4] = np.nan
    stack = CurveStack(layout, [0, 1])
    stack.add(predictions)
    mask = np.zeros(length, dtype=bool)
    for part in keep:
        mask[part] = True
    axis = torch.full((layout.n_samples, 2), 0.0 if average else -torch.inf)
    counts = stack_on(
        axis, torch.from_numpy(predictions), torch.from_numpy(starts), torch.from_numpy(mask),
        windows_over_a_sample(starts, length), average=average,
    )  # fmt: skip
    np.testing.assert_array_equal(counts[:, 0].numpy(), layout.counts)
    curves = finished(axis, counts, average=average).T.numpy()
    np.testing.assert_array_equal(curves, stack.finish())


@pytest.mark.parametrize("seed", range(40))
def test_triggers_equal_those_on_arrays(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 200, rng.integers(1, 6)).tolist()
    curves = rng.random((2, sum(lengths))).astype(np.float32)
    if seed % 2:
        curves = np.round(curves, 1)  # many values are equal
    curves[:, ::17] = np.nan
    curves *= rng.random() + 0.5
    thresholds = rng.uniform(0.3, 1.2, (len(lengths), 2))
    if seed % 3 == 0:
        thresholds[:] = thresholds[0]
    found = find_triggers_along(torch.from_numpy(curves), lengths, thresholds)
    blocks = np.split(curves, np.cumsum(lengths)[:-1], axis=1)
    expected = [
        find_triggers_on(np.ascontiguousarray(block), least.tolist())
        for block, least in zip(blocks, thresholds, strict=True)
    ]
    curve = [2 * n + each.curve for n, each in enumerate(expected)]
    np.testing.assert_array_equal(found.curve, np.concatenate(curve))
    for name in ("onset", "end", "peak", "value"):
        each_block = [getattr(each.triggers, name) for each in expected]
        np.testing.assert_array_equal(getattr(found.triggers, name), np.concatenate(each_block))
    own = [slice(0, length // 2) for length in lengths]
    highest = [
        np.fmax.reduce(block[:, part], axis=1, initial=np.nan)
        for block, part in zip(blocks, own, strict=True)
    ]
    np.testing.assert_array_equal(highest_along(torch.from_numpy(curves), lengths, own), highest)
