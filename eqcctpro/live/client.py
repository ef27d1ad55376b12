"""Client of a SeedLink server that reconnects and goes on where it was."""

from __future__ import annotations

import logging
import random
import select
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from pymseed import MiniSEEDError, MS3Record

from eqcctpro.errors import SettingsError
from eqcctpro.live.commands import Hello, StationRange, read_stations, requests
from eqcctpro.live.frames import MOST_INFO_BYTES, FrameReader, NoSeedLinkError
from eqcctpro.live.packets import Checkpoint, Packet, PacketCounts, Position, StationChoice
from eqcctpro.live.queue import PacketQueue

__all__ = ["SeedLinkSource", "ServerAddress", "Timing"]

_LOG = logging.getLogger(__name__)

_PORT, _TLS_PORT = 18000, 18500
_RECEIVE_BYTES = 2**18
_MOST_LINE = 8192
# Commands whose answers may be under way: more could fill the buffers of both sides.
_AT_ONCE = 128
# Repeated packets are known among at least so many of the last ones.
_REMEMBERED = 2**17


class ServerAddress(NamedTuple):
    """Address of a SeedLink server.

    Attributes
    ----------
    host : str
    port : int
    tls : bool
    user, password : str
        For AUTH of version 4; empty if there is none.
    """

    host: str
    port: int
    tls: bool = False
    user: str = ""
    password: str = ""

    @classmethod
    def parse(cls, url: str) -> ServerAddress:
        """Address in ``seedlink://HOST:PORT`` or, with TLS, ``seedlinks://USER:PASSWORD@HOST``.

        Raises
        ------
        SettingsError
            It is none.
        """
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise _no_address(url) from error
        scheme = parts.scheme
        if (
            scheme not in ("seedlink", "seedlinks")
            or not parts.hostname
            or parts.path.strip("/")
            or port == 0
        ):
            raise _no_address(url)
        tls = scheme == "seedlinks"
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if any(letter.isspace() for letter in user + password):
            raise SettingsError("a user or password of SeedLink cannot hold a blank")
        return cls(parts.hostname, port or (_TLS_PORT if tls else _PORT), tls, user, password)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"seedlink{'s' * self.tls}://{host}:{self.port}"


def _no_address(url: str) -> SettingsError:
    shown = url.rpartition("@")[2]  # without a password
    return SettingsError(
        f"{shown!r} is no address of a SeedLink server",
        hint="seedlink://HOST:18000, or seedlinks://HOST:18500 for TLS",
    )


class Timing(NamedTuple):
    """Times of a connection, seconds.

    Attributes
    ----------
    connect_s : float
        For a connection, and for each answer to a command.
    keepalive_s : float
        Without data after which the server is asked whether it is still there, and what it has.
    silence_s : float
        Without a byte after which a connection is given up.
    first_delay_s, last_delay_s : float
        Between two connections: doubled after each failure, with a random part.
    """

    connect_s: float = 20.0
    keepalive_s: float = 30.0
    silence_s: float = 90.0
    first_delay_s: float = 1.0
    last_delay_s: float = 30.0


class SeedLinkSource:
    """Packets of a SeedLink server, by a thread that connects again whenever it must.

    Parameters
    ----------
    url : str
        See `ServerAddress`.
    choice : StationChoice, optional
        Of stations; all by default.
    selectors : sequence of str
        Of channels, such as ``HH?``; all by default.
    checkpoint : Checkpoint, optional
        From which to resume; without one the stream begins with the next packets.
    start_ns : int, optional
        From when on to ask for data of stations that the checkpoint does not know.
    version : int, optional
        3 or 4; the highest that the server has by default.
    queue_bytes : int
        Of records that wait for `read`; the server is read no further when it is full.
    timing : Timing
    tls : ssl.SSLContext, optional
        By default the server's certificate is checked against the system's authorities.

    Attributes
    ----------
    counts : PacketCounts
    state : str
        ``connecting``, ``streaming``, ``waiting`` after a failure, or ``ended``.
    last_error : str
        Why the last connection failed.
    """

    def __init__(
        self,
        url: str,
        choice: StationChoice | None = None,
        selectors: Sequence[str] = (),
        checkpoint: Checkpoint | None = None,
        *,
        start_ns: int | None = None,
        version: int | None = None,
        queue_bytes: int = 64 * 2**20,
        timing: Timing | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        if version not in (None, 3, 4):
            raise SettingsError(f"there is no version {version} of SeedLink", hint="3 or 4")
        self.address = ServerAddress.parse(url)
        self.counts = PacketCounts()
        self.state = "connecting"
        self.last_error = ""
        self._choice = choice or StationChoice()
        self._selectors = tuple(selectors)
        self._start_ns = start_ns
        self._version = version
        self._timing = timing or Timing()
        self._tls = tls
        self._queue = PacketQueue(queue_bytes)
        # Where to resume: behind what has been received, and behind what has been read.
        self._resume = dict(checkpoint.positions) if checkpoint is not None else {}
        self._protocol = checkpoint.protocol if checkpoint is not None else 0
        self._received: dict[str, Packet] = {}
        self._read: dict[str, Packet] = {}
        self._done = dict(self._resume)
        self._done_protocol = self._protocol
        self._wanted: dict[tuple[str, str, str, str], str | None] = {}
        self._recent: set[int] = set()
        self._earlier: set[int] = set()
        self._by_time = False
        self._refused: set[str] = set()
        self._closing = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._work, name=f"seedlink {self.address.host}")
        self._thread.daemon = True
        self._thread.start()

    @property
    def ended(self) -> bool:
        """True once it was closed and all packets were read."""
        return self._queue.closed

    def read(self, timeout_s: float) -> list[Packet]:
        """All packets that have come; see `Source`."""
        batch = self._queue.take(timeout_s)
        if batch:
            self.counts.packets += len(batch)
            self._done_protocol = self._protocol
            read, wanted = self._read, self._wanted
            for packet in batch:
                station = wanted[packet.code]
                if station is not None:
                    read[station] = packet
        return batch

    def checkpoint(self) -> Checkpoint:
        """Position behind the last packet of each station that `read` returned."""
        for station, packet in self._read.items():
            with suppress(MiniSEEDError, ValueError):  # its time cannot be read
                self._done[station] = Position.of(packet)
        self._read.clear()
        return Checkpoint(self._done_protocol, dict(self._done))

    def close(self) -> None:
        """End the connection and the thread; what has come can still be read."""
        self._closing.set()
        self._queue.close()
        with suppress(OSError, AttributeError):
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        if self._thread is not threading.current_thread():
            self._thread.join(self._timing.connect_s)

    def _work(self) -> None:
        delay_s = self._timing.first_delay_s
        while not self._closing.is_set():
            before = self.counts.connections
            try:
                self.state = "connecting"
                with _Connection(self.address, self._timing, self._tls) as connection:
                    self._socket = connection.socket
                    refused = len(self._refused)
                    self._stream(connection)
                    reason = "the server ended the connection"
                if len(self._refused) > refused:
                    continue
            except (OSError, NoSeedLinkError, _RefusedError) as error:
                reason = str(error) or type(error).__name__
            except Exception as error:  # of a server that nobody foresaw
                _LOG.exception("%s: unexpected", self.address)
                reason = f"{type(error).__name__}: {error}"
            if self._closing.is_set():
                break
            if self.counts.connections > before:
                delay_s = self._timing.first_delay_s
            self.counts.failures += 1
            self.last_error, self.state = reason, "waiting"
            wait_s = delay_s * random.uniform(0.5, 1.0)
            _LOG.warning("%s: %s; connecting again in %.1f s", self.address, reason, wait_s)
            self._closing.wait(wait_s)
            delay_s = min(2 * delay_s, self._timing.last_delay_s)
        self.state = "ended"
        self._queue.close()

    def _stream(self, connection: _Connection) -> None:
        hello = connection.hello()
        version = self._version or (4 if hello.speaks_v4 else 3)
        connection.begin(version, hello)
        held: dict[str, StationRange] = {}
        checkpoint = self._position(version)
        if checkpoint.positions or version == 3:
            held = connection.stations(version, hello)
        if self._by_time:
            held, self._by_time = {}, False
            checkpoint = Checkpoint(0, checkpoint.positions)
        lines = requests(
            version,
            self._choice.stations,
            self._selectors,
            checkpoint,
            held,
            hello,
            self._start_ns,
        )
        lines = _without(lines, self._refused)
        if not lines:
            self._refused.clear()
            raise _RefusedError(f"no station was accepted: {self.last_error}")
        rejected = connection.negotiate(lines)
        for line, answer in rejected[:10]:
            _LOG.warning("%s refuses %r: %s", self.address, line, answer)
        stations = [line for line, _ in rejected if line.startswith("STATION")]
        self.counts.rejected += len(stations or rejected)
        if stations:
            # What was said behind a station that was refused was taken for the one before it.
            self._refused.update(stations)
            self.last_error = rejected[0][1] or "ERROR"
            return
        self._protocol = version
        self._receive(connection, version, hello)

    def _position(self, version: int) -> Checkpoint:
        """Position behind what has been received."""
        for station, packet in self._received.items():
            with suppress(MiniSEEDError, ValueError):
                self._resume[station] = Position.of(packet)
        self._received.clear()
        return Checkpoint(self._protocol or version, dict(self._resume))

    def _receive(self, connection: _Connection, version: int, hello: Hello) -> None:
        reader = FrameReader(version, self.counts)
        timing = self._timing
        began = False
        now = time.monotonic()
        byte_at = data_at = asked_at = now
        behind_before = False
        info = bytearray()
        self.state = "streaming"
        packets = reader.feed(connection.rest(), time.time())
        while not self._closing.is_set():
            if packets:
                data_at = asked_at = now
                if not began:
                    began = True
                    self.counts.connections += 1
                kept = self._new_ones(packets)
                if kept and not self._queue.put(kept):
                    return
            for part in reader.infos:
                info += part.content if version == 4 else _text_of(part.content)
                if len(info) > MOST_INFO_BYTES:
                    raise NoSeedLinkError("an answer to INFO is longer than 64 MB")
                if part.ends:
                    behind = self._is_behind(version, bytes(info), hello) and data_at < asked_at
                    if behind and behind_before:
                        self.counts.stalls += 1
                        self._by_time = True
                        raise NoSeedLinkError("the server has newer data and sends none")
                    behind_before = behind
                    info.clear()
            reader.infos.clear()
            if reader.error:
                raise _RefusedError(f"the server says: {reader.error}")
            if reader.ended:
                return
            data = connection.receive(min(timing.keepalive_s, timing.silence_s) / 4)
            now = time.monotonic()
            if data is None:
                packets = []
                if now - byte_at > timing.silence_s:
                    self.counts.stalls += 1
                    raise NoSeedLinkError(f"no byte came for {timing.silence_s:.0f} s")
            elif not data:
                return
            else:
                byte_at = now
                packets = reader.feed(data, time.time())
            if now - asked_at > timing.keepalive_s:
                asked_at = now
                connection.send("INFO STATIONS")

    def _is_behind(self, version: int, answer: bytes, hello: Hello) -> bool:
        """True if the server holds packets behind the last one of a station that came."""
        try:
            held = read_stations(version, answer, hello.one_numbering)
        except ValueError:
            return False
        known = self._position(version).positions
        return any(
            name in held and 0 < (held[name].last - place.sequence) % (1 << 64) < 1 << 23
            for name, place in known.items()
        )

    def _new_ones(self, packets: list[Packet]) -> list[Packet]:
        """Packets that are wanted and were not received before."""
        wanted, received, recent, earlier = (
            self._wanted,
            self._received,
            self._recent,
            self._earlier,
        )
        kept: list[Packet] = []
        for packet in packets:
            code, sequence, record, _ = packet
            try:
                station = wanted[code]
            except KeyError:
                station = self._learn(code)
            if station is None:
                self.counts.excluded += 1
                continue
            key = hash((sequence, record))
            if key in recent or key in earlier:
                self.counts.duplicates += 1
                continue
            recent.add(key)
            last = received.get(station)
            if last is not None and sequence <= last.sequence and self._went_back(sequence, last):
                self.counts.sequence_resets += 1
            received[station] = packet
            kept.append(packet)
        if len(recent) > _REMEMBERED:
            self._earlier, self._recent = recent, set()
        return kept

    def _went_back(self, sequence: int, last: Packet) -> bool:
        """True unless the numbers of version 3 have turned over."""
        return self._protocol == 4 or (sequence - last.sequence) % (1 << 24) > 1 << 23

    def _learn(self, code: tuple[str, str, str, str]) -> str | None:
        """Name of the station of a channel, or None if it is not wanted."""
        if len(self._wanted) >= _MOST_CHANNELS:
            raise NoSeedLinkError(f"the server sends more than {_MOST_CHANNELS} channels")
        station = f"{code[0]}_{code[1]}" if self._choice.takes(code) else None
        self._wanted[code] = station
        return station


# A server that invents codes would fill the memory.
_MOST_CHANNELS = 1_000_000


def _without(lines: Sequence[str], refused: set[str]) -> list[str]:
    """Commands without those of stations that were refused."""
    kept: list[str] = []
    keeps = True
    for line in lines:
        if line.startswith("STATION"):
            keeps = line not in refused
        if keeps:
            kept.append(line)
    return kept


class _RefusedError(Exception):
    """The server refused what was asked for."""


def _text_of(record: bytes) -> bytes:
    """Text in the record of a part of an answer to INFO of version 3."""
    try:
        return bytes(MS3Record.parse(record, unpack_data=True).datasamples)
    except (MiniSEEDError, ValueError, BufferError):
        return b""


class _Connection:
    """Connection to a server, with answers to commands."""

    def __init__(
        self, address: ServerAddress, timing: Timing, context: ssl.SSLContext | None
    ) -> None:
        self._address = address
        self._timing = timing
        self._buffer = bytearray()
        plain = socket.create_connection((address.host, address.port), timing.connect_s)
        try:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if address.tls:
                context = context or ssl.create_default_context()
                self.socket: socket.socket = context.wrap_socket(
                    plain, server_hostname=address.host
                )
            else:
                self.socket = plain
        except BaseException:
            plain.close()
            raise
        self._chunk = bytearray(_RECEIVE_BYTES)

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self.socket.settimeout(1.0)
            self.socket.sendall(b"BYE\r\n")
        self.socket.close()

    def hello(self) -> Hello:
        """Greet the server."""
        self.send("HELLO")
        return Hello(self._line(), self._line())

    def begin(self, version: int, hello: Hello) -> None:
        """Agree on a version, and say who asks."""
        if version == 4:
            self._require("SLPROTO 4.0")
            self.send("USERAGENT eqcctpro")
            self._line()
            if self._address.user:
                self._require(f"AUTH USERPASS {self._address.user} {self._address.password}")
        elif "SLPROTO:3" in hello.software or "CAP" in hello.software:
            self.send("CAPABILITIES EXTREPLY")
            self._line()

    def _require(self, command: str) -> None:
        self.send(command)
        answer = self._line()
        if not answer.startswith("OK"):
            raise _RefusedError(f"{' '.join(command.split()[:2])}: {answer}")

    def stations(self, version: int, hello: Hello) -> dict[str, StationRange]:
        """Contents of the server by station, or nothing if it does not say."""
        self.send("INFO STATIONS")
        reader = FrameReader(version, PacketCounts())
        reader.feed(self.rest(), 0.0)
        content = bytearray()
        ends_at = time.monotonic() + 3 * self._timing.connect_s
        while time.monotonic() < ends_at:
            for part in reader.infos:
                content += part.content if version == 4 else _text_of(part.content)
                if part.ends:
                    try:
                        return read_stations(version, bytes(content), hello.one_numbering)
                    except ValueError:
                        return {}
            reader.infos.clear()
            if reader.ended or reader.error or len(content) > MOST_INFO_BYTES:
                return {}
            data = self.receive(1.0)
            if data is not None:
                if not data:
                    raise ConnectionError("the server ended the connection")
                reader.feed(data, 0.0)
        raise TimeoutError("no answer to INFO STATIONS")

    def negotiate(self, lines: Sequence[str]) -> list[tuple[str, str]]:
        """Send commands, many before their answers, and END; return what was refused."""
        refused: list[tuple[str, str]] = []
        for at in range(0, len(lines), _AT_ONCE):
            part = lines[at : at + _AT_ONCE]
            self.socket.sendall("".join(f"{line}\r\n" for line in part).encode("ascii"))
            for line in part:
                answer = self._line()
                if not answer.startswith("OK"):
                    refused.append((line, answer))
        self.send("END")
        return refused

    def send(self, command: str) -> None:
        """Send a command."""
        self.socket.settimeout(self._timing.connect_s)
        self.socket.sendall(f"{command}\r\n".encode("ascii"))

    def rest(self) -> bytes:
        """Bytes that came behind the last answer."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def receive(self, timeout_s: float) -> memoryview | None:
        """Bytes that have come, empty at the end of the connection; None after `timeout_s`."""
        pending = isinstance(self.socket, ssl.SSLSocket) and self.socket.pending()
        if not pending and not select.select([self.socket], [], [], timeout_s)[0]:
            return None
        try:
            count = self.socket.recv_into(self._chunk)
        except (ssl.SSLWantReadError, TimeoutError):
            return None
        return memoryview(self._chunk)[:count]

    def _line(self) -> str:
        """Next line of an answer."""
        ends_at = time.monotonic() + self._timing.connect_s
        while (stop := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > _MOST_LINE:
                raise NoSeedLinkError("an answer has no end")
            data = self.receive(max(ends_at - time.monotonic(), 0))
            if data is None:
                raise TimeoutError(f"no answer in {self._timing.connect_s:g} s")
            if not data:
                raise ConnectionError("the server ended the connection")
            self._buffer += data
        line = bytes(self._buffer[:stop]).decode("utf-8", "replace").strip()
        del self._buffer[: stop + 1]
        return line
