"""The service's page in a real browser: drop a file, see waveforms, curves and picks.

Needs Chromium, its driver and Selenium, as the other tests of pages do.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

sys.path.insert(0, str(Path(__file__).parent))

from serving import free_port

from eqcctpro.serving.app import create_app
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
def browser() -> Iterator[Any]:
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = program
    for argument in (
        *("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1200,1400"),
        # Nothing may come from elsewhere.
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with selenium.Chrome(options=options, service=selenium.ChromeService(driver)) as opened:
        yield opened


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


def show(browser: Any, url: str, *, dark: bool = False) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get_log("browser")
    browser.get(url)


def keep(browser: Any, name: str) -> None:
    folder = os.environ.get("EQCCTPRO_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def text(browser: Any, selector: str) -> str:
    return str(browser.execute_script(f"return document.querySelector('{selector}').textContent"))


def different_colours(browser: Any) -> int:
    """Colours in the first canvas: an empty one has one."""
    script = """
      const canvas = document.querySelector('canvas');
      const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const seen = new Set();
      for (let at = 0; at < data.length; at += 4) if (data[at + 3] > 200)
        seen.add([data[at] >> 4, data[at + 1] >> 4, data[at + 2] >> 4].join());
      return seen.size;"""
    return int(browser.execute_script(script))


@pytest.mark.parametrize("dark", [False, True])
def test_a_file_is_picked_and_shown(browser: Any, url: str, tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "example.mseed"
    file.write_bytes(example_miniseed())
    show(browser, f"{url}/", dark=dark)
    wait_for(lambda: text(browser, "#state") == "picks")
    browser.find_element("id", "file").send_keys(str(file))
    wait_for(lambda: browser.execute_script("return document.body.dataset.drawn"))
    wait_for(lambda: different_colours(browser) > 3)
    assert "XX.DEM01.00.HH" in text(browser, "figcaption")
    rows = browser.execute_script(
        "return [...document.querySelectorAll('figure tr')].map(r => r.cells[0].textContent)"
    )
    assert set(rows) == {"P", "S"}
    keep(browser, f"serve-{'dark' if dark else 'light'}")
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(20, 24, 28)") == dark
    # What was picked is in the stream as well.
    wait_for(
        lambda: (
            browser.execute_script("return document.querySelectorAll('#stream tbody tr').length")
            >= 2
        )
    )
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_what_is_no_file_of_records_is_said(browser: Any, url: str, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("no records at all " * 50)
    show(browser, f"{url}/")
    wait_for(lambda: text(browser, "#state") == "picks")
    browser.find_element("id", "file").send_keys(str(file))
    message = wait_for(lambda: text(browser, "#message"))
    assert "not readable as miniSEED" in message
    keep(browser, "serve-wrong-file")


def test_the_example_and_a_threshold(browser: Any, url: str) -> None:
    show(browser, f"{url}/")
    wait_for(lambda: text(browser, "#state") == "picks")
    for name in ("p", "s"):
        browser.find_element("id", name).send_keys("0.99")
    browser.find_element("id", "example").click()
    wait_for(lambda: browser.execute_script("return document.body.dataset.drawn"))
    assert "0 picks" in text(browser, "figcaption")


def test_the_interface_is_described(browser: Any, url: str) -> None:
    show(browser, f"{url}/docs")
    headings = wait_for(
        lambda: browser.execute_script(
            "return [...document.querySelectorAll('h2')].map(one => one.textContent)"
        )
    )
    assert headings[:2] == ["POST /v1/pick", "POST /v1/annotate"]
    assert "curl -X POST" in browser.page_source
    keep(browser, "serve-docs")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
