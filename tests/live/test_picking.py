"""Picks of real-time data are those of the same records at once."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable

import pytest
from live_networks import (
    PlainRuntime,
    in_ticks,
    keys_of,
    made_stream,
    picked_at_once,
    plain_picker,
    plain_settings,
)

from eqcctpro.live.client import SeedLinkSource
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.packets import Checkpoint, Packet
from eqcctpro.live.picker import LivePicker
from eqcctpro.live.replay import Archive
from eqcctpro.live.server import SeedLinkServer
from eqcctpro.models.picker import Picker

PATIENCE_S = 10.0


def live(picker: Picker, batch_size: int = 7) -> LivePicker:
    return LivePicker(
        picker, PlainRuntime(batch_size), plain_settings(picker), patience_s=PATIENCE_S
    )


def assert_same(messages: list[PickMessage], packets: list[Packet], picker: Picker) -> None:
    ours, at_once = keys_of(messages), picked_at_once(packets, picker, plain_settings(picker))
    assert [one[:5] for one in ours] == [one[:5] for one in at_once]
    for one, other in zip(ours, at_once, strict=True):
        # Less than a sample: records of one channel may lie between the samples of another.
        assert all(abs(a - b) <= 5_000_000 for a, b in zip(one[5:8], other[5:8], strict=True))
        assert abs(one[8] - other[8]) <= 1e-6


@pytest.mark.parametrize("stacking", ["avg", "max"])
@pytest.mark.parametrize("seed", range(12))
def test_any_order_gives_the_picks_of_whole_records(seed: int, stacking: str) -> None:
    picker = plain_picker(stacking)
    stream = made_stream(seed)
    running = live(picker, batch_size=random.Random(seed).randint(1, 40))
    messages = in_ticks(running, stream.packets, random.Random(seed).choice([0.2, 1.0, 30.0]))
    messages += running.finish(ended=True)
    assert {message.version for message in messages} <= {1}
    assert_same(messages, stream.packets, picker)


@pytest.mark.parametrize("seed", range(12))
def test_restarts_change_nothing(seed: int) -> None:
    drawn = random.Random(seed)
    picker = plain_picker(drawn.choice(["avg", "max"]))
    stream = made_stream(seed + 1000)
    last = stream.packets[-1].received
    stops = sorted(drawn.uniform(stream.packets[0].received, last) for _ in range(4))
    messages: list[PickMessage] = []
    state, positions = "[]", Checkpoint()
    done = 0.0
    for stop in [*stops, last + 1]:
        running = live(picker)
        running.restore(json.loads(state), done)
        again = stream.behind(dict(positions.positions), done)
        now = [one for one in stream.packets if done < one.received <= stop]
        running.take(again)
        messages += running.step(done)
        messages += in_ticks(running, now, 0.5)
        positions = running.positions(0, Checkpoint(4))
        if stop <= last and seed % 2:  # a clean end, which reports what is there
            messages += running.finish(ended=False)
            state, done = json.dumps(running.state()), stop
            continue
        state, done = json.dumps(running.state()), stop
        if drawn.random() < 0.5:  # what was done since is lost with the process
            rest = [one for one in stream.packets if done < one.received <= done + 5]
            messages += in_ticks(running, rest, 0.5)
    messages += running.finish(ended=True)
    # What the outbox does with versions that come again.
    latest: dict[str, PickMessage] = {}
    for one in messages:
        if one.id not in latest or one.version > latest[one.id].version:
            latest[one.id] = one
    assert_same(list(latest.values()), stream.packets, picker)


@pytest.mark.slow
@pytest.mark.parametrize(
    "faults", [(), ("disconnect:300", "duplicate"), ("reset:500",), ("flood:20",)]
)
def test_packets_of_a_server_with_faults_give_the_picks_of_the_archive(
    faults: tuple[str, ...],
    archive: Archive,
    serve: Callable[..., SeedLinkServer],
    connect: Callable[..., SeedLinkSource],
) -> None:
    records = list(archive)
    server = serve(*faults, seed=1)
    server.publish(records)
    server.finish()
    source = connect(server, start_ns=0)
    picker = plain_picker("avg")
    running = live(picker)
    messages: list[PickMessage] = []
    seen: set[bytes] = set()
    ends = time.monotonic() + 60
    while len(seen) < len(records) and time.monotonic() < ends:
        batch = source.read(0.2)
        seen.update(packet.record for packet in batch)
        running.take(batch)
        messages += running.step(time.time())
    messages += running.finish(ended=True)
    packets = [Packet(one.code, 1, one.record, 0.0) for one in records]
    assert len(keys_of(messages)) > 50
    assert_same(messages, packets, picker)
