"""Modules of the package import in one direction."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import eqcctpro

ROOT = Path(eqcctpro.__file__).parent
MODULES = {
    ".".join(["eqcctpro", *path.relative_to(ROOT).with_suffix("").parts]).removesuffix(
        ".__init__"
    ): path
    for path in ROOT.rglob("*.py")
}


@cache
def imports(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The import statements of a file, in functions too."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def imported_by(path: Path) -> Iterator[str]:
    """Modules of the package that a file imports."""
    for node in imports(path):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in MODULES)
        elif node.module in MODULES:
            for name in node.names:
                longer = f"{node.module}.{name.name}"
                yield longer if longer in MODULES else node.module


def test_no_modules_import_each_other() -> None:
    graph = {name: set(imported_by(path)) - {"eqcctpro", name} for name, path in MODULES.items()}
    assert len(graph) > 100 and sum(map(len, graph.values())) > 1000
    del graph["eqcctpro"]  # the public names, which are imported where they are asked for
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_only_the_command_imports_the_command_line() -> None:
    users = {
        name
        for name, path in MODULES.items()
        if any(f"{found}.".startswith("eqcctpro.cli.") for found in imported_by(path))
    }
    assert {name for name in users if not f"{name}.".startswith("eqcctpro.cli.")} == {
        "eqcctpro.__main__"
    }


def test_the_wheel_is_the_package_alone() -> None:
    pyproject = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["eqcctpro"]
    assert all(target.startswith("eqcctpro/") for target in wheel["force-include"].values())
    outside = {"benchmarks", "experiments", "scripts", "tests"}
    for name, path in MODULES.items():
        for node in imports(path):
            modules = [one.name for one in node.names]
            if isinstance(node, ast.ImportFrom):
                modules = [node.module or ""]
            assert not outside & {module.partition(".")[0] for module in modules}, name


def room_of(module: str) -> str:
    """The folder of a module below the package, or its own name if it lies in none."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "eqcctpro"


def test_no_rooms_import_each_other() -> None:
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        if name == "eqcctpro":
            continue  # the public names, which are imported where they are asked for
        room = room_of(name)
        found = {room_of(module) for module in imported_by(path)} - {room, "eqcctpro"}
        graph.setdefault(room, set()).update(found)
    assert len(graph) > 20
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" imports ".join(reversed(error.args[1]))) from None


def test_the_pipeline_knows_no_archive_and_no_source_of_waveforms() -> None:
    graph = {name: set(imported_by(path)) - {"eqcctpro"} for name, path in MODULES.items()}
    reached: dict[str, str] = {}
    todo = [name for name in MODULES if room_of(name) == "pipeline"]
    assert {"eqcctpro.pipeline.engine", "eqcctpro.pipeline.prepare"} <= set(todo)
    while todo:
        name = todo.pop()
        for found in graph[name] - reached.keys():
            reached[found] = name
            todo.append(found)
    upstream = {"archive", "sources", "download", "journal", "orchestration", "serving"}
    assert upstream <= set(map(room_of, MODULES))
    assert not {name: user for name, user in reached.items() if room_of(name) in upstream}


def rooms() -> dict[str, set[str]]:
    """Folders of the package, and the ones that each imports."""
    graph: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        room = room_of(name)
        if (ROOT / room).is_dir():
            found = {room_of(module) for module in imported_by(path)} - {room}
            graph.setdefault(room, set()).update(one for one in found if (ROOT / one).is_dir())
    return graph


def test_the_map_shows_the_imports() -> None:
    text = (ROOT.parent / "docs" / "architecture.md").read_text()
    arrows: dict[str, set[str]] = {}
    for line in re.findall(r"^    (\w.*-->.*)$", text, flags=re.MULTILINE):
        users, used = (part.replace(" ", "").split("&") for part in line.split("-->"))
        for user in users:
            arrows.setdefault(user, set()).update(used)

    def reached(room: str) -> set[str]:
        return arrows.get(room, set()).union(*(reached(one) for one in arrows.get(room, ())))

    for room, found in rooms().items():
        assert found <= reached(room), f"{room} imports against the arrows"
        assert arrows.get(room, set()) <= found, f"{room} does not import what the map says"
        assert f"`{room}`" in text, f"the map does not say what {room} holds"
    assert arrows.keys() <= rooms().keys()


def test_what_the_map_names_is_there() -> None:
    text = (ROOT.parent / "docs" / "architecture.md").read_text()
    named = re.findall(r"`(\w+(?:/\w+)*\.py)(?:: (\w+)(?:\.(\w+))?)?`", text)
    assert len(named) > 40
    for file, top, inner in named:
        source = ast.parse(
            (ROOT / file if "tests/" not in file else ROOT.parent / file).read_text()
        )
        names = {}
        for node in source.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                names[node.name] = node
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                names |= {one.id: node for one in targets if isinstance(one, ast.Name)}
        assert not top or top in names, f"{file} has no {top}"
        if inner:
            held = {
                getattr(one, "name", getattr(getattr(one, "target", None), "id", ""))
                for one in ast.walk(names[top])
            }
            assert inner in held, f"{file}: {top} has no {inner}"
