"""Folders and files at addresses, such as those of object stores, through fsspec.

Credentials come from the environment, or from the machine where a cloud's machines have some;
the large public archives are read without.
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

# Buckets that anybody may read, and the regions they are in.
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
# A store that does not answer: how often, and for how many seconds, it is asked.
RETRIES = 5
TIMEOUT_S = 120.0

# Of this process, as its environment is; workers are given those of the run.
_options: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file at an address.

    Attributes
    ----------
    address : str
    size : int
        Bytes; -1 where a list does not tell.
    stamp : int
        Another one means other content: made from the ETag, else the time of the last change.
    """

    address: str
    size: int
    stamp: int


def use_storage_options(options: Mapping[str, Any] | None) -> None:
    """Set what this process passes on to a store's file system; None leaves it as it is."""
    if options is not None and dict(options) != _options:
        _options.clear()
        _options.update(options)


def list_folder(address: str) -> tuple[list[str], list[RemoteFile]]:
    """Names of the folders, and the files, directly in a folder; none if it does not exist."""
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
    """Files whose addresses match a pattern."""
    with _named(pattern):
        system, path = _system(pattern)
        found = system.glob(path, detail=True)
    return [_file(system, entry) for entry in found.values() if entry["type"] == "file"]


def read_part(address: str, start: int, end: int) -> bytes:
    """Some bytes of a file."""
    with _named(address):
        system, path = _system(address)
        content: bytes = system.cat_file(path, start=start, end=end)
    return content


def describe(address: str) -> RemoteFile:
    """Size and stamp of a file."""
    with _named(address):
        system, path = _system(address)
        found = system.info(path)
    return _remote_file(address, found)


def fetch(address: str, stamp: tuple[int, int] | None = None) -> bytes:
    """All bytes of a file.

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
    """Name the address in whatever goes wrong.

    Every file system has errors of its own, with no base that they share.
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
