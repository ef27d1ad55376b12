"""Amplitudes of picks against motions that are known."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from eqcctpro.amplitudes import measure_amplitudes
from eqcctpro.errors import InputError
from eqcctpro.picks.reading import read_picks
from eqcctpro.sources.files import FileCache
from eqcctpro.synthetic.dataset import Synthesis, synthesize
from eqcctpro.times import format_utc, parse_utc
from eqcctpro.waveform.decode import DecodedFile

COUNTS_PER_M_S = 6.0e8


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amplitudes") / "network"
    synthesize(folder, Synthesis(stations=2, duration_s=90.0, earthquakes=1))
    return folder


def wood_anderson_mm(velocity: float, frequency: float) -> float:
    """Amplitude that the seismometer's equation of motion gives for a steady sine, mm."""
    omega, natural = 2 * np.pi * frequency, 2 * np.pi / 0.8
    displacement = velocity / omega
    response = omega**2 / abs(natural**2 - omega**2 + 2j * 0.7 * natural * omega)
    return float(2080.0 * displacement * response * 1000)


@pytest.mark.parametrize("frequency", [1.0, 4.0])
def test_a_sine_of_known_velocity(
    frequency: float, network: Path, write_mseed: Any, tmp_path: Path
) -> None:
    """A sine on the horizontals that swells from 30 s on, ten times as strong on the vertical."""
    velocity, start = 1e-4, parse_utc("2024-12-15T12:00:00")
    times = np.arange(0, 90, 0.01)
    swell = np.clip((times - 30) / 2, 0, 1) ** 2
    sine = velocity * COUNTS_PER_M_S * swell * np.sin(2 * np.pi * frequency * times)
    for component, factor in (("Z", 10.0), ("N", 1.0), ("E", 0.5)):
        samples = np.round(1000 + factor * sine).astype("i4")
        code = f"XX.S0001.00.HH{component}"
        write_mseed(tmp_path / "in" / f"{component}.mseed", code, [(start, samples)])
    picks = tmp_path / "picks.csv"
    picks.write_text(
        "network,station,location,channel,phase,time\nXX,S0001,00,HH,S,2024-12-15T12:00:40Z\n"
    )
    measured = measure_amplitudes(read_picks(picks), tmp_path / "in", network / "stations.xml")
    row = measured.to_pylist()[0]
    assert row["amplitude_counts"] == pytest.approx(10 * velocity * COUNTS_PER_M_S, rel=0.01)
    assert row["velocity_m_s"] == pytest.approx(10 * velocity, rel=0.02)
    expected = wood_anderson_mm(velocity, frequency)
    assert row["wood_anderson_mm"] == pytest.approx(expected, rel=0.03)


def test_a_window_ends_at_the_next_pick(network: Path, write_mseed: Any, tmp_path: Path) -> None:
    start = parse_utc("2024-12-15T12:00:00")
    samples = np.zeros(3000, "i4")
    samples[1100], samples[1350], samples[1900] = 7, 90, -500
    write_mseed(tmp_path / "in" / "z.mseed", "XX.A..EHZ", [(start, samples)])
    picks = tmp_path / "picks.csv"
    rows = ["P,2024-12-15T12:00:10", "S,2024-12-15T12:00:13", "P,2024-12-15T12:00:40"]
    picks.write_text(
        "network,station,location,channel,phase,time\n"
        + "".join(f"XX,A,,EH,{row}\n" for row in rows)
    )
    measured = measure_amplitudes(read_picks(picks), tmp_path / "in")
    assert measured["amplitude_counts"].to_pylist() == [7, 500, None]
    assert measured["velocity_m_s"].null_count == 3
    # A channel without a response has none of what needs one.
    with_xml = measure_amplitudes(read_picks(picks), tmp_path / "in", network / "stations.xml")
    assert with_xml["wood_anderson_mm"].null_count == 3
    assert with_xml.select(measured.column_names[:9]).equals(measured.select(range(9)))
    elsewhere = read_picks(picks).set_column(1, "station", pa.array(["B"] * 3))
    with pytest.raises(InputError, match=r"XX\.B\.\.EH"):
        measure_amplitudes(elsewhere, tmp_path / "in")


@pytest.mark.slow
def test_command(network: Path, tmp_path: Path, cli: Any) -> None:
    path = tmp_path / "amplitudes.csv"
    run = cli(
        *("amplitudes", network / "arrivals.csv", network / "waveforms", "-o", path),
        *("--response", network / "stations.xml"),
    )
    assert run.exit_code == 0, run.output
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    for row in rows:
        counts, velocity = float(row["amplitude_counts"]), float(row["velocity_m_s"])
        assert velocity == pytest.approx(counts / COUNTS_PER_M_S, rel=0.3)
        assert 0 < float(row["wood_anderson_mm"]) < 100
    strength = {(row["station"], row["phase"]): float(row["amplitude_counts"]) for row in rows}
    assert strength["S0001", "S"] > strength["S0001", "P"] > 0
    gamma = tmp_path / "gamma.csv"
    assert cli("convert", path, "--to", "gamma", "-o", gamma).exit_code == 0
    with gamma.open(newline="") as file:
        velocities = [row["amp"] for row in csv.DictReader(file)]
    assert velocities == [row["velocity_m_s"] for row in rows]
    bad = cli("amplitudes", network / "arrivals.csv", network / "waveforms", "--response", path)
    assert bad.exit_code == 3


def test_with_a_run(network: Path, imported_model: str, tmp_path: Path, cli: Any) -> None:
    options = ("--model", imported_model, "--format", "csv,gamma", "--no-overview", "-q")
    source = network / "waveforms"
    run = cli(
        *("pick", source, "-o", tmp_path / "out", *options, "--amplitudes"),
        *("--response", network / "stations.xml"),
    )
    assert run.exit_code == 0, run.output
    measured = measure_amplitudes(
        read_picks(tmp_path / "out"), source, network / "stations.xml"
    ).to_pylist()
    assert len(measured) >= 4
    with (tmp_path / "out" / "amplitudes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("amplitude_counts", "velocity_m_s", "wood_anderson_mm"):
        assert [float(r[name]) for r in rows] == pytest.approx(
            [m[name] for m in measured], rel=1e-5
        )
    with (tmp_path / "out" / "picks_gamma.csv").open(newline="") as file:
        assert [row["amp"] for row in csv.DictReader(file)] == [r["velocity_m_s"] for r in rows]
    alone = cli("pick", source, "-o", tmp_path / "x", "--response", network / "stations.xml")
    assert alone.exit_code == 2


@pytest.mark.slow
def test_large_stations_are_read_in_pieces(
    network: Path, write_mseed: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A station of which memory holds a part has the amplitudes of the whole."""
    start, rng = parse_utc("2024-12-15T12:00:00"), np.random.default_rng(5)
    for component in "ZNE":
        # Two files that go on with each other; the second one has a gap.
        pieces = [(start + 10**9 * at, at) for at in (0, 2000, 3100)]
        for number, (begin, at) in enumerate(pieces):
            n = 100 * (2000, 1050, 1200)[number]
            samples = np.cumsum(rng.integers(-50, 51, n)).astype("i4")
            path = tmp_path / "in" / f"{component}.{at}.mseed"
            write_mseed(path, f"XX.S0001.00.HH{component}", [(begin, samples)])
    picks = tmp_path / "picks.csv"
    seconds = np.unique(np.r_[rng.uniform(0, 4300, 150), 1999.0, 1990.0, 2999.0, 3060.0])
    picks.write_text(
        "network,station,location,channel,phase,time\n"
        + "".join(
            f"XX,S0001,00,HH,{'PS'[i % 2]},{format_utc(start + round(at * 1e9), 'milliseconds')}\n"
            for i, at in enumerate(seconds)
        )
    )
    asked = read_picks(picks), tmp_path / "in", network / "stations.xml"
    whole = measure_amplitudes(*asked)
    assert whole["velocity_m_s"].null_count < 20
    most, largest = 60_000, []

    def read(self: FileCache, *given: Any, sound: Any = FileCache.read) -> list[DecodedFile]:
        decoded = sound(self, *given)
        largest.append(sum(len(s.samples) for file in decoded for s in file.segments))
        return decoded

    monkeypatch.setattr(FileCache, "read", read)
    monkeypatch.setattr("eqcctpro.amplitudes.measure._MOST_SAMPLES", most)
    assert measure_amplitudes(*asked).equals(whole)
    # What is read around a piece of what it owns comes on top, and the rest of its records.
    assert len(largest) > 15 and max(largest) < most + 3 * 100 * 2 * 45
