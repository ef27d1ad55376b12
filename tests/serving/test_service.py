"""The service through HTTP: a real `eqcctpro serve`, once for the module."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
msgspec = pytest.importorskip("msgspec", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


from served import Served, free_port, replica_pids, served

from eqcctpro.serving.client import PickClient, ServiceError

MSEED = "application/vnd.fdsn.mseed"
RUNTIME = "openvino"
ASKED = "POST /v1/pick HTTP/1.1\r\nHost: localhost\r\n"
COLUMNS = ("network", "station", "location", "channel", "phase", "time", "start_time", "end_time")


pytestmark = pytest.mark.slow  # a service is started


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory,
    imported_model: str,
    generated_network: Any,
    grpc_port: int,
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    settings = (
        f"jobs.roots=[{generated_network[0]}]",
        f"jobs.folder={folder / 'jobs'}",
        f"models=[{{name: {imported_model}, runtime: {RUNTIME}}}]",
        "limits.max_body_mb=4",
        "limits.capacity=64",
        "replicas.threads=1",
        "http.cors_origins=[https://example.org]",
        f"grpc.port={grpc_port}",
    )
    with served(folder, *settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[PickClient]:
    with PickClient(service.url, retries=0) as opened:
        yield opened


@pytest.fixture(scope="module")
def raw(service: Served) -> Iterator[Any]:
    with httpx.Client(base_url=service.url, timeout=60.0) as opened:
        yield opened


@pytest.fixture(scope="module")
def stations(generated_network: Any) -> dict[str, bytes]:
    """miniSEED of each made-up station."""
    found: dict[str, bytes] = {}
    for path in sorted(generated_network[0].rglob("*.mseed")):
        found[path.parent.name] = found.get(path.parent.name, b"") + path.read_bytes()
    return found


@pytest.fixture(scope="module")
def run_picks(pick: Any, generated_network: Any, imported_model: str) -> list[dict[str, Any]]:
    """What `eqcctpro pick` finds in the same network."""
    result = pick(generated_network[0], model=imported_model, runtime=RUNTIME, layout="files")
    return plain(result.table.to_pylist())


def plain(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Picks of a table in the form of an answer, without what names the run."""
    kept = []
    for row in rows:
        new = {name: row[name] for name in COLUMNS}
        for name in ("time", "start_time", "end_time"):
            if not isinstance(new[name], str):
                new[name] = new[name].strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        kept.append({**new, "probability": row["probability"]})
    return kept


def same(left: list[dict[str, Any]], right: list[dict[str, Any]]) -> None:
    assert [{**row, "probability": 0} for row in left] == [
        {**row, "probability": 0} for row in right
    ]
    for one, other in zip(left, right, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=1e-6)


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    content: dict[str, Any] = response.json()
    assert content["status"] == status
    assert content["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return content


def arrays(content: bytes, **changes: Any) -> dict[str, Any]:
    """A station's miniSEED as the arrays of a request."""
    from eqcctpro.waveform.decode import decode_records

    segments = decode_records(content, "test").segments
    entries = []
    for segment in segments:
        entry = {
            "network": segment.code.network,
            "station": segment.code.station,
            "location": segment.code.location,
            "channels": [segment.code.channel],
            "start": segment.start_ns,
            "sampling_rate": segment.sampling_rate,
            "samples": [segment.samples.tolist()],
        }
        entries.append({**entry, **changes})
    return {"stations": entries}


def test_picks_equal_those_of_a_run(
    client: PickClient, stations: dict[str, bytes], run_picks: list[dict[str, Any]]
) -> None:
    answer = client.pick(b"".join(stations.values()))
    assert len(run_picks) > 10
    same(plain(answer["picks"]), run_picks)
    assert {row["station"]: row["status"] for row in answer["stations"]} == dict.fromkeys(
        stations, "done"
    )


def test_picks_of_labelled_records_equal_those_of_a_run(
    client: PickClient, labelled: Path, pick: Any, imported_model: str
) -> None:
    chunk = sorted(path for path in labelled.iterdir() if path.is_dir())[0]
    result = pick(chunk, model=imported_model, runtime=RUNTIME, layout="files")
    files = sorted(path for path in chunk.rglob("*") if path.is_file())
    found: list[dict[str, Any]] = []
    for station in sorted({path.parent for path in files}):
        answer = client.pick([path for path in files if path.parent == station])
        found.extend(plain(answer["picks"]))
    wanted = plain(result.table.to_pylist())
    assert len(wanted) > 20
    order = lambda row: tuple(row[name] for name in COLUMNS)  # noqa: E731
    same(sorted(found, key=order), sorted(wanted, key=order))


def test_every_body_and_answer_says_the_same(
    raw: Any, client: PickClient, stations: dict[str, bytes], run_picks: list[dict[str, Any]]
) -> None:
    import pyarrow as pa

    station, content = next(iter(stations.items()))
    wanted = [row for row in run_picks if row["station"] == station]
    body = arrays(content)
    packed = json.loads(json.dumps(body))
    for entry in packed["stations"]:
        entry["samples"] = np.array(entry["samples"], "<i4").tobytes()
        entry["dtype"] = "int32"
    table = pa.table(
        {
            **{
                name: [entry[name] for entry in body["stations"]]
                for name in ("network", "station", "location", "start", "sampling_rate")
            },
            "channel": [entry["channels"][0] for entry in body["stations"]],
            "samples": [entry["samples"][0] for entry in body["stations"]],
        }
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    bodies = {
        MSEED: content,
        "application/octet-stream": content,
        "application/x-www-form-urlencoded": content,
        "application/json": json.dumps(body).encode(),
        "application/msgpack": msgspec.msgpack.encode(packed),
        "application/vnd.apache.arrow.stream": sink.getvalue(),
    }
    for kind, sent in bodies.items():
        response = raw.post("/v1/pick", content=sent, headers={"content-type": kind})
        assert response.status_code == 200, response.text
        same(plain(response.json()["picks"]), wanted)
    form = {f"file{index}": part for index, part in enumerate((content[:512], content[512:]))}
    same(plain(raw.post("/v1/pick", files=form).json()["picks"]), wanted)
    squeezed = raw.post(
        "/v1/pick", content=gzip.compress(content), headers={"content-encoding": "gzip"}
    )
    same(plain(squeezed.json()["picks"]), wanted)

    def accepted(kind: str) -> bytes:
        response = raw.post("/v1/pick", content=content, headers={"accept": kind})
        assert response.headers["content-type"].startswith(kind)
        assert response.headers["x-served-name"] == client.models()[0]["name"]
        return bytes(response.content)

    same(plain(msgspec.msgpack.decode(accepted("application/msgpack"))["picks"]), wanted)
    rows = list(csv.DictReader(io.StringIO(accepted("text/csv").decode())))
    assert [row["phase"] for row in rows] == [row["phase"] for row in wanted]
    arrow = pa.ipc.open_stream(accepted("application/vnd.apache.arrow.stream")).read_all()
    same(plain(arrow.to_pylist()), wanted)
    assert arrow.schema.metadata[b"served_name"].decode() == client.models()[0]["name"]
    from obspy import read_events

    events = read_events(io.BytesIO(accepted("application/xml")), format="QUAKEML")
    assert len(events[0].picks) == len(wanted)


def test_curves_have_their_peaks_where_the_picks_are(
    client: PickClient, stations: dict[str, bytes]
) -> None:
    content = next(iter(stations.values()))
    answer = client.annotate(content)
    piece = answer["curves"][0]
    start = np.datetime64(piece["start"].rstrip("Z"), "ns")
    assert answer["picks"]
    for pick in answer["picks"]:
        row = piece["values"][piece["labels"].index(pick["phase"])]
        at = (np.datetime64(pick["time"].rstrip("Z"), "ns") - start) / np.timedelta64(1, "s")
        index = round(float(at) * piece["sampling_rate"])
        assert row[index] == pytest.approx(pick["probability"], abs=2e-6)


def test_constant_components_yield_no_picks(
    client: PickClient, pick: Any, imported_model: str, write_mseed: Any, tmp_path: Path
) -> None:
    """As in a run with torch, to which rounding would be a signal."""
    onset = np.exp(-np.arange(6000) / 200) * np.sin(np.arange(6000) / 3)
    live = np.random.default_rng(3).normal(0, 20, (2, 12000))
    live[:, 6000:] += 900 * onset
    for dtype, constant in ((np.float32, 34.641132), (np.float64, -1e6 / 7), (np.int32, 8388607)):
        folder = tmp_path / np.dtype(dtype).name
        live[0, :6000] = constant
        for component, row in zip("ZNE", (*live, np.full(12000, constant)), strict=True):
            code = f"XX.DEAD..HH{component}"
            samples = row.astype(dtype)
            write_mseed(folder / f"{code}.mseed", code, [(1_700_000_000 * 10**9, samples)])
        table = pick(folder, model=imported_model, runtime="torch", p_threshold=0.02).table
        content = b"".join(path.read_bytes() for path in sorted(folder.glob("*.mseed")))
        found = client.pick(content, p_threshold=0.02)["picks"]
        same(plain(found), plain(table.to_pylist()))


def test_thresholds_of_a_request_count_for_it_alone(
    client: PickClient, stations: dict[str, bytes]
) -> None:
    content = next(iter(stations.values()))
    few = client.pick(content, p_threshold=0.999, s_threshold=0.999)
    usual = client.pick(content)
    many = client.pick(content, p_threshold=0.02, s_threshold=0.02)
    assert len(few["picks"]) < len(usual["picks"]) <= len(many["picks"])


def test_a_bad_station_fails_alone(client: PickClient, stations: dict[str, bytes]) -> None:
    from eqcctpro.serving.example import example_segments
    from eqcctpro.waveform.encode import encode

    good = next(iter(stations.values()))
    short = [
        s.__class__(s.code._replace(station="SHORT"), s.start_ns, 100.0, s.samples[:500])
        for s in example_segments()
    ]
    zero = [
        s.__class__(s.code._replace(station="ZERO"), s.start_ns, 100.0, s.samples * 0)
        for s in example_segments()
    ]
    alone = client.pick(good)
    answer = client.pick(good + encode(short) + encode(zero))
    found = {row["station"]: row for row in answer["stations"]}
    assert found["SHORT"]["status"] == found["ZERO"]["status"] == "empty"
    assert "too short" in found["SHORT"]["reason"]
    assert "zero" in found["ZERO"]["reason"]
    assert plain(answer["picks"]) == plain(alone["picks"])


def test_requests_share_batches_and_each_gets_its_own(
    service: Served, client: PickClient, stations: dict[str, bytes]
) -> None:
    alone = {name: plain(client.pick(content)["picks"]) for name, content in stations.items()}
    before = metric(client.metrics(), "eqcctpro_batch_stations_count")
    names = list(stations) * 8

    def ask(name: str) -> list[dict[str, Any]]:
        with PickClient(service.url) as own:
            return plain(own.pick(stations[name])["picks"])

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, names))
    for name, answer in zip(names, answers, strict=True):
        same(answer, alone[name])
    batches = metric(client.metrics(), "eqcctpro_batch_stations_count") - before
    assert batches < len(names)


def metric(text: str, name: str) -> float:
    """Sum of all series of a metric."""
    values = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith((f"{name}{{", f"{name} "))
    ]
    assert values, f"no {name}"
    return sum(values)


@pytest.mark.parametrize(
    ("content", "headers", "query", "status"),
    [
        (b"", {}, "", 400),
        (b"no records at all, whatever the type says", {"content-type": MSEED}, "", 400),
        (b"{", {"content-type": "application/json"}, "", 400),
        (b"\xc1\xff", {"content-type": "application/msgpack"}, "", 400),
        (b"ARROW1", {"content-type": "application/vnd.apache.arrow.stream"}, "", 400),
        (b"x", {"content-encoding": "gzip"}, "", 400),
        (b"x", {"content-type": "multipart/form-data; boundary=a"}, "", 400),
        (b"x", {"content-type": "text/html"}, "", 415),
        (b"x", {"content-encoding": "br"}, "", 415),
        (b"x", {"accept": "image/png"}, "", 406),
        (b"{}", {"content-type": "application/json"}, "", 422),
        (b'{"stations": []}', {"content-type": "application/json"}, "", 422),
        (b'{"stations": 5}', {"content-type": "application/json"}, "", 422),
        (b"x", {}, "?p_threshold=high", 422),
        (b"x", {}, "?colour=red", 422),
        (b"x", {}, "?p_threshold=0.1&p_threshold=0.2", 422),
    ],
)
def test_what_is_wrong_with_a_request_is_said(
    raw: Any, content: bytes, headers: dict[str, str], query: str, status: int
) -> None:
    said = problem(raw.post(f"/v1/pick{query}", content=content, headers=headers), status)
    assert said["detail"]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"sampling_rate": 0.0}, "sampling_rate"),
        ({"sampling_rate": 1e9}, "sampling_rate"),
        ({"start": "yesterday"}, "start"),
        ({"start": 2**63}, "start"),
        ({"station": "../../etc"}, "code"),
        ({"station": ""}, "station"),
        ({"samples": [[]]}, "no samples"),
        ({"samples": [[1.0], [2.0]]}, "rows"),
        ({"samples": "###"}, "base64"),
        ({"dtype": "complex"}, "dtype"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_impossible_arrays_are_named(
    raw: Any, stations: dict[str, bytes], changes: dict[str, Any], word: str
) -> None:
    body = arrays(next(iter(stations.values())), **changes)
    said = problem(raw.post("/v1/pick", json=body), 422)
    assert word in said["detail"]


def test_thresholds_and_models_are_checked(raw: Any, stations: dict[str, bytes]) -> None:
    content = next(iter(stations.values()))
    assert (
        "not between" in problem(raw.post("/v1/pick?p_threshold=2", content=content), 422)["detail"]
    )
    problem(raw.post("/v1/pick?detection_threshold=0", content=content), 422)
    said = problem(raw.post("/v1/pick?model=PhaseNet/unknown", content=content), 404)
    assert "served are" in said["hint"]


def test_what_is_too_large_is_refused(raw: Any, stations: dict[str, bytes]) -> None:
    problem(raw.post("/v1/pick", content=bytes(5 * 2**20)), 413)
    bomb = gzip.compress(bytes(50 * 2**20))
    problem(raw.post("/v1/pick", content=bomb, headers={"content-encoding": "gzip"}), 413)
    body, more = (arrays(content, sampling_rate=1.0) for content in list(stations.values())[:2])
    body["stations"] += more["stations"]
    assert "samples" in problem(raw.post("/v1/pick", json=body), 413)["detail"]


def test_a_client_that_leaves_is_noticed(
    service: Served, client: PickClient, stations: dict[str, bytes]
) -> None:
    before = metric(client.metrics(), "eqcctpro_abandoned_total")
    body = b"".join(stations.values())
    head = f"{ASKED}Content-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", service.port)) as gone:
            gone.sendall(head + body)
    until = time.monotonic() + 10
    while metric(client.metrics(), "eqcctpro_abandoned_total") == before:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert client.ready()


def test_health_models_and_metrics(client: PickClient, raw: Any, imported_model: str) -> None:
    for name in ("startup", "live", "ready"):
        assert raw.get(f"/health/{name}").status_code == 200
    (model,) = client.models()
    assert model["name"] == imported_model
    assert model["runtime"] == RUNTIME
    text = client.metrics()
    for name in (
        *("eqcctpro_request_duration_seconds_bucket", "eqcctpro_request_bytes_sum"),
        *("eqcctpro_stage_seconds_sum", "eqcctpro_windows_total", "eqcctpro_picks_total"),
        *("eqcctpro_batch_windows_sum", "eqcctpro_batch_wait_seconds_sum", "eqcctpro_capacity"),
        *("eqcctpro_data_age_seconds_count", "eqcctpro_requests_in_progress"),
    ):
        metric(text, name)


def test_the_interface_is_described_with_an_example_that_works(raw: Any) -> None:
    schema = raw.get("/openapi.json").json()
    body = schema["paths"]["/v1/pick"]["post"]["requestBody"]["content"]
    example = body["application/json"]["example"]
    answer = raw.post("/v1/pick", json=example)
    assert answer.status_code == 200
    assert answer.json()["stations"][0]["status"] == "empty"  # a few samples


def test_unknown_paths_and_methods(raw: Any) -> None:
    problem(raw.get("/v1/nothing"), 404)
    problem(raw.get("/v1/pick"), 405)


def test_headers_of_answers(raw: Any, stations: dict[str, bytes]) -> None:
    response = raw.get(
        "/v1/models", headers={"x-request-id": "my-1", "origin": "https://example.org"}
    )
    assert response.headers["x-request-id"] == "my-1"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["access-control-allow-origin"] == "https://example.org"
    strange = raw.get(
        "/v1/models", headers={"x-request-id": "a b\tc", "origin": "https://evil.org"}
    )
    assert strange.headers["x-request-id"] != "a b\tc"
    assert "access-control-allow-origin" not in strange.headers
    large = raw.post("/v1/annotate", content=next(iter(stations.values())))
    assert large.headers["content-encoding"] == "gzip"


def test_requests_are_logged_with_their_id(service: Served, raw: Any) -> None:
    raw.get("/v1/models", headers={"x-request-id": "look-for-me"})
    until = time.monotonic() + 5
    while True:
        found = [line for line in service.lines() if line.get("request_id") == "look-for-me"]
        if found or time.monotonic() > until:
            break
        time.sleep(0.1)
    assert found[0]["message"] == "GET /v1/models 200"


def test_everything_that_is_picked_is_streamed(
    service: Served, client: PickClient, stations: dict[str, bytes]
) -> None:
    content = next(iter(stations.values()))
    heard: list[tuple[str, dict[str, Any]]] = []
    listening = threading.Event()

    def listen(last: str | None, most: int) -> None:
        with PickClient(service.url) as own:
            stream = own.stream(last)
            listening.set()
            for event in stream:
                heard.append(event)
                if len(heard) >= most:
                    return

    answer = client.pick(content)
    wanted = plain(answer["picks"])
    thread = threading.Thread(target=listen, args=("unknown-0", 1))
    thread.start()
    thread.join(20)
    first = heard[0][0]
    heard.clear()
    # From an event on: what came after it, and what comes now.
    again = plain(client.pick(content)["picks"])
    name, _, number = first.rpartition("-")
    end = f"{name}-{int(number) + 10**9}"
    listen(first, 2)
    assert [int(event.rpartition("-")[2]) for event, _ in heard] == [
        int(number) + 1,
        int(number) + 2,
    ]
    assert end != first
    assert wanted == again
    assert all(pick["phase"] in "PS" for _, pick in heard)


def test_jobs_pick_archives_on_the_servers_disk(
    client: PickClient, raw: Any, run_picks: list[dict[str, Any]], imported_model: str
) -> None:
    problem(raw.post("/v1/jobs", json={"input": "../.."}), 403)
    problem(raw.post("/v1/jobs", json={"input": "/etc"}), 403)
    problem(raw.post("/v1/jobs", json={"input": ".", "colour": 1}), 422)
    problem(raw.post("/v1/jobs", json={"input": ".", "timechunk": -1}), 422)
    problem(raw.post("/v1/jobs", json={"input": ".", "model": "PhaseNet//etc/passwd"}), 422)
    as_json = {"content-type": "application/json"}
    problem(raw.post("/v1/jobs", content=b"{", headers=as_json), 400)
    problem(raw.post("/v1/jobs", content=b"{}"), 415)
    problem(raw.get("/v1/jobs/nothing"), 404)
    job = client.submit(input=".", layout="files", formats=["csv"])
    assert job["status"] in ("waiting", "running")
    ended = client.wait(job["id"], every_s=0.2, timeout_s=120)
    assert ended["status"] == "done", ended
    rows = list(csv.DictReader(io.StringIO(client.job_result(job["id"]).decode())))
    assert [(row["station"], row["phase"]) for row in rows] == [
        (row["station"], row["phase"]) for row in run_picks
    ]
    problem(raw.get(f"/v1/jobs/{job['id']}/result/..%2Fjob.json"), 404)
    problem(raw.get(f"/v1/jobs/{job['id']}/result/log"), 404)
    other = client.submit(input=".")
    raw.delete(f"/v1/jobs/{other['id']}").raise_for_status()
    assert client.job(other["id"])["status"] == "cancelled"
    assert [one["id"] for one in raw.get("/v1/jobs").json()["jobs"]] == [other["id"], job["id"]]


def test_grpc_gives_the_same_picks(
    service: Served, grpc_port: int, client: PickClient, stations: dict[str, bytes]
) -> None:
    import grpc

    from eqcctpro.serving.grpc_messages import SERVICE, message

    content = next(iter(stations.values()))
    wanted = [(pick["phase"], pick["time"]) for pick in client.pick(content)["picks"]]
    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        ask = channel.unary_unary(
            f"/{SERVICE}/Pick",
            request_serializer=message("PickRequest").SerializeToString,
            response_deserializer=message("PickReply").FromString,
        )
        metadata = [("application", "eqcctpro")]
        reply = ask(message("PickRequest")(body=content), metadata=metadata, timeout=30)
        assert [(pick.phase, pick.time) for pick in reply.picks] == wanted
        with pytest.raises(grpc.RpcError) as error:
            ask(message("PickRequest")(), metadata=metadata, timeout=30)
        assert error.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_large_messages_of_grpc_are_not_read(service: Served, grpc_port: int) -> None:
    import grpc

    from eqcctpro.serving.grpc_messages import SERVICE

    processes = [psutil.Process(pid) for pid in replica_pids(service)]
    used = most = sum(process.memory_info().rss for process in processes)
    large = bytes(200 * 2**20)
    options = [("grpc.max_send_message_length", -1)]
    codes = []
    for compression in (grpc.Compression.NoCompression, grpc.Compression.Gzip):
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}", options=options) as channel:
            sent = channel.unary_unary(f"/{SERVICE}/Pick").future(
                large, compression=compression, timeout=120
            )
            while not sent.done():
                time.sleep(0.01)
                most = max(most, sum(process.memory_info().rss for process in processes))
            codes.append(sent.code())
    assert codes == [grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.UNIMPLEMENTED]
    assert most - used < 50 * 2**20


def test_the_service_passes_its_own_check(service: Served, cli: Any) -> None:
    done = cli("serve-check", service.url)
    assert done.exit_code == 0, done.stdout + done.stderr
    assert "FAIL" not in done.stdout
    assert cli("serve-check", f"http://127.0.0.1:{free_port()}").exit_code == 1


def test_the_command_picks_files_through_the_service(
    service: Served, cli: Any, network: Path, run_picks: list[dict[str, Any]], tmp_path: Path
) -> None:
    done = cli("client", service.url, network, "-o", tmp_path / "picks.csv")
    assert done.exit_code == 0, done.stderr
    rows = list(csv.DictReader((tmp_path / "picks.csv").open()))
    assert [(row["station"], row["phase"]) for row in rows] == [
        (row["station"], row["phase"]) for row in run_picks
    ]
    wrong = cli("client", service.url, network, "--model", "PhaseNet/unknown")
    assert wrong.exit_code == 6
    assert "is not served" in wrong.stderr


def mutated(rng: random.Random, content: bytes) -> bytes:
    """A damaged copy: bytes changed, cut off, doubled or moved."""
    data = bytearray(content[: rng.choice((512, 4096, len(content)))])
    for _ in range(rng.randint(1, 20)):
        kind = rng.randrange(4)
        at = rng.randrange(max(1, len(data)))
        if kind == 0 and data:
            data[at] = rng.randrange(256)
        elif kind == 1:
            del data[at : at + rng.randint(1, 600)]
        elif kind == 2:
            data[at:at] = data[max(0, at - 64) : at]
        elif data:
            data[at : at + 8] = rng.randbytes(8)
    return bytes(data)


def malformed(raw: Any, stations: dict[str, bytes], count: int, seed: int) -> dict[int, int]:
    """Send damaged requests; how often each status came."""
    rng = random.Random(seed)
    contents = list(stations.values())
    text = json.dumps(arrays(contents[0])).encode()[:6000]
    statuses: dict[int, int] = {}
    for _ in range(count):
        kind = rng.choice((MSEED, MSEED, "", "application/json", "application/msgpack"))
        source = text if kind == "application/json" else rng.choice(contents)
        headers = {"content-type": kind} if kind else {}
        response = raw.post(
            rng.choice(("/v1/pick", "/v1/pick", "/v1/annotate")),
            content=mutated(rng, source),
            headers=headers,
        )
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
    return statuses


def test_malformed_requests_never_break_the_service(
    raw: Any, client: PickClient, stations: dict[str, bytes]
) -> None:
    statuses = malformed(raw, stations, 300, seed=1)
    assert set(statuses) <= {200, 400, 413, 422}, statuses
    assert statuses[400] > 50
    assert client.pick(next(iter(stations.values())))["picks"]


@pytest.mark.exhaustive
def test_ten_thousand_malformed_requests(
    service: Served, raw: Any, stations: dict[str, bytes]
) -> None:
    import psutil

    (pid,) = replica_pids(service)
    malformed(raw, stations, 1000, seed=2)
    before = psutil.Process(pid).memory_info().rss
    statuses = malformed(raw, stations, 9000, seed=3)
    assert set(statuses) <= {200, 400, 413, 422}, statuses
    assert psutil.Process(pid).memory_info().rss - before < 100 * 2**20


def test_a_port_in_use_is_refused(cli: Any, imported_model: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        port = taken.getsockname()[1]
        done = cli("serve", "--model", imported_model, "--port", port)
    assert done.exit_code == 2
    assert f"cannot listen at 127.0.0.1:{port}" in done.stderr
    assert "--port" in done.stderr


def test_missing_weights_are_refused(cli: Any) -> None:
    done = cli("serve", "--model", "PhaseNet/nothing", "--port", free_port())
    assert done.exit_code == 4
    assert "nothing" in done.stderr


def test_a_dry_run_picks_the_example(cli: Any, imported_model: str) -> None:
    models = f"models=[{{name: {imported_model}, runtime: {RUNTIME}}}]"
    done = cli("serve", "--set", models, "--dry-run", "--port", free_port())
    assert done.exit_code == 0, done.stderr
    assert "picks in the example" in done.stdout
    assert "ms a request" in done.stdout


def test_an_error_of_the_client_says_what_to_do() -> None:
    with PickClient(f"http://127.0.0.1:{free_port()}", retries=0) as nobody:
        assert not nobody.ready()
        with pytest.raises(ServiceError, match="does not answer"):
            nobody.models()


@pytest.mark.slow
def test_a_killed_replica_loses_no_request_without_an_error(
    service: Served, stations: dict[str, bytes]
) -> None:
    """Last of this service: every request ends with an answer or an error, and it picks again."""
    content = b"".join(stations.values())
    ends: list[str] = []
    until = time.monotonic() + 5

    def ask() -> None:
        while time.monotonic() < until:
            try:
                with httpx.Client(base_url=service.url, timeout=20.0) as own:
                    ends.append(str(own.post("/v1/pick", content=content).status_code))
            except httpx.TransportError as error:
                ends.append(type(error).__name__)
                time.sleep(0.2)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.5)
    for pid in replica_pids(service):
        os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert "200" in ends
    assert set(ends) - {"200"}, "nothing noticed the kill"
    with PickClient(service.url) as again:
        end = time.monotonic() + 60
        while not again.ready():
            assert time.monotonic() < end
            time.sleep(0.2)
        assert again.pick(content)["picks"]
    live = httpx.get(f"{service.url}/health/live")
    assert live.status_code == 200


def long_body(stations: dict[str, bytes], copies: int) -> bytes:
    """Many stations: the same one under other names."""
    from eqcctpro.waveform.decode import decode_records
    from eqcctpro.waveform.encode import encode

    segments = decode_records(next(iter(stations.values())), "test").segments
    return b"".join(
        encode(
            [
                type(s)(s.code._replace(station=f"L{index:03d}"), s.start_ns, 100.0, s.samples)
                for s in segments
            ]
        )
        for index in range(copies)
    )


@pytest.mark.slow
def test_ending_finishes_what_was_accepted(service: Served, stations: dict[str, bytes]) -> None:
    """The very last of this service: timeout(1), batch systems and systemd tell all processes."""
    content = long_body(stations, 40)
    family = psutil.Process(service.process.pid).children(recursive=True)
    assert len(family) > 3
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(httpx.post, f"{service.url}/v1/pick", content=content, timeout=60.0)
        time.sleep(0.15)
        for process in (service.process, *family):
            with suppress(psutil.NoSuchProcess, ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        code = service.process.wait(60)
        assert answer.result().status_code == 200
        assert len(answer.result().json()["stations"]) == 40
    assert code == 0
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{service.url}/health/live")
    until = time.monotonic() + 15
    while left := [each for each in family if alive(each)]:
        assert time.monotonic() < until, left
        time.sleep(0.2)


def alive(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
