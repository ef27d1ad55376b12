"""Table of strings: each string is stored once and referred to by its number."""

from __future__ import annotations

from array import array
from collections.abc import Callable

__all__ = ["ENCODING", "Texts"]

# Encodes any string without loss, including file names that are not valid UTF-8.
ENCODING = ("utf-8", "surrogatepass")

# Number of strings (about a megabyte) above which compact storage is preferred to fast access.
MANY_TEXTS = 8192


class _Numbers(dict[str, int]):
    """Numbers of strings; an unknown string is added on access."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self._texts)
        self._texts.append(text)
        return number


class Texts:
    """Table of strings by number, each stored once.

    Attributes
    ----------
    number : callable
        Returns the number of a string; an unknown string is added.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self.number: Callable[[str], int] = _Numbers(self._open).__getitem__
        # After `seal`: concatenated strings, and the end of each.
        self._sealed = bytearray()
        self._ends = array("q")

    def __getitem__(self, number: int) -> str:
        if not self._ends:
            return self._open[number]
        begin = self._ends[number - 1] if number else 0
        return self._sealed[begin : self._ends[number]].decode(*ENCODING)

    def seal(self) -> None:
        """Freeze the table: no strings can be added afterwards.

        Large tables are stored as bytes from here on: small strings scattered over the heap would
        keep memory that planning has freed from being returned to the system.
        """
        del self.number
        if len(self._open) < MANY_TEXTS:
            return
        for text in self._open:
            self._sealed += text.encode(*ENCODING)
            self._ends.append(len(self._sealed))
        self._open.clear()
