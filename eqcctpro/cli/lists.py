"""Options that take a list: with commas, given several times, or both."""

from __future__ import annotations

from collections.abc import Iterable

from eqcctpro.errors import SettingsError

__all__ = ["device_of", "joined", "names_of", "numbers_of"]


def joined(given: Iterable[str] | None) -> str | None:
    """All values of an option in one text with commas; None where it is not given."""
    return ",".join(given) if given else None


def names_of(given: str | Iterable[str] | None) -> tuple[str, ...]:
    """Names in one list with commas, or in several."""
    texts = [given] if isinstance(given, str) else given or ()
    return tuple(part.strip() for text in texts for part in text.split(",") if part.strip())


def numbers_of(name: str, given: str | Iterable[str] | None) -> tuple[int, ...]:
    """Whole numbers in one list with commas, or in several.

    Raises
    ------
    SettingsError
    """
    try:
        return tuple(int(part) for part in names_of(given))
    except ValueError as error:
        text = given if isinstance(given, str) else joined(given)
        raise SettingsError(f"--{name} {text!r}: not whole numbers", hint="10,50,100") from error


def device_of(given: list[str] | None) -> str | None:
    """Devices in one text: ``cuda:0`` and ``cuda:1`` are ``cuda:0,1``."""
    if not given:
        return None
    first, *rest = dict.fromkeys(given)
    return ",".join([first, *(text.removeprefix("cuda:") for text in rest)])
