"""Baselines give the picks of what they run, and say what failed."""

from __future__ import annotations

import csv
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from benchmarks.floor import FloorSubject, measure_floor
from benchmarks.peers import ratio_table
from eqcctpro.errors import RuntimeUnavailableError, SettingsError
from eqcctpro.evaluation.baselines import baseline_names, open_baseline
from eqcctpro.evaluation.rapid_baselines import RAPID_VARIABLE
from eqcctpro.evaluation.sidebyside import Contender, compare
from eqcctpro.evaluation.subject import STAGES, Outcome, Subject, Workload
from eqcctpro.evaluation.subject_process import WorkloadSpec
from eqcctpro.times import parse_utc

STATIONS = ("ACR", "SB4", "GDXB", "BJOB", "CVS", "DPP")
SEISBENCH = [name for name in baseline_names() if name.startswith("seisbench")]
SAMPLE_NS = 10_001_000  # and ObsPy's rounding to microseconds

Rows = list[tuple[str, str, int]]


@pytest.fixture(scope="module")
def few(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six labelled stations in one time chunk."""
    chunk = next(iter(sorted(labelled.iterdir())))
    archive = tmp_path_factory.mktemp("few")
    for station in STATIONS:
        shutil.copytree(chunk / station, archive / chunk.name / station)
    return archive


@pytest.fixture
def damaged(few: Path, tmp_path: Path) -> Path:
    """The same; of ACR nothing is readable, of CVS all but one file."""
    archive = Path(shutil.copytree(few, tmp_path / "damaged"))
    for path in [*archive.glob("*/ACR/*"), next(iter(sorted(archive.glob("*/CVS/*"))))]:
        path.write_bytes(b"this is not miniSEED")
    return archive


def run(subject: Subject, output: Path) -> tuple[dict[str, Any], Outcome]:
    try:
        return subject.prepare(), subject.run(output)
    finally:
        subject.close()


def written(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return sorted((r["trace_id"], r["phase"], parse_utc(r["peak_time"])) for r in rows)


def picked(pick: Any, archive: Path, model: str, **settings: Any) -> Rows:
    """Picks of our own pipeline, which other tests compare with SeisBench's."""
    table = pick(archive, model=model, **settings).picks
    return sorted(
        (f"{row.network}.{row.station}.{row.location}", row.phase, row.time.value)
        for row in table.itertuples()
    )


def assert_same(ours: Rows, theirs: Rows) -> None:
    assert [row[:2] for row in ours] == [row[:2] for row in theirs]
    assert all(abs(a[2] - b[2]) <= SAMPLE_NS for a, b in zip(ours, theirs, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", SEISBENCH)
def test_seisbench_gives_the_picks_of_the_pipeline(
    name: str, few: Path, seisbench_cache: Path, pick: Any, tmp_path: Path
) -> None:
    model = "PhaseNet/original"
    facts, outcome = run(
        open_baseline(name, Workload((few,), (), model), threads=1, batch_size=64), tmp_path
    )
    expected = picked(pick, few, model)
    assert len(expected) > 5
    assert_same(written(tmp_path / "picks.csv"), expected)
    assert outcome.picks == dict(Counter(phase for _, phase, _ in expected))
    assert (outcome.done, outcome.empty, outcome.failed, outcome.error) == (6, 0, 0, "")
    assert set(outcome.stages) == set(STAGES)
    assert 0.5 * outcome.seconds < sum(outcome.stages.values()) <= outcome.seconds
    assert (facts["threads"], facts["batch_size"], facts["runtime"]) == (1, 64, "torch")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "settings"),
    [
        ("EQCCT/original", {"model_arguments": {"variant": "seisbench"}}),
        ("EQTransformer/original", {"p_threshold": 0.05, "model_arguments": {"overlap": 0.5}}),
        ("PhaseNetLight/ethz", {"timechunk": 0.75, "stations": ("GDXB", "BG.*")}),
    ],
)
def test_settings_of_a_workload(
    model: str,
    settings: dict[str, Any],
    few: Path,
    seisbench_cache: Path,
    pick: Any,
    tmp_path: Path,
) -> None:
    expected = picked(pick, few, model, **settings)
    given = dict(settings)
    workload = Workload((few,), given.pop("stations", ()), model, given)
    _, outcome = run(open_baseline("seisbench-annotate-merged", workload, threads=1), tmp_path)
    assert len(expected) > 1
    assert_same(written(tmp_path / "picks.csv"), expected)
    assert not outcome.failed


@pytest.mark.parametrize("name", ["seisbench-classify-stations", "seisbench-classify-merged"])
def test_stations_that_fail_are_counted_by_name(
    name: str, damaged: Path, seisbench_cache: Path, tmp_path: Path
) -> None:
    # By name, as a sweep remembers stations; the unreadable one's is not in its files.
    names = ("NC.ACR..HH", *(station for station in STATIONS if station != "ACR"))
    workload = Workload((damaged,), names, "PhaseNet/original")
    _, outcome = run(open_baseline(name, workload, threads=1), tmp_path)
    assert (outcome.done, outcome.failed) == (4, 2)
    assert "ACR" in outcome.error and ".CVS." in outcome.error
    stations = {row[0].split(".")[1] for row in written(tmp_path / "picks.csv")}
    assert stations == set(STATIONS) - {"ACR", "CVS"}


def test_unknown_names_and_settings_are_refused(few: Path, tmp_path: Path) -> None:
    workload = Workload((few,), (), "PhaseNet/original", {"bandpass": (1.0, 20.0)})
    with pytest.raises(SettingsError, match="did you mean seisbench-classify-merged"):
        open_baseline("seisbench-clasify-merged", workload)
    with pytest.raises(SettingsError, match="bandpass"):
        run(open_baseline("seisbench-classify-merged", workload), tmp_path)


def test_rapid_seis_that_is_not_there(
    few: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    workload = Workload((few,), (), "PhaseNet/original")
    monkeypatch.setenv(RAPID_VARIABLE, str(tmp_path / "bin" / "python"))
    with pytest.raises(RuntimeUnavailableError, match=r"cannot be run.*pip install"):
        open_baseline("rapid-seis-classify", workload)


@pytest.mark.slow
@pytest.mark.skipif(RAPID_VARIABLE not in os.environ, reason=f"{RAPID_VARIABLE} is not set")
@pytest.mark.parametrize("way", ["classify", "slipstream-fp32", "modelactor", "classify-warm"])
def test_rapid_seis(
    way: str, few: Path, damaged: Path, seisbench_cache: Path, pick: Any, tmp_path: Path
) -> None:
    model = "PhaseNet/original"
    facts, outcome = run(
        open_baseline(f"rapid-seis-{way}", Workload((few,), (), model), threads=1), tmp_path
    )
    assert (outcome.done, outcome.failed, outcome.error) == (6, 0, "")
    if way.startswith("classify"):
        assert outcome.picks == dict(Counter(phase for _, phase, _ in picked(pick, few, model)))
    assert min(outcome.picks["P"], outcome.picks["S"]) >= 3  # the weakest of its ways
    assert facts["versions"]["rapid-seis"]
    workload = Workload((damaged,), (), model)
    _, outcome = run(open_baseline(f"rapid-seis-{way}", workload), tmp_path)
    assert sorted(path.name for path in damaged.glob("*/*")) == sorted(STATIONS)
    assert outcome.failed >= 2 and "ACR" in outcome.error


@pytest.mark.slow
def test_side_by_side(few: Path, seisbench_cache: Path, tmp_path: Path) -> None:
    workload = Workload((few,), (), "PhaseNet/original")

    def subject(who: str, **options: Any) -> WorkloadSpec:
        return WorkloadSpec(who=who, workload=workload, options=options)

    contenders = [
        Contender("ours", subject("session", runtime="onnxruntime", threads=1)),
        Contender(
            "command",
            subject("benchmarks.peers:CommandSubject", runtime="onnxruntime", threads=1),
            "cold",
            1,
        ),
        Contender("nobody", subject("nobody")),
    ]
    ours, command, nobody = compare(contenders, tmp_path, repeats=2)
    assert (len(ours.outcomes), len(command.outcomes), nobody.outcomes) == (2, 1, [])
    assert ours.outcomes[0].picks == command.outcomes[0].picks
    assert ours.outcomes[0].done == command.outcomes[0].done == 6
    assert ours.peak_mb > 20 and command.peak_mb > 20
    assert "no baseline 'nobody'" in nobody.failure
    table = "\n".join(ratio_table([ours, command, nobody], {"warm": "ours", "cold": "command"}))
    assert table.count("1.00 x") == 2 and "not measured" in table


@pytest.mark.exhaustive
def test_floor(few: Path, seisbench_cache: Path) -> None:
    floor = measure_floor(
        Workload((few,), ("ACR", "CVS"), "PhaseNetLight/ethz"), threads=1, rounds=1, at_most=4
    )
    # A convolution of 11 taps and 3 to 8 channels at full length alone has 1.6 MFLOP.
    assert 5.0 < floor.window_mflop < 6.0
    assert (floor.windows, floor.measured_windows) == (10, 4)
    assert {one.name for one in floor.forward} >= {"torch"}
    assert all(one.mflop == pytest.approx(10 * floor.window_mflop) for one in floor.forward)
    assert 0 < floor.seconds < 5
    assert any("of peak" in line for line in floor.lines())


@pytest.mark.exhaustive
def test_floor_takes_its_turns_with_others(few: Path, seisbench_cache: Path) -> None:
    subject = FloorSubject(Workload((few,), ("ACR", "CVS"), "PhaseNetLight/ethz"), threads=1)
    facts = subject.prepare()
    outcome = subject.run(few)
    subject.close()
    assert facts["runtime"] in {"torch", "onnxruntime", "openvino"}
    assert (outcome.done, outcome.picks, outcome.error) == (2, {}, "")
    assert set(outcome.stages) == {"decode", "infer"} <= set(STAGES)
    assert sum(outcome.stages.values()) == pytest.approx(outcome.seconds)
