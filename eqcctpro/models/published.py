"""Weights that their authors publish as a file: downloading it, and only that very file."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from eqcctpro.models.download import DownloadFailedError
from eqcctpro.models.registry import KnownWeights, find_known

if TYPE_CHECKING:
    from eqcctpro.models.weight_files import WeightFiles

__all__ = ["MIRROR_VARIABLE", "download_published", "published"]

#: A folder on another server that has the published files.
MIRROR_VARIABLE = "EQCCTPRO_MIRROR"

# Seconds until a server that does not answer counts as out of reach.
_TIMEOUT = 8.0
# Bytes; the largest known file has 3 MB.
_MOST = 200 * 2**20

_log = logging.getLogger("eqcctpro")


def published(name: str) -> KnownWeights | None:
    """The registry's entry for ``Class/child`` if it names a download and its hash."""
    known = find_known(name)
    if known is None or known.source.url is None or known.source.sha256 is None:
        return None
    return known


def download_published(known: KnownWeights) -> WeightFiles:
    """Download the authors' file, check its hash, and convert it into the cache.

    Parameters
    ----------
    known : KnownWeights
        As :func:`published` returns it.

    Raises
    ------
    DownloadFailedError
        If the server is out of reach, or sends anything else than the known file.
    WeightsError
        If the file cannot be converted.
    OutputError
        If the cache cannot be written.
    """
    from eqcctpro.models.keras_import import import_weights

    url = _address(known)
    _log.info("downloading %s from %s (%s)", known.name, url, known.licence)
    with tempfile.TemporaryDirectory(prefix="eqcctpro-") as folder:
        path = Path(folder) / PurePosixPath(url).name
        digest = _fetch(url, path)
        if digest != known.source.sha256:
            raise DownloadFailedError(
                f"{url} is not the known file: sha256 {digest}, not {known.source.sha256}"
            )
        return replace(import_weights(str(path))[0], source="download")


def _address(known: KnownWeights) -> str:
    mirror = os.environ.get(MIRROR_VARIABLE)
    if not mirror:
        return str(known.source.url)
    return f"{mirror.rstrip('/')}/{PurePosixPath(str(known.source.url)).name}"


def _fetch(url: str, path: Path) -> str:
    """Save what a server sends; returns its SHA-256."""
    import requests

    digest = hashlib.sha256()
    size = 0
    try:
        with requests.get(url, timeout=_TIMEOUT, stream=True) as answer, path.open("wb") as file:
            answer.raise_for_status()
            for block in answer.iter_content(2**16):
                size += len(block)
                if size > _MOST:
                    raise DownloadFailedError(f"{url} sends more than {_MOST} bytes")
                digest.update(block)
                file.write(block)
    except requests.RequestException as error:
        raise DownloadFailedError(f"{url} cannot be had: {_reason(error)}") from error
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    """The server's answer where there was one, else the kind of failure."""
    answer = getattr(error, "response", None)
    return type(error).__name__ if answer is None else f"HTTP status {answer.status_code}"
