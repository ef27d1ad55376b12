"""Pages in a real browser: they draw, answer the pointer and filters, and report no error.

Needs Chromium, its driver and Selenium; on Debian ``apt-get install chromium chromium-driver``.
Screenshots are kept in ``$EQCCTPRO_SCREENSHOTS``, if it is set.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from reported import run_with_report

from eqcctpro import EvaluateSystem
from eqcctpro.analysis.visualize import compare, optimal, visualize
from eqcctpro.report.monitor import write_monitor

pytestmark = pytest.mark.slow

Open = Callable[..., Any]


@pytest.fixture
def show(chromium: Any) -> Open:
    """Open a page: ``show(path, width=1200, dark=False)``; every plot has been drawn."""

    def opened(path: Path, *, width: int = 1200, dark: bool = False) -> Any:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        size(chromium, width, 900)
        chromium.get_log("browser")
        chromium.get(path.resolve().as_uri())
        height = chromium.execute_script("return document.documentElement.scrollHeight")
        size(chromium, width, min(height, 12_000))
        undrawn = "[...document.querySelectorAll('.plot')].filter(one => !one.dataset.drawn)"
        wait_for(lambda: chromium.execute_script(f"return {undrawn}.length === 0"))
        time.sleep(0.5)
        keep(chromium, path, width, dark)
        return chromium

    return opened


def size(browser: Any, width: int, height: int) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def keep(browser: Any, path: Path, width: int, dark: bool) -> None:
    folder = os.environ.get("EQCCTPRO_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"{path.stem}_{width}{'_dark' if dark else ''}.png"
        browser.save_screenshot(str(Path(folder) / name))


def wait_for(condition: Callable[[], Any], seconds: float = 60.0) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def errors(browser: Any) -> list[str]:
    """What the console holds beyond Chromium's advice on canvases."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if "willReadFrequently" not in entry["message"] and "GPU stall" not in entry["message"]
    ]


def plots(browser: Any) -> list[Any]:
    return browser.find_elements("css selector", ".plot")


def is_drawn(plot: Any) -> bool:
    """Whether a plot shows more than axes: some area has a colour that is no grey."""
    picture = Image.open(io.BytesIO(plot.screenshot_as_png)).convert("HSV")
    coloured = sum(
        count
        for count, (_, saturation, value) in picture.getcolors(2**24) or []
        if saturation > 90 and value > 60
    )
    return coloured > 20


def point_at(browser: Any, plot: str, trace: int, index: int) -> str:
    """Move the pointer onto a point of a flat plot; the text that appears."""
    from selenium.webdriver.common.action_chains import ActionChains

    place = browser.execute_script(
        """
        const plot = document.getElementById(arguments[0]);
        const trace = plot.calcdata[arguments[1]];
        const [x, y] = [plot._fullLayout.xaxis, plot._fullLayout.yaxis];
        const point = trace[arguments[2]];
        const box = plot.getBoundingClientRect();
        return [box.left + x._offset + x.c2p(point.x), box.top + y._offset + y.c2p(point.y)];
        """,
        plot,
        trace,
        index,
    )
    actions = ActionChains(browser)
    actions.w3c_actions.pointer_action.move_to_location(*(round(value) for value in place))
    actions.perform()
    texts = "[...document.querySelectorAll('.hoverlayer .hovertext')].map(one => one.textContent)"
    found = wait_for(lambda: browser.execute_script(f"return {texts}.join(' ')"), 10)
    return str(found)


@pytest.fixture(scope="module")
def sweep(
    generated_network: Any, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A real sweep: in one process and on actors, two and four stations."""
    folder = tmp_path_factory.mktemp("sweep")
    cores = sorted(os.sched_getaffinity(0))[:2]
    EvaluateSystem(
        eval_mode="cpu",
        input_dir=generated_network[0],
        output_dir=folder,
        model_type="seisbench",
        seisbench_parent_model=imported_model.partition("/")[0],
        seisbench_child_model=imported_model.partition("/")[2],
        station_counts=(2, 4),
        modes=("local", "modelactor"),
        concurrency_values=(2,),
        cpu_id_list=cores,
        min_cpu_amount=len(cores),
        runtimes=("torch",),
        batch_sizes=(16,),
        repeats=1,
        warm_ups=0,
    ).evaluate()
    return folder


@pytest.fixture(scope="module")
def run_folder(
    generated_network: Any, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    rows = "\n".join(f"XX|DEM0{n}|{31 + n / 9}|{-104 + n / 7}|0" for n in range(1, 6))
    stations = f"#Network|Station|Latitude|Longitude|Elevation\n{rows}\n"
    root = tmp_path_factory.mktemp("run")
    return run_with_report(root, Path(generated_network[0]), imported_model, stations)


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (420, True)])
def test_the_report_draws_everything(show: Open, run_folder: Path, width: int, dark: bool) -> None:
    page = show(run_folder / "report.html", width=width, dark=dark)
    assert {plot.get_attribute("id") for plot in plots(page)} >= {
        *("picks_over_time", "record_section", "all_picks", "picks_by_station", "probability"),
        *("s_minus_p", "coverage", "map", "seconds"),
    }
    assert [plot.get_attribute("id") for plot in plots(page) if not is_drawn(plot)] == []
    assert errors(page) == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    background = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (int(background.partition("(")[2].partition(",")[0]) < 60) == dark


def test_picks_of_the_report_answer_the_pointer(show: Open, run_folder: Path) -> None:
    page = show(run_folder / "report.html")
    marks = page.execute_script(
        "return document.getElementById('record_section').data.findIndex(one => one.name === 'P')"
    )
    text = point_at(page, "record_section", marks, 0)
    assert "XX.DEM" in text and "2024-12-15T12:0" in text
    assert "picks" in point_at(page, "picks_by_station", 0, 0)


def test_the_table_of_stations_is_searched_and_sorted(show: Open, run_folder: Path) -> None:
    page = show(run_folder / "report.html")

    def column(number: int) -> list[str]:
        cells = page.find_elements("css selector", f"#table tbody td:nth-child({number})")
        return [cell.text for cell in cells]

    assert column(1) == [f"XX.DEM0{number}" for number in range(1, 7)]
    page.find_element("css selector", "button[data-key=P]").click()
    picks = [int(text) for text in column(4)]
    assert picks == sorted(picks, reverse=True) and len(set(picks)) > 1
    page.find_element("id", "search").send_keys("dem05")
    assert column(1) == ["XX.DEM05"]
    page.find_element("id", "search").clear()
    page.find_element("id", "search").send_keys("0")
    page.find_element("css selector", "#only option[value=gaps]").click()
    assert column(1) == ["XX.DEM05"]
    assert "1 of 1 stations" in page.find_element("id", "where").text
    assert errors(page) == []


def test_zooming_changes_what_is_shown(show: Open, run_folder: Path) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page = show(run_folder / "report.html")
    ask = "return document.getElementById('all_picks')._fullLayout.xaxis.range.map(Date.parse)"
    before = page.execute_script(ask)
    plot = page.find_element("css selector", "#all_picks .nsewdrag")
    actions = ActionChains(page).move_to_element(plot).click_and_hold()
    actions.move_by_offset(150, 60).release().perform()
    after = wait_for(lambda: (found := page.execute_script(ask)) != before and found, 10)
    assert after[1] - after[0] < before[1] - before[0]


@pytest.mark.exhaustive
def test_pages_of_a_sweep(show: Open, sweep: Path, tmp_path: Path) -> None:
    visualize(sweep, tmp_path, desired_runtime=0.5)
    page = show(tmp_path / "dashboard_modelactor.html")
    assert {plot.get_attribute("id") for plot in plots(page)} >= {
        *("runtime_3d", "ram_3d", "ram_utilization_3d", "runtime_vs_stations_2d"),
        *("throughput_vs_concurrency_2d", "requested_vs_actual_ram_2d"),
    }
    assert [plot.get_attribute("id") for plot in plots(page) if not is_drawn(plot)] == []
    # A line where it is near, else a sentence.
    assert "0.5 s" in page.find_element("tag name", "main").text
    text = point_at(page, "runtime_vs_stations_2d", 0, 0)
    assert "Stations: 2" in text and "Picker time:" in text and "Memory:" in text
    assert errors(page) == []
    names = {path.name for path in tmp_path.iterdir()}
    assert {"runtime_3d_local.html", "requested_vs_actual_ram_2d_modelactor.html"} <= names


@pytest.mark.exhaustive
def test_filters_leave_the_chosen_trials(show: Open, sweep: Path, tmp_path: Path) -> None:
    done = compare(sweep, tmp_path, model="eqtransformer_original")
    page = show(tmp_path / "comparison_eqtransformer_original_all.html")
    shown = (
        "return document.getElementById('comparison_runtime_vs_stations').data"
        ".filter(one => one.meta && one.meta.rows).map(one => one.x.length)"
        ".reduce((a, b) => a + b, 0)"
    )
    assert page.execute_script(shown) == 4
    page.find_element("css selector", "select[data-filter=Stations] option:last-child").click()
    wait_for(lambda: page.execute_script(shown) == 2, 10)
    assert page.find_element("id", "chosen").text == "2 of 4 trials"
    page.find_element("css selector", "select[data-filter=Approach] option:last-child").click()
    wait_for(lambda: page.execute_script(shown) == 1, 10)
    assert [plot.get_attribute("id") for plot in plots(page) if not is_drawn(plot)] == []
    assert errors(page) == []
    assert len(done.files) == 7


@pytest.mark.exhaustive
def test_best_configurations(show: Open, sweep: Path, tmp_path: Path) -> None:
    page = show(*optimal(sweep, tmp_path).files, width=420, dark=True)
    assert all(is_drawn(plot) for plot in plots(page))
    tables = page.find_elements("css selector", "table")
    cells = [one.text for one in tables[0].find_elements("css selector", "td:first-child")]
    assert sorted(cells) == [
        "2 stations, CPU Local",
        "2 stations, CPU ModelActor",
        "4 stations, CPU Local",
        "4 stations, CPU ModelActor",
    ]
    assert errors(page) == []
    assert page.execute_script("return document.documentElement.scrollWidth") <= 420


def test_the_monitor_of_a_run(show: Open, tmp_path: Path) -> None:
    moments = [
        {
            "seconds": second / 2,
            "ram_mb": 500.0 + second,
            "cpu_s": 0.9 * second,
            "gpu0_percent": 50.0 + second % 7,
            "gpu0_mb": 900.0,
        }
        for second in range(40)
    ]
    page = show(write_monitor({"monitor": moments}, tmp_path / "monitor.html", "run"))
    assert len(plots(page)) == 4 and all(is_drawn(plot) for plot in plots(page))
    assert "1.8 Cores in use" in point_at(page, "monitor_cpu", 0, 5)
    assert errors(page) == []
