"""What lies outside of the folders that may be read is not read, whatever leads there."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from eqcctpro.archive.plan import InputSettings, make_plan
from eqcctpro.errors import DecodeError, InputError
from eqcctpro.roots import Roots
from eqcctpro.sources.files import FileCache


@pytest.fixture
def places(network: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A root with one station in a time-chunk folder, and all the others beside it."""
    root = tmp_path / "root"
    (chunk,) = (path for path in network.iterdir() if path.is_dir())
    shutil.copytree(chunk / "DEM01", root / chunk.name / "DEM01")
    return root, chunk


def planned(root: Path, layout: str) -> Any:
    return make_plan(InputSettings((root,), layout=layout, input_roots=(root,)))


def stations(plan: Any) -> set[str]:
    return {task.station for task in plan.tasks}


@pytest.mark.parametrize("layout", ["chunks", "files"])
@pytest.mark.parametrize("what", ["folder", "file"])
def test_links_lead_nowhere(places: tuple[Path, Path], layout: str, what: str) -> None:
    root, outside = places
    inside = root / outside.name
    if what == "folder":
        (inside / "DEM02").symlink_to(outside / "DEM02")
    else:
        for path in (outside / "DEM02").iterdir():
            (inside / "DEM01" / path.name).symlink_to(path)
    open_to_all = make_plan(InputSettings((root,), layout=layout))
    assert stations(open_to_all) == {"DEM01", "DEM02"}
    plan = planned(root, layout)
    assert stations(plan) == {"DEM01"}
    named = [*plan.ignored.items(), *((each.path, each.message) for each in plan.problems)]
    assert named
    for path, reason in named:
        assert str(inside) in path
        assert "leads out of the folders that may be read" in reason


def test_links_in_day_files_lead_nowhere(
    around_midnight: tuple[Path, Path], tmp_path: Path
) -> None:
    sds, root = around_midnight[1], tmp_path / "root"
    shutil.copytree(sds, root)
    (channels,) = root.glob("*/*/DEM02")
    shutil.rmtree(channels)
    channels.symlink_to(next(sds.glob("*/*/DEM02")))
    assert stations(make_plan(InputSettings((root,), layout="sds"))) == {"DEM01", "DEM02"}
    plan = planned(root, "sds")
    assert stations(plan) == {"DEM01"}
    assert "leads out" in plan.ignored[str(channels)]


@pytest.fixture
def asked() -> Iterator[tuple[str, list[str]]]:
    """A web server that notes what it is asked for."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", paths
    server.shutdown()
    server.server_close()


def test_tables_name_nothing_outside(
    places: tuple[Path, Path], asked: tuple[str, list[str]]
) -> None:
    root, outside = places
    mine = next((root / outside.name / "DEM01").iterdir())
    other = next((outside / "DEM02").iterdir())
    url, paths = asked
    table = root / "files.csv"
    rows = [mine, other, f"../{outside.relative_to(root.parent)}/DEM02/{other.name}", f"{url}/a"]
    table.write_text("path\n" + "\n".join(map(str, rows)) + "\n")
    plan = make_plan(InputSettings((table,), layout="list", input_roots=(root,)))
    assert stations(plan) == {"DEM01"}
    assert len(plan.files) == 1
    assert len(plan.problems) == 3
    assert all("leads out of the folders" in each.message for each in plan.problems)
    assert not paths


def test_a_link_that_comes_after_the_plan_leads_nowhere(places: tuple[Path, Path]) -> None:
    root, outside = places
    plan = planned(root, "files")
    task = plan.tasks[0]
    path, secret = Path(task.files[0]), outside / "DEM02" / "secret"
    status = path.stat()
    shutil.copy(path, secret)
    os.utime(secret, ns=(status.st_atime_ns, status.st_mtime_ns))
    path.unlink()
    path.symlink_to(secret)
    assert FileCache().read(task, None, 0)
    with pytest.raises(DecodeError, match="leads out of the folders"):
        FileCache(roots=Roots((root,))).read(task, None, 0)


def test_inputs_are_in_the_roots(places: tuple[Path, Path]) -> None:
    root, outside = places
    for place in (outside, root / ".." / outside.relative_to(root.parent), "s3://bucket/folder"):
        with pytest.raises(InputError, match="leads out of the folders"):
            make_plan(InputSettings((place,), input_roots=(root,)))


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("s3://bucket/folder", True),
        ("s3://bucket/folder/a/b.mseed", True),
        ("s3://bucket/folder2/b.mseed", False),
        ("s3://bucket/folder/../b.mseed", False),
        ("s3://bucket/folder/%2E%2e/b.mseed", False),
        ("s3://bucket/folder/x::file:///etc/passwd", False),
        ("https://bucket/folder/b.mseed", False),
        ("memory://s3://bucket/folder/b.mseed", False),
        ("/etc/passwd", False),
    ],
)
def test_addresses_are_compared_by_their_parts(address: str, inside: bool) -> None:
    assert Roots(("s3://bucket/folder/",)).hold(address) is inside
    assert Roots().hold(address)
