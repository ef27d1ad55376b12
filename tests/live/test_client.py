"""The client of SeedLink servers: each record once, whatever happens."""

from __future__ import annotations

import datetime
import ipaddress
import random
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from quick_timing import QUICK

from eqcctpro.errors import SettingsError
from eqcctpro.live.client import SeedLinkSource, ServerAddress, Timing
from eqcctpro.live.commands import Hello, StationRange, requests
from eqcctpro.live.faults import FAULTS, Faults
from eqcctpro.live.frames import FrameReader, NoSeedLinkError, frame_v3, frame_v4
from eqcctpro.live.packets import Checkpoint, Packet, PacketCounts, Position, StationChoice
from eqcctpro.live.rehearse import Rehearsal, rehearse
from eqcctpro.live.replay import Archive, CompletedRecord
from eqcctpro.live.server import SeedLinkServer

Serve = Callable[..., SeedLinkServer]
Connect = Callable[..., SeedLinkSource]


def until(source: SeedLinkSource, count: int, limit_s: float = 15.0) -> list[Packet]:
    """Read until so many packets have come, and a moment longer."""
    packets: list[Packet] = []
    ends_at = time.monotonic() + limit_s
    while len(packets) < count and time.monotonic() < ends_at:
        packets += source.read(0.2)
    return packets + source.read(0.05)


def in_background(*arguments: object) -> threading.Thread:
    """Rehearse in a thread."""
    thread = threading.Thread(target=rehearse, args=arguments, daemon=True)
    thread.start()
    return thread


def by_channel(found: Iterable[Packet] | Iterable[CompletedRecord]) -> dict[object, list[bytes]]:
    """Records of each channel in their order."""
    channels: dict[object, list[bytes]] = {}
    for one in found:
        channels.setdefault(one.code, []).append(one.record)
    return channels


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize(
    "fault",
    [
        "damage:0.05",
        "length:0.05",
        "duplicate:0.2",
        "flood:300",
        "disconnect:100",
        "silence:0.2",
        "reset:200",
        "gap:0.05",
        "disorder:0.1",
        "delay:5",
        "disconnect:70,duplicate:0.1,damage:0.03,disorder:0.05,gap:0.02",
    ],
)
def test_each_record_comes_once(
    fault: str, version: int, archive: Archive, serve: Serve, connect: Connect
) -> None:
    faults = Faults(fault.split(","), 5)
    server = serve(*fault.split(","), seed=5)
    source = connect(server, version=version)
    thread = in_background(archive, server, Rehearsal(speed=0), faults)
    thread.join(10)
    sent = list(server.items)
    # Those that are always sent damaged, which nobody can receive.
    lost = [one for one in sent if faults.damages(one.sequence)]
    if version == 3:  # without a length, a record that is cut short is a damaged one
        lost += [one for one in sent if faults.cuts(one.sequence)]
    expected = Counter(one.record for one in sent)
    expected.subtract(one.record for one in lost)
    packets = until(source, expected.total())
    found = Counter(packet.record for packet in packets)
    assert not found - expected
    assert not expected - found
    whole = [one for one in sent if found[one.record]]
    assert by_channel(packets) == by_channel(whole)
    counts = source.counts
    assert counts.packets == len(packets)
    assert counts.damaged >= (bool(lost) and 1)
    for name, number in (
        ("duplicate", counts.duplicates),
        ("flood", counts.duplicates),
        ("disconnect", counts.failures),
        ("reset", counts.sequence_resets),
    ):
        assert number > 0 or name not in fault
    assert set(FAULTS) >= {one.partition(":")[0] for one in fault.split(",")}


@pytest.mark.parametrize("version", [3, 4])
@pytest.mark.parametrize("software", ["", "SeedLink v4.0 (RingServer/4.5.3)"])
def test_a_checkpoint_resumes_exactly(
    software: str, version: int, archive: Archive, serve: Serve, connect: Connect
) -> None:
    records = list(archive)
    server = serve(software=software)
    server.publish(records[:100])
    server.publish(records[100:250])
    source = connect(server, version=version, start_ns=0)
    first = until(source, 250)
    assert len(first) == 250
    kept = Checkpoint.from_json(source.checkpoint().as_json())
    source.close()
    assert kept.protocol == version and len(kept.positions) == 6
    server.publish(records[250:])
    again = connect(server, version=version, checkpoint=kept)
    rest = until(again, len(records) - 250)
    # The last packets of each station are asked for again, as they show that it is the same server.
    known = {packet.record for packet in first}
    new = [packet for packet in rest if packet.record not in known]
    assert [one.record for one in new] == [one.record for one in records[250:]]
    assert len(rest) - len(new) <= (6 if not software else 250)


@pytest.mark.slow
def test_kills_of_the_client_lose_and_repeat_nothing(
    archive: Archive, serve: Serve, connect: Connect
) -> None:
    server = serve("disconnect:60", seed=2)
    thread = in_background(archive, server, Rehearsal(speed=150, wait=False))
    drawn, kept, packets = random.Random(4), Checkpoint(), []
    for _ in range(6):
        source = connect(server, checkpoint=kept, start_ns=0)
        ends_at = time.monotonic() + drawn.uniform(0.05, 0.2)
        while time.monotonic() < ends_at:
            packets += source.read(0.02)
        kept = source.checkpoint()
        source.close()  # what was received and not read is asked for again
    thread.join(10)
    source = connect(server, checkpoint=kept, start_ns=0)
    records = {one.record for one in archive}
    ends_at = time.monotonic() + 10
    while {one.record for one in packets} != records and time.monotonic() < ends_at:
        packets += source.read(0.1)
    by_number = {packet.sequence: packet.record for packet in packets}
    assert len(by_number) == len(records) and set(by_number.values()) == records


def test_a_server_that_lost_its_numbers_is_asked_by_time(
    archive: Archive, serve: Serve, connect: Connect
) -> None:
    records = list(archive)
    first = serve()
    first.publish(records[:300])
    source = connect(first, start_ns=0)
    packets = until(source, 300)
    port = first.port
    first.publish(records[300:310])
    packets += until(source, 10)
    first.close()
    second = serve(port=port)
    second.publish(records[200:400])  # under numbers from 1
    packets += until(source, 90)
    found = {packet.record for packet in packets}
    assert found == {one.record for one in records[:400]}
    assert source.counts.failures > 0


@pytest.mark.slow
def test_a_server_that_sends_nothing_is_noticed(
    archive: Archive, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = list(archive)
    server = serve()
    server.publish(records[:100])
    source = connect(server, start_ns=0)
    assert len(until(source, 100)) == 100
    # As a server whose ring was passed over: it has newer packets and sends none of them.
    monkeypatch.setattr("eqcctpro.live.server._AT_ONCE", 0)
    server.publish(records[100:200])
    ends_at = time.monotonic() + 10
    while not source.counts.stalls and time.monotonic() < ends_at:
        time.sleep(0.05)
    monkeypatch.undo()
    assert source.counts.stalls == 1
    assert {one.record for one in until(source, 100)} >= {one.record for one in records[100:200]}


def test_what_is_not_read_stays_with_the_server(
    archive: Archive, serve: Serve, connect: Connect
) -> None:
    records = [one for _ in range(12) for one in archive]
    server = serve(history_bytes=2**30)
    source = connect(server, start_ns=0, queue_bytes=100_000)
    for at in range(0, len(records), 1000):
        server.publish(records[at : at + 1000])
    time.sleep(0.5)
    batch = source.read(1.0)
    # What was received at once may be more.
    assert 0 < sum(len(packet.record) for packet in batch) <= 100_000 + 2**18
    packets = batch + until(source, len(records) - len(batch))
    assert [packet.sequence for packet in packets] == list(range(1, len(records) + 1))


def test_stations_are_left_out(archive: Archive, serve: Serve, connect: Connect) -> None:
    server = serve()
    server.publish(list(archive))
    choice = StationChoice(("TX.PB0[0-3]", "TX.PB05.*.HHZ"), ("TX.PB01",))
    for version in (3, 4):
        source = connect(server, choice, version=version, start_ns=0)
        expected = [one.record for one in archive if choice.takes(one.code)]
        packets = until(source, len(expected))
        assert sorted(one.record for one in packets) == sorted(expected)
        assert {one.code[1] for one in packets} == {"PB00", "PB02", "PB03", "PB05"}


def test_a_connection_is_encrypted(archive: Archive, serve: Serve, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = serve(tls=context)
    server.publish(list(archive))
    url = f"seedlinks://127.0.0.1:{server.port}"
    refusing = SeedLinkSource(url, start_ns=0, timing=QUICK)
    trusting = ssl.create_default_context(cafile=str(certificate))
    source = SeedLinkSource(url, start_ns=0, timing=QUICK, tls=trusting)
    try:
        count = len(list(archive))
        assert len(until(source, count)) == count
        ends_at = time.monotonic() + 10
        while not refusing.last_error and time.monotonic() < ends_at:
            assert not refusing.read(0.1)
        assert "CERTIFICATE_VERIFY_FAILED" in refusing.last_error
    finally:
        source.close()
        refusing.close()


def self_signed(folder: Path) -> Path:
    """A certificate of 127.0.0.1 with its key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / "certificate.pem"
    path.write_bytes(private + built.public_bytes(pem))
    return path


@pytest.mark.parametrize("version", [3, 4])
def test_damage_never_spreads(version: int, archive: Archive) -> None:
    hostile(version, list(archive), rounds=25, seed=version)


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(40))
def test_damage_never_spreads_for_long(seed: int, archive: Archive) -> None:
    hostile(3 + seed % 2, list(archive), rounds=2000, seed=seed)


def hostile(version: int, records: list[CompletedRecord], rounds: int, seed: int) -> None:
    """Damage streams in many ways: what was not touched arrives, and memory is bounded."""
    drawn = random.Random(seed)
    for _ in range(rounds):
        chosen = drawn.sample(records, 60)
        frames = [
            frame_v4(n, f"{r.code[0]}_{r.code[1]}".encode(), r.record)
            if version == 4
            else frame_v3(n, r.record)
            for n, r in enumerate(chosen, 1)
        ]
        # Two frames behind damage are allowed to be lost: they may be taken for its record.
        touched: set[int] = set()
        for number in drawn.sample(range(2, 36), drawn.randint(1, 4)):
            frame = bytearray(frames[number])
            kind = drawn.randrange(5)
            if kind == 0:  # bytes of the header, or of the record's
                for _ in range(drawn.randint(1, 8)):
                    frame[drawn.randrange(80)] = drawn.randrange(256)
            elif kind == 1:  # missing bytes
                at = drawn.randrange(len(frame))
                del frame[at : at + drawn.randint(1, 300)]
            elif kind == 2:  # foreign bytes
                at = drawn.randrange(len(frame))
                frame[at:at] = drawn.randbytes(drawn.randint(1, 3000))
            elif kind == 3:  # a length of four gigabytes, or none
                frame[4:8] = drawn.choice([b"\xff\xff\xff\xff", bytes(4)])
            else:
                frame = frame[: drawn.randrange(len(frame))]
            frames[number] = bytes(frame)
            touched |= {number, number + 1, number + 2}
        # More follows: a length that may be right is waited for, up to 8 kB.
        content = b"".join(frames)
        counts = PacketCounts()
        reader = FrameReader(version, counts)
        packets: list[Packet] = []
        at = 0
        while at < len(content):
            size = drawn.choice([1, 7, 100, 520, 5000])
            packets += reader.feed(content[at : at + size], 0.0)
            at += size
            assert len(reader._buffer) < 2**19
            if reader.ended:
                break
        found = {packet.record for packet in packets}
        if not reader.ended:
            missing = [n for n in range(38) if n not in touched and chosen[n].record not in found]
            assert not missing, (missing, touched, counts.as_dict())


def test_noise_ends_a_connection() -> None:
    for version in (3, 4):
        counts = PacketCounts()
        reader = FrameReader(version, counts)
        drawn = random.Random(1)
        with pytest.raises(NoSeedLinkError, match="bytes in which there is no record"):
            for _ in range(200):
                assert not reader.feed(drawn.randbytes(2**16), 0.0)
        assert len(reader._buffer) < 2**20


def test_a_hostile_server_ends_nothing(archive: Archive) -> None:
    """A server that sends noise, endless lines, or nothing, is tried again and again."""
    listener = socket.create_server(("127.0.0.1", 0))
    answers = [
        b"\0" * 100_000,
        b"x" * 20_000,
        b"",
        b"SeedLink v4.0 :: SLPROTO:4.0\r\nhere\r\nERROR",
    ]
    served = 0

    def work() -> None:
        nonlocal served
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(0.2)
                try:
                    connection.recv(100)
                    connection.sendall(answers[served % len(answers)])
                except OSError:
                    pass
                served += 1

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    quick = QUICK._replace(connect_s=0.3)
    source = SeedLinkSource(f"seedlink://127.0.0.1:{listener.getsockname()[1]}", timing=quick)
    ends_at = time.monotonic() + 10
    while served < 9 and time.monotonic() < ends_at:
        assert source.read(0.05) == []
    source.close()
    listener.close()
    assert served >= 9 and source.counts.failures >= 8 and source.last_error
    assert source.ended and not source.checkpoint().positions


def test_servers_that_count_together_are_asked_together() -> None:
    known = {"TX_A": Position(50, 10**18), "TX_B": Position(40, 10**18), "TX_C": Position(7, 0)}
    held = {
        "TX_A": StationRange(5, 50),
        "TX_B": StationRange(3, 45),
        "TX_C": StationRange(7, 7),  # nothing new
    }
    everything = [("*", "*", "*", "*")]
    ring = Hello("SeedLink v4.0 (RingServer/4.5.3)", "")
    lines = requests(4, everything, ["HH?"], Checkpoint(4, known), held, ring)
    assert lines == ["STATION *", "SELECT *_H_H_?", "DATA 40"]
    each = Hello("SeedLink v4.0 (other)", "")
    lines = requests(4, everything, [], Checkpoint(4, known), held, each)
    assert lines == [
        *("STATION TX_A", "DATA 50", "STATION TX_B", "DATA 40", "STATION TX_C", "DATA 7"),
        *("STATION *", "DATA"),
    ]
    # Numbers that the server does not hold say nothing: it is asked by time.
    lost = {"TX_A": StationRange(60, 90)}
    lines = requests(4, everything, [], Checkpoint(4, {"TX_A": known["TX_A"]}), lost, ring)
    assert lines[1] == "DATA ALL 2001-09-09T01:46:40Z"
    lines = requests(3, [("TX", "A", "*", "*")], [], Checkpoint(4, known), {}, each)
    assert lines == ["STATION A TX", "TIME 2001,9,9,1,46,40"]  # other numbers


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("seedlink://here", ("here", 18000, False, "", "")),
        ("seedlinks://u%40x:p@[::1]", ("::1", 18500, True, "u@x", "p")),
        ("seedlink://127.0.0.1:1/", ("127.0.0.1", 1, False, "", "")),
    ],
)
def test_addresses(url: str, address: tuple[object, ...]) -> None:
    assert ServerAddress.parse(url) == address


@pytest.mark.parametrize("url", ["here:18000", "http://here", "seedlink://:1", "seedlink://a:b"])
def test_wrong_addresses_are_named(url: str) -> None:
    with pytest.raises(SettingsError, match="is no address of a SeedLink server"):
        ServerAddress.parse(url)


def test_passwords_are_not_shown() -> None:
    with pytest.raises(SettingsError) as error:
        ServerAddress.parse("seedlink://user:secret@host:port")
    assert "secret" not in str(error.value)
    assert "secret" not in str(ServerAddress.parse("seedlinks://user:secret@host"))


def test_a_damaged_checkpoint_is_named() -> None:
    for text in ("", "[]", '{"protocol": 4}', '{"protocol": 4, "positions": {"A": [1]}}'):
        with pytest.raises(SettingsError, match="this is no checkpoint"):
            Checkpoint.from_json(text)


@pytest.mark.slow
def test_delays_grow_and_are_bounded() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    timing = Timing(first_delay_s=0.01, last_delay_s=0.08)
    source = SeedLinkSource(f"seedlink://127.0.0.1:{port}", timing=timing)
    time.sleep(0.6)
    source.close()
    # Between 0.005 and 0.08 s apart; it would be some 100 without growth.
    assert 5 <= source.counts.failures <= 40
    assert "refused" in source.last_error.lower()
