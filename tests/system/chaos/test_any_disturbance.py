"""Runs that are disturbed in any way, at any moment, end as is documented, and well at last."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from any_disturbance import ENDINGS, LATER, Disturbance, Place, disturb, draw, end_lines
from disturbed_runs import Calm, results
from warm_runs import serving_runs

from eqcctpro.synthetic.network import synthetic_network

pytestmark = pytest.mark.slow

#: How many seeds the long test draws.
MANY = int(os.environ.get("EQCCTPRO_TEST_DISTURBANCES", "200"))
STATIONS = 24
MOST_ATTEMPTS = 4
# Ray's agents notice after a minute that everything else was killed.
PARTING_S = 20.0


@pytest.fixture(scope="module")
def own_weights(imported_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights that are exchanged and damaged."""
    folder = tmp_path_factory.mktemp("weights")
    (found,) = (imported_weights / "models" / "v3" / "eqtransformer").glob("original.pt.v*")
    for path in found.parent.glob("original.*"):
        shutil.copy2(path, folder / path.name)
    return folder / found.name


@pytest.fixture(scope="module")
def server() -> Iterator[Path]:
    """Starts runs in forks."""
    # Sockets have short names.
    with (
        tempfile.TemporaryDirectory(prefix="eqd-", dir="/tmp") as folder,
        serving_runs(Path(folder)) as socket,
    ):
        yield socket


@pytest.fixture(scope="module")
def undisturbed(own_weights: Path, server: Path, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    """A calm run with these weights."""
    folder = tmp_path_factory.mktemp("undisturbed")
    synthetic_network(folder / "archive", stations=STATIONS, duration_s=120.0)
    options = ["--model", f"EQTransformer/{own_weights}", "--runtime", "openvino"]
    calm = Calm(folder / "archive", {}, 0.0, [*options, "--no-overview", "-q"])
    for _ in range(2):  # the first compiles the network for the cache
        place = Place(calm, own_weights, folder / "out", folder, server)
        began = time.monotonic()
        code, words = place.end(place.start("local"))
        calm.seconds = time.monotonic() - began
        assert code == 0, words
    return replace(calm, results=results(folder / "out"))


@pytest.fixture
def place(undisturbed: Calm, own_weights: Path, server: Path, tmp_path: Path) -> Iterator[Place]:
    temporary = Path(tempfile.mkdtemp(prefix="eqd-", dir="/tmp"))
    yield Place(undisturbed, own_weights, tmp_path / "out", temporary, server)
    shutil.rmtree(temporary, ignore_errors=True)


def survive(seed: int, drawn: list[Disturbance], place: Place) -> None:
    story = [f"seed {seed}"]
    killed = False
    for one in drawn:
        code, words = disturb(one, place)
        story.append(f"{one}: {code}")
        # What went before may come to light only now.
        later = {LATER[other.kind] for other in drawn if other.kind in LATER}
        allowed = {0, *ENDINGS[one.kind], *later}
        assert code in allowed, (story, words)
        check_words(code, words, story)
        killed = killed or one.kind == "kill"
        check_nothing_lives(place, story, killed=one.kind == "kill" and one.mode != "local")
    resume(place, story)
    assert results(place.output) == place.calm.results, story
    left = {path.name for path in place.output.iterdir()}
    assert left == {*place.calm.results, "summary.json", "tasks.parquet", "run.log"}, story
    if not killed:
        left_over = [path for path in place.temporary.rglob("*") if path.name not in ("ray",)]
        assert [path for path in left_over if not path.name.startswith("long")] == [], story


def resume(place: Place, story: list[str]) -> None:
    """Give the command until it ends well, as its messages advise."""
    more: list[str] = []
    for _ in range(MOST_ATTEMPTS):
        code, words = place.end(place.start("local", *more))
        story.append(f"resumed with {more}: {code}")
        check_words(code, words, story)
        if code == 0 and not (place.output / ".eqcctpro").exists():
            return
        if "--fresh" in words:
            more = ["--fresh"]
        elif code in (0, 10):
            more = ["--resume"]
        assert code in (0, 2, 5, 10), (story, words)
    pytest.fail(f"it does not end well: {story} {words}")


def check_words(code: int, words: str, story: list[str]) -> None:
    """One sentence says what happened."""
    assert "Traceback" not in words and "Exception" not in words, (story, words)
    lines = end_lines(words)
    if code in (0, 10, -9):
        assert not any(line.startswith("error") for line in lines), (story, words)
        return
    happened = [line for line in lines if not line.startswith("hint: ")]
    assert len(happened) == 1 and len(lines) <= 2, (story, words)


def check_nothing_lives(place: Place, story: list[str], *, killed: bool) -> None:
    alive = place.processes()
    if killed:
        alive = [process for process in alive if "Agent" not in " ".join(_title(process))]
    left = psutil.wait_procs(alive, timeout=PARTING_S)[1]
    assert not left, (story, [_title(process) for process in left])


def _title(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.parametrize("seed", [9, 10])
def test_a_few(seed: int, place: Place) -> None:
    survive(seed, draw(seed, modes=("local",))[:1], place)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(1000, 1000 + MANY))
def test_many(seed: int, place: Place) -> None:
    survive(seed, draw(seed), place)
