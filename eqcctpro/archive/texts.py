"""Strings by number."""

from __future__ import annotations

from array import array
from collections.abc import Callable

__all__ = ["ENCODING", "Texts"]

# Round trips of any string, also of file names that are no text.
ENCODING = ("utf-8", "surrogatepass")

# Strings that take a megabyte, and above which less memory is worth more than ready strings.
MANY_TEXTS = 8192


class _Numbers(dict[str, int]):
    """A number for each string that is asked for."""

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def __missing__(self, text: str) -> int:
        self[text] = number = len(self._texts)
        self._texts.append(text)
        return number


class Texts:
    """Strings by number, each held once.

    Attributes
    ----------
    number : callable
        The number of a string, a new one if it is not known.
    """

    def __init__(self) -> None:
        self._open: list[str] = []
        self.number: Callable[[str], int] = _Numbers(self._open).__getitem__
        # Of sealed ones: one after the other, and where each ends.
        self._sealed = bytearray()
        self._ends = array("q")

    def __getitem__(self, number: int) -> str:
        if not self._ends:
            return self._open[number]
        begin = self._ends[number - 1] if number else 0
        return self._sealed[begin : self._ends[number]].decode(*ENCODING)

    def seal(self) -> None:
        """Say that there will be no more.

        Many are held as bytes from here on: small strings among what planning lets go would keep
        its memory from returning.
        """
        del self.number
        if len(self._open) < MANY_TEXTS:
            return
        for text in self._open:
            self._sealed += text.encode(*ENCODING)
            self._ends.append(len(self._sealed))
        self._open.clear()
