"""Bodies that claim, or become, far more than they are."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
msgspec = pytest.importorskip("msgspec", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from bare_service import Watched, bare_service
from hostile_records import apart, stations

from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.waveforms import ARROW

pytestmark = pytest.mark.slow  # a service is started

BODIES_MB = 96
BODY_MB = 12
MSGPACK, JSON = "application/msgpack", "application/json"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, imported_model: str) -> Iterator[Watched]:
    with bare_service(
        tmp_path_factory.mktemp("bare"),
        fixed={"max_list_mb": 0.5},
        models=[{"name": imported_model, "runtime": "openvino"}],
        limits={
            "bodies_mb": BODIES_MB,
            "max_body_mb": BODY_MB,
            "request_timeout_s": 60,
        },
        replicas={"threads": 1},
        batching={"max_batch_size": 16},
        logs={"format": "json"},
    ) as running:
        for _ in range(3):
            answer = post(running, example_miniseed(), "")
            assert answer.json()["picks"]
        yield running


def post(service: Watched, body: bytes, media_type: str, **headers: str) -> Any:
    named = {"content-type": media_type} if media_type else {}
    return httpx.post(
        f"{service.url}/v1/pick",
        content=body,
        headers={**named, **headers},
        timeout=120.0,
    )


def post_all(service: Watched, bodies: list[tuple[bytes, str, dict[str, str]]]) -> list[int]:
    """Statuses of bodies that are sent at once."""

    async def run() -> list[int]:
        async with httpx.AsyncClient(timeout=120.0, limits=httpx.Limits()) as client:
            answers = await asyncio.gather(
                *(
                    client.post(
                        f"{service.url}/v1/pick",
                        content=body,
                        headers={"content-type": media_type, **more},
                    )
                    for body, media_type, more in bodies
                )
            )
        for answer in answers:
            if answer.status_code != 200:
                assert answer.headers["content-type"] == "application/problem+json"
        return [answer.status_code for answer in answers]

    return asyncio.run(run())


def held(service: Watched) -> None:
    """The service has kept its limits, and works."""
    assert service.refused == []
    assert service.patient, service.slowest_s
    assert service.grown_mb < 1.5 * BODIES_MB
    assert post(service, example_miniseed(), "").json()["picks"]


def arrow(samples: Any, *, compression: str | None = None, **columns: Any) -> bytes:
    """A stream of one station."""
    values = {
        **dict(network=["XX"], station=["A"], location=[""], channel=["HHZ"]),
        "start": [0],
        "sampling_rate": [100.0],
        "samples": samples,
        **columns,
    }
    table = pa.table(values)
    buffer = io.BytesIO()
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(buffer, table.schema, options=options) as writer:
        writer.write_table(table)
    return buffer.getvalue()


def zeros(n: int) -> Any:
    return pa.ListArray.from_arrays(pa.array([0, n], pa.int32()), pa.array(np.zeros(n, np.int32)))


def test_arrow_that_is_compressed_inside(service: Watched) -> None:
    bomb = arrow(zeros(30_000_000), compression="zstd")
    assert len(bomb) < 100_000
    packed = gzip.compress(bomb)
    with service.watch():
        for body, more in ((bomb, {}), (packed, {"content-encoding": "gzip"})):
            answer = post(service, body, ARROW, **more)
            assert answer.status_code == 413, answer.text
            assert "MB" in answer.json()["detail"]
        statuses = post_all(service, [(bomb, ARROW, {})] * 8)
    assert set(statuses) == {413}
    held(service)
    small = np.random.default_rng(0).integers(-1000, 1000, 6000).astype(np.int32)
    for kind in (None, "zstd", "lz4"):
        whole = arrow(pa.array([small.tolist()], pa.list_(pa.int32())), compression=kind)
        answer = post(service, whole, ARROW)
        assert answer.json()["stations"][0]["samples"] == 6000, kind


ODD = {
    "twice": lambda: _twice(),
    "texts": lambda: arrow([["a"]]),
    "views": lambda: arrow(pa.array([[1]], pa.list_view(pa.int32()))),
    "nested": lambda: arrow([[[1]]]),
    "no list": lambda: arrow([1.0]),
    "number as a code": lambda: arrow([[1.0]], network=[5]),
    "bytes as a code": lambda: arrow([[1.0]], network=[b"\xff"]),
    "duration": lambda: arrow([[1.0]], start=pa.array([1], pa.duration("s"))),
    "date": lambda: arrow([[1.0]], start=pa.array([1], pa.date32())),
    "text as a rate": lambda: arrow([[1.0]], sampling_rate=["x"]),
    "no rate": lambda: arrow([[1.0]], sampling_rate=pa.array([None], pa.float64())),
    "not a number": lambda: arrow([[1.0]], sampling_rate=[float("nan")]),
    "far": lambda: arrow([[1.0]], start=pa.array([2**62], pa.timestamp("s"))),
    "farther": lambda: arrow([[1.0]], start=pa.array([2**64 - 1], pa.uint64())),
    "null": lambda: arrow(pa.array([[None]], pa.list_(pa.int32()))),
    "nothing": lambda: arrow(pa.array([None], pa.null())),
    "empty": lambda: arrow([[]]),
    "decimal": lambda: arrow([[1.0]], sampling_rate=pa.array([1], pa.decimal128(5))),
    "cut": lambda: arrow(zeros(1000))[:-2000],
    "name": lambda: arrow(zeros(1000)).replace(b"samples", b"sampl\xff\xff"),
    "garbage": lambda: b"\xff\xff\xff\xff" + b"\x7f" * 64,
}


def _twice() -> bytes:
    schema = pa.schema([("samples", pa.list_(pa.int32())), ("samples", pa.list_(pa.int32()))])
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, schema) as writer:
        writer.write_table(pa.table([[[1]], [[1]]], schema=schema))
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ODD)
def test_odd_arrow_is_the_clients_mistake(service: Watched, kind: str) -> None:
    answer = post(service, ODD[kind](), ARROW)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["detail"]


def test_arrow_with_any_byte_changed_is_no_error_of_ours(service: Watched) -> None:
    whole = arrow(zeros(50), compression="zstd")
    source = np.random.default_rng(7)
    with httpx.Client(timeout=60.0) as client:
        for _ in range(150):
            changed = bytearray(whole)
            for at in source.integers(0, len(whole), source.integers(1, 4)).tolist():
                changed[at] = int(source.integers(0, 256))
            answer = client.post(
                f"{service.url}/v1/pick", content=bytes(changed), headers={"content-type": ARROW}
            )
            assert answer.status_code < 500, answer.text


def lists(n: int, value: bytes) -> bytes:
    """msgpack of one station with one row of so many values."""
    station = {"station": "A", "channels": ["HHZ"], "start": 0, "sampling_rate": 100}
    packed = msgspec.msgpack.encode({"stations": [{**station, "samples": [[0]]}]})
    head, tail = packed.rsplit(b"\x91\x91\x00", 1)
    return head + b"\x91\xdd" + n.to_bytes(4, "big") + value * n + tail


def test_lists_of_nothing(service: Watched) -> None:
    empty = [
        (gzip.compress(lists(10_000_000, b"\x90")), MSGPACK),
        (gzip.compress(lists(10_000_000, b"\x01")), MSGPACK),
        (gzip.compress(b"\x81\xa8stations\xdd\x00\x98\x96\x80" + b"\x90" * 10_000_000), MSGPACK),
        (gzip.compress(b'{"stations":[' + b"[]," * 3_000_000 + b"[]]}"), JSON),
        (gzip.compress(b'{"stations":[' + b"{}," * 3_000_000 + b"{}]}"), JSON),
        (gzip.compress(b'{"p_threshold":' + b"1" * 10_000_000 + b"}"), JSON),
        (gzip.compress(b"[" * 10_000_000), JSON),
        (gzip.compress(b"\x91" * 10_000_000), MSGPACK),
    ]
    assert all(len(body) < 50_000 for body, _ in empty)
    with service.watch():
        statuses = post_all(
            service, [(body, kind, {"content-encoding": "gzip"}) for body, kind in empty]
        )
        assert set(statuses) <= {400, 413, 422, 429}
        for body, kind in empty:
            answer = post(service, body, kind, **{"content-encoding": "gzip"})
            assert answer.status_code in (400, 413, 422), answer.text
    held(service)


def test_zeros_that_were_compressed(service: Watched) -> None:
    bombs = [
        *[gzip.compress(b"\0" * 50_000_000, 9)] * 8,
        *[gzip.compress(gzip.compress(b"\0" * 50_000_000, 9), 9)] * 4,
        *[gzip.compress(b"") * 20_000] * 4,
    ]
    with service.watch():
        statuses = post_all(service, [(body, "", {"content-encoding": "gzip"}) for body in bombs])
    assert set(statuses) <= {400, 413, 429}
    held(service)


def test_compressed_files_of_records(service: Watched) -> None:
    import bz2
    import lzma

    with service.watch():
        for pack in (gzip.compress, bz2.compress, lzma.compress):
            assert post(service, pack(example_miniseed()), "").json()["picks"]
            answer = post(service, pack(b"\0" * 50_000_000), "")
            assert answer.status_code == 413, answer.text
    held(service)


def test_every_way_to_compress_is_read_as_a_whole(service: Watched) -> None:
    body = example_miniseed()
    expected = post(service, body, "").json()["picks"]
    half = len(body) // 1024 * 512
    raw = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    for packed, coding in (
        (gzip.compress(body[:half]) + gzip.compress(body[half:]), "gzip"),
        (gzip.compress(body) + b"\0" * 512, "x-gzip"),
        (zlib.compress(body), "deflate"),
        (raw.compress(body) + raw.flush(), "deflate"),
    ):
        answer = post(service, packed, "", **{"content-encoding": coding})
        found = answer.json()["picks"]
        assert [pick["time"] for pick in found] == [pick["time"] for pick in expected]
    for packed, coding in (
        (gzip.compress(body)[:-20], "gzip"),
        (gzip.compress(body) + b"more", "gzip"),
        (zlib.compress(body) + b"more", "deflate"),
        (b"\x78\x9c" + b"x" * 50, "deflate"),
        (b"x", "gzip"),
    ):
        assert post(service, packed, "", **{"content-encoding": coding}).status_code == 400


def test_many_tiny_records_and_stations(service: Watched) -> None:
    tiny = {"station": "A", "channels": ["HHZ"], "start": 0, "sampling_rate": 100}
    rows = [{**tiny, "station": f"S{at}", "samples": [[1, 2]]} for at in range(20_000)]
    too_many = json.dumps({"stations": rows}).encode()
    many = json.dumps({"stations": rows[:2000]}).encode()
    with service.watch():
        answer = post(service, b"".join(apart(8000)), "")
        assert answer.status_code == 200
        assert answer.json()["stations"][0]["samples"] == 16_000
        answer = post(service, many, JSON)
        assert len(answer.json()["stations"]) == 2000
        for body, kind in ((too_many, JSON), (b"".join(stations(12_000)), "")):
            answer = post(service, gzip.compress(body), kind, **{"content-encoding": "gzip"})
            assert answer.status_code == 413
            assert "stations" in answer.json()["detail"]
    held(service)


def test_holes_in_a_record_are_pieces(service: Watched) -> None:
    samples = np.ones(2_000_000, np.float32)
    samples[::2] = np.nan
    station = {"station": "A", "channels": ["HHZ"], "start": 0, "sampling_rate": 100}
    body = msgspec.msgpack.encode({"stations": [{**station, "samples": samples.tobytes()}]})
    with service.watch():
        answer = post(service, body, MSGPACK)
    assert answer.status_code == 413
    assert "pieces" in answer.json()["detail"]
    held(service)


def test_long_lists_of_numbers_are_asked_for_as_bytes(service: Watched) -> None:
    values = np.random.default_rng(0).integers(-999, 999, (3, 60_000))
    station = {"station": "A", "channels": ["HHZ", "HHN", "HHE"], "start": 0, "sampling_rate": 100}
    as_lists = {"stations": [{**station, "samples": values.tolist()}]}
    for encode, kind in ((msgspec.json.encode, JSON), (msgspec.msgpack.encode, MSGPACK)):
        big = {"stations": as_lists["stations"] * 3}
        answer = post(service, encode(big), kind)
        assert answer.status_code == 413
        assert "bytes" in answer.json()["hint"]
        packed = values.astype("<i4").tobytes()
        entry = {**station, "samples": packed, "dtype": "int32"}
        answer = post(service, encode({"stations": [entry] * 1}), kind)
        assert answer.json()["stations"][0]["samples"] == 180_000
    one = {"stations": [{**station, "samples": values[:, :6000].tolist()}]}
    assert post(service, msgspec.json.encode(one), JSON).status_code == 200


def test_forms_of_nothing_but_borders(service: Watched) -> None:
    form = {"content-type": "multipart/form-data; boundary=b"}
    part = b'--b\r\ncontent-disposition: form-data; name="a"; filename="a"\r\n\r\n'
    with service.watch():
        for body in (
            part + b"\r\n-" * 1_000_000,
            part + b"\r\n--" * 1_000_000 + b"\r\n--b--\r\n",
            (part + b"\r\n") * 3000 + b"--b--\r\n",
            b"--b\r\n" + b"x: y\r\n" * 100_000,
            b"--b\r\nx: " + b"y" * 5_000_000,
        ):
            answer = httpx.post(f"{service.url}/v1/pick", content=body, headers=form, timeout=120.0)
            assert answer.status_code in (400, 413, 422), answer.text
    held(service)
