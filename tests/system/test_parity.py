"""Picks equal those of SeisBench's ``classify`` on the same files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eqcctpro.times import NS_PER_S, parse_utc

SAMPLE_NS = 10_000_000
PROBABILITY = 1e-4

PICKERS = [
    "PhaseNet/original",
    "PhaseNetLight/ethz",
    "EQTransformer/original",
    "EQTransformer/original_nonconservative",
    "GPD/original",
]
QUICK_STATIONS = ("ACR", "SB4", "GDXB", "BJOB", "CVS", "DPP")


@dataclass(frozen=True, order=True)
class Found:
    """A pick or a detection, whoever found it."""

    station: str
    phase: str
    time_ns: int
    start_ns: int
    end_ns: int
    probability: float


@cache
def seisbench_model(name: str) -> Any:
    import seisbench
    import seisbench.models as sbm
    import torch

    torch.set_num_threads(1)
    parent, child = name.split("/")
    with pytest.MonkeyPatch.context() as patch:
        # SeisBench takes its cache's place from the environment once, when it is imported,
        # which may have been while a test had changed it.
        root = Path(os.environ["SEISBENCH_CACHE_ROOT"])
        patch.setattr(seisbench, "cache_model_root", root / "models" / "v3")
        return getattr(sbm, parent).from_pretrained(child)


def oracle(name: str, files: Iterable[Path], **arguments: Any) -> tuple[list[Found], list[Found]]:
    """Picks and detections of SeisBench on files that belong to one time chunk."""
    import obspy

    stream = obspy.Stream()
    for path in sorted(files):
        stream += obspy.read(str(path))
    result = seisbench_model(name).classify(stream, **arguments)
    picks = [
        Found(p.trace_id, p.phase, p.peak_time.ns, p.start_time.ns, p.end_time.ns, p.peak_value)
        for p in result.picks
    ]
    detections = [
        Found(d.trace_id, "", d.start_time.ns, d.start_time.ns, d.end_time.ns, d.peak_value)
        for d in getattr(result, "detections", [])
    ]
    return sorted(picks), sorted(detections)


def of_table(table: Any, time: str = "time") -> list[Found]:
    """Rows of a pick or detection table."""
    rows = table.to_pandas()
    return sorted(
        Found(
            f"{row.network}.{row.station}.{row.location}",
            getattr(row, "phase", ""),
            getattr(row, time).value,
            row.start_time.value,
            row.end_time.value,
            row.probability,
        )
        for row in rows.itertuples()
    )


def assert_same(ours: Sequence[Found], theirs: Sequence[Found]) -> None:
    """Same count, phase and station; times within a sample; probabilities within 1e-4."""
    listing = "\n".join(map(str, ["ours", *ours, "SeisBench", *theirs]))[:4000]
    assert len(ours) == len(theirs), f"{len(ours)} in place of {len(theirs)}\n{listing}"
    for a, b in zip(ours, theirs, strict=True):
        pair = f"{a}\n{b}\n{listing}"
        assert (a.station, a.phase) == (b.station, b.phase), pair
        for field in ("time_ns", "start_ns", "end_ns"):
            # ObsPy rounds times to microseconds.
            assert abs(getattr(a, field) - getattr(b, field)) <= SAMPLE_NS + 1000, pair
        assert a.probability == pytest.approx(b.probability, abs=PROBABILITY), pair


@dataclass(frozen=True)
class Comparison:
    picks: list[Found]
    expected: list[Found]
    detections: list[Found] | None
    expected_detections: list[Found]

    def check(self) -> None:
        assert_same(self.picks, self.expected)
        if self.detections is not None:
            assert_same(self.detections, self.expected_detections)


Compare = Callable[..., Comparison]


@pytest.fixture(scope="session")
def compare(pick: Any, seisbench_cache: Path) -> Compare:
    """Pick an archive with both; SeisBench gets the files of one time chunk at a time."""

    def run(
        name: str,
        archive: Path,
        stations: Sequence[str] = (),
        settings: dict[str, Any] | None = None,
        **arguments: Any,
    ) -> Comparison:
        result = pick(
            archive,
            model=name,
            stations=stations,
            model_arguments=arguments,
            **(settings or {}),
        )
        assert result.counts["failed"] == result.counts["files_failed"] == 0
        expected: list[Found] = []
        detections: list[Found] = []
        for chunk in sorted(archive.iterdir()):
            patterns = stations or ("*",)
            files = {p for pattern in patterns for p in chunk.glob(f"{pattern}/*.mseed")}
            if files:
                more, further = oracle(name, files, **arguments)
                expected += more
                detections += further
        ours = None if result.detections is None else of_table(result.detections, "start_time")
        return Comparison(of_table(result.table), sorted(expected), ours, sorted(detections))

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", PICKERS)
def test_some_labelled_stations(compare: Compare, labelled: Path, name: str) -> None:
    stations = QUICK_STATIONS[:2] if name.startswith("GPD") else QUICK_STATIONS
    comparison = compare(name, labelled, stations)
    assert len(comparison.expected) > 5
    comparison.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "arguments"),
    [
        ("PhaseNet/original", 250, {}),
        ("PhaseNetLight/ethz", 191, {}),
        pytest.param(*("EQTransformer/original", 206, {}), marks=pytest.mark.exhaustive),
        pytest.param(
            *("EQTransformer/original_nonconservative", 259, {}), marks=pytest.mark.exhaustive
        ),
        # GPD looks at a window every ten samples, which takes SeisBench minutes.
        pytest.param(*("GPD/original", 910, {"batch_size": 1024}), marks=pytest.mark.exhaustive),
        pytest.param(
            *("GPD/original", 608, {"batch_size": 1024, "stride": 50}), marks=pytest.mark.exhaustive
        ),
    ],
)
def test_all_labelled_records(
    compare: Compare, labelled: Path, name: str, count: int, arguments: dict[str, Any]
) -> None:
    # Some have 860 windows in each record.
    settings = {"threads": os.cpu_count() if name.startswith("GPD") else 1}
    comparison = compare(name, labelled, settings=settings, **arguments)
    assert len(comparison.expected) == count
    comparison.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("PhaseNet/original", 894),
        pytest.param("EQTransformer/original", 436, marks=pytest.mark.exhaustive),
    ],
)
def test_two_continuous_hours(compare: Compare, continuous: Path, name: str, count: int) -> None:
    comparison = compare(name, continuous)
    assert len(comparison.expected) == count
    comparison.check()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("PhaseNet/original", {"overlap": 0}),
        ("PhaseNet/original", {"overlap": 2500}),
        ("PhaseNet/original", {"overlap": 0.75}),
        ("PhaseNet/original", {"stacking": "max"}),
        ("PhaseNet/original", {"blinding": (250, 100)}),
        ("PhaseNet/original", {"overlap": 500, "blinding": (600, 600)}),
        ("PhaseNet/original", {"P_threshold": 0.05, "S_threshold": 0.8}),
        ("PhaseNet/original", {"strict": True}),
        ("PhaseNet/original", {"flexible_horizontal_components": False}),
        ("PhaseNet/original", {"batch_size": 7}),
        ("EQTransformer/original", {"overlap": 0.5, "stacking": "max"}),
        ("EQTransformer/original", {"blinding": (0, 0)}),
        ("EQTransformer/original", {"detection_threshold": 0.6, "P_threshold": 0.02}),
        ("GPD/original", {"stride": 25}),
        ("GPD/original", {"stride": 15, "P_threshold": 0.9, "S_threshold": 0.5}),
    ],
)
def test_arguments(compare: Compare, labelled: Path, name: str, arguments: dict[str, Any]) -> None:
    comparison = compare(name, labelled, QUICK_STATIONS[:2], **arguments)
    assert comparison.expected
    comparison.check()


START_NS = parse_utc("2024-12-15T12:00:00")
ALL = slice(0, 9001)  # samples of a labelled record; its P is at sample 3000
Pieces = list[tuple[int, np.ndarray]]
Traces = dict[str, tuple[float, Pieces]]


def at(seconds: float) -> int:
    """Nanoseconds since 1970 of a moment after the scenarios' start."""
    return START_NS + round(seconds * NS_PER_S)


def pieces(row: np.ndarray, *spans: slice, offset_s: float = 0.0) -> tuple[float, Pieces]:
    """Spans of one component, each at the time where it was recorded, and their rate."""
    return 100.0, [(at(offset_s + span.start / 100), row[span]) for span in spans or (ALL,)]


def all_three(record: np.ndarray, *spans: slice, offset_s: float = 0.0) -> Traces:
    """The same spans of all components."""
    rows = zip("ZNE", record, strict=True)
    return {c: pieces(row, *spans, offset_s=offset_s) for c, row in rows}


def at_rate(record: np.ndarray, rate: float) -> Traces:
    """The same samples, said to be of another rate, as often as needed to be long enough."""
    repeated = np.tile(record, max(1, round(rate / 100)))
    return {c: (rate, [(at(0), row)]) for c, row in zip("ZNE", repeated, strict=True)}


def gaps(record: np.ndarray) -> dict[str, Traces]:
    z, n, e = record
    whole = all_three(record)
    few = (slice(0, 4000), slice(4010, 4200), slice(4300, 4301), slice(4400, 9001))
    return {
        "no gap": whole,
        "gap in Z": whole | {"Z": pieces(z, slice(0, 3200), slice(3700, 9001))},
        "gap of 3 samples": whole | {"Z": pieces(z, slice(0, 3200), slice(3203, 9001))},
        "gap in all": all_three(record, slice(0, 3600), slice(4100, 9001)),
        "many gaps": all_three(record, *few),
        "different gaps": {
            "Z": pieces(z, slice(0, 2000), slice(2500, 9001)),
            "N": pieces(n, slice(0, 3300), slice(4000, 9001)),
            "E": pieces(e, slice(0, 3150), slice(3400, 6000), slice(6100, 9001)),
        },
        "starts differ": whole
        | {"N": pieces(n, slice(1200, 9001)), "E": pieces(e, slice(2500, 8000))},
        "one after the other": {
            "Z": pieces(z, slice(0, 6100)),
            "N": pieces(n, slice(5000, 9001)),
        },
    }


def overlaps(record: np.ndarray) -> dict[str, Traces]:
    z, n, _ = record
    other = np.int32(50)
    whole = all_three(record)
    halves = (slice(0, 5000), slice(4500, 9001))
    return {
        "equal overlap": whole | {"Z": pieces(z, *halves)},
        "contradiction": whole | {"Z": (100.0, [(at(0), z[:5000]), (at(45), z[4500:] + other)])},
        "contradiction in all": {
            c: (100.0, [(at(0), row[:6000]), (at(58), row[5800:] + other), (at(91), row)])
            for c, row in zip("ZNE", record, strict=True)
        },
        "equal inside": whole | {"Z": pieces(z, ALL, slice(2000, 2500))},
        "contradiction inside": whole
        | {"N": (100.0, [(at(0), n), (at(20), n[2000:2500] + other)])},
        "twice": whole | {"Z": pieces(z, ALL, ALL)},
        "adjacent": whole | {"Z": pieces(z, slice(0, 3000), slice(3000, 9001))},
        "0.005 samples late": whole | {"Z": (100.0, [(at(0), z[:3000]), (at(30.00005), z[3000:])])},
        "0.04 samples late": whole | {"Z": (100.0, [(at(0), z[:3000]), (at(30.0004), z[3000:])])},
        "0.4 samples late": whole | {"Z": (100.0, [(at(0), z[:3000]), (at(30.004), z[3000:])])},
    }


def offsets(record: np.ndarray) -> dict[str, Traces]:
    whole = all_three(record)
    made = {}
    for offset in (0.29, 0.003, 0.005, 0.007, 0.57):
        made[f"N {offset} s late"] = whole | {"N": pieces(record[1], offset_s=offset)}
        made[f"all {offset} s late"] = all_three(record, offset_s=offset)
    each = zip("ZNE", record, (0.001, 0.0049, 0.0061), strict=True)
    made["all differently late"] = {c: pieces(row, offset_s=offset) for c, row, offset in each}
    return made


def components(record: np.ndarray) -> dict[str, Traces]:
    z, n, e = (pieces(row) for row in record)
    return {
        "Z only": {"Z": z},
        "N only": {"N": n},
        "Z and N": {"Z": z, "N": n},
        "Z, 1, 2": {"Z": z, "1": n, "2": e},
        "Z, N, 2": {"Z": z, "N": n, "2": pieces(record[2], slice(500, 9001))},
        "Z, N, E, H": {"Z": z, "N": n, "E": e, "H": e},
    }


def rates(record: np.ndarray) -> dict[str, Traces]:
    made = {
        f"{rate:g} Hz": at_rate(record, rate) for rate in (200.0, 250.0, 500.0, 50.0, 40.0, 99.9)
    }
    made["Z 200 Hz, N 50 Hz"] = all_three(record) | {
        "Z": at_rate(record, 200.0)["Z"],
        "N": at_rate(record, 50.0)["N"],
    }
    fast = {
        c: (200.0, [(at(0.0025), row[:8000]), (at(45.0025), row[:9001])])
        for c, row in zip("ZNE", np.tile(record, 2), strict=True)
    }
    return made | {"200 Hz with a gap, between samples": fast}


def lengths(record: np.ndarray) -> dict[str, Traces]:
    return {
        f"{window + more} samples": all_three(record, slice(first, first + window + more))
        for window, first in ((3001, 2000), (6000, 1000), (400, 2900))
        for more in (-1, 0, 1)
    } | {
        "window and a half": all_three(record, slice(0, 9000)),
        "one of three is short": all_three(record) | {"N": pieces(record[1], slice(0, 10))},
        "one sample of N": all_three(record) | {"N": pieces(record[1], slice(3000, 3001))},
    }


def scenarios(record: np.ndarray) -> dict[str, Traces]:
    """Awkward streams made of one labelled record, by name."""
    kinds = (gaps, overlaps, offsets, components, rates, lengths)
    return {name: traces for kind in kinds for name, traces in kind(record).items()}


SCENARIOS = list(scenarios(np.zeros((3, 9001), "i4")))
# Neither silent nor sure, so that a stream that is read differently shows.
BASES = ("ACR", "BJOB")


def code_of(base: int, scenario: str) -> str:
    """A station code for a scenario; miniSEED 2 has room for five letters."""
    return f"{'AB'[base]}{SCENARIOS.index(scenario):03d}"


@pytest.fixture(scope="module")
def awkward(labelled: Path, write_mseed: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archive with one station for each scenario and base record."""
    import obspy

    archive = tmp_path_factory.mktemp("awkward")
    for base, station in enumerate(BASES):
        stream = obspy.Stream()
        for path in sorted(next(labelled.glob(f"*/{station}")).glob("*.mseed")):
            stream += obspy.read(str(path))
        record = np.array([stream.select(component=c)[0].data for c in "ZNE"]).astype("i4")
        for name, traces in scenarios(record).items():
            code = code_of(base, name)
            folder = archive / "20241215T120000Z_20241215T121000Z" / code
            for component, (rate, parts) in traces.items():
                path = folder / f"{component}.mseed"
                write_mseed(path, f"XX.{code}..HH{component}", parts, rate)
    return archive


ASKED = [
    ("PhaseNet/original", {}),
    ("PhaseNet/original", {"strict": True}),
    ("PhaseNet/original", {"zerophase_resample": False}),
    ("EQTransformer/original", {}),
    ("GPD/original", {"stride": 40}),
]


@pytest.fixture(scope="module")
def awkward_picks(pick: Any, seisbench_cache: Path, awkward: Path) -> Any:
    """Our table of all scenarios, one run for each model and arguments."""

    @cache
    def run(index: int) -> tuple[list[Found], list[Found]]:
        name, arguments = ASKED[index]
        # SeisBench leaves out all records that contradict each other.
        result = pick(awkward, model=name, model_arguments=arguments, contradictions="drop")
        assert result.counts["failed"] == result.counts["files_failed"] == 0
        detections = [] if result.detections is None else of_table(result.detections, "start_time")
        return of_table(result.table), detections

    return run


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize(
    "asked",
    [
        0,
        *(pytest.param(index, marks=pytest.mark.slow) for index in (1, 2, 3)),
        pytest.param(4, marks=pytest.mark.exhaustive),
    ],
    ids=[" ".join([name, *arguments]) for name, arguments in ASKED],
)
def test_awkward_streams(awkward: Path, awkward_picks: Any, asked: int, scenario: str) -> None:
    picks, detections = awkward_picks(asked)
    name, arguments = ASKED[asked]
    if name.startswith("GPD") and scenario in ("400 samples", "401 samples"):
        pytest.skip("SeisBench raises on a record that gives one window and one value")
    for base in range(len(BASES)):
        code = code_of(base, scenario)
        expected = oracle(name, awkward.glob(f"*/{code}/*.mseed"), **arguments)
        for ours, theirs in zip((picks, detections), expected, strict=True):
            assert_same([found for found in ours if found.station == f"XX.{code}."], theirs)


@pytest.mark.exhaustive
def test_awkward_streams_draw_picks(awkward_picks: Any) -> None:
    for asked in range(len(ASKED)):
        stations = {found.station for found in awkward_picks(asked)[0]}
        assert len(stations) > 0.6 * len(SCENARIOS) * len(BASES), ASKED[asked]
