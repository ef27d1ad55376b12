"""JSON lines: ``picks/DATE/HH.jsonl`` of a run, one line for each version of a pick."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, ClassVar

from eqcctpro.errors import SettingsError
from eqcctpro.live.outbox import Entry
from eqcctpro.live.sinks.base import Sink
from eqcctpro.times import format_utc

__all__ = ["JsonLinesSink"]


class JsonLinesSink(Sink):
    """Lines in files by the hour in which messages were made, each line once.

    The cursor's note is the end of what had been written with it.  Lines behind that, of a run
    that was killed, are compared with the next messages: what is the same stays, so that programs
    that follow the file do not read a line twice, and from the first difference on the file is
    cut.
    """

    schemes: ClassVar[tuple[str, ...]] = ("jsonl",)
    batch = 1000

    def check(self) -> None:
        """Check that the address is the scheme alone, or names a folder."""
        if self.target.host:
            raise SettingsError(
                f"sink {self.target.name}: a folder is expected", hint="jsonl, or jsonl:FOLDER"
            )
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Find the end of what was written."""
        held = self.place.outbox.cursor(self.target.name)
        self._folder = Path(self.target.path or self.place.output / "picks")
        self._name, self._size, self._ahead = "", 0, b""
        if held.note:
            self._name, self._size = json.loads(held.note)
            return
        # Nothing that is there already is of this outbox.
        files = sorted(self._folder.glob("????-??-??/??.jsonl"))
        if files:
            self._name = "/".join(files[-1].parts[-2:])
            self._size = files[-1].stat().st_size
        self.place.outbox.advance(self.target.name, held.number, self._note())

    def _note(self) -> str:
        return json.dumps([self._name, self._size])

    def send(self, entries: Sequence[Entry]) -> str:
        """Append a line for each message, and wait until they are on the disk."""
        for entry in entries:
            moment = format_utc(entry.message.created_ns, "seconds")
            # Clocks may be set back; files are written one after the other.
            self._write(max(f"{moment[:10]}/{moment[11:13]}.jsonl", self._name), entry)
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._note()

    def _write(self, name: str, entry: Entry) -> None:
        if self._file is None or name != self._name:
            self._begin(name)
        assert self._file is not None
        line = entry.message.as_json().encode() + b"\n"
        if self._ahead.startswith(line):
            self._ahead = self._ahead[len(line) :]
            self._file.seek(len(line), os.SEEK_CUR)
        else:
            if self._ahead:
                self._file.truncate()
                self._ahead = b""
            self._file.write(line)
        self._size += len(line)

    def _begin(self, name: str) -> None:
        """Go to the end of what is known to be written of a file."""
        self._end_file()
        path = self._folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        known = self._size if name == self._name else 0
        file = path.open("r+b" if path.exists() else "x+b")
        end = file.seek(0, os.SEEK_END)
        known = min(known, end)
        file.seek(known)
        self._ahead = file.read()
        file.seek(known)
        self._file, self._name, self._size = file, name, known

    def _end_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            if self._ahead:
                file.truncate()
            file.close()

    def close(self) -> None:
        """Close the file."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()
