"""SeedLink server, versions 3 and 4, that serves records to rehearse with."""

from __future__ import annotations

import json
import logging
import re
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, NamedTuple
from xml.sax.saxutils import quoteattr

from eqcctpro import __version__
from eqcctpro.codes import Code
from eqcctpro.errors import OutputError
from eqcctpro.live.commands import selector_v4
from eqcctpro.live.faults import Faults
from eqcctpro.live.replay import CompletedRecord
from eqcctpro.times import format_utc, parse_utc

__all__ = ["SeedLinkServer"]

_LOG = logging.getLogger(__name__)

_MOST_CLIENTS = 64
_MOST_LINE = 4096
_MOST_STATIONS = 100_000
# Packets that are put together before they are sent.
_AT_ONCE = 512
_IDLE_S = 0.05
# A record of miniSEED 2 with text, for answers to INFO of version 3.
_INFO_HEADER = struct.Struct(">6sss5s2s3s2sHHBBBxHHhhBBBBiHHHHBBBx")
_INFO_TEXT_AT, _INFO_BYTES = 64, 512


class _Item(NamedTuple):
    """Packet that was published."""

    sequence: int
    code: Code
    end_ns: int
    record: bytes


@dataclass(slots=True)
class _Subscription:
    """Stations that a client asked for, and from which packet on."""

    network: str
    station: str
    selectors: list[str] = field(default_factory=list)
    first: int = -1  # index of the first packet; -1 is the next one
    start_ns: int | None = None
    end_ns: int | None = None
    given: bool = False

    def takes(self, code: Code) -> bool:
        """True if a channel is asked for."""
        if not (fnmatchcase(code[0], self.network) and fnmatchcase(code[1], self.station)):
            return False
        channel = "_".join(code[3]) if len(code[3]) == 3 else code[3]
        name = f"{code[2]}_{channel}"
        refused = [one[1:] for one in self.selectors if one.startswith("!")]
        wanted = [one for one in self.selectors if not one.startswith("!")]
        if any(fnmatchcase(name, one) for one in refused):
            return False
        return not wanted or any(fnmatchcase(name, one) for one in wanted)


class SeedLinkServer:
    """Server of published records, with a thread for each client.

    Packets of all stations are numbered together, from 1.  What was published is kept, up to
    `history_bytes` of records, for clients that come later or come back; then the oldest go.

    Parameters
    ----------
    host : str
    port : int
        0 is any free one.
    faults : Faults, optional
    history_bytes : int
    tls : ssl.SSLContext, optional
    software : str
        Name in the answer to HELLO.
    versions : tuple of int
        Versions of the protocol that are offered.

    Attributes
    ----------
    port : int
    first_client : threading.Event
        Set once a client has asked for data.
    sent : int
        Packets that were sent, to all clients together.
    dropped : int
        Packets that a client asked for, or was behind, and that were kept no more.

    Raises
    ------
    OutputError
        The port cannot be listened at.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        faults: Faults | None = None,
        history_bytes: int = 256 * 2**20,
        tls: ssl.SSLContext | None = None,
        software: str = "",
        versions: tuple[int, ...] = (3, 4),
    ) -> None:
        self.first_client = threading.Event()
        self.sent = 0
        self.dropped = 0
        self.host = host
        self.versions = versions
        offered = " ".join(f"SLPROTO:{version}.{0 if version == 4 else 1}" for version in versions)
        name = software or f"SeedLink v{max(versions)}.0 (eqcctpro/{__version__})"
        self.hello = f"{name} :: {offered} CAP EXTREPLY NSWILDCARD BATCH TIME"
        self.faults = faults or Faults()
        self._history_bytes = history_bytes
        self._tls = tls
        self.changed = threading.Condition()
        self.items: list[_Item] = []
        self.base = 0  # index of the first item that is kept
        self._bytes = 0
        self._last = 0  # the newest number
        self.epoch = 0  # index of the packet with number 1
        self.finished = False
        self.closed = False
        self._clients: set[_Client] = set()
        try:
            self._listener = socket.create_server((host, port), backlog=64)
        except OSError as error:
            raise OutputError(
                f"cannot listen at {host}:{port}: {error.strerror or error}",
                hint="choose another --port, or end the program that uses it",
            ) from error
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, name="seedlink server", daemon=True)
        self._thread.start()

    @property
    def clients(self) -> int:
        """Number of clients that are connected."""
        return len(self._clients)

    def publish(self, records: Sequence[CompletedRecord]) -> None:
        """Send records to all clients that want them, and keep them."""
        with self.changed:
            for end_ns, code, record in records:
                if self.faults.reset_after and self._last >= self.faults.reset_after:
                    self._last, self.epoch = 0, self.base + len(self.items)
                self._last += 1
                self.items.append(_Item(self._last, code, end_ns, record))
                self._bytes += len(record)
            if self._bytes > self._history_bytes:
                # A quarter at a time: to remove one by one would move all others each time.
                wanted, gone, at = self._history_bytes * 3 // 4, self._bytes, 0
                while gone > wanted:
                    gone -= len(self.items[at].record)
                    at += 1
                del self.items[:at]
                self.base += at
                self._bytes = gone
            self.changed.notify_all()

    def finish(self) -> None:
        """Say that nothing more will come: clients are told END when they have all."""
        with self.changed:
            self.finished = True
            self.changed.notify_all()

    def disconnect(self) -> None:
        """Cut all connections, as a server that is killed."""
        for client in list(self._clients):
            client.cut()

    def close(self) -> None:
        """Close all connections and end all threads."""
        self.closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self.changed:
            self.changed.notify_all()
        self.disconnect()
        self._thread.join(5)
        for client in list(self._clients):
            client.thread.join(5)

    def index_of(self, sequence: int, bits: int) -> int:
        """Index of the packet with a number, or of the next one after it; -1 if it is to come."""
        if bits < 64:
            high = self._last & ~((1 << bits) - 1)
            sequence |= high
            sequence -= (1 << bits) if sequence > self._last and high else 0
        index = self.epoch + sequence - 1
        return index if index < self.base + len(self.items) else -1

    def stations(self) -> dict[str, dict[Code, list[_Item]]]:
        """First and last packet that is kept of each channel of a station, in this numbering."""
        found: dict[str, dict[Code, list[_Item]]] = {}
        with self.changed:
            items = self.items[max(self.epoch - self.base, 0) :]
        for item in items:
            channels = found.setdefault(f"{item.code[0]}_{item.code[1]}", {})
            both = channels.setdefault(item.code, [item, item])
            both[1] = item
        return found

    def _accept(self) -> None:
        while not self.closed:
            try:
                connection, address = self._listener.accept()
            except OSError:
                time.sleep(0.02)  # too many open files, or the end
                continue
            if len(self._clients) >= _MOST_CLIENTS:
                connection.close()
                continue
            client = _Client(self, connection, f"{address[0]}:{address[1]}", self._tls)
            self._clients.add(client)
            client.thread.start()

    def leave(self, client: _Client) -> None:
        """Forget a client."""
        self._clients.discard(client)


class _EndError(Exception):
    """End of a connection."""


class _Client:
    """Connection of one client; all of it is done by one thread."""

    def __init__(
        self,
        server: SeedLinkServer,
        connection: socket.socket,
        name: str,
        tls: ssl.SSLContext | None,
    ) -> None:
        self._server = server
        self._socket = connection
        self._name = name
        self._tls = tls
        self._version = 3 if 3 in server.versions else 4
        self._input = bytearray()
        self._subscriptions: list[_Subscription] = []
        self._station: _Subscription | None = None
        self._batch = False
        self._multi = False
        self._streams = False
        self._dialup = False
        self._sent = 0
        self._at = 0
        self._by_code: dict[Code, _Subscription | None] = {}
        self.thread = threading.Thread(target=self._work, name=f"seedlink {name}", daemon=True)

    def cut(self) -> None:
        """Cut the connection from another thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _work(self) -> None:
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                self._socket.settimeout(10)
                self._socket = self._tls.wrap_socket(self._socket, server_side=True)
            self._socket.settimeout(60)
            while not self._server.closed:
                self._take_commands(0 if self._streams else 1.0)
                if self._streams:
                    self._send_packets()
        except (_EndError, OSError, ValueError) as error:
            _LOG.debug("%s: %s", self._name, error)
        finally:
            with suppress(OSError):
                self._socket.close()
            self._server.leave(self)

    def _take_commands(self, timeout_s: float) -> None:
        pending = isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()
        if not pending and not select.select([self._socket], [], [], timeout_s)[0]:
            return
        try:
            data = self._socket.recv(65536)
        except ssl.SSLWantReadError:
            return
        if not data:
            raise _EndError("the client has gone")
        self._input += data
        while (found := re.search(rb"[\r\n]+", self._input)) is not None:
            line = bytes(self._input[: found.start()]).decode("ascii", "replace").strip()
            del self._input[: found.end()]
            if line:
                self._command(line)
        if len(self._input) > _MOST_LINE:
            raise _EndError("a command without an end")

    def _command(self, line: str) -> None:
        name, *values = line.split()
        handler = getattr(self, f"_do_{name.lower()}", None) if name.isalpha() else None
        if handler is None:
            self._refuse("UNSUPPORTED", f"no command {name[:20]}")
            return
        handler(values)

    def _accept(self) -> None:
        if not self._batch:
            self._send(b"OK\r\n")

    def _refuse(self, code: str, reason: str) -> None:
        if not self._batch:
            text = f"ERROR {code} {reason}" if self._version == 4 else "ERROR"
            self._send(f"{text}\r\n".encode())

    def _do_hello(self, _: list[str]) -> None:
        self._send(f"{self._server.hello}\r\nEQCCTPro rehearsal\r\n".encode())

    def _do_slproto(self, values: list[str]) -> None:
        major = values[0].partition(".")[0] if values else ""
        if not major.isdigit() or int(major) not in self._server.versions:
            self._refuse("UNSUPPORTED", "no such version")
            return
        self._version = int(major)
        self._accept()

    def _do_useragent(self, _: list[str]) -> None:
        self._accept()

    _do_capabilities = _do_useragent
    _do_auth = _do_useragent

    def _do_batch(self, _: list[str]) -> None:
        self._accept()
        self._batch = True

    def _do_bye(self, _: list[str]) -> None:
        raise _EndError("BYE")

    def _do_station(self, values: list[str]) -> None:
        if self._version == 4:
            network, mark, station = (values or [""])[0].partition("_")
            if network == "*" and not mark:
                station = "*"
        else:
            station, network = [*values, "*"][:2] if values else ("", "")
        if not station or not network or len(self._subscriptions) >= _MOST_STATIONS:
            self._refuse("ARGUMENTS", "no station")
            return
        self._station = _Subscription(network, station)
        self._subscriptions.append(self._station)
        self._multi = True
        self._accept()

    def _do_select(self, values: list[str]) -> None:
        if not values:
            self._refuse("ARGUMENTS", "no selector")
            return
        station = self._chosen_station()
        if station is None:
            return
        for value in values:
            plain = value.partition(".")[0].partition(":")[0]
            station.selectors.append(selector_v4(plain))
        self._accept()

    def _chosen_station(self) -> _Subscription | None:
        """The station that commands are about: all in version 3, none in 4, if none is named."""
        if self._station is None:
            if self._version == 4:
                self._refuse("UNEXPECTED", "STATION comes first")
                return None
            self._station = _Subscription("*", "*")
            self._subscriptions.append(self._station)
        return self._station

    def _do_data(self, values: list[str], *, dialup: bool = False) -> None:
        station = self._chosen_station()
        if station is None:
            return
        try:
            self._set_start(station, values)
        except ValueError as error:
            self._refuse("ARGUMENTS", str(error))
            return
        self._dialup |= dialup
        if not self._multi:
            self._begin()  # version 3 without STATION: all stations, and no answer
        else:
            self._accept()

    def _do_fetch(self, values: list[str]) -> None:
        self._do_data(values, dialup=True)

    def _do_time(self, values: list[str]) -> None:
        self._do_data(["ALL", *values])

    def _set_start(self, station: _Subscription, values: list[str]) -> None:
        station.given = True
        if not values:
            return
        with self._server.changed:
            if values[0].upper() == "ALL" or values[0] == "-1":
                station.first = self._server.base
            elif self._version == 4:
                station.first = self._server.index_of(int(values[0]), 64)
            else:
                station.first = self._server.index_of(int(values[0], 16), 24)
        if self._version == 4 or values[0].upper() == "ALL":
            if len(values) > 1:
                station.start_ns = _time_of(values[1])
            if len(values) > 2:
                station.end_ns = _time_of(values[2])

    def _do_end(self, _: list[str]) -> None:
        if not self._subscriptions:
            self._refuse("UNEXPECTED", "no station was asked for")
            return
        self._begin()

    def _do_endfetch(self, values: list[str]) -> None:
        self._dialup = True
        self._do_end(values)

    def _begin(self) -> None:
        server = self._server
        with server.changed:
            end = server.base + len(server.items)
        for one in self._subscriptions:
            one.first = end if one.first < 0 else one.first
        # A station is served by what names it, before patterns.
        self._subscriptions.sort(key=lambda one: "*" in one.network + one.station)
        self._at = min(one.first for one in self._subscriptions)
        self._streams = True
        server.first_client.set()

    def _send_packets(self) -> None:
        server = self._server
        with server.changed:
            if self._at < server.base:
                server.dropped += server.base - self._at
                self._at = server.base
            at = self._at - server.base
            items = server.items[at : at + _AT_ONCE]
            if not items:
                if server.finished or self._dialup:
                    self._send(b"END")
                    raise _EndError("all was sent")
                server.changed.wait(_IDLE_S)
                return
        frames: list[bytes] = []
        for item in items:
            self._at += 1
            wanted = self._subscription(item.code)
            if (
                wanted is None
                or self._at <= wanted.first
                or (wanted.start_ns is not None and item.end_ns < wanted.start_ns)
                or (wanted.end_ns is not None and item.end_ns > wanted.end_ns)
            ):
                continue
            station = f"{item.code[0]}_{item.code[1]}".encode()
            frames.append(server.faults.frames(self._version, item.sequence, station, item.record))
            self._sent += 1
            server.sent += 1
            silence_s = server.faults.silence_s(self._sent)
            if server.faults.disconnect_after and self._sent >= server.faults.disconnect_after:
                self._send(b"".join(frames)[: -len(frames[-1]) // 2 or None])
                raise _EndError("cut on request")
            if silence_s:
                self._send(b"".join(frames))
                frames.clear()
                self._rest(silence_s)
        if frames:
            self._send(b"".join(frames))

    def _rest(self, seconds: float) -> None:
        """Send nothing but answers."""
        ends_at = time.monotonic() + seconds
        while (left := ends_at - time.monotonic()) > 0 and not self._server.closed:
            self._take_commands(min(left, 0.2))

    def _subscription(self, code: Code) -> _Subscription | None:
        try:
            return self._by_code[code]
        except KeyError:
            found = next((one for one in self._subscriptions if one.takes(code)), None)
            self._by_code[code] = found
            return found

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _do_info(self, values: list[str]) -> None:
        level = (values or [""])[0].upper()
        if self._version == 4:
            content, fails = self._info_json(level)
            text = json.dumps(content).encode()
            kind = b"E" if fails else b"I"
            self._send(b"SEJ%b%b%b\0%b" % (kind, len(text).to_bytes(4, "little"), bytes(8), text))
            return
        text = self._info_xml(level).encode()
        room = _INFO_BYTES - _INFO_TEXT_AT
        parts = [text[at : at + room] for at in range(0, len(text), room)]
        for number, part in enumerate(parts, 1):
            mark = b"*" if number < len(parts) else b" "
            self._send(b"SLINFO %b%b" % (mark, _info_record(number, part)))

    def _info_json(self, level: str) -> tuple[dict[str, Any], bool]:
        content: dict[str, Any] = {
            "software": self._server.hello.partition(" :: ")[0],
            "organization": "EQCCTPro rehearsal",
        }
        if level in ("STATIONS", "STREAMS"):
            content["station"] = [
                {
                    "id": name,
                    "description": "",
                    "start_seq": min(first.sequence for first, _ in channels.values()),
                    "end_seq": max(last.sequence for _, last in channels.values()) + 1,
                    **({"stream": _streams(channels)} if level == "STREAMS" else {}),
                }
                for name, channels in sorted(self._server.stations().items())
            ]
        elif level == "FORMATS":
            content["format"] = {
                "2": {"mimetype": "application/vnd.fdsn.mseed", "subformat": {"D": "data"}},
                "3": {"mimetype": "application/vnd.fdsn.mseed", "subformat": {"D": "data"}},
            }
            content["filter"] = {}
        elif level == "CAPABILITIES":
            content["capability"] = self._server.hello.partition(" :: ")[2].split()
        elif level != "ID":
            content["error"] = {"code": "ARGUMENTS", "message": "no such level"}
            return content, True
        return content, False

    def _info_xml(self, level: str) -> str:
        software = quoteattr(self._server.hello.partition(" :: ")[0])
        head = f'<?xml version="1.0"?><seedlink software={software} organization="EQCCTPro"'
        if level not in ("ID", "CAPABILITIES", "STATIONS", "STREAMS"):
            return f"{head}><error/></seedlink>"
        if level == "ID":
            return f"{head}/>"
        if level == "CAPABILITIES":
            names = ["dialup", "multistation", "window-extraction", "info:id"]
            names += ["info:capabilities", "info:stations", "info:streams"]
            body = "".join(f'<capability name="{name}"/>' for name in names)
            return f"{head}>{body}</seedlink>"
        body = ""
        for name, channels in sorted(self._server.stations().items()):
            network, _, station = name.partition("_")
            first = min(first.sequence for first, _ in channels.values()) & 0xFFFFFF
            following = max(last.sequence for _, last in channels.values()) + 1 & 0xFFFFFF
            streams = ""
            if level == "STREAMS":
                streams = "".join(
                    f"<stream location={quoteattr(code[2])} seedname={quoteattr(code[3])} "
                    f'type="D" begin_time="{format_utc(ends[0].end_ns)}" '
                    f'end_time="{format_utc(ends[1].end_ns)}"/>'
                    for code, ends in sorted(channels.items())
                )
            body += (
                f"<station name={quoteattr(station)} network={quoteattr(network)} "
                f'description="" begin_seq="{first:06X}" end_seq="{following:06X}" '
                f'stream_check="enabled">{streams}</station>'
            )
        return f"{head}>{body}</seedlink>"


def _streams(channels: dict[Code, list[_Item]]) -> list[dict[str, str]]:
    return [
        {
            "id": f"{code[2]}_{'_'.join(code[3]) if len(code[3]) == 3 else code[3]}",
            "format": "3" if last.record[:2] == b"MS" else "2",
            "subformat": "D",
            "start_time": format_utc(first.end_ns),
            "end_time": format_utc(last.end_ns),
        }
        for code, (first, last) in sorted(channels.items())
    ]


def _time_of(text: str) -> int:
    """Time of version 3 (``2024,2,3,5,14,28``) or 4 (ISO 8601)."""
    if "," not in text:
        return parse_utc(text)
    parts = [int(part) for part in text.split(",")]
    year, month, day, hour, minute, second = [*parts, 0, 0, 0][:6]
    return parse_utc(f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}")


def _info_record(number: int, text: bytes) -> bytes:
    header = _INFO_HEADER.pack(
        b"%06d" % number,
        b"D",
        b" ",
        b"INFO ",
        b"  ",
        b"INF",
        b"SL",
        *(2000, 1, 0, 0, 0, 0),
        len(text),
        *(0, 0),
        *(0, 0, 0, 1),
        0,
        *(_INFO_TEXT_AT, 48),
        *(1000, 0),
        *(0, 1, 9),
    )
    return header.ljust(_INFO_TEXT_AT, b"\0") + text.ljust(_INFO_BYTES - _INFO_TEXT_AT, b"\0")
