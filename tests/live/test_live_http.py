"""HTTP of a live run: status, health, metrics and server-sent events."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from live_messages import message
from live_status import status_of
from prometheus_client.parser import text_string_to_metric_families
from scml_picks import scml_picks_through_obspy

from eqcctpro.errors import SettingsError
from eqcctpro.live import LiveConfig
from eqcctpro.live.http import LiveServer, address_of
from eqcctpro.live.messages import PickMessage
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.run import LiveRun
from eqcctpro.live.service_manager import notify
from eqcctpro.live.status import LiveStatus
from eqcctpro.picks.reading import read_picks

KEY = "a key of some length"


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    box = Outbox(tmp_path / "state.sqlite")
    yield box
    box.close()


class Served:
    """A server with a status that a test may change, and a client."""

    def __init__(self, outbox: Outbox, key: str = "") -> None:
        self.status: dict[str, Any] = status_of()
        self.server = LiveServer("127.0.0.1:0", lambda: self.status, outbox, key=key)
        self.url = f"http://127.0.0.1:{self.server.port}"

    def get(self, path: str, **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, timeout=30)


Serve = Callable[..., Served]


@pytest.fixture
def serve(outbox: Outbox) -> Iterator[Serve]:
    started: list[Served] = []

    def start(key: str = "") -> Served:
        started.append(Served(outbox, key))
        started[-1].server.__enter__()
        return started[-1]

    yield start
    for one in started:
        one.server.close()


def metrics_of(served: Served) -> dict[tuple[str, ...], float]:
    text = served.get("/metrics").text
    return {
        (sample.name, *(f"{k}={v}" for k, v in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_health_and_status(serve: Serve) -> None:
    served = serve()
    assert served.get("/health/live").status_code == 200
    assert served.get("/health/ready").json() == {"ready": True, "problems": []}
    assert served.get("/status").json() == served.status
    served.status = status_of(alarms=["no space is left"], state="stopping")
    answer = served.get("/health/ready")
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["the run is stopping", "no space is left"]
    served.status = status_of(updated=time.time() - 1000)
    assert served.get("/health/live").status_code == 503
    assert served.get("/nothing").status_code == 404


def test_metrics_tell_of_picks_sources_sinks_and_outbox(serve: Serve, outbox: Outbox) -> None:
    served = serve()
    outbox.commit([message(0), message(1), message(2, status="preliminary")])
    age = "eqcctpro_live_pick_delay_seconds_count", "stage=age", "status=final"
    until(lambda: metrics_of(served).get(age) == 2)
    found = metrics_of(served)
    source, sink = "source=seedlink://h:18000", "sink=redis://h/picks"
    assert found["eqcctpro_live_running",] == 1
    assert found["eqcctpro_live_picks_total", "status=final"] == 5
    assert found["eqcctpro_live_stations", "state=dead"] == 1
    assert found["eqcctpro_live_records_total", "kind=duplicates"] == 4
    assert found["eqcctpro_live_source_streaming", source] == 1
    assert found["eqcctpro_live_source_events_total", "kind=packets", source] == 100
    assert found["eqcctpro_live_sink_sent_total", sink] == 7
    assert found["eqcctpro_live_sink_lag_seconds", sink] == 1.5
    assert found["eqcctpro_live_sink_delay_seconds_bucket", "le=0.1", sink] == 5
    assert found["eqcctpro_live_sink_delay_seconds_bucket", "le=+Inf", sink] == 7
    assert found["eqcctpro_live_outbox_messages",] == 3
    # The messages are 30 s behind their picks, one of them behind the end of their data.
    name = "eqcctpro_live_pick_delay_seconds_bucket"
    assert found[name, "le=30.0", "stage=age", "status=final"] == 2
    assert found[name, "le=20.0", "stage=age", "status=final"] == 0
    assert found[name, "le=1.0", "stage=telemetry", "status=preliminary"] == 1


def test_a_key_opens_all_but_health(serve: Serve) -> None:
    served = serve(KEY)
    assert served.get("/health/ready").status_code == 200
    for path in ("/status", "/metrics", "/picks"):
        assert served.get(path).status_code == 401
        assert served.get(path, Authorization="Bearer wrong").status_code == 401
    assert served.get("/status", Authorization=f"Bearer {KEY}").status_code == 200


def test_another_name_of_this_machine_is_refused(serve: Serve) -> None:
    served = serve()
    assert served.get("/status", Host="evil.example").status_code == 400
    assert served.get("/status", Host=f"localhost:{served.server.port}").status_code == 200


class Reader:
    """A reader of server-sent events, in a thread."""

    def __init__(self, served: Served, path: str, **headers: str) -> None:
        self.got: list[tuple[str, PickMessage]] = []
        self.begun = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(served.url + path, headers))
        self._thread.start()
        assert self.begun.wait(30)

    def _read(self, url: str, headers: dict[str, str]) -> None:
        event: dict[str, str] = {}
        with httpx.stream("GET", url, headers=headers, timeout=30) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            for line in answer.iter_lines():
                self.begun.set()
                if not line and "data" in event:
                    self.got.append((event["id"], PickMessage.from_json(event["data"])))
                    event = {}
                elif ":" in line:
                    name, _, value = line.partition(": ")
                    event[name] = value

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()


def test_picks_are_told_as_they_come(serve: Serve, outbox: Outbox) -> None:
    served = serve()
    outbox.commit([message(0)])
    new, all_of_them = Reader(served, "/picks"), Reader(served, "/picks?last=100&send=final")
    outbox.commit([message(1, status="preliminary")])
    outbox.commit([message(2)])
    until(lambda: len(new.got) == 2 and len(all_of_them.got) == 2)
    assert [one for _, one in new.got] == [message(1, status="preliminary"), message(2)]
    assert [one for _, one in all_of_them.got] == [message(0), message(2)]
    # One that comes back goes on behind the last one that it had.
    again = Reader(served, "/picks", **{"Last-Event-ID": new.got[0][0]})
    until(lambda: len(again.got) == 1)
    assert again.got == new.got[1:]
    other = Reader(served, "/picks", **{"Last-Event-ID": "0123:7"})
    until(lambda: len(other.got) == 3)
    served.server.close()
    for reader in (new, all_of_them, again, other):
        reader.join()


def test_a_wrong_request_for_picks_is_told(serve: Serve) -> None:
    served = serve()
    for query in ("send=some", "last=x"):
        answer = served.get(f"/picks?{query}")
        assert answer.status_code == 400 and "error" in answer.json()


@pytest.mark.slow
def test_a_run_tells_how_it_is_while_it_picks(
    imported_model: str, generated_network: tuple[Path, Any], tmp_path: Path
) -> None:
    told: list[tuple[dict[str, Any], httpx.Response, str]] = []
    statuses: list[LiveStatus] = []

    def look(messages: list[PickMessage]) -> None:
        address = statuses[0].http if statuses else ""
        if not told and address:
            headers = {"Authorization": f"Bearer {KEY}"}
            answers = [
                httpx.get(f"{address}/{path}", headers=headers)
                for path in ("status", "health/ready", "metrics")
            ]
            told.append((answers[0].json(), answers[1], answers[2].text))

    config = LiveConfig(
        sources=(f"replay:{generated_network[0]}?speed=0",),
        output=tmp_path / "OUT",
        model=imported_model,
        sinks=(f"scml:{tmp_path}/spool?agency=TEST",),
        http="127.0.0.1:0",
        http_key=KEY,
        runtime="torch",
        threads=1,
    )
    with LiveRun(config) as run:
        statuses.append(run.status)
        for messages in run.batches():
            look(messages)
    ((status, ready, metrics),) = told
    assert (status["state"], status["sources"][0]["address"]) == ("running", config.sources[0])
    assert ready.status_code == 200, ready.text
    assert f'eqcctpro_live_source_streaming{{source="{config.sources[0]}"}}' in metrics
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{run.status.http}/health/live")
    assert run.status.picks["final"] > 10
    picks = read_picks(tmp_path / "OUT")
    assert len(picks) == run.status.picks["final"]
    spooled = [one for file in (tmp_path / "spool").iterdir() for one in scml_picks(file)]
    assert sorted(spooled) == sorted(
        json.loads(line)["id"]
        for file in (tmp_path / "OUT" / "picks").glob("*/*.jsonl")
        for line in file.read_text().splitlines()
    )
    assert KEY not in (tmp_path / "OUT" / "status.json").read_text() + repr(config)


def scml_picks(path: Path) -> list[str]:
    names = [one.resource_id.id for one in scml_picks_through_obspy(path)]
    return [name.partition("/pick/")[2] for name in names]


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("127.0.0.1", "no address"),
        ("127.0.0.1:x", "no address"),
        ("127.0.0.1:70000", "no address"),
        ("0.0.0.0:8080", "no key"),
        ("192.0.2.1:8080", "no key"),
        ("somewhere.example:8080", "no key"),
    ],
)
def test_a_wrong_address_is_named(address: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        address_of(address)


def test_addresses() -> None:
    assert address_of("8080") == ("127.0.0.1", 8080)
    assert address_of("[::1]:80") == ("::1", 80)
    assert address_of("0.0.0.0:80", KEY) == ("0.0.0.0", 80)


def test_a_port_that_is_taken_is_named(outbox: Outbox) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(SettingsError, match="cannot listen"):
            LiveServer(f"127.0.0.1:{other.getsockname()[1]}", status_of, outbox)


def test_the_service_manager_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        assert notify("READY=1", "STATUS=two\nlines")
        assert manager.recv(1000) == b"READY=1\nSTATUS=two lines"
    assert not notify("WATCHDOG=1")
