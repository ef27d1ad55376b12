"""Folders and addresses that every file of an archive must lie in, wherever links lead."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from eqcctpro.errors import DecodeError, InputError
from eqcctpro.places import Place

__all__ = ["OUTSIDE", "Roots"]
_HINT = "copy it there, or have the one who sets input_roots add its folder"
# The kernel's own word on what a descriptor stands for, which no exchanged link can forge.
_DESCRIPTORS = "/proc/self/fd"


class Roots:
    """Folders and addresses that may be read; links are followed before they are compared.

    Parameters
    ----------
    places : sequence of Path or str
        None allows everything.
    """

    def __init__(self, places: Sequence[Place] = ()) -> None:
        self._folders = [os.path.realpath(place) for place in places if isinstance(place, Path)]
        self._addresses = [place.rstrip("/") for place in places if not isinstance(place, Path)]

    def __bool__(self) -> bool:
        """Whether anything is forbidden."""
        return bool(self._folders or self._addresses)

    def hold(self, place: Place) -> bool:
        """Whether a file or folder lies in one of them."""
        text = str(place)
        if "://" in text:
            return self._hold_address(text)
        return not self or self._hold_path(os.path.realpath(text))

    def _hold_path(self, real: str) -> bool:
        return any(
            real == folder or real.startswith(f"{folder.rstrip('/')}/") for folder in self._folders
        )

    def _hold_address(self, address: str) -> bool:
        if not self:
            return True
        for root in self._addresses:
            rest = address.removeprefix(root)
            if address == root or (rest != address and rest.startswith("/")):
                # Neither steps upwards, also escaped ones, nor fsspec's chains of file systems.
                parts = rest.lower().replace("%2e", ".").replace("%2f", "/").split("/")
                return not {".", ".."} & set(parts) and "::" not in rest and "\\" not in rest
        return False

    def require(self, place: Place) -> None:
        """Refuse an input outside of them.

        Raises
        ------
        InputError
        """
        if not self.hold(place):
            raise InputError(f"input {place} {OUTSIDE}", hint=_HINT)

    def require_open(self, descriptor: int, path: str | Path) -> None:
        """Refuse an open file outside of them, also if its name means another one by now.

        Raises
        ------
        DecodeError
        """
        if not self:
            return
        try:
            real = os.readlink(f"{_DESCRIPTORS}/{descriptor}")  # noqa: PTH115 (text)
        except OSError:  # no Linux
            real = os.path.realpath(path)
        if not self._hold_path(real):
            raise self.error(path)

    def error(self, path: str | Path) -> DecodeError:
        """What is said of a file outside of them."""
        return DecodeError(f"{path} {OUTSIDE}", hint=_HINT)

    def read(self, path: str | Path) -> bytes:
        """All bytes of a file in them.

        Raises
        ------
        DecodeError
            It lies outside, or cannot be read.
        """
        try:
            with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (hot)
                self.require_open(file.fileno(), path)
                return file.readall()
        except OSError as error:
            raise DecodeError(
                f"cannot read {path}: {error.strerror or error}",
                hint="check that the file exists and may be read",
            ) from error


#: What is said of files and folders outside.
OUTSIDE = "leads out of the folders that may be read"
