"""Allowed input roots: every file must lie in one of them, after links are resolved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from eqcctpro.errors import DecodeError, InputError
from eqcctpro.places import Place

__all__ = ["OUTSIDE", "Roots"]
_HINT = "copy it there, or have the one who sets input_roots add its folder"
# The kernel's path of an open descriptor, which a replaced link cannot forge.
_DESCRIPTORS = "/proc/self/fd"


class Roots:
    """Folders and addresses that may be read; links are resolved before they are compared.

    Parameters
    ----------
    places : sequence of Path or str
        None allows everything.
    """

    def __init__(self, places: Sequence[Place] = ()) -> None:
        self._folders = [os.path.realpath(place) for place in places if isinstance(place, Path)]
        self._addresses = [place.rstrip("/") for place in places if not isinstance(place, Path)]

    def __bool__(self) -> bool:
        """True if reading is restricted."""
        return bool(self._folders or self._addresses)

    def hold(self, place: Place) -> bool:
        """True if a file or folder may be read."""
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
        """Raise an error for an input outside of the roots.

        Raises
        ------
        InputError
        """
        if not self.hold(place):
            raise InputError(f"input {place} {OUTSIDE}", hint=_HINT)

    def require_open(self, descriptor: int, path: str | Path) -> None:
        """Raise an error for an open file outside of the roots, even if its link was replaced.

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
        """Error for a file outside of the roots."""
        return DecodeError(f"{path} {OUTSIDE}", hint=_HINT)

    def read(self, path: str | Path) -> bytes:
        """Read all bytes of a file in the roots.

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


#: Message for files and folders outside of the roots.
OUTSIDE = "leads out of the folders that may be read"
