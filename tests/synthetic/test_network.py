"""The made-up network: what is on disk, and whether the arrivals are where they are said to be."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from pymseed import MS3TraceList
from reference_data import DATA

from eqcctpro.errors import OutputError, SettingsError
from eqcctpro.synthetic import TrueArrival, synthetic_network

CHUNK = "20241215T120000Z_20241215T120200Z"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[TrueArrival]]:
    path = tmp_path_factory.mktemp("network")
    return path, synthetic_network(path)


def read(path: Path) -> list[tuple[int, float, np.ndarray]]:
    with MS3TraceList.from_file(path, unpack_data=True) as traces:
        return [
            (segment.starttime, segment.samprate, segment.np_datasamples.copy())
            for trace in traces
            for segment in trace
        ]


def station_files(root: Path, station: str) -> list[Path]:
    return sorted((root / CHUNK / station).iterdir())


def test_layout_is_chunk_station_file(network: tuple[Path, list[TrueArrival]]) -> None:
    root, _ = network
    assert [folder.name for folder in root.iterdir()] == [CHUNK]
    assert len(list((root / CHUNK).iterdir())) == 12
    assert [file.name for file in station_files(root, "DEM01")] == [
        f"XX.DEM01.00.{channel}__20241215T120000Z__20241215T120200Z.mseed"
        for channel in ("HHE", "HHN", "HHZ")
    ]


def test_records_carry_codes_times_and_rate(network: tuple[Path, list[TrueArrival]]) -> None:
    root, _ = network
    with MS3TraceList.from_file(station_files(root, "DEM03")[2], unpack_data=True) as traces:
        assert list(traces.sourceids()) == ["FDSN:XX_DEM03_00_H_H_Z"]
        segment = traces[0][0]
        assert segment.starttime_str() == "2024-12-15T12:00:00Z"
        assert (segment.samprate, segment.samplecnt, segment.sampletype) == (100.0, 12_000, "i")


def test_one_station_is_vertical_only_and_one_has_a_gap(
    network: tuple[Path, list[TrueArrival]],
) -> None:
    root, _ = network
    assert [file.name.split("__")[0] for file in station_files(root, "DEM12")] == [
        "XX.DEM12.00.EHZ"
    ]
    for file in station_files(root, "DEM11"):
        (first_ns, rate, first), (second_ns, _, second) = read(file)
        assert second_ns - (first_ns + first.size / rate * 1e9) == pytest.approx(5e9)
        assert second.size == 500
    assert len(read(station_files(root, "DEM10")[0])) == 1


def test_every_station_has_p_before_s_for_every_earthquake(
    network: tuple[Path, list[TrueArrival]],
) -> None:
    _, arrivals = network
    assert Counter(arrival.phase for arrival in arrivals) == {"P": 24, "S": 24}
    times: dict[tuple[str, str], list[int]] = defaultdict(list)
    for arrival in arrivals:
        times[arrival.station, arrival.phase].append(arrival.time_ns)
    for station in {arrival.station for arrival in arrivals}:
        for p_ns, s_ns in zip(times[station, "P"], times[station, "S"], strict=True):
            assert 0.5e9 < s_ns - p_ns < 9e9


def test_energy_arrives_at_the_true_times(network: tuple[Path, list[TrueArrival]]) -> None:
    root, arrivals = network
    for arrival in arrivals:
        if arrival.station == "DEM12" and arrival.phase == "S":
            continue
        channel = "Z" if arrival.phase == "P" else "N"
        (file,) = (f for f in station_files(root, arrival.station) if f"H{channel}__" in f.name)
        start_ns, rate, samples = read(file)[0]
        counts = np.diff(samples.astype(float))  # the sea's slow noise out
        onset = round((arrival.time_ns - start_ns) / 1e9 * rate)
        before = counts[onset - 40 : onset - 1].std()
        after = counts[onset : onset + 40].std()
        assert after > 3 * before, arrival


def test_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path: Path) -> None:
    def content(name: str, seed: int) -> list[bytes]:
        synthetic_network(tmp_path / name, stations=2, duration_s=40, seed=seed)
        return [file.read_bytes() for file in sorted((tmp_path / name).rglob("*.mseed"))]

    assert content("a", 5) == content("b", 5)
    assert content("a", 5) != content("c", 6)


def test_other_lengths_rates_and_counts(tmp_path: Path) -> None:
    arrivals = synthetic_network(tmp_path, stations=1, duration_s=200, sampling_rate=50)
    assert Counter(arrival.phase for arrival in arrivals) == {"P": 3, "S": 3}
    files = sorted(tmp_path.rglob("*.mseed"))
    assert len(files) == 3
    ((_, rate, samples),) = read(files[0])
    assert (rate, samples.size) == (50.0, 10_000)


@pytest.mark.parametrize(
    "bad", [{"stations": 0}, {"stations": 1000}, {"duration_s": 39}, {"sampling_rate": 20}]
)
def test_parameters_out_of_range_are_named(tmp_path: Path, bad: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(bad))):
        synthetic_network(tmp_path, **bad)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_unwritable_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file, not a folder")
    with pytest.raises(OutputError, match="taken"):
        synthetic_network(tmp_path / "taken", stations=1, duration_s=40)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_eqtransformer_finds_nine_of_ten_arrivals(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DATA / "models" / "seisbench"
    if not (cache / "models" / "v3" / "eqtransformer").is_dir():
        pytest.skip(f"no EQTransformer weights below {cache}")
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(cache))
    import obspy
    import seisbench
    import seisbench.models as sbm

    monkeypatch.setattr(seisbench, "cache_root", cache)
    monkeypatch.setattr(seisbench, "cache_model_root", cache / "models" / "v3")
    arrivals = synthetic_network(tmp_path, seed=seed)
    stream = obspy.Stream()
    for file in sorted(tmp_path.rglob("*.mseed")):
        stream += obspy.read(file)
    found = defaultdict(list)
    for pick in sbm.EQTransformer.from_pretrained("original").classify(stream).picks:
        found[pick.trace_id.split(".")[1], pick.phase].append(pick.peak_time.ns)
    for phase in "PS":
        true = [arrival for arrival in arrivals if arrival.phase == phase]
        hits = sum(
            any(abs(time - arrival.time_ns) < 5e8 for time in found[arrival.station, phase])
            for arrival in true
        )
        assert hits >= 0.9 * len(true)
