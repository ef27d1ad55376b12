"""Archives laid out in other ways, chosen stations and instruments, and day files."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from eqcctpro import PickConfig
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.errors import InputError, SettingsError
from eqcctpro.times import parse_utc

MIDNIGHT_NS = parse_utc("2024-03-02T00:00:00")
RATE = 100
COLUMNS = ["network", "station", "location", "channel", "phase", "time"]


def codes_of(path: Path) -> tuple[str, str, str, str]:
    network, station, location, channel = path.name.split("__")[0].split(".")
    return network, station, location, channel


def day_name(layout: str, path: Path, year: str = "2024", day: str = "350") -> str:
    """Where a channel's day file is in an archive."""
    net, sta, loc, cha = codes_of(path)
    return {
        "sds": f"{year}/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.{year}.{day}",
        "scedc": f"continuous_waveforms/{year}/{year}_{day}/"
        f"{net}{sta:_<5}{cha}{loc:_<3}{year}{day}.ms",
        "ncedc": f"continuous_waveforms/{net}/{year}/{year}.{day}/"
        f"{sta}.{net}.{cha}.{loc}.D.{year}.{day}",
        "earthscope": f"miniseed/{net}/{year}/{day}/{sta}.{net}.{year}.{day}",
    }[layout]


@pytest.fixture(scope="module")
def archive(generated_network: Any) -> Path:
    return Path(generated_network[0])


@pytest.fixture(scope="module")
def laid_out(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The made-up network in one of the day layouts, in a folder."""
    made: dict[str, Path] = {}

    def lay_out(layout: str) -> Path:
        if layout not in made:
            made[layout] = tmp_path_factory.mktemp(layout)
            for path in sorted(archive.glob("*/*/*.mseed")):
                place = made[layout] / day_name(layout, path)
                place.parent.mkdir(parents=True, exist_ok=True)
                with place.open("ab") as file:
                    file.write(path.read_bytes())
        return made[layout]

    return lay_out


@pytest.fixture(scope="module")
def expected(pick: Any, imported_model: str, archive: Path) -> Any:
    return pick(archive, model=imported_model).table.select(COLUMNS)


def plan_of(*inputs: Path | str, **settings: Any) -> Plan:
    config = PickConfig.checked(input=inputs, output="unused", **settings)
    return make_plan(InputSettings.of(config))


def names_in(plan: Plan) -> list[str]:
    return sorted(task.name for task in plan.tasks)


@pytest.mark.slow
def test_sds_is_recognised_and_picked(
    pick: Any, imported_model: str, laid_out: Any, expected: Any
) -> None:
    result = pick(laid_out("sds"), model=imported_model)
    assert result.summary["plan"]["layout"] == "sds"
    assert result.summary["plan"]["instruments"] == {"EH": 1, "HH": 5}
    assert result.table.select(COLUMNS) == expected


@pytest.mark.parametrize("layout", ["scedc", "ncedc", "earthscope"])
def test_day_layouts_in_a_folder(laid_out: Any, archive: Path, layout: str) -> None:
    root = laid_out(layout)
    plan = plan_of(root, layout=layout)
    assert names_in(plan) == names_in(plan_of(archive))
    assert {task.chunk.name for task in plan.tasks} == {"20241215T000000Z_20241216T000000Z"}
    inner = next(root.iterdir())
    assert names_in(plan_of(inner, layout=layout)) == names_in(plan)


def test_what_is_no_day_file_is_left_alone(laid_out: Any, tmp_path: Path) -> None:
    root = Path(shutil.copytree(laid_out("sds"), tmp_path / "sds"))
    (root / "stations.xml").write_text("<xml/>")
    (root / "2024" / "README").write_text("hello")
    log = root / "2024/XX/DEM01/LOG.L"
    log.mkdir(parents=True)
    (log / "XX.DEM01.00.LOG.L.2024.350").write_bytes(b"log")
    plan = plan_of(root)
    assert plan.layout == "sds"
    assert not plan.problems
    assert names_in(plan) == names_in(plan_of(laid_out("sds")))


def test_only_days_that_are_asked_for_are_opened(laid_out: Any, tmp_path: Path) -> None:
    root = Path(shutil.copytree(laid_out("sds"), tmp_path / "sds"))
    for day in ("348", "349", "351", "352"):
        for path in sorted(laid_out("sds").rglob("*.350")):
            place = root / path.relative_to(laid_out("sds")).with_suffix(f".{day}")
            place.write_bytes(b"this would be an unusable file")
    plan = plan_of(root, start="2024-12-15T06:00:00", end="2024-12-15T18:00:00")
    assert not plan.problems
    assert names_in(plan) == names_in(plan_of(laid_out("sds")))
    with pytest.raises(InputError, match="no data between"):
        plan_of(root, start="2025-12-15", end="2025-12-16")


def test_a_table_names_the_files(archive: Path, tmp_path: Path) -> None:
    files = sorted(archive.glob("*/*/*.mseed"))
    expected = names_in(plan_of(archive))
    (tmp_path / "data").symlink_to(archive)
    relative = [f"data/{path.relative_to(archive)}" for path in files]
    csv = tmp_path / "files.csv"
    csv.write_text("path\n" + "\n".join(relative) + "\n")
    plan = plan_of(csv)
    assert plan.layout == "list"
    assert names_in(plan) == expected
    codes = [codes_of(path) for path in files]
    table = pa.table(
        {
            "file_name": [str(path) for path in files],
            "network": [code[0] for code in codes],
            "station": [code[1] for code in codes],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "files.parquet")
    plan = plan_of(tmp_path / "files.parquet", stations="XX.DEM02")
    assert names_in(plan) == ["XX.DEM02.00.HH"]
    assert len(plan.files) == 3
    assert plan.skipped["stations_not_opened"] == 5


@pytest.mark.parametrize(
    ("content", "message"),
    [("a,b\n1,2\n", "no column path"), ("path,start,end\nx,yesterday,today\n", "row 1.*yesterday")],
)
def test_a_table_that_is_none(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "files.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        plan_of(tmp_path / "files.csv")


def test_patterns_of_files(archive: Path) -> None:
    plan = plan_of(f"{archive}/*/DEM0[12]/*.mseed")
    assert names_in(plan) == ["XX.DEM01.00.HH", "XX.DEM02.00.HH"]
    with pytest.raises(InputError, match="nothing matches"):
        plan_of(f"{archive}/*/NONE/*.mseed")


@pytest.fixture(scope="module")
def instruments(archive: Path, write_mseed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three stations with other instruments and locations."""
    folder = tmp_path_factory.mktemp("instruments")
    samples = np.arange(12_000, dtype=np.int32)
    for code in (
        *("NC.AAA.00.HHZ", "NC.AAA.10.HHZ", "NC.AAA.00.HNZ", "NC.AAA..EHZ"),
        *("NC.BBB..EHZ", "NC.BBB.00.HNZ", "TX.BBB.00.BHZ"),
    ):
        write_mseed(folder / f"{code}.mseed", code, [(MIDNIGHT_NS, samples)])
    return folder


@pytest.mark.parametrize(
    ("settings", "chosen"),
    [
        ({"stations": "NC.*.*.HH?"}, ["NC.AAA.00.HH", "NC.AAA.10.HH"]),
        ({"stations": "*.*.--.EH"}, ["NC.AAA..EH", "NC.BBB..EH"]),
        ({"stations": "bbb", "exclude": "TX.*"}, ["NC.BBB..EH", "NC.BBB.00.HN"]),
        ({"stations": "NC.*", "exclude": "*.*.*.H[HN]"}, ["NC.AAA..EH", "NC.BBB..EH"]),
        (
            {"channel_priority": "HH,EH,BH,HN"},
            ["NC.AAA.00.HH", "NC.BBB..EH", "TX.BBB.00.BH"],
        ),
        ({"channel_priority": "HN"}, ["NC.AAA.00.HN", "NC.BBB.00.HN"]),
        ({"channel_priority": "hn,*"}, ["NC.AAA.00.HN", "NC.BBB.00.HN", "TX.BBB.00.BH"]),
    ],
)
def test_chosen_instruments(instruments: Path, settings: dict[str, str], chosen: list[str]) -> None:
    assert names_in(plan_of(instruments, **settings)) == chosen


def test_priority_is_counted(instruments: Path) -> None:
    assert "lower_priority" not in plan_of(instruments).skipped
    assert plan_of(instruments, channel_priority="HH,EH").skipped["lower_priority"] == 5


def test_lists_of_stations(instruments: Path, tmp_path: Path) -> None:
    wanted, unwanted = tmp_path / "wanted.txt", tmp_path / "unwanted.txt"
    wanted.write_text("# first\nNC.AAA, TX.BBB  # two\n\n")
    unwanted.write_text("*.*.*.HN\n*.*.--.*\n")
    plan = plan_of(instruments, stations=f"@{wanted}", exclude=f"@{unwanted}")
    assert names_in(plan) == ["NC.AAA.00.HH", "NC.AAA.10.HH", "TX.BBB.00.BH"]
    with pytest.raises(SettingsError, match=r"cannot read the list .*none\.txt"):
        plan_of(instruments, stations="@none.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stations": "NC.AAB"}, r"'NC.AAB' \(did you mean NC.AAA"),
        ({"stations": "AAAA"}, "did you mean NC.AAA"),
        ({"stations": "NC.AAA.00.BH"}, "has NC.AAA..EH, NC.AAA.00.HH"),
        ({"stations": "NC.AAA.00.HHZ"}, "single component.*HH or HH"),
        ({"exclude": "*"}, "leave nothing to pick"),
        ({"channel_priority": "SH"}, "no instrument is SH .*BH, EH, HH, HN"),
    ],
)
def test_what_matches_nothing(instruments: Path, settings: dict[str, str], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        plan_of(instruments, **settings)


def test_near_names_of_stations_that_were_not_opened(laid_out: Any) -> None:
    with pytest.raises(SettingsError, match=r"did you mean XX\.DEM0"):
        plan_of(laid_out("sds"), stations="XX.DEM0A")


@pytest.mark.slow
@pytest.mark.parametrize("timechunk", [None, 4])
def test_no_seam_at_midnight(
    pick: Any, imported_model: str, around_midnight: tuple[Path, Path], timechunk: int | None
) -> None:
    whole, sds = around_midnight
    settings = {"model": imported_model, "window_grid": "absolute"}
    once = pick(whole, **settings)
    cut = pick(sds, **settings, timechunk=timechunk)
    assert once.summary["plan"]["timechunks"] == 1
    assert cut.summary["plan"]["timechunks"] == (2 if timechunk is None else 4)
    assert cut.table.num_rows > 8
    assert cut.table.select(COLUMNS) == once.table.select(COLUMNS)
    probabilities = (result.table["probability"].to_numpy() for result in (once, cut))
    assert np.allclose(*probabilities, rtol=0, atol=5e-6)


@pytest.mark.slow
def test_start_and_end_across_midnight(
    pick: Any, imported_model: str, around_midnight: tuple[Path, Path]
) -> None:
    whole, sds = around_midnight
    settings = {
        "model": imported_model,
        "window_grid": "absolute",
        "start": "2024-03-01T23:58:00",
        "end": "2024-03-02T00:03:00",
    }
    once, cut = pick(whole, **settings), pick(sds, **settings)
    assert cut.summary["plan"]["timechunks"] == 2
    assert 10 < cut.table.num_rows < 30
    assert cut.table.select(COLUMNS) == once.table.select(COLUMNS)


def test_two_days_are_picked_as_seisbench_picks_them_merged(
    pick: Any, seisbench_cache: Path, around_midnight: tuple[Path, Path]
) -> None:
    """The default: a day's windows count from the beginning of its record in the day before."""
    import obspy
    import seisbench.models as sbm

    assert (seisbench_cache / "models").is_dir()
    _, sds = around_midnight
    stream = obspy.read(str(sds / "2024" / "*" / "*" / "*" / "*")).merge()
    merged = sbm.PhaseNet.from_pretrained("original").classify(stream).picks
    found = pick(sds, model="PhaseNet/original")
    assert found.summary["plan"]["timechunks"] == 2
    ours = sorted(
        (row["station"], row["phase"], row["time"].timestamp(), row["probability"])
        for row in found.table.to_pylist()
    )
    theirs = sorted(
        (one.trace_id.split(".")[1], one.phase, one.peak_time.timestamp, one.peak_value)
        for one in merged
    )
    assert len(ours) > 20
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert np.allclose([row[2] for row in ours], [row[2] for row in theirs], rtol=0, atol=1e-5)
    assert np.allclose([row[3] for row in ours], [row[3] for row in theirs], rtol=0, atol=1e-5)
