"""A Python that has PyOcto: this one, or an environment that is made for it.

PyOcto 0.2.2 wants NumPy 1 on Python 3.11, which most of what we import no longer supports.  So it
runs in a process of its own: with the interpreter that ``$EQCCTPRO_PYOCTO`` names, with this one
where PyOcto is installed beside us, and else with one from the user's cache.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import venv
from importlib.util import find_spec
from pathlib import Path

from eqcctpro.errors import RuntimeUnavailableError

__all__ = ["PYOCTO", "python_with_pyocto"]

PYOCTO = "0.2.2"
"""The version that is installed, and that results were checked with."""

_REQUIREMENTS = (f"pyocto=={PYOCTO}", "pandas>=2.2,<4", "pyproj>=3.6,<4")
_INSTALL_S = 600

_log = logging.getLogger("eqcctpro")


def python_with_pyocto(*, install: bool = True) -> Path:
    """The interpreter to run PyOcto with.

    Parameters
    ----------
    install : bool
        Make an environment if there is none; that downloads about 60 MB from the package
        registry, once.

    Raises
    ------
    RuntimeUnavailableError
        There is none, and it was not to be made or could not be.
    """
    from filelock import FileLock

    from eqcctpro.models.cache import cache_folder

    if named := os.environ.get("EQCCTPRO_PYOCTO"):
        if not Path(named).is_file():
            raise RuntimeUnavailableError(
                f"$EQCCTPRO_PYOCTO is {named}, which is not there",
                hint="name the interpreter of an environment that has PyOcto, or unset it",
            )
        return Path(named)
    if find_spec("pyocto") is not None:
        return Path(sys.executable)
    root = cache_folder("environments")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    folder = root / f"pyocto-{PYOCTO}-python{version}"
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    ready = folder / "complete"
    if ready.is_file() and python.exists():
        return python
    if not install:
        raise RuntimeUnavailableError(
            "PyOcto is not installed",
            hint="pip install 'eqcctpro[association]' on Python 3.12 or newer, or let "
            "eqcctpro associate make an environment for it",
        )
    with FileLock(root / f"{folder.name}.lock"):
        if not (ready.is_file() and python.exists()):
            _log.warning("installing PyOcto %s in an environment of its own: %s", PYOCTO, folder)
            _make(folder, python)
            ready.write_text(f"{PYOCTO}\n", encoding="utf-8")
    return python


def _make(folder: Path, python: Path) -> None:
    try:
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", *_REQUIREMENTS],
            check=True,
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise RuntimeUnavailableError(
            f"cannot install PyOcto {PYOCTO} in {folder}: {said[-1] if said else error}",
            hint="is the package registry reachable? Or write its input with --format pyocto",
        ) from error
