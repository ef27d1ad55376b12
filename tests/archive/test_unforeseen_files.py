"""Nothing in an archive is passed over without a word, whatever its layout does not foresee."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from field_records import START_NS, noise, records_of, write

from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.errors import DecodeError
from eqcctpro.times import NS_PER_S

DAY_NS = 86_400 * NS_PER_S
MIDNIGHT_NS = START_NS // DAY_NS * DAY_NS


def station(folder: Path, name: str, *, start_ns: int = START_NS, seconds: float = 120) -> Path:
    """A folder with three components of a station, a file for each."""
    for seed, letter in enumerate("ZNE"):
        code = f"XX.{name}.00.HH{letter}"
        records = records_of(code, noise(seconds, seed=seed), start_ns=start_ns)
        write(folder / f"{code}.mseed", records)
    return folder


def plan(*inputs: Path, **settings: Any) -> Plan:
    return make_plan(InputSettings(inputs, **settings))


def stations(found: Plan) -> list[str]:
    return sorted({task.station for task in found.tasks})


class TestLinks:
    def test_linked_station_folders(self, tmp_path: Path) -> None:
        station(tmp_path / "archive" / "ST0", "ST0")
        for name in ("ST1", "ST2"):
            station(tmp_path / "disk" / name, name)
            (tmp_path / "archive" / name).symlink_to(f"../disk/{name}")
        assert stations(plan(tmp_path / "archive")) == ["ST0", "ST1", "ST2"]

    def test_nothing_but_links(self, tmp_path: Path) -> None:
        station(tmp_path / "disk" / "ST1", "ST1")
        (tmp_path / "links").mkdir()
        (tmp_path / "links" / "ST1").symlink_to(tmp_path / "disk" / "ST1")
        assert stations(plan(tmp_path / "links")) == ["ST1"]

    def test_links_that_lead_back(self, tmp_path: Path) -> None:
        station(tmp_path / "archive" / "ST0", "ST0")
        for name, to in (("again", "ST0"), ("here", "."), ("up", ".."), ("ST0/self", "..")):
            (tmp_path / "archive" / name).symlink_to(to)
        station(tmp_path / "disk", "ST1")
        for name in ("first", "second"):
            (tmp_path / "archive" / name).symlink_to("../disk")
        (tmp_path / "disk" / "back").symlink_to("../archive")
        found = plan(tmp_path / "archive")
        assert stations(found) == ["ST0", "ST1"]
        assert len(found.files) == 6
        assert {Path(path).name for path in found.ignored} == {
            *("again", "here", "up", "self", "second", "back")
        }
        assert all("read already" in reason for reason in found.ignored.values())


class TestBesideChunkFolders:
    def test_what_lies_there_is_named(self, tmp_path: Path) -> None:
        station(tmp_path / "20241215T120000Z_20241215T120200Z" / "ST0", "ST0")
        station(tmp_path / "campaign" / "ST2", "ST2")
        station(tmp_path, "ST3")
        found = plan(tmp_path)
        assert stations(found) == ["ST0"]
        assert {Path(path).name for path in found.ignored} == {
            "campaign",
            *(f"XX.ST3.00.HH{letter}.mseed" for letter in "ZNE"),
        }

    @pytest.mark.parametrize(
        "name",
        ["20241215T1202Z_20241215T1204Z", "20241215T120200_20241215T120400"],
    )
    def test_names_without_seconds_or_zone(self, tmp_path: Path, name: str) -> None:
        station(tmp_path / "20241215T120000Z_20241215T120200Z" / "ST0", "ST0")
        later = START_NS + 120 * NS_PER_S
        station(tmp_path / name / "ST1", "ST1", start_ns=later)
        found = plan(tmp_path)
        assert stations(found) == ["ST0", "ST1"]
        assert len(found.chunks) == 2 and not found.ignored


class TestSds:
    def day_file(self, root: Path, name: str, day: int, start_ns: int, hours: float = 24) -> Path:
        """A file of a slow channel in the place of a day."""
        code = f"XX.{name}.00.HHZ"
        samples = noise(hours * 3600, rate=10.0, seed=day)
        folder = root / "2024" / "XX" / name / "HHZ.D"
        records = records_of(code, samples, rate=10.0, start_ns=start_ns)
        return write(folder / f"{code}.D.2024.{day:03d}", records)

    @pytest.mark.parametrize("hour", [-6, 8])
    def test_days_cut_at_another_hour(self, tmp_path: Path, hour: int) -> None:
        for day in (349, 350, 351):
            start_ns = MIDNIGHT_NS + (day - 350) * DAY_NS + hour * 3600 * NS_PER_S
            self.day_file(tmp_path, "AAA", day, start_ns)
        found = plan(tmp_path, start_ns=MIDNIGHT_NS, end_ns=MIDNIGHT_NS + DAY_NS)
        assert found.layout == "sds"
        (task,) = found.tasks
        days = {Path(path).name[-3:] for path in task.files}
        assert days == ({"350", "351"} if hour < 0 else {"349", "350"})

    def test_other_names(self, tmp_path: Path) -> None:
        first = self.day_file(tmp_path, "AAA", 350, MIDNIGHT_NS)
        other = self.day_file(tmp_path, "BBB", 350, MIDNIGHT_NS)
        other.rename(other.with_name("BBB_20241215.mseed"))
        (first.parent / "readme.txt").write_text("about this channel")
        (tmp_path / "2024" / "XX" / "AAA" / "plots").mkdir()
        found = plan(tmp_path)
        assert stations(found) == ["AAA", "BBB"]
        assert {Path(path).name for path in found.ignored} == {"readme.txt", "plots"}
        assert not found.problems


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


class TestCompressed:
    @pytest.mark.parametrize("kind", COMPRESSORS)
    def test_files_are_read(self, tmp_path: Path, kind: str) -> None:
        folder = station(tmp_path / "ST0", "ST0")
        for path in folder.iterdir():
            path.with_name(f"{path.name}.{kind}").write_bytes(COMPRESSORS[kind](path.read_bytes()))
            path.unlink()
        found = plan(tmp_path)
        (task,) = found.tasks
        assert len(task.files) == 3

    @pytest.mark.slow
    def test_picks_are_those_of_the_files(
        self, network: Path, imported_model: str, pick: Any, tmp_path: Path
    ) -> None:
        packed = Path(shutil.copytree(network, tmp_path / "packed"))
        for path in list(packed.rglob("*.mseed")):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
        plain, found = (pick(root, model=imported_model) for root in (network, packed))
        assert len(plain.picks) > 10
        assert found.picks[["time", "probability"]].equals(plain.picks[["time", "probability"]])

    @pytest.mark.parametrize(
        "content",
        [gzip.compress(b"x" * 5000)[:40], b"PK\x03\x04" + bytes(90)],
        ids=["cut", "ZIP"],
    )
    def test_what_cannot_be_read_is_named(self, tmp_path: Path, content: bytes) -> None:
        station(tmp_path / "ST0", "ST0")
        (tmp_path / "more.mseed.gz").write_bytes(content)
        (problem,) = plan(tmp_path).problems
        assert "more.mseed.gz" in problem.message

    def test_more_than_memory_may_take(self) -> None:
        from eqcctpro.miniseed.compressed import decompress

        with pytest.raises(DecodeError, match="bomb has more than"):
            decompress(gzip.compress(bytes(2_000_000)), "bomb", most=1_000_000)


@pytest.mark.slow
def test_what_is_not_read_is_said(
    tmp_path: Path, network: Path, imported_model: str, cli: Any
) -> None:
    station(network / "campaign" / "ST2", "ST2")
    (network / "one.txt").write_text("notes")
    (network / "two.txt").write_text("notes")
    result = cli("pick", network, "-o", tmp_path / "out", "--model", imported_model)
    assert result.exit_code == 0
    assert "campaign: a folder beside time-chunk folders" in result.output
    assert "one.txt: a file beside time-chunk folders (2 such)" in result.output
