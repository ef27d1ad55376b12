"""The service's page in a real browser: drop a file, see waveforms, curves and picks.

Needs Chromium, its driver and Selenium, as the other tests of pages do.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


from served import free_port

from eqcctpro.serving.app import create_app
from eqcctpro.serving.client import PickClient
from eqcctpro.serving.engines import find_model, open_engine
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.listener import Listener
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.pages import page_routes
from eqcctpro.serving.routes import stream_routes
from eqcctpro.serving.security import Guard
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def url(imported_model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The service without Ray, listening."""
    settings = ServeSettings.checked(
        {
            "models": [{"name": imported_model, "runtime": "openvino"}],
            "http": {"port": free_port()},
            "replicas": {"threads": 1},
            "jobs": {"folder": tmp_path_factory.mktemp("jobs")},
        }
    )
    engine = open_engine(find_model(settings.models[0]), settings)
    hub = LocalHub(settings)
    service = Service(
        settings,
        {imported_model: engine},
        Metrics(settings.metrics),
        Guard(settings.security, "x" * 32),
        None,
        hub.publish,
    )
    listener = Listener(create_app(service, page_routes(), stream_routes(service, hub)), settings)
    listener.start()
    yield f"http://127.0.0.1:{settings.http.port}"
    service.stopping = True
    listener.close(10.0)
    engine.online.close(5.0)


def wait_for(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def show(chromium: Any, url: str, *, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    chromium.set_window_size(1200, 1400)
    chromium.get_log("browser")
    chromium.get(url)


def keep(chromium: Any, name: str) -> None:
    folder = os.environ.get("EQCCTPRO_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        chromium.save_screenshot(str(Path(folder) / f"{name}.png"))


def text(chromium: Any, selector: str) -> str:
    return str(chromium.execute_script(f"return document.querySelector('{selector}').textContent"))


def different_colours(chromium: Any) -> int:
    """Colours in the first canvas: an empty one has one."""
    script = """
      const canvas = document.querySelector('canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200)
        seen.add([data[at] >> 4, data[at + 1] >> 4, data[at + 2] >> 4].join());
      return seen.size;"""
    return int(chromium.execute_script(script))


@pytest.mark.parametrize("dark", [False, True])
def test_a_file_is_picked_and_shown(chromium: Any, url: str, tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "example.mseed"
    file.write_bytes(example_miniseed())
    show(chromium, f"{url}/", dark=dark)
    wait_for(lambda: text(chromium, "#state") == "picks")
    chromium.find_element("id", "file").send_keys(str(file))
    wait_for(lambda: chromium.execute_script("return document.body.dataset.drawn"))
    wait_for(lambda: different_colours(chromium) > 3)
    assert "XX.DEM01.00.HH" in text(chromium, "figcaption")
    rows = chromium.execute_script(
        "return [...document.querySelectorAll('figure tr')].map(r => r.cells[0].textContent)"
    )
    assert set(rows) == {"P", "S"}
    keep(chromium, f"serve-{'dark' if dark else 'light'}")
    ground = chromium.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 24, 28)") == dark
    # What the page picks is forgotten; what the same client picks otherwise is in the stream.
    rows = "return document.querySelectorAll('#stream tbody tr').length"
    assert chromium.execute_script(rows) == 0
    with PickClient(url) as client:
        client.pick(example_miniseed())
    wait_for(lambda: chromium.execute_script(rows) >= 2)
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_is_no_file_of_records_is_said(chromium: Any, url: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no records at all " * 50)
    show(chromium, f"{url}/")
    wait_for(lambda: text(chromium, "#state") == "picks")
    chromium.find_element("id", "file").send_keys(str(file))
    message = wait_for(lambda: text(chromium, "#message"))
    assert "not readable as miniSEED" in message
    keep(chromium, "serve-wrong-file")


def test_the_example_and_a_threshold(chromium: Any, url: str) -> None:
    show(chromium, f"{url}/")
    wait_for(lambda: text(chromium, "#state") == "picks")
    for name in ("p", "s"):
        chromium.find_element("id", name).send_keys("0.99")
    chromium.find_element("id", "example").click()
    wait_for(lambda: chromium.execute_script("return document.body.dataset.drawn"))
    assert "0 picks" in text(chromium, "figcaption")


def test_the_interface_is_described(chromium: Any, url: str) -> None:
    show(chromium, f"{url}/docs")
    headings = wait_for(
        lambda: chromium.execute_script(
            "return [...document.querySelectorAll('h2')].map(one => one.textContent)"
        )
    )
    assert headings[:2] == ["POST /v1/pick", "POST /v1/annotate"]
    assert "curl -X POST" in chromium.page_source
    keep(chromium, "serve-docs")
    assert [entry for entry in chromium.get_log("browser") if entry["level"] == "SEVERE"] == []
