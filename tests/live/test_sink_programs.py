"""Sinks against the programs that they send to: picks arrive once, whatever is killed."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import real_programs
from live_messages import message
from real_programs import Program
from served import free_port

from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks import publisher
from eqcctpro.live.sinks.base import Place
from eqcctpro.live.sinks.opening import Sinks, check_sinks
from eqcctpro.live.sinks.payload import topic_of
from eqcctpro.times import format_utc

pytestmark = pytest.mark.slow


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "state.sqlite")
    yield box
    box.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time between attempts."""
    monkeypatch.setattr(publisher, "_FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(publisher, "_LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(publisher, "_LOOK_EVERY_S", 0.02)


@pytest.fixture
def run(tmp_path: Path, outbox: Outbox) -> Iterator[Callable[[str], Sinks]]:
    """Start one sink alone."""
    started: list[Sinks] = []

    def start(url: str) -> Sinks:
        sink = check_sinks([url])[-1]
        started.append(Sinks([sink], Place(tmp_path, outbox)).start())
        return started[-1]

    yield start
    for sinks in started:
        sinks.close(0.0)


Run = Callable[[str], Sinks]


def until(condition: Callable[[], bool], what: Callable[[], object] = lambda: "") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.01)


def send_while_killing(
    sinks: Sinks, outbox: Outbox, program: Program, total: int = 1500
) -> list[PickMessage]:
    """Commit picks while the program is killed twice and started again."""
    now_ns = time.time_ns() // 1000 * 1000
    picks = [message(n, created_ns=now_ns) for n in range(total)]
    part = total // 5
    for number in (0, 2):
        sent = sinks.state()[0].sent
        for at in range(number * part, (number + 1) * part, 20):
            outbox.commit(picks[at : min(at + 20, (number + 1) * part)])
        until(lambda sent=sent: sinks.state()[0].sent > sent, sinks.state)
        program.stop()  # while the sink is at it, or has just done
        outbox.commit(picks[(number + 1) * part : (number + 2) * part])
        until(lambda: sinks.state()[0].state == "failing", sinks.state)
        program.start()
    outbox.commit(picks[4 * part :])
    until(lambda: not sinks.state()[0].behind, sinks.state)
    assert sinks.state()[0].errors >= 2
    assert sinks.state()[0].last_error == ""
    return picks


# Redis.


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    program = real_programs.redis_server(tmp_path_factory.mktemp("redis"))
    yield program
    program.stop()


def stream_of(program: Program, name: str) -> list[PickMessage]:
    redis = pytest.importorskip("redis")
    with redis.Redis(port=program.port, decode_responses=True) as client:
        entries = client.xrange(name)
    for _, fields in entries:
        one = PickMessage.from_json(fields["pick"])
        assert (one.id, str(one.version), one.status) == (
            *(fields["id"], fields["version"], fields["status"]),
        )
    return [PickMessage.from_json(fields["pick"]) for _, fields in entries]


def test_redis_has_each_pick_once_though_it_is_killed(
    run: Run, outbox: Outbox, redis_server: Program
) -> None:
    sinks = run(f"redis://127.0.0.1:{redis_server.port}/killed")
    picks = send_while_killing(sinks, outbox, redis_server)
    assert stream_of(redis_server, "killed") == picks


def test_redis_has_each_pick_once_though_the_cursor_is_lost(
    run: Run, outbox: Outbox, redis_server: Program
) -> None:
    url = f"redis://127.0.0.1:{redis_server.port}/again?send=final&keep=0"
    outbox.commit([message(n) for n in range(20)] + [message(30, status="preliminary")])
    for _ in range(2):
        sinks = run(url)
        until(lambda sinks=sinks: not sinks.state()[0].behind, sinks.state)
        sinks.close()
        # As if the process had been killed before its cursor was kept.
        outbox._cursors.execute("UPDATE sinks SET number = 7")
    assert stream_of(redis_server, "again") == [message(n) for n in range(20)]


def test_a_wrong_password_of_redis_is_told_without_it(
    run: Run, outbox: Outbox, redis_server: Program
) -> None:
    outbox.commit([message(0)])
    sinks = run(f"redis://me:hunter2@127.0.0.1:{redis_server.port}/picks")
    until(lambda: sinks.state()[0].errors > 0)
    state: dict[str, Any] = sinks.state()[0].as_dict()
    assert "password" in state["last_error"] and "hunter2" not in str(state)


# MQTT.


class Subscriber:
    """A client of MQTT that keeps what it receives, and comes back by itself."""

    def __init__(self, port: int, topic: str) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        self.got: list[tuple[str, PickMessage]] = []
        subscribed = threading.Event()
        # A session that the broker keeps while this one is away.
        self._client = Client(CallbackAPIVersion.VERSION2, "reader", clean_session=False)
        self._client.username_pw_set("picker", "s3cret")
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: subscribed.set()
        self._client.on_message = lambda _c, _u, one: self.got.append(
            (one.topic, PickMessage.from_json(one.payload))
        )
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert subscribed.wait(30)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture(scope="module")
def mosquitto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    pytest.importorskip("paho.mqtt")
    program = real_programs.mosquitto(tmp_path_factory.mktemp("mosquitto"), "s3cret")
    yield program
    program.stop()


def test_mqtt_has_every_pick_though_the_broker_is_stopped(
    run: Run, outbox: Outbox, mosquitto: Program
) -> None:
    reader = Subscriber(mosquitto.port, "seismic/picks/#")
    sinks = run(f"mqtt://picker:s3cret@127.0.0.1:{mosquitto.port}/seismic/picks?timeout=2")
    outbox.commit([message(n) for n in range(50)])
    until(lambda: len(reader.got) == 50)
    mosquitto.stop(signal.SIGTERM)
    outbox.commit([message(n) for n in range(50, 80)])
    until(lambda: sinks.state()[0].state == "failing")
    mosquitto.start()
    until(lambda: len({one.key for _, one in reader.got}) == 80, sinks.state)
    reader.close()
    # At least once, and known by id and version.
    assert {one.key: one for _, one in reader.got} == {
        message(n).key: message(n) for n in range(80)
    }
    assert reader.got[0][0] == "seismic/picks/NC/S0/P"


def test_mqtt_tells_a_wrong_password(run: Run, outbox: Outbox, mosquitto: Program) -> None:
    outbox.commit([message(0, station="A/+#", network="")])
    sinks = run(f"mqtt://picker:hunter2@127.0.0.1:{mosquitto.port}/picks")
    until(lambda: sinks.state()[0].errors > 0)
    state = sinks.state()[0].as_dict()
    assert "refuses the connection" in state["last_error"] and "hunter2" not in str(state)
    assert topic_of(message(0, station="A/+#", network="")) == ("-", "A~2F~2B~23", "P")


# NATS.


@pytest.fixture(scope="module")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    pytest.importorskip("nats")
    program = real_programs.nats_server(tmp_path_factory.mktemp("nats"))
    yield program
    program.stop()


async def stored(port: int, subject: str) -> list[tuple[str, PickMessage]]:
    """All messages of a subject in their order."""
    import nats

    connection = await nats.connect(f"nats://picker:s3cret@127.0.0.1:{port}")
    stream = connection.jetstream()
    name = await stream.find_stream_name_by_subject(subject)
    total = (await stream.stream_info(name)).state.messages
    reader = await stream.pull_subscribe(subject)
    found = []
    while len(found) < total:
        for one in await reader.fetch(200, timeout=10):
            found.append((one.subject, PickMessage.from_json(one.data)))
            await one.ack()
    await connection.close()
    return found


def test_nats_has_each_pick_once_though_it_is_killed(
    run: Run, outbox: Outbox, nats_server: Program
) -> None:
    sinks = run(f"nats://picker:s3cret@127.0.0.1:{nats_server.port}/live.picks?timeout=2")
    picks = send_while_killing(sinks, outbox, nats_server, 600)
    found = asyncio.run(stored(nats_server.port, "live.picks.>"))
    assert sorted(one.key for _, one in found) == sorted(one.key for one in picks)
    assert {one.id: one for _, one in found} == {one.id: one for one in picks}
    assert found[0][0] == "live.picks.NC.S0.P"


# PostgreSQL.


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    pytest.importorskip("psycopg")
    program = real_programs.postgresql(tmp_path_factory.mktemp("postgresql"))
    yield program
    program.stop(signal.SIGINT)


def test_postgresql_has_the_last_version_of_each_pick(
    run: Run, outbox: Outbox, postgresql: Program
) -> None:
    import psycopg

    table = 'odd "name"; DROP'
    place = f"127.0.0.1:{postgresql.port}/postgres"
    sinks = run(f"postgresql://picker@{place}?table={quote(table)}&timeout=5")
    odd = message(5000, station="'); DROP TABLE picks; --", status="preliminary")
    outbox.commit([odd, message(5001, station="NUL\0")])
    picks = send_while_killing(sinks, outbox, postgresql, 600)
    moved = message(3, version=2, time_ns=message(3).time_ns + 10_000_000, snr=7.5)
    outbox.commit([moved])
    until(lambda: not sinks.state()[0].behind)
    # An older version that comes again changes nothing.
    outbox._cursors.execute("UPDATE sinks SET number = 2")
    sinks.close()
    again = run(f"postgresql://picker@{place}?table={quote(table)}&timeout=5")
    until(lambda: not again.state()[0].behind and again.state()[0].sent > 0)
    with psycopg.connect(f"postgresql://picker@{place}") as db:
        rows = db.execute(
            psycopg.sql.SQL("SELECT id, version, status, time, probability, snr FROM {}").format(
                psycopg.sql.Identifier(table)
            )
        ).fetchall()
    expected = {one.id: one for one in [*picks, odd, moved]}
    assert {id_: (version, status) for id_, version, status, *_ in rows} == {
        one.id: (one.version, one.status) for one in expected.values()
    }
    for id_, _, _, moment, probability, snr in rows:
        one = expected[id_]
        assert format_utc(one.time_ns) == moment.astimezone(UTC).isoformat(
            timespec="microseconds"
        ).replace("+00:00", "Z")
        assert (probability, snr) == (one.probability, one.snr)
    assert sinks.state()[0].rejected == 1  # text with a zero byte


# Kafka, as librdkafka makes it of itself.


def test_kafka_has_every_pick_by_its_key(run: Run, outbox: Outbox) -> None:
    kafka = pytest.importorskip("confluent_kafka")
    cluster = kafka.Producer({"test.mock.num.brokers": 2})
    brokers = [f"{one.host}:{one.port}" for one in cluster.list_topics(timeout=10).brokers.values()]
    outbox.commit([message(n) for n in range(300)] + [message(3, version=2)])
    sinks = run(f"kafka://{brokers[0]}/picks?brokers={brokers[1]}")
    until(lambda: sinks.state()[0].sent == 301, sinks.state)
    reader = kafka.Consumer(
        {
            "bootstrap.servers": ",".join(brokers),
            "group.id": "reader",
            "auto.offset.reset": "earliest",
        }
    )
    partitions = reader.list_topics("picks", timeout=10).topics["picks"].partitions
    reader.assign(
        [kafka.TopicPartition("picks", one, kafka.OFFSET_BEGINNING) for one in partitions]
    )
    found: dict[str, list[PickMessage]] = {}
    while sum(map(len, found.values())) < 301:
        record = reader.poll(30)
        assert record is not None and record.error() is None
        one = PickMessage.from_json(record.value())
        assert record.key().decode() == one.id
        found.setdefault(one.id, []).append(one)
    reader.close()
    assert found == {
        message(n).id: [message(n), *([message(3, version=2)] if n == 3 else [])]
        for n in range(300)
    }


def test_kafka_that_is_not_there_is_told(run: Run, outbox: Outbox) -> None:
    pytest.importorskip("confluent_kafka")
    outbox.commit([message(0)])
    sinks = run(f"kafka://127.0.0.1:{free_port()}/picks?timeout=1")
    until(lambda: sinks.state()[0].errors > 0)
    assert "transport" in sinks.state()[0].last_error.lower()
    sinks.close(0.0)
