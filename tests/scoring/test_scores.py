"""Picks against labels, and picks against picks."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from counted_calls import calls
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from eqcctpro.errors import InputError, SettingsError
from eqcctpro.picks.formats import write_picks
from eqcctpro.picks.table import PICK_SCHEMA
from eqcctpro.scoring import compare_picks, read_labels, score_picks
from eqcctpro.scoring.matching import match

START = np.datetime64("2024-12-15T12:00:00", "us")


def table(*rows: tuple[Any, ...]) -> pa.Table:
    """Rows of station, phase, seconds and, at will, probability."""
    times = [START + np.timedelta64(round(row[2] * 1e6), "us") for row in rows]
    columns = {
        "network": pa.array(["XX"] * len(rows), pa.string()),
        "station": pa.array([row[0] for row in rows], pa.string()),
        "phase": pa.array([row[1] for row in rows], pa.string()),
        "time": pa.array(times, pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC")),
        "probability": pa.array([(*row, None)[3] for row in rows], pa.float32()),
    }
    for field in PICK_SCHEMA:
        columns.setdefault(field.name, pa.nulls(len(rows), field.type))
    return pa.table(columns).select(PICK_SCHEMA.names)


class TestMatching:
    times = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 40)), max_size=12)

    @pytest.mark.slow
    @settings(max_examples=300, deadline=None)
    @given(picks=times, labels=times, tolerance=st.integers(0, 12))
    def test_no_matching_is_better(self, picks: Any, labels: Any, tolerance: int) -> None:
        """As many pairs, and as small a sum of differences, as the assignment problem allows."""
        pick_group, pick_time = np.array(picks, np.int64).reshape(-1, 2).T
        label_group, label_time = np.array(labels, np.int64).reshape(-1, 2).T
        partner = match(pick_group, pick_time, label_group, label_time, tolerance)
        paired = partner >= 0
        assert len(set(partner[paired])) == paired.sum()
        assert (pick_group[paired] == label_group[partner[paired]]).all()
        apart = np.abs(pick_time[paired] - label_time[partner[paired]])
        assert (apart <= tolerance).all()
        if not picks or not labels:
            return
        distance = np.abs(pick_time[:, None] - label_time[None])
        possible = (distance <= tolerance) & (pick_group[:, None] == label_group[None])
        pair = 10_000
        cost = np.where(possible, distance - pair, 0)
        assert (apart - pair).sum() == cost[linear_sum_assignment(cost)].sum()

    def test_greedy_would_lose_one(self) -> None:
        """The pick in the middle is nearest to a label that the other pick needs."""
        group = np.zeros(2, np.int64)
        partner = match(group, np.array([10, 16]), group, np.array([0, 11]), 10)
        assert partner.tolist() == [0, 1]

    def test_the_work_grows_with_the_days_of_a_network(self) -> None:
        rng = np.random.default_rng(0)

        def work(count: int) -> int:
            labels = rng.integers(0, 864_000 * count, count)
            station = rng.integers(0, 300, labels.size)
            picks = labels + rng.integers(-400_000, 400_000, labels.size)
            assert (match(station, picks, station, labels, 500_000) >= 0).all()
            return calls(match, station, picks, station, labels, 500_000)

        work(100)
        # A day is a hundred thousand picks.
        assert work(100_000) < 6 * work(20_000)


class TestEveryPickCounts:
    labels = table(("A", "P", 10.0), ("A", "S", 15.0), ("B", "P", 11.0))

    def test_at_a_station_without_labels(self) -> None:
        scores = score_picks(table(("A", "P", 10.0), ("C", "P", 10.0)), self.labels)
        counts = scores.phases["P"].counts
        assert (counts.matched, counts.false, counts.missed) == (1, 1, 1)
        assert counts.precision == 0.5
        assert {"place": "XX.C", "phase": "P"}.items() <= scores.stations[-1].items()

    def test_of_a_phase_without_labels(self) -> None:
        labels = table(("A", "P", 10.0))
        scores = score_picks(table(("A", "P", 10.0), ("A", "S", 12.0)), labels)
        assert scores.phases["S"].counts.false == 1
        assert scores.phases["S"].counts.recall is None
        assert list(score_picks(table(("A", "S", 1.0)), labels, phases=["p"]).phases) == ["P"]

    def test_beside_a_label_that_is_taken(self) -> None:
        picks = table(("A", "P", 9.9), ("A", "P", 10.01), ("A", "P", 10.1))
        counts = score_picks(picks, self.labels, phases=["P"]).phases["P"].counts
        assert (counts.matched, counts.false, counts.duplicates) == (1, 2, 2)
        assert counts.precision == pytest.approx(1 / 3)

    def test_of_the_wrong_phase(self) -> None:
        counts = score_picks(table(("A", "P", 15.0)), self.labels).phases
        assert (counts["P"].counts.false, counts["S"].counts.missed) == (1, 1)

    def test_without_picks_every_label_is_missed(self) -> None:
        scores = score_picks(table(), self.labels)
        assert scores.phases["P"].counts.missed == 2
        assert scores.phases["P"].counts.precision is None
        assert scores.phases["P"].counts.recall == 0
        assert scores.matches["outcome"].to_pylist() == ["missed"] * 3

    def test_labels_are_counted_not_stations(self) -> None:
        labels = table(*(("A", "P", 10.0 * n) for n in range(5)))
        picks = table(*(("A", "P", 10.0 * n + 0.1) for n in range(4)))
        score = score_picks(picks, labels, station_hours=2.0).phases["P"]
        assert (score.counts.labels, score.counts.recall) == (5, 0.8)
        assert score.false_per_station_hour == 0

    def test_matches_hold_every_pick_and_label_once(self) -> None:
        picks = table(("A", "P", 10.2, 0.9), ("A", "P", 30.0, 0.4), ("B", "S", 11.0, 0.5))
        matches = score_picks(picks, self.labels).matches.to_pylist()
        assert sorted((m["place"], m["phase"], m["outcome"]) for m in matches) == [
            ("XX.A", "P", "false"),
            ("XX.A", "P", "match"),
            ("XX.A", "S", "missed"),
            ("XX.B", "P", "missed"),
            ("XX.B", "S", "false"),
        ]
        pair = next(m for m in matches if m["outcome"] == "match")
        assert pair["residual_s"] == pytest.approx(0.2)
        assert pair["probability"] == pytest.approx(0.9)

    def test_tolerance_is_inclusive_and_times_are_bounds(self) -> None:
        assert score_picks(table(("A", "P", 10.5)), self.labels).phases["P"].counts.matched == 1
        assert score_picks(table(("A", "P", 10.500001)), self.labels).phases["P"].counts.false == 1
        cut = score_picks(
            table(("A", "P", 10.0), ("A", "P", 99.0)),
            self.labels,
            start="2024-12-15T12:00:10",
            end="2024-12-15T12:00:11",
        )
        assert cut.phases["P"].counts.labels == cut.phases["P"].counts.picks == 1

    def test_instruments(self) -> None:
        """Two instruments of a station: two picks of one label, unless each has labels."""
        both = table(("A", "P", 10.0), ("A", "P", 10.0))
        columns = {name: both[name] for name in both.column_names}
        columns["channel"] = pa.chunked_array([["HH", "HN"]])
        both = pa.table(columns)
        assert score_picks(both, self.labels).phases["P"].counts.duplicates == 1
        assert score_picks(both, both, per="instrument").phases["P"].counts.matched == 2

    @pytest.mark.parametrize(
        "wrong", [{"tolerance_s": 0}, {"per": "house"}, {"phases": ["X"]}, {"station_hours": 0}]
    )
    def test_wrong_settings(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(SettingsError):
            score_picks(self.labels, self.labels, **wrong)

    def test_no_labels_are_an_error(self) -> None:
        with pytest.raises(SettingsError, match="no labels"):
            score_picks(self.labels, table())


def test_residuals() -> None:
    shifts = np.array([-0.2, -0.1, 0.0, 0.1, 0.4])
    labels = table(*(("A", "P", 10.0 * n) for n in range(1, 6)))
    picks = table(*(("A", "P", 10.0 * n + s) for n, s in enumerate(shifts.tolist(), 1)))
    found = score_picks(picks, labels).phases["P"].residuals
    assert found is not None
    assert found.mean == pytest.approx(shifts.mean())
    assert found.mae == pytest.approx(np.abs(shifts).mean())
    assert found.sigma == pytest.approx(shifts.std())
    assert found.percentiles["p50"] == pytest.approx(0.0)
    assert sum(found.histogram["counts"]) == 5
    assert found.histogram["edges_s"][0] == -0.5


def test_curve_and_area() -> None:
    """Matched anew at each threshold; the area is the average precision."""
    labels = table(("A", "P", 10.0), ("A", "P", 20.0), ("A", "P", 30.0), ("A", "P", 40.0))
    picks = table(
        ("A", "P", 10.0, 0.355),
        ("A", "P", 10.2, 0.955),  # of the two near the label, the one farther away
        ("A", "P", 20.0, 0.755),
        ("A", "P", 25.0, 0.555),
        ("A", "P", 30.0, 0.455),
    )
    score = score_picks(picks, labels).phases["P"]
    at = {point["threshold"]: point for point in score.curve}
    assert (at[0.9]["matched"], at[0.9]["precision"], at[0.9]["recall"]) == (1, 1.0, 0.25)
    assert (at[0.4]["matched"], at[0.4]["precision"]) == (3, 0.75)
    assert min(at) == 0.35 and at[0.35]["picks"] == 5
    assert max(at) == 0.95
    assert score.area == pytest.approx(0.25 * 1 + 0.25 * 1 + 0.25 * 0.75)
    assert score_picks(table(("A", "P", 10.0)), labels).phases["P"].curve == []


class TestLabels:
    def test_seisbench_metadata(self, tmp_path: Path) -> None:
        """Sample 0 is a label, the rate is that of the trace, an empty cell is none."""
        (tmp_path / "metadata.csv").write_text(
            "station_network_code,station_code,station_location_code,trace_start_time,"
            "trace_sampling_rate_hz,trace_p_arrival_sample,trace_Sg_arrival_sample\n"
            "XX,A,,2024-12-15T12:00:10.000000Z,40.0,0,100\n"
            "XX,007,--,2024-12-15 12:00:20.5+00:00,100,50.0,\n"
        )
        labels = read_labels(tmp_path)
        rows = [(r["station"], r["phase"], r["time"]) for r in labels.to_pylist()]
        assert [(s, p) for s, p, _ in rows] == [("A", "p"), ("007", "p"), ("A", "Sg")]
        picks = table(("A", "P", 10.0), ("A", "S", 12.5), ("007", "P", 21.0))
        scores = score_picks(picks, labels, tolerance_s=1e-6)
        assert [s.counts.matched for s in scores.phases.values()] == [2, 1]

    def test_a_trace_without_a_rate(self, tmp_path: Path) -> None:
        head = "station_code,trace_start_time,trace_p_arrival_sample"
        (tmp_path / "metadata.csv").write_text(f"{head}\nA,2024-12-15T12:00:00Z,1\n")
        with pytest.raises(InputError, match="trace_sampling_rate_hz"):
            read_labels(tmp_path)
        (tmp_path / "metadata.csv").write_text(f"{head},trace_sampling_rate_hz\nA,,1,100\n")
        with pytest.raises(InputError, match="start time"):
            read_labels(tmp_path / "metadata.csv")

    def test_quakeml(self, tmp_path: Path) -> None:
        labels = table(("A", "Pg", 10.0), ("A", "Sn", 15.0))
        write_picks(labels, tmp_path / "labels.xml", "quakeml")
        found = score_picks(
            table(("A", "P", 10.0), ("A", "S", 15.0)), read_labels(tmp_path / "labels.xml")
        )
        assert [score.counts.f1 for score in found.phases.values()] == [1.0, 1.0]


class TestComparison:
    def test_parity(self) -> None:
        a = table(("A", "P", 10.0, 0.9), ("A", "P", 20.0, 0.8), ("B", "S", 5.0, 0.3))
        b = table(("A", "P", 10.0, 0.9), ("A", "P", 20.05, 0.7), ("C", "P", 5.0, 0.3))
        parity = compare_picks(a, b)
        p, s = parity.phases["P"], parity.phases["S"]
        assert (p.a, p.b, p.both, p.only_a, p.only_b, p.same_time) == (2, 3, 2, 0, 1, 1)
        assert p.agreement == pytest.approx(2 / 3)
        assert p.within_s == {"0.01": 0.5, "0.05": 1.0, "0.1": 1.0}
        assert p.times is not None and p.times.mean == pytest.approx(0.025)
        assert p.probability["largest"] == pytest.approx(0.1)
        assert (s.only_a, s.agreement, s.times, s.probability) == (1, 0.0, None, {})
        assert [(r["place"], r["only_a"], r["only_b"]) for r in parity.stations] == [
            ("XX.C", 0, 1),
            ("XX.B", 1, 0),
        ]

    def test_a_set_equals_itself(self) -> None:
        a = table(*(("A", "P", n / 10, 0.5) for n in range(100)))
        parity = compare_picks(a, a, tolerance_s=1.0)
        assert parity.phases["P"].same_time == 100
        assert parity.phases["P"].agreement == 1
        assert parity.stations == []


@pytest.mark.slow
def test_command(
    pick: Any, generated_network: Any, imported_model: str, tmp_path: Path, cli: Any
) -> None:
    """A real run against the true arrivals; the run knows how long it looked."""
    folder, truth = generated_network
    result = pick(folder, model=imported_model, output=tmp_path / "out")
    # Six stations of two minutes, one of them with a gap of 5 s inside its files.
    assert result.summary["station_hours"] == pytest.approx((6 * 120 - 5) / 3600, rel=0.001)
    labels = tmp_path / "truth.csv"
    with labels.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["network", "station", "phase", "time"])
        for each in truth:
            moment = np.datetime64(each.time_ns, "ns").astype("M8[us]")
            writer.writerow([each.network, each.station, each.phase, moment])
    run = cli("score", tmp_path / "out", labels, "-o", tmp_path / "score")
    assert run.exit_code == 0, run.output
    report = json.loads((tmp_path / "score" / "score.json").read_text())
    for phase in "PS":
        found = report["phases"][phase]
        assert found["counts"]["labels"] == 12
        assert found["counts"]["recall"] > 0.8
        hours = report["station_hours"]
        assert found["false_per_station_hour"] * hours == pytest.approx(found["counts"]["false"])
    names = {path.name for path in (tmp_path / "score").iterdir()}
    assert names == {"score.json", "stations.csv", "curve.csv", "matches.csv"}
    with (tmp_path / "score" / "matches.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    outcomes = [row["outcome"] for row in rows]
    assert outcomes.count("match") + outcomes.count("missed") == len(truth)
    assert outcomes.count("match") + outcomes.count("false") == result.table.num_rows
    same = cli("score", "--compare", tmp_path / "out", tmp_path / "out", "-o", tmp_path / "same")
    assert same.exit_code == 0, same.output
    parity = json.loads((tmp_path / "same" / "parity.json").read_text())
    assert all(found["agreement"] == 1 for found in parity["phases"].values())
    assert cli("score", tmp_path / "out", tmp_path / "none").exit_code == 3
    assert cli("score", "--compare", tmp_path / "out", labels, "--phases", "P").exit_code == 2


@pytest.mark.slow
def test_analysts_on_real_records(pick: Any, test_data: Path, labelled: Path) -> None:
    """As many analysts' picks as SeisBench's classify finds with these weights."""
    result = pick(labelled, model="PhaseNet/original")
    scores = score_picks(result.table, read_labels(test_data / "waveforms" / "picks.csv"))
    p, s = scores.phases["P"].counts, scores.phases["S"].counts
    assert (p.labels, p.matched, s.labels, s.matched) == (103, 99, 103, 94)
    assert p.picks + s.picks == 250
