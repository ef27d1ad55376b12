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
from eqcctpro.serving.engines import Engine, find_model, open_engine
from eqcctpro.serving.example import example_miniseed, example_segments
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.listener import Listener
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.pages import page_routes
from eqcctpro.serving.routes import session_routes, stream_routes
from eqcctpro.serving.security import Guard, hash_password, make_key
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.waveform.encode import encode

pytestmark = pytest.mark.slow


KEY, DIGEST = make_key()
PEOPLE = {
    "users": [{"name": "carol", "password_hash": hash_password("right")}],
    "api_keys": [{"name": "lab", "sha256": DIGEST}],
}


@pytest.fixture(scope="module")
def listening(
    imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[..., str]]:
    """The service without Ray, with one engine for all that listen."""
    ends: list[Callable[[], None]] = []
    engines: dict[str, Engine] = {}

    def listen(**security: Any) -> str:
        settings = ServeSettings.checked(
            {
                "models": [{"name": imported_model, "runtime": "openvino"}],
                "http": {"port": free_port()},
                "replicas": {"threads": 1},
                "jobs": {"folder": tmp_path_factory.mktemp("jobs")},
                "security": security,
            }
        )
        if not engines:
            engines[imported_model] = open_engine(find_model(settings.models[0]), settings)
        hub, metrics = LocalHub(settings), Metrics(settings.metrics)
        guard = Guard(settings.security, "x" * 32)
        service = Service(settings, engines, metrics, guard, None, hub.publish)
        routes = (page_routes(), session_routes(service), stream_routes(service, hub))
        listener = Listener(create_app(service, *routes), settings)
        listener.start()

        def end() -> None:
            service.stopping = True
            listener.close(10.0)

        ends.append(end)
        return f"http://127.0.0.1:{settings.http.port}"

    yield listen
    for end in ends:
        end()
    for engine in engines.values():
        engine.online.close(5.0)


@pytest.fixture(scope="module")
def url(listening: Callable[..., str]) -> str:
    """A service for everybody."""
    return listening()


@pytest.fixture(scope="module")
def closed_url(listening: Callable[..., str]) -> str:
    """A service for those who are known."""
    return listening(**PEOPLE)


def wait_for(true: Callable[[], Any], seconds: float = 20.0) -> Any:
    until = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)
    return found


def show(chromium: Any, url: str, *, dark: bool = False, width: int = 1200) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    # A window cannot be as narrow as a telephone, but what it shows can.
    shape = {"width": width, "height": 1400, "deviceScaleFactor": 1, "mobile": width < 600}
    chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
    chromium.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": width < 600})
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
        "return [...document.querySelectorAll('figure tbody tr')].map(r => r.cells[0].textContent)"
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


def pick_file(chromium: Any, file: Path) -> None:
    wait_for(lambda: text(chromium, "#state") == "picks")
    chromium.find_element("id", "file").send_keys(str(file))
    wait_for(lambda: chromium.execute_script("return document.body.dataset.drawn"))


def network(stations: int, start_ns: int = 0) -> bytes:
    """The example under many names, moved to begin at a time if one is given."""
    segments = example_segments()
    shift = start_ns - segments[0].start_ns if start_ns else 0
    return b"".join(
        encode(
            [
                type(one)(
                    one.code._replace(station=f"N{number:02d}"),
                    one.start_ns + shift,
                    one.sampling_rate,
                    one.samples,
                )
                for one in segments
            ]
        )
        for number in range(stations)
    )


def first_canvas(chromium: Any, name: str) -> Any:
    """A property of the first canvas, once it is drawn."""
    script = f"return document.querySelector('canvas').{name}"
    return wait_for(lambda: chromium.execute_script(script))


def severe(chromium: Any) -> list[str]:
    return [one["message"] for one in chromium.get_log("browser") if one["level"] == "SEVERE"]


def test_people_sign_in_and_out(chromium: Any, closed_url: str) -> None:
    show(chromium, f"{closed_url}/")
    chromium.delete_all_cookies()
    chromium.refresh()
    wait_for(lambda: text(chromium, "#state") == "asks who you are")
    fields = [chromium.find_element("id", name) for name in ("user", "password")]
    wait_for(fields[0].is_displayed)
    keep(chromium, "serve-sign-in")
    for word, said in (
        ("wrong", "the name or the password is wrong: please try again"),
        ("right", ""),
    ):
        for field, value in zip(fields, ("carol", word), strict=True):
            field.clear()
            field.send_keys(value)
        fields[1].submit()
        if said:
            wait_for(lambda said=said: said in text(chromium, "#access-message"))
    wait_for(lambda: text(chromium, "#name") == "carol")
    assert not fields[0].is_displayed()
    wait_for(lambda: text(chromium, "#state") == "picks")
    wait_for(lambda: text(chromium, "#stream-state") == "listening")
    (cookie,) = chromium.get_cookies()
    assert cookie["httpOnly"] and "right" not in str(cookie)
    chromium.find_element("id", "example").click()
    wait_for(lambda: chromium.execute_script("return document.body.dataset.drawn"))
    keep(chromium, "serve-signed-in")
    chromium.find_element("id", "sign-out").click()
    wait_for(lambda: text(chromium, "#state") == "asks who you are")
    assert chromium.get_cookies() == []
    # Who comes next sees nothing of it.
    assert not chromium.find_elements("css selector", "figure")
    key = chromium.find_element("id", "key")
    wait_for(key.is_displayed)
    key.send_keys(KEY)
    key.submit()
    wait_for(lambda: text(chromium, "#name") == "lab (key)")
    chromium.find_element("id", "sign-out").click()
    wait_for(lambda: text(chromium, "#state") == "asks who you are")
    assert all("401" in message for message in severe(chromium))


def test_nobody_is_asked_to_sign_in_where_nobody_can(chromium: Any, url: str) -> None:
    show(chromium, f"{url}/")
    wait_for(lambda: text(chromium, "#state") == "picks")
    for name in ("sign-in", "sign-out", "access"):
        assert not chromium.find_element("id", name).is_displayed()


def test_picks_are_downloaded_as_the_service_writes_them(
    chromium: Any, url: str, tmp_path: Path
) -> None:
    import obspy

    place = {"behavior": "allow", "downloadPath": str(tmp_path)}
    chromium.execute_cdp_cmd("Browser.setDownloadBehavior", place)
    file = tmp_path / "example.mseed"
    file.write_bytes(network(2))
    show(chromium, f"{url}/")
    pick_file(chromium, file)
    rows = chromium.execute_script(
        "return [...document.querySelectorAll('figure tbody tr')].map(r => r.cells[1].textContent)"
    )
    for name in ("csv", "quakeml"):
        chromium.find_element("id", name).click()
    table, events = tmp_path / "picks.csv", tmp_path / "picks.xml"
    wait_for(lambda: table.exists() and events.exists())
    head, *lines = table.read_text().splitlines()
    times = [line.split(",")[head.split(",").index("time")] for line in lines]
    assert sorted(time[:23] for time in times) == sorted(row.replace(" ", "T") for row in rows)
    found = [pick.time for event in obspy.read_events(events) for pick in event.picks]
    assert sorted(map(str, found)) == sorted(times)
    assert severe(chromium) == []


def test_the_axis_says_the_date(chromium: Any, url: str, tmp_path: Path) -> None:
    file = tmp_path / "midnight.mseed"
    file.write_bytes(network(1, start_ns=1_734_307_170 * 10**9))  # 2024-12-15T23:59:30
    show(chromium, f"{url}/")
    pick_file(chromium, file)
    assert first_canvas(chromium, "dates") == ["2024-12-15", "2024-12-16"]
    keep(chromium, "serve-midnight")


# What is drawn of many picks, at any width and after any gesture.
CROWD = """
  const [width, count, done] = arguments;
  import(document.baseURI + 'plot.js').then(({ plot }) => {
    const canvas = document.createElement('canvas');
    canvas.id = 'crowd';
    canvas.style.width = width + 'px';
    document.querySelector('main').prepend(canvas);
    const at = (s) => new Date(1734261600000 + 1000 * s).toISOString();
    const picks = Array.from({ length: count }, (_, n) => (
      { phase: n % 2 ? 'S' : 'P', time: at(600 * ((n * 0.618) % 1)) }));
    const values = Array.from({ length: 6000 }, (_, n) => Math.sin(n / 9) * (n % 997));
    plot(canvas, {
      waves: [{ channel: 'HHZ', start: at(0), sampling_rate: 10, low: values, high: values }],
      curves: [], picks,
    });
    const look = () => (canvas.labels ? done(canvas.labels) : setTimeout(look, 20));
    look();
  });
"""


@pytest.mark.parametrize(("width", "count"), [(1100, 12), (1100, 400), (320, 60)])
def test_labels_of_picks_never_overlap(chromium: Any, url: str, width: int, count: int) -> None:
    show(chromium, f"{url}/")
    chromium.set_script_timeout(20)
    labels = chromium.execute_async_script(CROWD, width, count)
    assert len(labels) >= min(count, 10)
    assert {one["text"] for one in labels} == {"P", "S"}
    for number, one in enumerate(labels):
        assert one["left"] >= 0 and one["right"] <= width
        for other in labels[number + 1 :]:
            apart = one["right"] <= other["left"] or other["right"] <= one["left"]
            assert apart or one["top"] >= other["bottom"] or other["top"] >= one["bottom"]
    keep(chromium, f"serve-labels-{width}-{count}")


def test_the_keyboard_moves_and_zooms_and_all_has_a_name(chromium: Any, url: str) -> None:
    show(chromium, f"{url}/")
    wait_for(lambda: text(chromium, "#state") == "picks")
    chromium.find_element("id", "example").click()
    wait_for(lambda: chromium.execute_script("return document.body.dataset.drawn"))
    whole = first_canvas(chromium, "view")
    canvas = chromium.find_element("css selector", "canvas")
    assert "picks of XX.DEM01" in canvas.get_attribute("aria-label")
    canvas.send_keys("+")
    near = first_canvas(chromium, "view")
    assert whole[0] < near[0] < near[1] < whole[1]
    canvas.send_keys("\ue014")  # the arrow to the right
    right = first_canvas(chromium, "view")
    assert right[0] > near[0] and right[1] - right[0] == pytest.approx(near[1] - near[0])
    canvas.send_keys("0")
    assert first_canvas(chromium, "view") == whole
    chromium.find_element("css selector", "figcaption button").click()
    assert first_canvas(chromium, "view")[0] > whole[0]
    nodes = chromium.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("textbox", "button", "combobox", "spinbutton", "link", "img", "image", "table")
    named = [node for node in nodes if node.get("role", {}).get("value") in roles]
    assert len(named) > 8
    for node in named:
        if node["role"]["value"] != "table":
            assert node.get("name", {}).get("value"), node


def touch(chromium: Any, kind: str, *places: tuple[float, float]) -> None:
    points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
    event = {"type": f"touch{kind}", "touchPoints": points}
    chromium.execute_cdp_cmd("Input.dispatchTouchEvent", event)


def test_a_telephone_shows_and_zooms_it(chromium: Any, url: str, tmp_path: Path) -> None:
    file = tmp_path / "network.mseed"
    file.write_bytes(network(3))
    show(chromium, f"{url}/", width=360, dark=True)
    pick_file(chromium, file)
    with PickClient(url) as client:  # the table of the stream, too
        client.pick(example_miniseed())
    wait_for(lambda: chromium.find_elements("css selector", "#stream tbody tr"))
    wide = "return document.documentElement.scrollWidth"
    assert chromium.execute_script(wide) <= 360
    keep(chromium, "serve-narrow")
    place = """const box = document.querySelector('canvas').getBoundingClientRect();
               return [box.left, box.top + box.height / 2, box.width];"""
    chromium.execute_script("document.querySelector('canvas').scrollIntoView()")
    left, y, width = chromium.execute_script(place)
    whole = first_canvas(chromium, "view")
    touch(chromium, "Start", (left + 0.4 * width, y), (left + 0.6 * width, y))
    for step in (0.1, 0.2):
        touch(chromium, "Move", (left + (0.4 - step) * width, y), (left + (0.6 + step) * width, y))
    touch(chromium, "End")
    near = first_canvas(chromium, "view")
    assert near[1] - near[0] == pytest.approx((whole[1] - whole[0]) / 3, rel=0.05)
    touch(chromium, "Start", (left + 0.3 * width, y))
    for step in (0.1, 0.2):
        touch(chromium, "Move", (left + (0.3 + step) * width, y))
    touch(chromium, "End")
    moved = first_canvas(chromium, "view")
    assert moved[0] < near[0] and moved[1] - moved[0] == pytest.approx(near[1] - near[0])
    keep(chromium, "serve-narrow-canvas")
    show(chromium, f"{url}/docs", width=360, dark=True)
    wait_for(lambda: chromium.find_elements("css selector", "section pre"))
    assert chromium.execute_script(wide) <= 360
    keep(chromium, "serve-narrow-docs")


def test_many_stations_are_drawn_as_they_come_into_view(
    chromium: Any, url: str, tmp_path: Path
) -> None:
    file = tmp_path / "network.mseed"
    file.write_bytes(network(25))
    show(chromium, f"{url}/")
    pick_file(chromium, file)
    assert " of 25 stations" in text(chromium, "#summary")
    sizes = "return [...document.querySelectorAll('canvas')].map((one) => one.width)"
    before = wait_for(lambda: (s := chromium.execute_script(sizes))[0] and s)
    assert len(before) == 25 and before[0] > 0 and before[-1] == 0
    keep(chromium, "serve-many")
    scroll = "document.querySelectorAll('canvas')[24].scrollIntoView()"
    chromium.execute_script(scroll)
    wait_for(lambda: chromium.execute_script(sizes)[-1] > 0)
    wait_for(lambda: chromium.execute_script(sizes)[0] == 0)
    assert severe(chromium) == []


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
