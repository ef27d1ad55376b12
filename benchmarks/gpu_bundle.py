"""Parts of a bundle, each small enough for one transfer, that run `gpu_check` elsewhere."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

__all__ = ["RUN", "TooLargeError", "build_bundle"]

#: What is in the first part, and runs the checks once all parts are unpacked into one folder.
RUN = "run_gpu_check.py"

_PROGRAM = '''"""Run the checks with what was unpacked beside this file, as gpu_check.py."""
import os
import runpy
import sys
import zipfile
from pathlib import Path

here = Path(__file__).resolve().parent
packages = here / "packages"
for wheel in sorted((here / "wheels").glob("*.whl")):
    if not (packages / f".{wheel.name}").exists():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(packages)
        (packages / f".{wheel.name}").touch()
found = [str(here / "source"), str(packages)]
sys.path[:0] = found  # what is installed comes behind
os.environ["PYTHONPATH"] = os.pathsep.join([*found, os.environ.get("PYTHONPATH", "")])
os.environ.setdefault("SEISBENCH_CACHE_ROOT", str(here / "weights"))
program = here / "source" / "experiments" / "workbench" / "gpu_check.py"
sys.argv[0] = str(program)
runpy.run_path(str(program), run_name="__main__")
'''

#: Of the project.
_SOURCE = ("eqcctpro", "benchmarks", "experiments/workbench/gpu_check.py")

#: What a zip archive takes beyond the contents of a file.
_ENTRY_BYTES = 400


class TooLargeError(ValueError):
    """A file is larger than a part may be."""


def build_bundle(
    project: Path,
    output: Path,
    *,
    wheels: Iterable[Path] = (),
    weights: Path | None = None,
    models: Sequence[str] = (),
    records: Path | None = None,
    limit_mb: float = 64.0,
) -> list[Path]:
    """Write the parts.

    Parameters
    ----------
    project : Path
        The repository.
    output : Path
        Folder for ``part-1.zip``, ``part-2.zip`` ...
    wheels : iterable of Path
        Packages that the other machine lacks.
    weights : Path, optional
        SeisBench's cache.
    models : sequence of str
        ``Class/weights`` whose files are taken; all by default.
    records : Path, optional
        An archive, for ``--records records``.
    limit_mb : float
        Of a part, MB of 2**20 bytes.

    Returns
    -------
    list of Path

    Raises
    ------
    TooLargeError
        A file does not fit into a part.
    """
    output.mkdir(parents=True, exist_ok=True)
    limit = int(limit_mb * 2**20)
    parts: list[Path] = []
    used = limit
    archive: zipfile.ZipFile | None = None
    members: Iterator[tuple[str, bytes]] = iter([(RUN, _PROGRAM.encode())])
    try:
        for name, content in [*members, *_members(project, wheels, weights, models, records)]:
            size = len(content) + _ENTRY_BYTES  # as if nothing could be compressed
            if size > limit:
                raise TooLargeError(
                    f"{name} has {len(content) / 2**20:.1f} MB, and a part at most {limit_mb:g}"
                )
            if archive is None or used + size > limit:
                if archive is not None:
                    archive.close()
                parts.append(output / f"part-{len(parts) + 1}.zip")
                archive = zipfile.ZipFile(parts[-1], "w", zipfile.ZIP_DEFLATED)
                used = 0
            archive.writestr(name, content)
            used += size
    finally:
        if archive is not None:
            archive.close()
    return parts


def _members(
    project: Path,
    wheels: Iterable[Path],
    weights: Path | None,
    models: Sequence[str],
    records: Path | None,
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files."""
    for name in _SOURCE:
        for path in _files(project / name):
            if "__pycache__" not in path.parts:
                yield f"source/{path.relative_to(project)}", path.read_bytes()
    for wheel in wheels:
        yield f"wheels/{wheel.name}", wheel.read_bytes()
    wanted = {tuple(name.lower().split("/")) for name in models}
    for path in _files(weights) if weights is not None else ():
        parent, stem = path.parent.name.lower(), path.name.lower().partition(".")[0]
        if not wanted or any(parent == one and stem == other for one, other in wanted):
            assert weights is not None
            yield f"weights/{path.relative_to(weights)}", path.read_bytes()
    for path in _files(records) if records is not None else ():
        assert records is not None
        yield f"records/{path.relative_to(records)}", path.read_bytes()


def _files(place: Path) -> list[Path]:
    """A file, or all files of a folder in order of their names."""
    return (
        [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    )
