"""Figures of trials: what is drawn is what is in the file, and nothing is mixed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from finder_tables import CPUS, STATIONS, TIME, ours, write_rows

from eqcctpro.analysis import efficiency_figures
from eqcctpro.analysis.comparison_figures import comparison_figures
from eqcctpro.analysis.efficiency_metrics import efficiency_table
from eqcctpro.analysis.facets import cpu_panels, panels, reach
from eqcctpro.analysis.trial_figures import trial_figures
from eqcctpro.analysis.trials import load_trials
from eqcctpro.analysis.visualize import optimal, visualize
from eqcctpro.evaluation.results import Trial

#: Seconds of 10 and 20 stations by CPUs and workers; efficiency falls to 0.42 on one CPU.
SECONDS = {
    (1, 1): 10.0, (1, 2): 11.9,
    (2, 1): 10.0, (2, 2): 5.5, (2, 4): 4.8,
    (4, 1): 9.0, (4, 2): 4.6, (4, 4): 2.5,
}  # fmt: skip


def rows() -> list[dict[str, Any]]:
    chunks = {"Total Number of Timechunks": 4, "Length of Timechunk (min)": 30.0}
    return [
        ours(stations, cpus, seconds * stations / 10, workers=workers, **chunks)
        | {"Workers": workers, "Planned RAM (MB)": 1500.0, "Concurrent Timechunks Used": 2}
        for (cpus, workers), seconds in SECONDS.items()
        for stations in (10, 20)
    ]


@pytest.fixture
def trials(tmp_path: Path) -> tuple[Trial, ...]:
    return load_trials(write_rows(tmp_path, rows()))[0].trials


@pytest.fixture
def table(trials: tuple[Trial, ...]) -> pd.DataFrame:
    return efficiency_table(trials).reset_index(drop=True)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Matplotlib figures by the names of their files, which are not written."""
    figures: dict[str, Any] = {}

    def keep(figure: Any, path: Path) -> Path:
        figures[path.stem] = figure
        return path

    monkeypatch.setattr(efficiency_figures, "save_png", keep)
    return figures


def lines_of(axes: Any) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)]
        for line in axes.get_lines()
        if line.get_linestyle() not in ("None", "--")
    ]


def shown(figure: Any) -> list[Any]:
    return [axes for axes in figure.axes if axes.get_visible() and axes.get_title(loc="left")]


@pytest.mark.slow
def test_efficiency_has_a_panel_for_each_number_of_cpus(
    tmp_path: Path, trials: tuple[Trial, ...], table: pd.DataFrame, drawn: dict[str, Any]
) -> None:
    efficiency_figures.draw_figures(tmp_path, table, trials, "modelactor")
    axes = shown(drawn["parallel_efficiency_modelactor"])
    assert [one.get_title(loc="left") for one in axes] == ["1 CPU", "2 CPUs", "4 CPUs"]
    for one, cpus in zip(axes, (1, 2, 4), strict=True):
        first = SECONDS[cpus, 1]
        wanted = [
            (workers, first / seconds / workers)
            for (of, workers), seconds in SECONDS.items()
            if of == cpus
        ]
        for line in lines_of(one):
            assert line == [pytest.approx(point) for point in wanted]
        assert len(lines_of(one)) == 2, "a line for each number of stations"
    assert lines_of(axes[0])[0][1][1] == pytest.approx(0.42, abs=0.001)


@pytest.mark.slow
def test_runtimes_of_different_cpus_are_in_different_panels(
    tmp_path: Path, trials: tuple[Trial, ...], table: pd.DataFrame, drawn: dict[str, Any]
) -> None:
    efficiency_figures.draw_figures(tmp_path, table, trials, "modelactor", desired=10_000.0)
    figure = drawn["picker_runtime_vs_stations_by_concurrency_modelactor"]
    axes = shown(figure)
    assert [len(lines_of(one)) for one in axes] == [2, 3, 3]
    assert lines_of(axes[1])[2] == [(10.0, 4.8), (20.0, 9.6)]
    assert "4 time chunks of 30 min, 2 at once" in figure.get_suptitle()
    for one in axes:
        assert one.get_ylim()[1] < 30, "a far desired runtime leaves the data as large"
        assert [text.get_text() for text in one.texts] == ["desired, 10000 s: above what is shown"]
    efficiency_figures.draw_figures(tmp_path, table, trials, "modelactor", desired=5.0)
    near = drawn["picker_runtime_vs_stations_by_concurrency_modelactor"]
    assert [line.get_ydata()[0] for line in shown(near)[0].get_lines()][-1] == 5.0


@pytest.mark.slow
def test_local_trials_have_a_line_for_each_number_of_cpus(
    tmp_path: Path, drawn: dict[str, Any]
) -> None:
    settings = ({"runtime": "torch"}, {"runtime": "openvino"})
    found = [
        ours(n, cpus, n / cpus, mode="local", settings=one)
        for n in (10, 20)
        for cpus in (1, 2)
        for one in settings
    ]
    trials = load_trials(write_rows(tmp_path, found))[0].trials
    efficiency_figures.draw_figures(tmp_path, efficiency_table(trials), trials, "local")
    figure = drawn["picker_runtime_vs_stations_by_concurrency_local"]
    (axes,) = figure.axes
    solid = [line for line in axes.get_lines() if line.get_linestyle() not in ("None",)]
    assert sorted(tuple(line.get_ydata()) for line in solid) == [
        (5, 10),
        (5, 10),
        (10, 20),
        (10, 20),
    ]
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert words == ["CPUs", "1", "2", "", "openvino", "torch"]


def test_the_comparison_mixes_no_cpus(
    tmp_path: Path, table: pd.DataFrame, drawn: dict[str, Any]
) -> None:
    efficiency_figures.draw_comparison(tmp_path / "c.png", table, "M/x", None)
    top = drawn["c"].axes[:3]
    assert [axes.get_title(loc="left") for axes in top] == ["1 CPU", "2 CPUs", "4 CPUs"]
    assert lines_of(top[0])[0] == [(10.0, 10.0), (20.0, 20.0)]
    assert lines_of(top[2])[0] == [(10.0, 2.5), (20.0, 5.0)]


def test_interactive_plots_have_panels_and_no_averages(table: pd.DataFrame) -> None:
    figures = {one.name: one for one in trial_figures(table, "ModelActors", 10_000.0)}
    figures |= {one.name: one for one in comparison_figures(table, 5.0)}
    for name, wanted in (
        ("runtime_vs_stations_2d", 8),  # a line for workers, of two stations
        ("throughput_vs_concurrency_2d", 6),  # a line for stations, of two or three workers
        ("comparison_throughput_scaling", 6),
    ):
        traces = figures[name].traces
        assert len(traces) == wanted
        assert {trace.get("xaxis", "x") for trace in traces} == {"x", "x2", "x3"}
        drawn = sorted(row for trace in traces for row in trace["meta"]["rows"])
        assert drawn == list(range(len(table))), "every trial is drawn once"
        for trace in traces:
            assert table.loc[trace["meta"]["rows"], "CPUs"].nunique() == 1
        titles = [one["text"] for one in figures[name].layout["annotations"]]
        assert [f"<b>{n}</b>" for n in ("1 CPU", "2 CPUs", "4 CPUs")] == [
            text for text in titles if text.startswith("<b>")
        ]
    far = figures["runtime_vs_stations_2d"]
    assert far.layout["shapes"] == [] and "The desired 10000 s are far above" in far.note
    near = figures["comparison_runtime_vs_stations"].layout
    assert [shape["y0"] for shape in near["shapes"]] == [5.0] * 3


def test_many_cpus_leave_panels_out_and_say_so() -> None:
    table = pd.DataFrame(
        {"CPUs": range(1, 41), "GPU Count": 0, "Stations": 1, "Workers": 1, "Variant": ""}
    )
    found, note = panels(table, "Stations", "Workers")
    assert (len(found), note) == (12, "12 of 40 numbers of CPUs or GPUs")
    assert (found[0].title, found[-1].title) == ("1 CPU", "40 CPUs")
    assert cpu_panels(table)[1] == "12 of 40 numbers of CPUs"


def test_reach_of_a_desired_runtime() -> None:
    assert reach([1.0, 10.0], None) is None
    assert reach([1.0, 10.0], 12.0) == 12.0
    assert reach([1.0, 10.0], 100.0) is None


@pytest.mark.slow
def test_pages_share_one_copy_of_plotly(tmp_path: Path) -> None:
    folder = write_rows(tmp_path, rows())
    pages = visualize(folder, tmp_path / "pages").files
    (library,) = (tmp_path / "pages").glob("*.js")
    assert library.stat().st_size > 2**20
    assert len(pages) > 5
    for page in pages:
        assert page.stat().st_size < 300_000
        assert f'src="{library.name}"' in page.read_text(encoding="utf-8")
    assert "4 time chunks of 30 min, 2 at once" in pages[0].read_text(encoding="utf-8")


def test_the_table_of_the_best_has_what_eqcctpros_has(tmp_path: Path) -> None:
    gpus = [
        ours(10, 2, 4.0 / count, gpus=tuple(range(count)))
        | {"Process Tree VRAM (MB)": 500 * count, "Actor Creation Time (s)": 3.0}
        for count in (1, 2)
    ]
    write_rows(tmp_path, gpus, "gpu")
    write_rows(tmp_path, [ours(10, 2, 9.0, mode="ripper") | {"Avg Model Load Time (s)": 1.25}])
    (page,) = optimal(tmp_path, tmp_path / "out").files
    text = page.read_text(encoding="utf-8")
    for words in (
        *("GPU (1) ModelActor", "GPU (2) ModelActor", "CPU Ripper"),
        *("Mean VRAM (MB)", "Mean Actor Creation Time (s)", "Mean Model Load Time (s)"),
        *('<td class="number">500</td>', '<td class="number">1,000</td>'),
        *('<td class="number">1.25</td>',),
    ):
        assert words in text


def test_titles_of_trials_have_their_time_chunks(
    generated_network: tuple[Path, list[Any]], imported_model: str, tmp_path: Path
) -> None:
    from eqcctpro import EvaluateSystem
    from eqcctpro.evaluation.sweep import Sweep

    parent, child = imported_model.split("/")
    config = EvaluateSystem(
        eval_mode="cpu",
        input_dir=generated_network[0],
        output_dir=tmp_path / "out",
        csv_dir=tmp_path / "csv",
        model_type="seisbench",
        seisbench_parent_model=parent,
        seisbench_child_model=child,
        station_counts=(2,),
        modes=("modelactor",),
        concurrency_values=(1,),
        start_time="2024-12-15 12:00:00",
        end_time="2024-12-15 12:02:00",
        timechunk_dt=1,
    ).config
    titles = [spec.title for spec in Sweep(config).specs]
    assert {one.partition(", 2 time chunks, ")[2][:9] for one in titles} == {
        "1 at once",
        "2 at once",
    }


def test_runtimes_and_batches_are_told_apart(tmp_path: Path, cli: Callable[..., Any]) -> None:
    found = [
        ours(10, 2, seconds, settings={"runtime": runtime, "batch_size": batch})
        for seconds, (runtime, batch) in enumerate(
            [("torch", 16), ("torch", 64), ("openvino", 16)], 1
        )
    ]
    trials = load_trials(write_rows(tmp_path, found))[0].trials
    table = efficiency_table(trials)
    assert sorted(table["Variant"]) == ["openvino, batch 16", "torch, batch 16", "torch, batch 64"]
    assert {STATIONS, CPUS, TIME} <= set(table)
    done = cli("analyze", tmp_path, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
