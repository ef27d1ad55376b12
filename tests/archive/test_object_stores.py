"""Archives in an object store: a local server that speaks S3.

moto's, where its command ``moto_server`` is on the path or ``$EQCCTPRO_MOTO_SERVER``; else a
small one.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, unquote

import pytest
import requests

from eqcctpro import PickConfig
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.errors import InputChangedError, InputError, SettingsError

pytest.importorskip("obstore", reason="the extra s3 is not installed")

COLUMNS = ["network", "station", "location", "channel", "phase", "time"]


class SmallStore(http.server.BaseHTTPRequestHandler):
    """As much of S3 as is read here: lists with pages, objects, parts of objects."""

    protocol_version = "HTTP/1.1"
    page = 5
    objects: ClassVar[dict[str, bytes]] = {}

    def log_message(self, *_: object) -> None:
        pass

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.objects[unquote(self.path)] = content
        self.answer(200, b"")

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        asked = {name: values[0] for name, values in parse_qs(query).items()}
        path = unquote(path)
        if "list-type" in asked:
            self.list_objects(path.strip("/"), asked)
        elif path not in self.objects:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        else:
            content = self.objects[path]
            tag = f'"{hashlib.md5(content).hexdigest()}"'
            headers = {"ETag": tag, "Last-Modified": "Sun, 15 Dec 2024 12:00:00 GMT"}
            part = self.headers.get("Range")
            if part is None:
                self.answer(200, content, **headers)
            else:
                first, last = (int(number) for number in part.removeprefix("bytes=").split("-"))
                headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
                self.answer(206, content[first : last + 1], **headers)

    def list_objects(self, bucket: str, asked: dict[str, str]) -> None:
        if f"/{bucket}" not in self.objects:
            self.answer(404, b"<Error><Code>NoSuchBucket</Code></Error>")
            return
        prefix, entries = asked.get("prefix", ""), {}
        for name, content in sorted(self.objects.items()):
            key = name.removeprefix(f"/{bucket}/")
            if key == name or not key.startswith(prefix):
                continue
            head, slash, _ = key.removeprefix(prefix).partition("/")
            if slash and asked.get("delimiter"):
                folder = f"{prefix}{head}/"
                entries[folder] = f"<CommonPrefixes><Prefix>{folder}</Prefix></CommonPrefixes>"
            else:
                entries[key] = (
                    f"<Contents><Key>{key}</Key><Size>{len(content)}</Size>"
                    f"<ETag>&quot;{hashlib.md5(content).hexdigest()}&quot;</ETag>"
                    "<LastModified>2024-12-15T12:00:00.000Z</LastModified></Contents>"
                )
        left = [key for key in entries if key > asked.get("continuation-token", "")]
        shown, more = left[: self.page], len(left) > self.page
        token = f"<NextContinuationToken>{shown[-1]}</NextContinuationToken>" if more else ""
        body = "".join(entries[key] for key in shown)
        self.answer(
            200,
            f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{body}"
            "</ListBucketResult>".encode(),
        )

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


class Store:
    """A server of objects."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.options = {"endpoint_url": endpoint}

    def put(self, bucket: str, key: str = "", content: bytes = b"") -> None:
        address = f"{self.endpoint}/{bucket}" + (f"/{key}" if key else "")
        # Anybody may read, as in the public archives; moto asks who writes, and believes it.
        credential = "testing/20240101/us-east-1/s3/aws4_request"
        headers = {
            "x-amz-acl": "public-read",
            "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, "
            "SignedHeaders=host, Signature=none",
        }
        requests.put(address, data=content, headers=headers, timeout=10).raise_for_status()


@contextmanager
def serving() -> Iterator[str]:
    """Address of a server: moto's, in a process of its own, or the small one in this process."""
    command = os.environ.get("EQCCTPRO_MOTO_SERVER") or shutil.which("moto_server")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if command and shutil.which(command):
        output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        arguments = [command, "-H", "127.0.0.1", "-p", str(port)]
        process = subprocess.Popen(arguments, **output)  # type: ignore[call-overload]
        try:
            if answers(process, f"http://127.0.0.1:{port}"):
                yield f"http://127.0.0.1:{port}"
                return
        finally:
            process.terminate()
            process.wait()
    SmallStore.objects.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), SmallStore) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def answers(process: Any, address: str) -> bool:
    """Whether a server answers before it ends or half a minute is over."""
    for _ in range(300):
        try:
            requests.get(address, timeout=1)
            return True
        except requests.RequestException:
            if process.poll() is not None:
                return False
            time.sleep(0.1)
    return False


def codes_of(path: Path) -> list[str]:
    return path.name.split("__")[0].split(".")


@pytest.fixture(scope="module")
def store(generated_network: Any) -> Iterator[Store]:
    archive = Path(generated_network[0])
    with pytest.MonkeyPatch.context() as patch, serving() as at:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        made = Store(at)
        for bucket in ("network", "scedc-pds", "ncedc-pds", "earthscope-geophysical-data"):
            made.put(bucket)
        stations: dict[str, bytes] = {}
        for path in sorted(archive.glob("*/*/*.mseed")):
            net, sta, loc, cha = codes_of(path)
            content = path.read_bytes()
            made.put("network", f"chunks/{path.relative_to(archive)}", content)
            sds = f"2024/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.2024.350"
            made.put("network", f"sds/{sds}", content)
            scedc = f"2024/2024_350/{net}{sta:_<5}{cha}{loc:_<3}2024350.ms"
            made.put("scedc-pds", f"continuous_waveforms/{scedc}", content)
            ncedc = f"{net}/2024/2024.350/{sta}.{net}.{cha}.{loc}.D.2024.350"
            made.put("ncedc-pds", f"continuous_waveforms/{ncedc}", content)
            name = f"{net}/2024/350/{sta}.{net}.2024.350"
            stations[name] = stations.get(name, b"") + content
        for name, content in stations.items():
            made.put("earthscope-geophysical-data", f"miniseed/{name}", content)
        made.put("scedc-pds", "earthquake_catalogs/2024.catalog", b"no waveforms")
        made.put("network", "sds/README", b"no waveforms")
        yield made


def plan_of(store: Store, *inputs: str, **settings: Any) -> Plan:
    config = PickConfig.checked(input=inputs, output="unused", storage=store.options, **settings)
    return make_plan(InputSettings.of(config))


@pytest.fixture(scope="module")
def expected(pick: Any, imported_model: str, generated_network: Any) -> Any:
    return pick(generated_network[0], model=imported_model).table.select(COLUMNS)


@pytest.mark.parametrize(
    ("address", "layout", "files"),
    [
        ("s3://network/chunks", "chunks", 16),
        ("s3://network/sds", "sds", 16),
        ("s3://scedc-pds", "scedc", 16),
        ("s3://scedc-pds/continuous_waveforms/", "scedc", 16),
        ("s3://ncedc-pds", "ncedc", 16),
        ("s3://earthscope-geophysical-data", "earthscope", 6),
        ("s3://network/chunks/*/DEM0[12]/*.mseed", "files", 6),
    ],
)
def test_layouts_are_recognised(
    store: Store, generated_network: Any, address: str, layout: str, files: int
) -> None:
    local = make_plan(InputSettings((Path(generated_network[0]),)))
    plan = plan_of(store, address)
    assert plan.layout == layout
    assert not plan.problems
    assert len(plan.files) == files
    names = sorted({task.name for task in local.tasks})
    assert sorted({task.name for task in plan.tasks}) == (names[:2] if "DEM" in address else names)


def test_only_what_is_wanted_is_looked_at(store: Store) -> None:
    plan = plan_of(store, "s3://scedc-pds", stations="XX.DEM02")
    assert [task.name for task in plan.tasks] == ["XX.DEM02.00.HH"]
    assert len(plan.files) == 3
    with pytest.raises(InputError, match="no data between"):
        plan_of(store, "s3://ncedc-pds", start="2023-01-01", end="2023-01-02")
    with pytest.raises(SettingsError, match=r"did you mean XX\.DEM0"):
        plan_of(store, "s3://earthscope-geophysical-data", stations="XX.DEM0A")


@pytest.mark.slow
@pytest.mark.parametrize("address", ["s3://network/chunks", "s3://scedc-pds"])
def test_picks_are_those_of_the_files(
    pick: Any, imported_model: str, store: Store, expected: Any, address: str
) -> None:
    everything = {"overview": True, "report": True, "amplitudes": True}
    result = pick(address, model=imported_model, storage=store.options, **everything)
    assert result.counts["failed"] == 0
    assert result.table.select(COLUMNS) == expected
    for name in everything:
        assert Path(result.summary["paths"][name]).stat().st_size > 1000


@pytest.mark.slow
def test_workers_read_the_store(
    pick: Any, imported_model: str, store: Store, expected: Any
) -> None:
    result = pick(
        "s3://network/sds",
        model=imported_model,
        mode="modelactor",
        workers=1,
        storage=store.options,
    )
    assert result.counts["failed"] == 0
    assert result.table.select(COLUMNS) == expected


@pytest.mark.slow
def test_a_run_goes_on_only_with_the_same_objects(
    pick: Any, imported_model: str, store: Store, tmp_path: Path, generated_network: Any
) -> None:
    files = sorted(Path(generated_network[0]).glob("*/DEM0[12]/*.mseed"))
    for path in files:
        net, sta, loc, cha = codes_of(path)
        key = f"sds/2024/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.2024.350"
        store.put("network", f"again/{key}", path.read_bytes())
    first = f"again/sds/2024/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.2024.350"
    address = "s3://network/again/sds"
    plan = plan_of(store, address)
    changed = files[-1].read_bytes()[512:]
    settings = {"model": imported_model, "storage": store.options, "output": tmp_path}
    with pytest.MonkeyPatch.context() as patch:
        # The object changes between the plan and the reading of it.
        from eqcctpro.orchestration import session

        def plan_and_change(given: InputSettings, *rest: Any) -> Plan:
            planned = make_plan(given, *rest)
            store.put("network", first, changed)
            return planned

        patch.setattr(session, "make_plan", plan_and_change)
        result = pick(address, **settings)
    assert (result.counts["done"], result.counts["failed"]) == (1, 1)
    (failed,) = result.summary["failed"]
    assert failed["error"] == InputChangedError.__name__
    assert len(plan.tasks) == 2
    store.put("network", first, files[-1].read_bytes())
    again = pick(address, **settings, resume="require")
    assert again.counts["done"] == 2
    assert again.counts["failed"] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["input"] == [address]


def test_other_file_systems(generated_network: Any) -> None:
    """What fsspec knows besides: here its files in memory."""
    import fsspec

    archive = Path(generated_network[0])
    memory = fsspec.filesystem("memory")
    for path in archive.glob("*/DEM0[12]/*.mseed"):
        memory.pipe_file(f"/network/{path.relative_to(archive)}", path.read_bytes())
    plan = make_plan(InputSettings(("memory://network",)))
    assert plan.layout == "chunks"
    assert [task.folder for task in plan.tasks] == ["DEM01", "DEM02"]
    assert not plan.problems
    plan = make_plan(InputSettings((f"memory://network/{plan.chunks[0].name}/DEM01",)))
    assert plan.layout == "files"
    assert [task.name for task in plan.tasks] == ["XX.DEM01.00.HH"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://nothing-here/x", "nothing-here"),
        ("s3://network/nowhere", "holds no files"),
        ("nosuch://network/x", "nosuch"),
    ],
)
def test_addresses_that_lead_nowhere(store: Store, address: str, message: str) -> None:
    with pytest.raises((InputError, SettingsError), match=message):
        plan_of(store, address)


def test_secrets_are_no_settings() -> None:
    with pytest.raises(SettingsError, match="secret"):
        PickConfig.checked(input="s3://a/b", output="x", storage={"key": "mine"})


def test_addresses_stay_addresses() -> None:
    config = PickConfig.checked(input="s3://bucket/folder/", output="x")
    assert config.input == ("s3://bucket/folder",)
    assert PickConfig.checked(input="file:///tmp/x", output="x").input == (Path("/tmp/x"),)
    assert os.fspath(PickConfig.checked(input="a/b", output="x").input[0]) == "a/b"  # type: ignore[arg-type]
