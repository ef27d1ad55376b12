"""Weights from SeisBench's server, through SeisBench."""

from __future__ import annotations

import difflib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from eqcctpro.errors import UnknownModelError, WeightsError
from eqcctpro.models.checksums import file_sha256
from eqcctpro.models.locations import (
    COMPOSED_CLASSES,
    PICKER_CLASSES,
    SEISBENCH_VARIABLE,
    user_root,
    writable_class_folder,
)
from eqcctpro.models.weight_files import WeightFiles
from eqcctpro.models.weight_store import read_metadata, read_state, replace_pair

__all__ = ["DownloadFailedError", "download_weights", "require_class", "seisbench_models"]

# Seconds until a server that does not answer counts as out of reach.
_TIMEOUT = 8.0


class DownloadFailedError(Exception):
    """Weights could not be downloaded; the message says why."""


def seisbench_models() -> ModuleType:
    """Import :mod:`seisbench.models`, also where its cache cannot be written.

    SeisBench makes its cache folder and a configuration file on import; where it
    cannot, it is pointed to the user's cache folder.
    """
    try:
        import seisbench.models as sbm
    except OSError:
        return _import_with_own_cache()
    return sbm


def _import_with_own_cache() -> ModuleType:
    usual = os.environ.get(SEISBENCH_VARIABLE)
    os.environ[SEISBENCH_VARIABLE] = str(user_root())
    try:
        import seisbench.models as sbm
    finally:
        # Weights may still be readable where SeisBench would usually look.
        if usual is None:
            del os.environ[SEISBENCH_VARIABLE]
        else:
            os.environ[SEISBENCH_VARIABLE] = usual
    return sbm


def require_class(parent: str) -> Any:
    """SeisBench's model class of that name.

    Raises
    ------
    UnknownModelError
        If there is none.
    """
    sbm = seisbench_models()
    found = getattr(sbm, parent, None)
    if isinstance(found, type) and issubclass(found, sbm.SeisBenchModel):
        return found
    known = (*COMPOSED_CLASSES, *PICKER_CLASSES)
    close = difflib.get_close_matches(parent, known, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
    raise UnknownModelError(f"SeisBench has no model {parent!r}", hint=hint)


def download_weights(parent: str, child: str) -> WeightFiles:
    """Download the latest version of weights into the cache.

    Raises
    ------
    UnknownModelError
        If SeisBench has no such class.
    DownloadFailedError
        If the server is out of reach, lacks the weights, or sends broken files.
    OutputError
        If the cache cannot be written.
    """
    model_class = require_class(parent)
    _require_server()
    with _staging_cache() as staging:
        try:
            versions = model_class.list_versions(child, remote=True)
            if not versions:
                raise DownloadFailedError(f"SeisBench's server has no weights {parent}/{child}")
            version = _latest(versions)
            weight, metadata = model_class._pretrained_path(child, version)
            model_class._ensure_weight_files(child, version, weight, metadata, False, False)
            read_metadata(metadata)
            read_state(weight)
        except (OSError, ValueError, SyntaxError, WeightsError) as error:
            # SyntaxError is what lxml raises when the answer is no WebDAV listing.
            raise DownloadFailedError(f"{type(error).__name__}: {error}") from error
        return _move_to_cache(parent, child, version, staging)


def _latest(versions: list[str]) -> str:
    from packaging.version import Version

    return max(versions, key=Version)


def _require_server() -> None:
    """Ask the server for an answer, because SeisBench would wait for minutes."""
    import requests
    import seisbench

    url = seisbench.remote_model_root
    try:
        requests.head(url, timeout=_TIMEOUT)
    except requests.RequestException as error:
        raise DownloadFailedError(f"{url} is out of reach ({type(error).__name__})") from error


@contextmanager
def _staging_cache() -> Iterator[Path]:
    """Let SeisBench download into an empty temporary cache.

    A broken download then leaves nothing in the real one, and SeisBench does not
    rename files there.
    """
    import seisbench

    usual = seisbench.cache_root, seisbench.cache_model_root
    with tempfile.TemporaryDirectory(prefix="eqcctpro-") as folder:
        seisbench.cache_root = Path(folder)
        seisbench.cache_model_root = Path(folder) / "models" / "v3"
        seisbench.cache_model_root.mkdir(parents=True)
        try:
            yield seisbench.cache_model_root
        finally:
            seisbench.cache_root, seisbench.cache_model_root = usual


def _move_to_cache(parent: str, child: str, version: str, staging: Path) -> WeightFiles:
    folder = writable_class_folder(parent)
    source = staging / parent.lower()
    weight_path, metadata_path = replace_pair(
        folder,
        child,
        version,
        (source / f"{child}.pt.v{version}").read_bytes(),
        (source / f"{child}.json.v{version}").read_bytes(),
    )
    return WeightFiles(
        parent=parent,
        child=child,
        weight_path=weight_path,
        metadata_path=metadata_path,
        version=version,
        sha256=file_sha256(weight_path),
        source="download",
    )
