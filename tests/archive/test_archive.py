"""Archives of any shape: what is picked depends on the records, not on names and folders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqcctpro.synthetic.network import START_NS
from eqcctpro.times import NS_PER_S

COLUMNS = ["network", "station", "location", "channel", "phase", "time", "probability"]


@pytest.fixture(scope="module")
def made_up(pick: Any, imported_model: str) -> Callable[..., Any]:
    def run(source: Any, **settings: Any) -> Any:
        return pick(source, model=imported_model, **settings)

    return run


@pytest.fixture(scope="module")
def expected(made_up: Any, generated_network: Any) -> Any:
    return made_up(generated_network[0]).table.select(COLUMNS)


def files_of(archive: Path) -> list[Path]:
    return sorted(archive.glob("*/*/*.mseed"))


def same_but_for_rounding(found: Any, expected: Any) -> bool:
    """Whether tables are equal; windows that share another batch round otherwise."""
    probabilities = (table["probability"].to_numpy() for table in (found, expected))
    names = COLUMNS[:-1]
    return bool(
        found.select(names) == expected.select(names)
        and np.allclose(*probabilities, rtol=0, atol=5e-6)
    )


@pytest.mark.slow
def test_names_mean_nothing(made_up: Any, network: Path, expected: Any) -> None:
    for number, path in enumerate(reversed(files_of(network))):
        path.rename(path.with_name(f"file {number}.mseed"))
    assert same_but_for_rounding(made_up(network).table, expected)


@pytest.mark.slow
def test_folders_only_group(made_up: Any, network: Path, expected: Any) -> None:
    (chunk,) = network.iterdir()
    (chunk / "DEM01").rename(chunk / "north hill")
    deep = chunk / "DEM02" / "a" / "b"
    deep.mkdir(parents=True)
    for path in (chunk / "DEM02").glob("*.mseed"):
        path.rename(deep / path.name)
    assert same_but_for_rounding(made_up(network).table, expected)


def test_one_flat_folder(made_up: Any, network: Path, tmp_path: Path, expected: Any) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for number, path in enumerate(files_of(network)):
        shutil.copy(path, flat / f"{number}.mseed")
    result = made_up(flat)
    assert result.summary["plan"]["layout"] == "files"
    assert same_but_for_rounding(result.table, expected)


@pytest.mark.slow
def test_a_list_of_files(made_up: Any, network: Path, expected: Any) -> None:
    assert same_but_for_rounding(made_up(tuple(files_of(network))).table, expected)


@pytest.mark.slow
def test_one_file_with_all_stations(
    made_up: Any, network: Path, tmp_path: Path, expected: Any
) -> None:
    path = tmp_path / "network.mseed"
    path.write_bytes(b"".join(file.read_bytes() for file in files_of(network)))
    result = made_up(path)
    assert result.summary["plan"]["station_tasks"] == 6
    assert same_but_for_rounding(result.table, expected)


@pytest.mark.slow
def test_records_in_any_order(made_up: Any, network: Path, expected: Any) -> None:
    for path in files_of(network):
        content = path.read_bytes()
        records = [content[i : i + 512] for i in range(0, len(content), 512)]
        np.random.default_rng(0).shuffle(records)
        path.write_bytes(b"".join(records))
    assert same_but_for_rounding(made_up(network).table, expected)


@pytest.mark.slow
def test_a_component_in_many_files(made_up: Any, network: Path, expected: Any) -> None:
    for path in files_of(network):
        content = path.read_bytes()
        middle = len(content) // 1024 * 512
        path.with_name(f"b-{path.name}").write_bytes(content[:middle])
        path.write_bytes(content[middle:])
    assert same_but_for_rounding(made_up(network).table, expected)


@pytest.mark.slow
def test_sds_names_and_hidden_files(
    made_up: Any, network: Path, tmp_path: Path, expected: Any
) -> None:
    for path in files_of(network):
        network_code, station, location, channel = path.name.split("__")[0].split(".")
        folder = tmp_path / "sds" / "2024" / network_code / station / f"{channel}.D"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{network_code}.{station}.{location}.{channel}.D.2024.350"
        shutil.copy(path, folder / name)
        (folder / ".hidden").write_bytes(b"")
    result = made_up(tmp_path / "sds")
    assert result.summary["plan"]["files_ignored"] == result.counts["files_failed"] == 0
    assert same_but_for_rounding(result.table, expected)


@pytest.mark.slow
def test_miniseed_3(made_up: Any, network: Path, expected: Any) -> None:
    from pymseed import MS3TraceList

    for path in files_of(network):
        traces = MS3TraceList()
        traces.add_file(str(path), unpack_data=True)
        traces.to_file(path, overwrite=True, format_version=3, max_record_length=4096)
        assert path.read_bytes()[:3] == b"MS\x03"
    assert same_but_for_rounding(made_up(network).table, expected)


@pytest.mark.slow
def test_instruments_and_locations_are_tasks_of_their_own(
    made_up: Any, network: Path, write_mseed: Any, expected: Any
) -> None:
    from pymseed import MS3TraceList

    (folder,) = network.glob("*/DEM01")
    for path in list(folder.iterdir()):
        traces = MS3TraceList()
        traces.add_file(str(path), unpack_data=True)
        (piece,) = traces[0]
        samples = piece.np_datasamples.copy()
        component = path.name.split("__")[0][-1]
        for location, band in (("10", "HH"), ("00", "HN"), ("", "BH")):
            code = f"XX.DEM01.{location}.{band}{component}"
            write_mseed(folder / f"{code}.mseed", code, [(START_NS, samples)])
    result = made_up(network, stations="DEM01")
    assert result.counts["done"] == 4
    frame = result.picks
    of_one = expected.to_pandas()
    times = list(of_one[of_one["station"] == "DEM01"]["time"])
    for location, band in (("00", "HH"), ("10", "HH"), ("00", "HN"), ("", "BH")):
        mine = frame[(frame["location"] == location) & (frame["channel"] == band)]
        assert list(mine["time"]) == times


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patterns", "stations"),
    [
        ("DEM01", {"DEM01"}),
        ("dem01", {"DEM01"}),
        ("XX.DEM0[12]", {"DEM01", "DEM02"}),
        ("XX_DEM03", {"DEM03"}),
        ("*.EH", {"DEM06"}),
        ("DEM01,DEM02", {"DEM01", "DEM02"}),
    ],
)
def test_patterns_of_stations(
    made_up: Any, generated_network: Any, patterns: str, stations: set[str]
) -> None:
    result = made_up(generated_network[0], stations=patterns)
    assert set(result.table["station"].to_pylist()) == stations
    assert result.counts["done"] == len(stations)


@pytest.mark.slow
def test_a_record_that_ends_within_the_chunk(made_up: Any, network: Path, write_mseed: Any) -> None:
    (chunk,) = network.iterdir()
    noise = np.random.default_rng(0).integers(-100, 100, 7000).astype("i4")
    late = START_NS + 45 * NS_PER_S
    write_mseed(chunk / "LATE" / "z.mseed", "XX.LATE..HHZ", [(late, noise)])
    result = made_up(network, stations="LATE")
    assert result.counts["done"] == 1
    assert result.summary["samples"] == 7000
