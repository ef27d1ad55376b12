"""Access to remote folders and files, such as those of object stores, through fsspec.

Credentials come from the environment, or from the instance role of a cloud machine; the large
public archives are read without credentials.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from eqcctpro.errors import EQCCTProError, InputChangedError, InputError, SettingsError
from eqcctpro.times import NS_PER_S

__all__ = [
    "RemoteFile",
    "describe",
    "fetch",
    "glob_addresses",
    "list_folder",
    "read_part",
    "use_storage_options",
]

# Public buckets, and their regions.
PUBLIC_BUCKETS = {
    "scedc-pds": "us-west-2",
    "ncedc-pds": "us-east-1",
    "earthscope-geophysical-data": "us-east-2",
}
_OBSTORE_NAMES = {
    "anon": "skip_signature",
    "endpoint_url": "endpoint",
    "region_name": "region",
    "requester_pays": "request_payer",
}
# Retries of a request that a store does not answer; time limit of one request, and of all retries.
RETRIES = 5
TIMEOUT_S = 120.0

# Options of this process, like its environment; workers receive those of the run.
_options: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address.

    Attributes
    ----------
    address : str
    size : int
        Size in bytes; -1 if the list of the folder does not contain it.
    stamp : int
        Changes with the content: made from the ETag, otherwise from the modification time.
    """

    address: str
    size: int
    stamp: int


def use_storage_options(options: Mapping[str, Any] | None) -> None:
    """Set the options of store file systems in this process; None keeps the current ones."""
    if options is not None and dict(options) != _options:
        _options.clear()
        _options.update(options)


def list_folder(address: str) -> tuple[list[str], list[RemoteFile]]:
    """List a folder: names of its folders, and its files; both empty if it does not exist."""
    with _named(address):
        system, path = _system(address)
        try:
            entries = system.ls(path, detail=True)
        except FileNotFoundError:
            return [], []
    folders = [
        entry["name"].rstrip("/").rsplit("/", 1)[-1]
        for entry in entries
        if entry["type"] == "directory"
    ]
    files = [
        _file(system, entry)
        for entry in entries
        # An empty object may stand for the folder itself.
        if entry["type"] == "file" and entry["name"].rstrip("/") != path.rstrip("/")
    ]
    return sorted(folders), files


def glob_addresses(pattern: str) -> list[RemoteFile]:
    """List the files whose addresses match a pattern."""
    with _named(pattern):
        system, path = _system(pattern)
        found = system.glob(path, detail=True)
    return [_file(system, entry) for entry in found.values() if entry["type"] == "file"]


def read_part(address: str, start: int, end: int) -> bytes:
    """Read the bytes of a file from `start` to `end`."""
    with _named(address):
        system, path = _system(address)
        content: bytes = system.cat_file(path, start=start, end=end)
    return content


def describe(address: str) -> RemoteFile:
    """Look up size and stamp of a file."""
    with _named(address):
        system, path = _system(address)
        found = system.info(path)
    return _remote_file(address, found)


def fetch(address: str, stamp: tuple[int, int] | None = None) -> bytes:
    """Read all bytes of a file.

    Parameters
    ----------
    address : str
    stamp : (int, int), optional
        Size and stamp that it must still have.

    Raises
    ------
    InputChangedError
        It is no longer what it was, or has vanished.
    InputError
        It cannot be read.
    """
    with _named(address):
        system, path = _system(address)
        content: bytes = system.cat_file(path)
        if stamp is not None:
            found = describe(address)
            same = found.size == len(content) == stamp[0] and stamp[1] in (0, found.stamp)
            if not same:
                raise InputChangedError(
                    f"{address} has changed since the run was planned "
                    f"({stamp[0]} bytes then, {found.size} now)",
                    hint="resume the run once it is complete",
                )
    return content


def _system(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    protocol, _, path = address.partition("://")
    try:
        if protocol in ("s3", "s3a"):
            return _object_store(protocol, path), path
        from fsspec.core import url_to_fs

        system, path = url_to_fs(address, **_options)
    except (ImportError, ValueError) as error:
        hint = "pip install 'eqcctpro[s3]'" if protocol == "s3" else "see fsspec for what it needs"
        raise SettingsError(
            f"{address}: {protocol}:// cannot be read here: {error}", hint=hint
        ) from error
    return system, path


def _object_store(protocol: str, path: str) -> Any:
    """S3 through obstore, whose client is compiled; options are named as they are elsewhere."""
    import obstore.fsspec

    kind: Any = obstore.fsspec.FsspecStore
    options = dict(_options)
    region = PUBLIC_BUCKETS.get(path.partition("/")[0])
    if region is not None:
        options = {"anon": True, "region": region} | options
    config = {_OBSTORE_NAMES.get(name, name): value for name, value in options.items()}
    endpoint = config.get("endpoint") or os.environ.get("AWS_ENDPOINT_URL", "")
    client = {"allow_http": str(endpoint).startswith("http://"), "timeout": f"{TIMEOUT_S:g}s"}
    retries = {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=TIMEOUT_S)}
    return kind(protocol, config=config, client_options=client, retry_config=retries)


def _file(system: Any, entry: Mapping[str, Any]) -> RemoteFile:
    return _remote_file(system.unstrip_protocol(entry["name"]), entry)


def _remote_file(address: str, entry: Mapping[str, Any]) -> RemoteFile:
    size = entry.get("size")
    return RemoteFile(address, -1 if size is None else int(size), _stamp(entry))


def _stamp(entry: Mapping[str, Any]) -> int:
    tag = entry.get("e_tag") or entry.get("ETag") or entry.get("etag")
    if tag:
        # 63 bits: a signed integer, as the time of the last change of a local file is.
        return int.from_bytes(hashlib.blake2b(str(tag).encode(), digest_size=8).digest()) >> 1
    for name in ("LastModified", "mtime", "last_modified", "created"):
        moment = entry.get(name)
        if isinstance(moment, datetime):
            return round(moment.timestamp() * NS_PER_S)
        if isinstance(moment, (int, float)):
            return round(moment * NS_PER_S)
    return 0


@contextmanager
def _named(address: str) -> Iterator[None]:
    """Turn all errors into `InputError` with the address.

    Every file system has its own errors, without a common base class.
    """
    try:
        yield
    except EQCCTProError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{address} does not exist", hint="check the address") from error
    except Exception as error:
        raise InputError(
            f"cannot read {address}: {type(error).__name__}: {error}", hint=_remedy(error)
        ) from error


def _remedy(error: Exception) -> str:
    text = f"{type(error).__name__} {error}".lower()
    if "credential" in text or "denied" in text or "forbidden" in text or "403" in text:
        return "set the store's credentials, or --storage anon=true for a public bucket"
    return "check the address, the network and --storage"
