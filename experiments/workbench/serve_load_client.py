"""Asks a service from many connections, as cheaply as possible; see serve_load.py.

    python serve_load_client.py URL BODY MEDIA_TYPE CLIENTS REQUESTS

One thread and a selector: on a machine with few cores the one who asks takes from the service, so
that sockets carry ready bytes and answers are only counted.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    url, body, media_type, clients, requests = sys.argv[1:6]
    parts = urlsplit(url)
    content = Path(body).read_bytes()
    head = (
        f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {media_type}\r\n"
        f"Accept: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    message = head.encode() + content
    seconds, total = run(
        (parts.hostname or "", parts.port or 80), message, int(clients), int(requests)
    )
    seconds.sort()
    print(
        json.dumps(
            {
                "stations_per_s": len(seconds) / total,
                **{
                    f"p{share}_ms": 1000
                    * seconds[min(len(seconds) - 1, len(seconds) * share // 100)]
                    for share in (50, 95, 99)
                },
            }
        )
    )


def run(
    address: tuple[str, int], message: bytes, clients: int, requests: int
) -> tuple[list[float], float]:
    """Seconds of every request, and of all of them together."""
    selector = selectors.DefaultSelector()
    left = requests - clients
    started = time.perf_counter()
    for _ in range(clients):
        connection = socket.create_connection(address)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        selector.register(connection, selectors.EVENT_READ, [send(connection, message), b""])
    seconds: list[float] = []
    open_connections = clients
    while open_connections:
        for key, _ in selector.select():
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            state = key.data
            part = connection.recv(1 << 18)
            if not part:
                raise SystemExit(f"the service closed the connection after {state[1][:200]!r}")
            state[1] += part
            if not complete(state[1]):
                continue
            now = time.perf_counter()
            seconds.append(now - state[0])
            if left > 0:
                left -= 1
                state[0], state[1] = send(connection, message), b""
            else:
                selector.unregister(connection)
                connection.close()
                open_connections -= 1
    return seconds, time.perf_counter() - started


def send(connection: socket.socket, message: bytes) -> float:
    now = time.perf_counter()
    connection.sendall(message)
    return now


def complete(answer: bytes) -> bool:
    head, end, rest = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    if b" 200 " not in head[:20]:
        raise SystemExit(f"no answer but {answer[:400]!r}")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return len(rest) >= int(line.split(b":")[1])
    raise SystemExit(f"an answer without a length: {head!r}")


if __name__ == "__main__":
    main()
