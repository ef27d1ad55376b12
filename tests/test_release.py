"""Files of a release: they agree with each other, and every extra can be installed."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import requires

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from repository import ROOT

import eqcctpro

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PYPROJECT["optional-dependencies"]


def test_versions_names_and_licences_agree() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    codemeta = json.loads((ROOT / "codemeta.json").read_text())
    version = PYPROJECT["version"]
    assert (eqcctpro.__version__, citation["version"], codemeta["version"]) == (version,) * 3
    assert citation["license"] == PYPROJECT["license"] == codemeta["license"].rpartition("/")[2]
    people = [author["name"] for author in PYPROJECT["authors"]]
    assert [author["name"] for author in citation["authors"]] == people
    assert [author["name"] for author in codemeta["author"]] == people
    assert citation["keywords"] == codemeta["keywords"] == PYPROJECT["keywords"]
    assert {"cff-version", "message", "title", "type"} <= citation.keys()


def test_the_source_distribution_has_them() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    for name in tables["hatch"]["build"]["targets"]["sdist"]["include"]:
        assert (ROOT / name.lstrip("/")).exists(), name
    for name in ("CITATION.cff", "codemeta.json", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        assert f"/{name}" in tables["hatch"]["build"]["targets"]["sdist"]["include"]


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_can_be_resolved(extra: str) -> None:
    """No bound of an extra contradicts that of a dependency, or the tested version."""
    tested = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.partition("#")[0].strip():
            pinned = Requirement(line.partition("#")[0].strip())
            tested.setdefault(canonicalize_name(pinned.name), []).append(pinned)
    base = {canonicalize_name(Requirement(one).name) for one in PYPROJECT["dependencies"]}
    for text in EXTRAS[extra]:
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        if name == "eqcctpro":
            assert wanted.extras <= EXTRAS.keys(), text
            continue
        for pinned in tested.get(name, ()):
            for one in pinned.specifier:
                assert wanted.specifier.contains(one.version, prereleases=True), (text, pinned)
        if name in base:
            (same,) = (
                one for one in PYPROJECT["dependencies"] if Requirement(one).name == wanted.name
            )
            assert Requirement(same).specifier == wanted.specifier or wanted.extras, (text, same)
    assert requires("eqcctpro") is not None


def test_issue_templates_are_forms() -> None:
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    forms = [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("[!c]*.yml"))]
    assert len(forms) == 2
    for form in forms:
        assert {"name", "description", "body"} <= form.keys()
        assert len({item["id"] for item in form["body"]}) == len(form["body"])
        assert all(item["attributes"]["label"] for item in form["body"])
