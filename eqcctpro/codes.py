"""Codes of stations and channels: one rule for reading them, writing them and naming files.

A code is printable ASCII.  Blanks and zero bytes at its ends are padding.  Any other byte, and the
tilde itself, is written as a tilde and two hexadecimal digits, so that different codes stay
different: the byte D1 is ``~D1``.  So is a first letter that has a spreadsheet take a code for a
formula: ``=``, ``+``, ``@``, and ``-`` before anything but dashes.  A record that is written holds
the bytes that were read.
"""

from __future__ import annotations

import re
from functools import lru_cache

__all__ = [
    "HEADER_FIELDS",
    "Code",
    "channel_of",
    "code_of_header",
    "code_of_source",
    "code_of_text",
    "component_of",
    "file_name",
    "header_of_code",
    "instrument_of",
    "is_code",
    "is_tidy",
    "printable",
    "record_code",
    "safe_name",
    "source_bytes",
    "source_of_code",
    "without_formula",
]

Code = tuple[str, str, str, str]
"""Network, station, location and channel."""

#: Where the fixed header of miniSEED 2 holds station, location, channel and network.
HEADER_FIELDS = slice(8, 20)

_WIDTHS = {"station": 5, "location": 2, "channel": 3, "network": 2}
# The fixed header of miniSEED 3, and the byte that says how long the source identifier is.
_MARK3 = b"MS\x03"
_SOURCE_AT, _SOURCE_LENGTH_AT = 40, 33
_PREFIX = b"FDSN:"
_PARTS = 6
# How names of files become bytes, also those that are no text.
_ANY_BYTES = ("utf-8", "surrogateescape")

# Without a tilde, and without what separates the parts of a source identifier.
_PLAIN = r"!-^`-}"
# What a code begins with: without = + - @.
_FIRST = r"!-*,.-<>-?A-^`-}"
_USUAL = rf"(?:[{_FIRST}][{_PLAIN}]*|-*)"
_USUAL_SOURCE = re.compile(
    rf"FDSN:({_USUAL})_({_USUAL})_({_USUAL})_([{_FIRST}])_([{_PLAIN}])_([{_PLAIN}])"
).fullmatch


def _letters(number: int) -> str:
    return f"(?:[{_FIRST}][{_PLAIN}]{{{number - 1}}}|-{{{number}}})" if number else ""


_TIDY = re.compile(
    rb"(?=.{12}\Z)"
    + "".join(
        # So many letters, then blanks: every split of the width.
        "(?:" + "|".join(f"{_letters(k)} {{{n - k}}}" for k in range(n, least - 1, -1)) + ")"
        for n, least in ((5, 0), (2, 0), (3, 3), (2, 0))
    ).encode(),
    re.DOTALL,
).match

_FOREIGN = re.compile(rb"[^ -}]")
# A letter that makes a formula of the text behind it.
_FORMULA = re.compile(r"[=+@\t\r]|-(?!-*\Z)").match
_ESCAPED = re.compile(rb"~([0-9A-F]{2})")
_COMPONENT = re.compile(r"(?:~[0-9A-F]{2}|.)\Z", re.DOTALL)
# What not every file system takes in a name; the tilde, which escapes the others, is one of them
# where it is no escape already.
_NOT_IN_NAMES = re.compile(r"[^\w.+=,@~-]|~(?![018-9A-F][0-9A-F]|7[EF])")


@lru_cache(maxsize=4096)
def is_tidy(fields: bytes) -> bool:
    """True if libmseed and this module read the same codes in the fields of a header."""
    return _TIDY(fields) is not None


@lru_cache(maxsize=4096)
def code_of_header(fields: bytes) -> Code:
    """Codes in the twelve bytes of a header of miniSEED 2; see `HEADER_FIELDS`."""
    station, location, channel, network = fields[:5], fields[5:7], fields[7:10], fields[10:12]
    return _escape(network), _escape(station), _escape(location), _escape(channel)


def code_of_source(source: str | bytes) -> Code:
    """Codes of an FDSN source identifier.

    The station may hold underscores.  A channel of three letters is written as one, such as
    ``HHZ``, also where some are missing; longer ones as ``BAND_SOURCE_SUBSOURCE``.

    Raises
    ------
    ValueError
        It is no FDSN source identifier.
    """
    return _code_of_text(source) if isinstance(source, str) else _code_of_bytes(source)


@lru_cache(maxsize=4096)
def _code_of_text(source: str) -> Code:
    usual = _USUAL_SOURCE(source)
    if usual is not None:
        return usual[1], usual[2], usual[3], usual[4] + usual[5] + usual[6]
    return _code_of_bytes(source.encode(*_ANY_BYTES))


@lru_cache(maxsize=4096)
def _code_of_bytes(source: bytes) -> Code:
    parts = source.removeprefix(_PREFIX).split(b"_")
    if not source.startswith(_PREFIX) or len(parts) < _PARTS:
        raise ValueError(f"{_escape(source)} is no FDSN source identifier")
    network, *station, location, band, instrument, component = map(_unescape, parts)
    letters = (band, instrument, component)
    if max(map(len, letters)) > 1:
        channel = "_".join(map(_escape, letters))
    else:
        channel = _escape(b"".join(letter or b" " for letter in letters))
    return _escape(network), _escape(b"_".join(station)), _escape(location), channel


def record_code(record: bytes | memoryview) -> Code:
    """Codes of a record of miniSEED 2 or 3, from its header.

    Raises
    ------
    ValueError
        It has no FDSN source identifier.
    """
    source = source_bytes(record)
    return _code_of_bytes(source) if _is_version_3(record) else code_of_header(source)


def source_bytes(record: bytes | memoryview) -> bytes:
    """Bytes of a record's header that name its channel: `HEADER_FIELDS` or source identifier."""
    if _is_version_3(record):
        return bytes(record[_SOURCE_AT : _SOURCE_AT + record[_SOURCE_LENGTH_AT]])
    return bytes(record[HEADER_FIELDS])


def _is_version_3(record: bytes | memoryview) -> bool:
    return record[:3] == _MARK3


def source_of_code(code: Code) -> str:
    """The FDSN source identifier of codes; what it has no place for is escaped."""
    network, station, location, channel = map(_in_source, code)
    if _is_extended(code[3]):
        parts = "_".join(map(_in_source, code[3].split("_")))
    else:
        letters = [*re.findall("~[0-9A-F]{2}|.", channel), "", "", ""][:3]
        parts = "_".join("" if letter == "~20" else letter for letter in letters)
    return f"FDSN:{network}_{station}_{location}_{parts}"


def header_of_code(code: Code) -> bytes | None:
    """The twelve bytes of a header of miniSEED 2, or None where codes are too long for it."""
    network, station, location, channel = (_unescape(text.encode()) for text in code)
    fields = (station, location, channel, network)
    widths = _WIDTHS.values()
    if any(len(field) > width for field, width in zip(fields, widths, strict=True)):
        return None
    return b"".join(field.ljust(width) for field, width in zip(fields, widths, strict=True))


@lru_cache(maxsize=4096)
def instrument_of(channel: str) -> str:
    """Band and instrument code: the channel code without its component.

    ``HH`` of ``HHZ``, ``E`` of ``EZ``, and nothing of ``Z``; ``S`` of ``S Z``.
    """
    if channel.isalnum():
        return channel[:-1]
    return channel[: len(channel) - len(component_of(channel))].rstrip(" _")


@lru_cache(maxsize=4096)
def component_of(channel: str) -> str:
    """The last letter of a channel code, or an empty text."""
    if channel.isalnum():
        return channel[-1:]
    if _is_extended(channel):
        return channel.rpartition("_")[2]
    found = _COMPONENT.search(channel)
    return found[0] if found is not None else ""


def channel_of(instrument: str, component: str) -> str:
    """Channel code of a band and instrument code and a component."""
    return f"{instrument}_{component}" if "_" in instrument[1:-1] else instrument + component


def safe_name(name: str) -> str:
    """A name as the name of a file or folder; different names stay different.

    What not every file system takes is escaped, so that a name never leads out of its folder.
    """
    kept = _NOT_IN_NAMES.sub(lambda found: _in_hex(found[0].encode(*_ANY_BYTES)), name)
    return f"~2E{kept[1:]}" if kept.startswith(".") else kept or "~"


def file_name(*codes: str) -> str:
    """Codes as the name of a file, separated by dots."""
    name = ".".join(safe_name(code).replace(".", "~2E") if code else "" for code in codes)
    return f"~{name}" if not name or name.startswith(".") else name


def _is_extended(channel: str) -> bool:
    """Check whether a channel is written as ``BAND_SOURCE_SUBSOURCE``.

    The three letters of a header may be underscores, too, with one that is escaped.
    """
    return channel.count("_") == 2 and len(re.sub("~[0-9A-F]{2}", ".", channel)) > 3


def _in_source(code: str) -> str:
    return code.replace("_", "~5F").replace(" ", "~20")


def code_of_text(text: str) -> str:
    """A code that comes as text and not in a record, written by this module's rule.

    A tilde that this rule would not have written is one of the code's own letters.
    """
    raw = text.encode(*_ANY_BYTES)
    code = _escape(_unescape(raw))
    return code if code == text or "~" not in text else _escape(raw)


def is_code(text: str, letters: int) -> bool:
    """True if a text is a code of at most `letters` bytes, in this module's escaping."""
    if text.isascii() and text.isalnum():  # nearly all
        return len(text) <= letters
    raw = _unescape(text.encode(*_ANY_BYTES))
    return len(raw) <= letters and _escape(raw) == text


def without_formula(text: str) -> str:
    """A text that no spreadsheet takes for a formula; others stay as they are."""
    return f"~{ord(text[0]):02X}{text[1:]}" if _FORMULA(text) else text


def _escape(raw: bytes) -> str:
    plain = _FOREIGN.sub(lambda found: _in_hex(found[0]).encode(), raw.strip(b" \0")).decode()
    return without_formula(plain)


def _in_hex(raw: bytes) -> str:
    return "".join(f"~{byte:02X}" for byte in raw)


def _unescape(text: bytes) -> bytes:
    return _ESCAPED.sub(lambda found: bytes([int(found[1], 16)]), text)


def printable(text: str) -> str:
    r"""Text that can be written as UTF-8: other bytes, as names of files hold, as ``\xff``."""
    if text.isascii():
        return text
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
