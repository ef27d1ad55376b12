"""Data from FDSN web services: a real dataselect server, behind one that can be made to fail."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import obspy
import pyarrow as pa
import pytest
from doc_blocks import blocks_of

from eqcctpro.download import DownloadSettings, download
from eqcctpro.download import data_centre as service_module
from eqcctpro.download.settings import service_root
from eqcctpro.errors import OutputError, SettingsError, WeightsNotFoundError
from eqcctpro.picks.reading import read_picks
from eqcctpro.times import format_utc

handlers = pytest.importorskip(
    "portable_fdsnws_dataselect.handler", reason="portable-fdsnws-dataselect is not installed"
)

START, END = "2024-03-01T23:53:00", "2024-03-02T00:07:00"
Fault = Callable[[BaseHTTPRequestHandler, bytes], None]


def serve(server: ThreadingHTTPServer) -> ThreadingHTTPServer:
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def index_of(folder: Path, path: Path) -> Path:
    """An index of miniSEED files as mseedindex writes it."""
    from pymseed import MS3Record, sourceid2nslc

    rows = []
    for file in sorted(folder.glob("*.mseed")):
        content = file.read_bytes()
        first, last = MS3Record.parse(content), MS3Record.parse(content[-512:])
        end = last.starttime + round((last.samplecnt - 1) * 1e9 / last.samprate)
        times = [format_utc(moment)[:-1] for moment in (first.starttime, end)]
        code = sourceid2nslc(first.sourceid)
        places = range(0, len(content), 512)
        starts = [MS3Record.parse(content[at : at + 512]).starttime / 1e9 for at in places]
        entries = [f"{start:.6f}=>{at}" for start, at in zip(starts, places, strict=True)]
        index = ",".join([*entries, f"latest=>{len(content)}"])
        rows.append((*code, "D", *times, 100.0, str(file), 0, len(content), None, index))
    columns = (
        "network,station,location,channel,quality,starttime,endtime,samplerate,filename,"
        "byteoffset,bytes,hash,timeindex,timespans,timerates,format,filemodtime,updated,scanned"
    )
    with sqlite3.connect(path) as database:
        database.execute(f"CREATE TABLE tsindex ({columns})")
        marks = ",".join("?" * 13) + ",NULL" * 6
        database.executemany(f"INSERT INTO tsindex VALUES ({marks})", rows)
    database.close()
    return path


@pytest.fixture(scope="module")
def dataselect(
    around_midnight: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Port of a real dataselect server."""
    from portable_fdsnws_dataselect.miniseed import MiniseedDataExtractor

    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), handlers.HTTPServer_RequestHandler)
    database = index_of(around_midnight[0], tmp_path_factory.mktemp("index") / "timeseries.sqlite")
    server.params = {
        "dbfile": str(database),
        "index_table": "tsindex",
        "datapath_replace": False,
        "interface": "127.0.0.1",
        "port": 0,
        "request_limit": 0,
        "maxsectiondays": 10,
        "docroot": "",
        "show_directories": False,
        "shiplogdir": None,
    }
    server.data_extractor = MiniseedDataExtractor(False, 0)
    serve(server)
    yield server.server_port
    server.shutdown()
    server.server_close()


class Centre(ThreadingHTTPServer):
    """A data centre: metadata of its own, waveforms of the real server, faults as they are told."""

    def __init__(self, dataselect: int, inventory: obspy.Inventory) -> None:
        super().__init__(("127.0.0.1", 0), CentreHandler)
        self.dataselect = dataselect
        self.inventory = inventory
        self.faults: dict[str, list[Fault]] = {"dataselect": [], "station": []}
        self.bodies: dict[str, list[str]] = {"dataselect": [], "station": []}
        self.times: list[float] = []
        self.lock = threading.Lock()

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class CentreHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Centre

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        service = self.path.split("/")[2]
        with self.server.lock:
            self.server.bodies[service].append(body.decode())
            self.server.times.append(time.monotonic())
            faults = self.server.faults[service]
            fault = faults.pop(0) if faults else None
        try:
            if fault is None:
                self.answer(*self.truth(service, body))
            else:
                fault(self, body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def truth(self, service: str, body: bytes) -> tuple[int, bytes]:
        if service == "dataselect":
            connection = HTTPConnection("127.0.0.1", self.server.dataselect)
            connection.request("POST", self.path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        lines = body.decode().splitlines()
        wanted = [line.split() for line in lines if "=" not in line]
        chosen = obspy.Inventory()
        for net, sta, loc, cha, start, end in wanted:
            chosen += self.server.inventory.select(
                network=net,
                station=sta,
                location="" if loc == "--" else loc,
                channel=cha,
                starttime=obspy.UTCDateTime(start),
                endtime=obspy.UTCDateTime(end),
            )
        if not len(chosen):
            return 204, b""
        if "format=text" in lines:
            text = io.StringIO()
            chosen.write(text, "STATIONTXT", level="channel")
            return 200, text.getvalue().encode()
        buffer = io.BytesIO()
        chosen.write(buffer, "STATIONXML")
        return 200, buffer.getvalue()

    def answer(self, status: int, content: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if status != 204:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status != 204:
            self.wfile.write(content)


def status(code: int, text: str = "trouble", **headers: str) -> Fault:
    return lambda handler, _: handler.answer(code, text.encode(), **headers)  # type: ignore[attr-defined]


def slow(seconds: float) -> Fault:
    def wait(handler: Any, body: bytes) -> None:
        time.sleep(seconds)
        handler.answer(*handler.truth("dataselect", body))

    return wait


def cut(share: float, *, announced: bool) -> Fault:
    """An answer that ends early, whether or not its length was announced."""

    def send(handler: Any, body: bytes) -> None:
        _, content = handler.truth("dataselect", body)
        handler.send_response(200)
        if announced:
            handler.send_header("Content-Length", str(len(content)))
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(content[: round(len(content) * share) // 512 * 512 + 100])
        handler.close_connection = True

    return send


@pytest.fixture(scope="module")
def inventory() -> obspy.Inventory:
    """Two stations with data, one without, and channels of another time."""
    from obspy.core.inventory import Channel, Network, Response, Site, Station

    def channel(code: str, start: str = "2020-01-01", end: str | None = None) -> Channel:
        return Channel(
            code,
            "00",
            35.0,
            -120.0,
            10.0,
            0.0,
            sample_rate=100.0,
            start_date=obspy.UTCDateTime(start),
            end_date=obspy.UTCDateTime(end) if end else None,
            response=Response.from_paz([], [], 100.0),
        )

    stations = [
        Station(
            name,
            35.0,
            -120.0,
            10.0,
            site=Site(name),
            channels=[
                *(channel(f"HH{c}") for c in "ENZ"),
                channel("EHZ", "2010-01-01", "2015-01-01"),
            ],
        )
        for name in ("DEM01", "DEM02", "NONE")
    ]
    return obspy.Inventory([Network("XX", stations)], source="test")


@pytest.fixture(scope="module")
def server(dataselect: int, inventory: obspy.Inventory) -> Iterator[Centre]:
    made = Centre(dataselect, inventory)
    serve(made)
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def centre(server: Centre, monkeypatch: pytest.MonkeyPatch) -> Centre:
    for service in ("dataselect", "station"):
        server.faults[service].clear()
        server.bodies[service].clear()
    server.times.clear()
    monkeypatch.setattr(service_module, "FIRST_PAUSE_S", 0.02)
    return server


def settings(centre: Centre, output: Path, **given: Any) -> DownloadSettings:
    values = {"start": START, "end": END, "networks": "XX", "stations": "DEM*", "channels": "HH?"}
    if "streams" in given:
        values = {"start": START, "end": END}
    return DownloadSettings.checked(
        output=output, host=centre.host, **{"rate": 200.0, "timeout": 10.0, **values, **given}
    )


def samples_of(files: Any) -> dict[str, np.ndarray]:
    stream = obspy.Stream()
    for file in files:
        stream += obspy.read(str(file))
    stream.merge(method=-1)
    assert len({trace.id for trace in stream}) == len(stream)
    return {trace.id: trace.data for trace in stream}


def same_samples(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, samples in expected.items():
        np.testing.assert_array_equal(found[name], samples)


def test_chunks_are_those_that_a_run_expects(
    centre: Centre, tmp_path: Path, around_midnight: tuple[Path, Path], cli: Any
) -> None:
    result = cli(
        *("dataset", "download", "-o", tmp_path, "--host", centre.host, "--start", START),
        *("--end", END, "--networks", "XX", "--stations", "DEM*", "--channels", "HH?"),
        *("--chunk", 5, "--overlap", 1, "--rate", 100),
    )
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert names == [
        "20240301T235200Z_20240301T235800Z",
        "20240301T235700Z_20240302T000300Z",
        "20240302T000200Z_20240302T000700Z",
    ]
    # The minute before the start, which the first chunk begins early, is not there.
    summary = json.loads((tmp_path / "download.json").read_text())
    assert {gap["end"] for gap in summary["gaps"]} == {"2024-03-01T23:53:00.000000Z"}
    assert {round(gap["seconds"]) for gap in summary["gaps"]} == {60}
    assert len(summary["gaps"]) == 6
    assert "missing: XX.DEM01.00.HHE" in result.output
    same_samples(
        samples_of(tmp_path.glob("*/DEM0[12]/*.mseed")),
        samples_of(around_midnight[0].glob("*.mseed")),
    )
    stations = obspy.read_inventory(str(tmp_path / "stations.xml"))
    assert stations.get_response("XX.DEM02.00.HHZ", obspy.UTCDateTime(START))
    assert not stations.select(channel="EHZ").networks


@pytest.mark.slow
def test_sds_from_the_server_is_picked_without_a_seam(
    centre: Centre,
    tmp_path: Path,
    around_midnight: tuple[Path, Path],
    pick: Any,
    imported_model: str,
) -> None:
    found = download(settings(centre, tmp_path / "sds", layout="sds"))
    assert found.summary["requests"] == {"done": 4, "empty": 0, "failed": 0}
    assert found.summary["gaps"] == []
    names = sorted(path.name for path in around_midnight[1].rglob("*.06[12]"))
    assert sorted(path.name for path in (tmp_path / "sds").rglob("*.06[12]")) == names
    same_samples(
        samples_of((tmp_path / "sds").rglob("*.06[12]")),
        samples_of(around_midnight[0].glob("*.mseed")),
    )
    given = {"model": imported_model, "window_grid": "absolute"}
    once = pick(around_midnight[0], **given).table
    cut = pick(tmp_path / "sds", **given)
    assert cut.summary["plan"]["layout"] == "sds"
    columns = ["network", "station", "location", "channel", "phase", "time"]
    assert once.num_rows > 15
    assert cut.table.select(columns) == once.select(columns)


def test_streams_and_a_missing_channel(centre: Centre, tmp_path: Path) -> None:
    found = download(settings(centre, tmp_path, streams="XX.DEM01.00.HHZ,XX.NONE.00.HHZ", chunk=60))
    assert found.summary["requests"] == {"done": 1, "empty": 1, "failed": 0}
    assert found.exit_code == 0
    (gap,) = found.summary["gaps"]
    assert gap["channel"] == "XX.NONE.00.HHZ"
    assert gap["seconds"] == 14 * 60
    (file,) = tmp_path.glob("*/*/*.mseed")
    assert file.name == "XX.DEM01.00.HHZ__20240301T235300Z__20240302T000700Z.mseed"
    assert "XX DEM01 00 HHZ 2024-03-01T23:53:00" in centre.bodies["dataselect"][0]


@pytest.mark.parametrize(
    "fault",
    [
        status(500),
        status(503),
        status(429, Retry_After="0"),
        status(429, Retry_After="Sun, 15 Dec 2024 12:00:00 -0000"),
        status(429, Retry_After="soon"),
        slow(1.0),
        cut(0.5, announced=True),
        cut(0.5, announced=False),
        status(200, "<html>try later</html>"),
        status(200, ""),
    ],
    ids=[
        "500",
        "503",
        "429",
        "429 date",
        "429 text",
        "slow",
        "cut",
        "cut unannounced",
        "html",
        "nothing",
    ],
)
def test_passing_trouble_is_overcome(
    centre: Centre, tmp_path: Path, around_midnight: tuple[Path, Path], fault: Fault
) -> None:
    centre.faults["dataselect"] = [fault, fault]
    found = download(settings(centre, tmp_path, stations="DEM01", timeout=0.5))
    assert found.exit_code == 0
    assert found.summary["retried"] == 2
    assert found.summary["gaps"] == []
    same_samples(
        samples_of(tmp_path.rglob("*.mseed")),
        samples_of(around_midnight[0].glob("XX.DEM01*.mseed")),
    )


@pytest.mark.slow
def test_a_server_that_asks_to_wait_is_left_alone(centre: Centre, tmp_path: Path) -> None:
    centre.faults["dataselect"] = [status(429, Retry_After="1")]
    download(settings(centre, tmp_path, chunk=5, workers=1, metadata=False))
    first, second = centre.times[1:3]
    assert second - first >= 0.95


@pytest.mark.slow
def test_no_faster_than_is_polite(centre: Centre, tmp_path: Path) -> None:
    download(settings(centre, tmp_path, chunk=2, rate=20.0, workers=8, metadata=False))
    times = centre.times
    assert len(times) == 15
    assert times[-1] - times[0] >= 13 / 20


@pytest.mark.slow
def test_what_fails_is_told_and_asked_for_again(centre: Centre, tmp_path: Path, cli: Any) -> None:
    options = (
        *("dataset", "download", "-o", tmp_path, "--host", centre.host, "--start", START),
        *("--end", END, "--networks", "XX", "--stations", "DEM*", "--channels", "HH?"),
        *("--rate", 100, "--retries", 1, "--workers", 1),
    )
    centre.faults["dataselect"] = [status(500, "disk on fire")] * 2
    result = cli(*options)
    assert result.exit_code == 10
    assert "failed: XX.DEM01 2024" in result.output
    assert "disk on fire" in result.output
    assert "(tried 2 times)" in result.output
    asked = len(centre.bodies["dataselect"])
    assert asked == 3
    result = cli(*options)
    assert result.exit_code == 0, result.output
    assert len(centre.bodies["dataselect"]) == asked + 1
    # Everything is there; a file that is lost is fetched again, and nothing else.
    with (tmp_path / "download.jsonl").open("a") as ledger:
        ledger.write('{"key": "chunks: cut off')
    assert cli(*options).exit_code == 0
    assert len(centre.bodies["dataselect"]) == asked + 1
    next(tmp_path.glob("*/DEM02/*HHZ*")).unlink()
    assert cli(*options).exit_code == 0
    assert len(centre.bodies["dataselect"]) == asked + 2
    assert next(tmp_path.glob("*/DEM02/*HHZ*")).exists()


def test_refusals_are_not_repeated(centre: Centre, tmp_path: Path) -> None:
    centre.faults["dataselect"] = [status(403, "restricted")]
    found = download(settings(centre, tmp_path, workers=1))
    assert found.summary["requests"] == {"done": 1, "empty": 0, "failed": 1}
    assert found.summary["retried"] == 0
    assert "restricted" in found.summary["failed"][0]["error"]


def test_too_large_requests_are_split(
    centre: Centre, tmp_path: Path, around_midnight: tuple[Path, Path]
) -> None:
    centre.faults["dataselect"] = [status(413, "too much")] * 3
    found = download(settings(centre, tmp_path, stations="DEM01"))
    assert found.exit_code == 0
    assert found.summary["gaps"] == []
    same_samples(
        samples_of(tmp_path.rglob("*.mseed")),
        samples_of(around_midnight[0].glob("XX.DEM01*.mseed")),
    )


def test_too_large_metadata_are_joined(centre: Centre, tmp_path: Path) -> None:
    def refuse_responses(handler: Any, body: bytes) -> None:
        if b"level=response" in body:
            handler.answer(413, b"too much")
        else:
            handler.answer(*handler.truth("station", body))

    centre.faults["station"] = [refuse_responses] * 2
    download(settings(centre, tmp_path, chunk=60))
    assert len(centre.bodies["station"]) == 4
    stations = obspy.read_inventory(str(tmp_path / "stations.xml"))
    found = set(stations.get_contents()["channels"])
    assert found == {f"XX.{name}.00.HH{c}" for name in ("DEM01", "DEM02") for c in "ENZ"}


def test_a_centre_without_metadata(centre: Centre, tmp_path: Path) -> None:
    centre.faults["station"] = [status(404, "no such service")] * 2
    found = download(settings(centre, tmp_path, streams="XX.DEM01.00.HHZ"))
    assert found.summary["requests"]["done"] == 1
    assert found.summary["metadata"] is None
    centre.faults["station"] = [status(404, "no such service")]
    with pytest.raises(SettingsError, match="no station service"):
        download(settings(centre, tmp_path, streams="XX.DEM01.00.HH?"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"networks": "ZZ"}, "no channel .* matches ZZ"),
        ({"end": START}, "not after"),
        ({"layout": "sds", "chunk": 5}, "SDS has day files"),
        ({"overlap": 90}, "shorter than chunk"),
        ({"streams": "XX.DEM01"}, "is not NET.STA.LOC.CHA"),
        ({"networks": "", "stations": ""}, "give streams"),
        ({"host": "EARTSCOPE"}, "did you mean EARTHSCOPE"),
        ({"workers": 0}, "workers"),
        ({"workers": True}, "workers: True is no number"),
        ({"rate": False}, "rate: False is no number"),
    ],
)
def test_wrong_settings(
    centre: Centre, tmp_path: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        download(
            settings(centre, tmp_path, **given)
            if "host" not in given
            else (
                DownloadSettings.checked(
                    output=tmp_path, start=START, end=END, networks="XX", **given
                )
            )
        )


def test_names_of_data_centres() -> None:
    assert service_root("TEXNET") == "http://rtserve.beg.utexas.edu/fdsnws"
    assert service_root("service.example.org") == "https://service.example.org/fdsnws"
    assert service_root("http://localhost:8080/fdsnws/") == "http://localhost:8080/fdsnws"


def test_one_download_at_a_time(centre: Centre, tmp_path: Path) -> None:
    from filelock import FileLock

    with (
        FileLock(tmp_path / ".download.lock"),
        pytest.raises(OutputError, match="another download"),
    ):
        download(settings(centre, tmp_path))


@pytest.mark.slow
def test_denoising(centre: Centre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import seisbench
    import seisbench.models
    import torch

    monkeypatch.setattr(seisbench, "cache_root", tmp_path / "cache")
    monkeypatch.setattr(seisbench, "cache_model_root", tmp_path / "cache" / "models", raising=False)
    with pytest.raises(WeightsNotFoundError, match="DeepDenoiser/made_up"):
        download(settings(centre, tmp_path / "none", denoise=True, denoise_model="made_up"))
    torch.manual_seed(0)
    model = seisbench.models.DeepDenoiser()
    monkeypatch.setattr(seisbench.models.DeepDenoiser, "from_pretrained", lambda _: model)
    found = download(settings(centre, tmp_path / "out", stations="DEM01", denoise=True))
    assert found.exit_code == 0
    stream = obspy.Stream()
    for file in (tmp_path / "out").glob("*/DEM01/*.mseed"):
        stream += obspy.read(str(file))
    assert sorted(trace.stats.channel for trace in stream) == ["HHE", "HHN", "HHZ"]
    assert {trace.data.dtype.kind for trace in stream} == {"f"}
    assert all(np.isfinite(trace.data).all() and trace.data.any() for trace in stream)
    with pytest.raises(SettingsError, match="another kind"):
        download(settings(centre, tmp_path / "out", stations="DEM01"))


@pytest.mark.slow
def test_the_recipe_of_a_month(
    centre: Centre,
    around_midnight: tuple[Path, Path],
    imported_model: str,
    pick: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Days one by one have the picks of all, midnight included, and leave no waveforms."""
    (block,) = (one for one in blocks_of(Path("docs/recipes.md")) if "shutil" in one.text)
    what = {"host": centre.host, "networks": "XX", "stations": "DEM*", "channels": "HH?"}
    text = block.text
    for name, value in {
        "FIRST, LAST": "date(2024, 2, 29), date(2024, 3, 2)",
        "WHAT": repr(what),
        "MODEL": repr(imported_model),
    }.items():
        text, n = re.subn(f"^{name} = .*$", lambda _, v=f"{name} = {value}": v, text, flags=re.M)
        assert n == 1
    monkeypatch.chdir(tmp_path)
    exec(compile(text, "recipe", "exec"), {})
    assert not list(tmp_path.glob("waveforms/*"))
    days = ["2024-03-01", "2024-03-02"]
    assert [path.parent.name for path in sorted(tmp_path.glob("month/*/picks.parquet"))] == days
    assert (tmp_path / "month" / days[0] / "stations.xml").is_file()
    found = pa.concat_tables([read_picks(tmp_path / "month" / day) for day in days])
    whole = pick(
        around_midnight[0],
        model=imported_model,
        stations="DEM*",
        runtime="auto",
        threads=None,
        window_grid="absolute",
    ).table
    same = [name for name in whole.column_names if name not in ("timechunk", "run_id")]
    assert len(whole) > 20 and found.select(same).equals(whole.select(same))
    asked = len(centre.bodies["dataselect"])
    exec(compile(text.replace("date(2024, 2, 29)", "date(2024, 3, 1)"), "recipe", "exec"), {})
    assert len(centre.bodies["dataselect"]) == asked
