"""Run reports and station plots, from real runs on a made-up network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from reported import run_with_report

from eqcctpro import PickConfig, plot_station, run_picking
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.journal.task_table import TASK_SCHEMA
from eqcctpro.miniseed.index import index_file
from eqcctpro.report.monitor import monitor_figures
from eqcctpro.report.run_data import Picks, measure_coverage
from eqcctpro.report.run_figures import _s_minus_p
from eqcctpro.report.run_report import write_report
from eqcctpro.station_coordinates import read_stations

FDSN_TEXT = """#Network|Station|Latitude|Longitude|Elevation|SiteName|StartTime|EndTime
XX|DEM01|31.5|-104.25|900.0|Somewhere|2020-01-01T00:00:00|
XX|DEM02|31.6|-104.5|910.0|<script>alert(1)</script>|2020-01-01T00:00:00|
"""

STATION_XML = """<?xml version="1.0"?>
<FDSNStationXML xmlns="http://www.fdsn.org/xml/station/1" schemaVersion="1.1">
<Source>test</Source><Created>2024-01-01T00:00:00Z</Created>
<Network code="XX"><Station code="DEM01"><Latitude>31.5</Latitude><Longitude>-104.25</Longitude>
<Elevation>900</Elevation><Site><Name>Somewhere</Name></Site>
<Channel code="HHZ" locationCode="00"><Latitude>1</Latitude><Longitude>2</Longitude></Channel>
</Station></Network></FDSNStationXML>
"""


@pytest.fixture(scope="module")
def run_folder(
    generated_network: Any, imported_model: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run with a report, a failed file and an empty station, beside its archive."""
    root = tmp_path_factory.mktemp("report")
    return run_with_report(root, Path(generated_network[0]), imported_model, FDSN_TEXT)


def embedded(page: Path, name: str) -> Any:
    """Data that a page carries."""
    found = re.search(
        rf'<script type="application/json" id="{name}">(.*?)</script>', page.read_text(), re.S
    )
    assert found is not None, name
    return json.loads(found[1])


@pytest.mark.slow
def test_a_report_tells_what_the_run_did(run_folder: Path) -> None:
    page = run_folder / "report.html"
    summary = json.loads((run_folder / "summary.json").read_text())
    rows = embedded(page, "rows")
    assert sum(row["P"] + row["S"] for row in rows) == summary["picks"]["total"] > 0
    assert {row["station"] for row in rows} == {f"XX.DEM0{n}" for n in range(1, 7)}
    by_station = {row["station"]: row for row in rows}
    assert by_station["XX.DEM05"]["gaps"] == 1
    assert by_station["XX.DEM05"]["gap_s"] == pytest.approx(5.0, abs=0.1)
    bars = embedded(page, "data-picks_over_time")["data"]
    assert sum(sum(trace["y"]) for trace in bars) == summary["picks"]["total"]
    mapped = embedded(page, "data-map")["data"]
    assert sum(len(trace["x"]) for trace in mapped) == 2
    text = page.read_text()
    assert summary["files_failed"] and "What failed, and why" in text
    assert "not readable as miniSEED" in text
    assert 'href="picks.csv"' in text and 'href="summary.json"' in text


@pytest.mark.slow
def test_a_page_asks_the_network_for_nothing(run_folder: Path) -> None:
    text = (run_folder / "report.html").read_text()
    markup = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert not re.findall(r"""(?:src|href)=["'](?!data:|[\w.%/]+["'])""", markup)
    assert "default-src 'none'" in markup


def test_names_cannot_become_markup(run_folder: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run_folder, tmp_path / "out"))
    path = out / "summary.json"
    summary = json.loads(path.read_text())
    evil = "</script><img src=x onerror=alert(1)>"
    tasks = pq.read_table(out / "tasks.parquet").to_pylist()
    failure = {"station": evil, "timechunk": evil, "status": "failed", "reason": evil}
    tasks[0] |= failure
    tasks[1] |= {"notes": [evil]}
    pq.write_table(pa.Table.from_pylist(tasks, TASK_SCHEMA), out / "tasks.parquet")
    summary["model"] = evil
    path.write_text(json.dumps(summary))
    text = write_report(out).read_text()
    assert evil not in text and "<img" not in text
    assert text.count("&lt;img src=x") >= 4
    assert "&lt;img src=x" in text


def test_a_report_without_the_archive_says_so(run_folder: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(run_folder, tmp_path / "out"))
    summary = json.loads((out / "summary.json").read_text())
    summary["settings"]["input"] = [str(tmp_path / "gone")]
    (out / "summary.json").write_text(json.dumps(summary))
    text = write_report(out, output=tmp_path / "page.html").read_text()
    assert "Not shown. Waveforms and gaps" in text and 'id="record_section"' not in text
    assert 'href="out/picks.csv"' in text and 'id="picks_over_time"' in text


@pytest.mark.slow
def test_two_thousand_stations_make_a_page_that_is_no_larger_than_it_must(
    run_folder: Path, tmp_path: Path
) -> None:
    from eqcctpro.picks.reading import read_picks

    out = Path(shutil.copytree(run_folder, tmp_path / "out"))
    summary = json.loads((out / "summary.json").read_text())
    summary["settings"]["input"] = [str(tmp_path / "gone")]
    few = read_picks(run_folder).slice(0, 8)
    place = few.schema.get_field_index("station")
    many = pa.concat_tables(
        few.set_column(place, "station", pa.array([f"S{number:04d}"] * few.num_rows))
        for number in range(2000)
    )
    summary["picks"] = {"total": many.num_rows}
    (out / "summary.json").write_text(json.dumps(summary))
    (out / "tasks.parquet").unlink()  # as of a run of a version that wrote none
    page = write_report(out, table=many)
    assert len(embedded(page, "rows")) == 2000 + len(summary["notes"])
    assert page.stat().st_size < 9e6


@pytest.mark.slow
def test_a_report_that_cannot_be_drawn_costs_no_picks(
    network: Path, imported_model: str, tmp_path: Path
) -> None:
    (network / "stations.txt").write_text(FDSN_TEXT.replace("31.5", "north"))
    config = PickConfig.checked(
        input=network,
        output=tmp_path / "out",
        model=imported_model,
        runtime="torch",
        threads=1,
        stations="DEM01",
        overview=False,
        report=True,
    )
    result = run_picking(config)
    assert result.counts["picks"] > 0 and "report" not in result.paths
    assert "no report: InputError" in (tmp_path / "out" / "run.log").read_text()
    assert (tmp_path / "out" / "picks.csv").is_file()


def test_the_command_writes_the_page(run_folder: Path, tmp_path: Path, cli: Any) -> None:
    done = cli("report", run_folder, "-o", tmp_path / "page.html")
    assert done.exit_code == 0 and (tmp_path / "page.html").is_file()
    failed = cli("report", tmp_path)
    assert failed.exit_code == 3 and "summary.json" in failed.output


@pytest.mark.parametrize(("name", "text"), [("s.txt", FDSN_TEXT), ("s.xml", STATION_XML)])
def test_coordinates(tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert read_stations(path).at()["XX", "DEM01"] == (31.5, -104.25)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "<html/>", "<unfinished", "#Network|Station\n"])
def test_what_is_no_list_of_stations_is_said(tmp_path: Path, text: str) -> None:
    path = tmp_path / "stations.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=r"stations\.txt"):
        read_stations(path)


def test_coverage_counts_any_component(tmp_path: Path, write_mseed: Callable[..., Path]) -> None:
    ones = np.ones(1000, dtype=np.int32)
    start = 1_700_000_000_000_000_000
    write_mseed(tmp_path / "z", "XX.A.00.HHZ", [(start, ones), (start + 30 * 10**9, ones)])
    write_mseed(tmp_path / "n", "XX.A.00.HHN", [(start + 10 * 10**9, ones)])
    found, known = measure_coverage([index_file(tmp_path / name) for name in "zn"])
    assert known and found["XX.A"].gaps == 1
    assert found["XX.A"].seconds == pytest.approx(30.0)
    assert found["XX.A"].gap_seconds == pytest.approx(10.0)


def test_pairs_of_p_and_s_are_those_of_two_arrivals() -> None:
    """A P on an S onset makes no pair of no seconds, and does not hide the real P."""
    rows = [
        ("P", 10.0, 0.9),  # with the S at 15
        ("P", 15.01, 0.4),  # on the S onset
        ("S", 15.0, 0.8),
        ("P", 40.0, 0.9),  # with the S at 43
        ("S", 40.1, 0.3),  # on the P onset
        ("S", 43.0, 0.7),
        ("P", 70.0, 0.9),  # alone
        ("P", 200.0, 0.9),
        ("S", 200.3, 0.9),  # close, but an S of its own
    ]
    table = pa.table(
        {
            "network": ["XX"] * len(rows),
            "station": ["A"] * len(rows),
            "phase": [phase for phase, *_ in rows],
            "time": pa.array([round(time * 1e6) for _, time, _ in rows]).cast(
                pa.timestamp("us", tz="UTC")
            ),
            "probability": [value for *_, value in rows],
        }
    )
    figure = _s_minus_p(Picks(table))
    assert figure is not None
    counts = dict(zip(figure.traces[0]["x"], figure.traces[0]["y"], strict=True))
    step = 5 / 60
    found = sorted(round(middle, 2) for middle, count in counts.items() for _ in range(count))
    assert found == pytest.approx([0.3, 3.0, 5.0], abs=step)
    assert "3 pairs" in figure.note


def test_cores_in_use_follow_from_processor_time() -> None:
    history = [
        {"seconds": 0.0, "ram_mb": 100.0, "cpu_s": 0.0},
        {"seconds": 2.0, "ram_mb": 200.0, "cpu_s": 3.0, "gpu0_percent": 50.0, "gpu0_mb": 900.0},
    ]
    figures = {figure.name: figure for figure in monitor_figures({"monitor": history})}
    assert set(figures) == {"monitor_cpu", "monitor_ram", "monitor_gpu_percent", "monitor_gpu_mb"}
    assert figures["monitor_cpu"].traces[0]["y"] == [None, 1.5]
    assert monitor_figures({}) == []


class TestStationPlot:
    def test_components_curves_and_picks(self, run_folder: Path) -> None:
        from eqcctpro.picks.reading import read_picks

        figure = plot_station(run_folder, "DEM02", length_s=100)
        *components, curves = figure.axes
        assert [panel.texts[0].get_text()[-1] for panel in components] == ["Z", "N", "E"]
        assert all(len(panel.lines[0].get_xdata()) > 1000 for panel in components)
        labels = curves.get_legend_handles_labels()[1]
        assert set(labels) == {"P", "S", "Detection"}
        picks = Picks(read_picks(run_folder))
        here = picks.station == "XX.DEM02"
        drawn = [
            line.get_xdata()[0] * 86_400e9
            for line in components[0].lines
            if len(line.get_xdata()) == 2
        ]
        assert sorted(drawn) == pytest.approx(sorted(picks.time_ns[here]), abs=2e4)
        # The curve has its peak where the pick is: it is the same curve as in the run.
        for time, value, phase in zip(
            picks.time_ns[here], picks.probability[here], picks.phase[here], strict=True
        ):
            lines = curves.lines
            line = next(one for one in lines if one.get_label() == phase)
            near = np.abs(line.get_xdata() * 86_400e9 - time).argmin()
            assert line.get_ydata()[near] == pytest.approx(value, abs=1e-4)

    def test_a_time_and_a_figure_of_ones_own(self, run_folder: Path) -> None:
        from matplotlib.figure import Figure

        mine = Figure()
        figure = plot_station(
            run_folder, "XX.DEM03", time="2024-12-15T12:01:00", length_s=10, figure=mine
        )
        assert figure is mine
        low, high = figure.axes[-1].get_xlim()
        assert (high - low) * 86_400 == pytest.approx(10)

    @pytest.mark.slow
    def test_a_station_without_picks_is_shown_where_a_pick_was_closest(
        self, pick: Any, generated_network: Any, imported_model: str, tmp_path: Path
    ) -> None:
        """Nothing reaches the threshold; the picture shows what came closest to it."""
        source = next(generated_network[0].glob("*/DEM02"))
        out = tmp_path / "none"
        settings = {"model": imported_model, "p_threshold": 0.999, "s_threshold": 0.999}
        result = pick(source, output=out, formats=("csv", "parquet"), **settings)
        assert result.counts["picks"] == 0
        figure = plot_station(out, "DEM02")
        low, high = (value * 86_400 for value in figure.axes[-1].get_xlim())
        usual = pick(source, model=imported_model).picks
        best = usual.loc[usual["probability"].idxmax()]
        assert high - low == pytest.approx(60)
        assert (low + high) / 2 == pytest.approx(best["time"].timestamp(), abs=0.02)
        assert f"{best['phase']} {best['probability']:.2f}" in figure.axes[0].get_title(loc="right")

    @pytest.mark.slow
    def test_a_station_that_could_not_be_picked_is_shown_with_the_reason(
        self, pick: Any, write_mseed: Any, imported_model: str, tmp_path: Path
    ) -> None:
        start_ns = 1_734_264_000 * 10**9
        for component in "ZNE":
            path = tmp_path / "in" / "ZERO" / f"{component}.mseed"
            write_mseed(path, f"XX.ZERO..HH{component}", [(start_ns, np.zeros(12_000, "i4"))])
        pick(tmp_path / "in", output=tmp_path / "out", model=imported_model)
        figure = plot_station(tmp_path / "out", "ZERO")
        low, high = (value * 86_400 for value in figure.axes[-1].get_xlim())
        assert (low + high) / 2 == pytest.approx(start_ns / 1e9 + 60, abs=0.1)
        assert any("zero" in text.get_text() for text in figure.axes[-1].texts)

    @pytest.mark.parametrize(
        ("arguments", "error", "words"),
        [
            ({"station": "NOPE"}, SettingsError, "XX.DEM01"),
            ({"station": "DEM02", "length_s": 0}, SettingsError, "length"),
            ({"station": "DEM02", "time": "2020-01-01"}, InputError, "no data around"),
            ({"station": "DEM02", "instrument": "BH"}, SettingsError, "no such station"),
        ],
    )
    def test_mistakes_are_named(
        self, run_folder: Path, arguments: dict[str, Any], error: type[Exception], words: str
    ) -> None:
        with pytest.raises(error, match=re.escape(words)):
            plot_station(run_folder, **arguments)

    @pytest.mark.slow
    def test_the_command_writes_a_picture(self, run_folder: Path, tmp_path: Path, cli: Any) -> None:
        done = cli("show", run_folder, "XX.DEM02", "-o", tmp_path / "station.png")
        assert done.exit_code == 0, done.output
        assert (tmp_path / "station.png").stat().st_size > 20_000
        wrong = cli("show", run_folder, "XX.DEM02", "-o", tmp_path / "station.gif")
        assert wrong.exit_code == 2 and "station.gif" in wrong.output


def test_the_earlier_place_of_the_report_warns() -> None:
    from eqcctpro.analysis import report
    from eqcctpro.report.run_report import write_report

    with pytest.warns(DeprecationWarning, match="eqcctpro.report.run_report"):
        assert report.write_report is write_report
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = report.nothing_like_it
