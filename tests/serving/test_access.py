"""Who may ask the service, under which name, and whose the picks are."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from served import free_port

from eqcctpro.serving.app import create_app
from eqcctpro.serving.callers import Callers
from eqcctpro.serving.check import check_service
from eqcctpro.serving.client import PickClient
from eqcctpro.serving.engines import find_model, open_engine
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.listener import Listener
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.pages import page_routes
from eqcctpro.serving.problems import ForbiddenProblem
from eqcctpro.serving.routes import job_routes, session_routes, stream_routes
from eqcctpro.serving.security import Guard, hash_password, make_key
from eqcctpro.serving.security_settings import SecuritySettings
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import HttpSettings, JobSettings, ServeSettings
from eqcctpro.serving.stream import PickLogs

(ALICE, ALICE_HASH), (BOB, BOB_HASH) = make_key(), make_key()
PAGE = "https://picks.example.org"


@pytest.fixture(scope="module")
def url(
    tmp_path_factory: pytest.TempPathFactory, imported_model: str, generated_network: Any
) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(JobSettings, "waiting", 0)
        patch.setattr(SecuritySettings, "least_burst", 3.0)
        yield from serve(tmp_path_factory, imported_model, generated_network)


def serve(
    tmp_path_factory: pytest.TempPathFactory, imported_model: str, generated_network: Any
) -> Iterator[str]:
    settings = ServeSettings.checked(
        {
            "models": [{"name": imported_model, "runtime": "openvino"}],
            "http": {
                "port": free_port(),
                "cors_origins": [PAGE],
                "hosts": ["picks.lab", ".seis.lab"],
            },
            "replicas": {"threads": 1},
            "jobs": {
                "folder": tmp_path_factory.mktemp("jobs"),
                "roots": [generated_network[0]],
            },
            "security": {
                "api_keys": [
                    {"name": "alice", "sha256": ALICE_HASH},
                    {"name": "bob", "sha256": BOB_HASH},
                ],
                "users": [{"name": "carol", "password_hash": hash_password("right")}],
                "required": False,
            },
        }
    )
    engine = open_engine(find_model(settings.models[0]), settings)
    hub = LocalHub(settings)
    service = Service(
        settings,
        {imported_model: engine},
        Metrics(settings.metrics),
        Guard(settings.security, "x" * 32),
        None,
        hub.publish,
    )
    routes = (
        page_routes(),
        session_routes(service),
        stream_routes(service, hub),
        job_routes(service, hub),
    )
    listener = Listener(create_app(service, *routes), settings)
    listener.start()
    yield f"http://127.0.0.1:{settings.http.port}"
    service.stopping = True
    listener.close(10.0)
    engine.online.close(5.0)
    hub.close()


class Heard:
    """What somebody hears in the stream."""

    def __init__(self, url: str, key: str | None) -> None:
        self.picks: list[dict[str, Any]] = []
        headers = {"X-API-Key": key} if key else {}
        listening = threading.Event()

        def listen() -> None:
            try:
                with httpx.stream(
                    "GET", f"{url}/v1/picks/stream", headers=headers, timeout=30
                ) as response:
                    for line in response.iter_lines():
                        listening.set()
                        if line.startswith("data: "):
                            self.picks.append(json.loads(line[6:]))
            except httpx.HTTPError:
                pass

        threading.Thread(target=listen, daemon=True).start()
        assert listening.wait(20)

    def wait(self, number: int) -> None:
        until = time.monotonic() + 20
        while len(self.picks) < number:
            assert time.monotonic() < until
            time.sleep(0.05)


@pytest.mark.slow
def test_picks_are_in_the_stream_of_whoever_asked_for_them(url: str) -> None:
    alice, bob, anybody = (Heard(url, key) for key in (ALICE, BOB, None))
    example = example_miniseed()
    with PickClient(url, key=ALICE) as client:
        first = client.pick(example)["picks"]
        assert first
        client.pick(example, private=True)
        client.annotate(example, private=True)
    for result in check_service(url, key=ALICE):
        assert result.ok, result
    with PickClient(url, key=BOB) as client:
        client.pick(example)
    bob.wait(len(first))
    time.sleep(0.3)
    assert alice.picks == first
    assert [pick["time"] for pick in bob.picks] == [pick["time"] for pick in first]
    assert anybody.picks == []


@pytest.mark.slow
def test_a_check_says_what_it_could_not_try(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that needs a key, and a check without one."""
    monkeypatch.delenv("EQCCTPRO_API_KEY", raising=False)
    settings = ServeSettings.checked(
        {
            "http": {"port": free_port()},
            "jobs": {"folder": tmp_path},
            "security": {"api_keys": [{"name": "alice", "sha256": ALICE_HASH}]},
        }
    )
    guard = Guard(settings.security, "x" * 32)
    service = Service(settings, {}, Metrics(settings.metrics), guard)
    listener = Listener(create_app(service), settings)
    listener.start()
    try:
        url = f"http://127.0.0.1:{settings.http.port}"
        found = {result.name: result for result in check_service(url)}
        assert "EQCCTPRO_API_KEY" in found["models"].found
        untried = [result for result in found.values() if not result.tried]
        assert len(untried) == 6 and not any(result.ok for result in untried)
        assert all(result.found.startswith("not tried: ") for result in untried)
        assert found["health"].ok and found["metrics"].tried
        done = cli("serve-check", url)
        assert done.exit_code == 1 and "EQCCTPRO_API_KEY" in done.output
    finally:
        service.stopping = True
        listener.close(10.0)


@pytest.mark.slow
def test_privacy_may_be_asked_for_in_the_body_too(url: str) -> None:
    heard = Heard(url, BOB)
    station = {
        **{"network": "XX", "station": "A", "channels": ["HHZ"], "start": 0, "sampling_rate": 1},
        "samples": [[1.0] * 10],
    }
    with httpx.Client(base_url=url, headers={"X-API-Key": BOB}) as asked:
        body = {"stations": [station], "private": True}
        # What the query asks for does not take the body's word away.
        assert asked.post("/v1/pick?p_threshold=0.5", json=body).status_code == 200
        assert asked.post("/v1/pick?private=maybe", json=body).status_code == 422
    assert heard.picks == []


def test_logs_of_picks_are_apart_and_bounded() -> None:
    logs = PickLogs(3)
    rows: Any = list("abcdefgh")
    logs.publish(rows[:2], "key:a")
    logs.publish(rows[2:4], "key:b")

    def after(owner: str, event: str) -> list[Any]:
        return [each.pick for each in asyncio.run(logs.after(owner, event, 0.0))]

    assert (after("key:a", ""), after("key:b", ""), after("key:c", "")) == (
        ["a", "b"],
        ["c", "d"],
        [],
    )
    # An id of somebody else's stream opens nothing.
    assert after("key:a", logs.of("key:b").end) == ["a", "b"]
    for number in range(40):
        logs.publish(rows, f"anybody:{number}")
    assert after("key:a", "") == []
    assert after("anybody:39", "") == rows[-3:]
    shared = PickLogs(3, shared=True)
    shared.publish(rows[:1], "key:a")
    assert [each.pick for each in asyncio.run(shared.after("key:b", "", 0.0))] == ["a"]


def ask(url: str, text: str) -> tuple[int, str]:
    """Send a request as it is; returns status and answer."""
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        connection.sendall(text.replace("\n", "\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = connection.recv(65536)
            if not part:
                break
            answer += part
        head, _, body = answer.decode().partition("\r\n\r\n")
        size = next(
            (int(x.split(":")[1]) for x in head.split("\r\n") if x.lower().startswith("content-l")),
            0,
        )
        while len(body.encode()) < size:
            body += connection.recv(65536).decode()
    return int(head.split()[1]), body


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((name, 200) for name in ("localhost", "LOCALHOST:8000", "127.0.0.1:80", "[::1]:8000")),
        *((name, 200) for name in ("a.localhost", "picks.lab", "a.seis.lab:8000", "127.9.9.9")),
        *((name, 403) for name in ("evil.example", "evil.example:8000", "localhost.evil.example")),
        *((name, 403) for name in ("10.1.2.3", "picks.lab.evil", "seis.lab.evil", "xseis.lab", "")),
    ],
)
def test_foreign_names_are_refused(url: str, host: str, status: int) -> None:
    """A page whose author points its name at this machine (DNS rebinding) asks under that name."""
    for path in ("/v1/models", "/", "/metrics", "/v1/picks/none"):
        found, body = ask(url, f"GET {path} HTTP/1.1\nHost: {host}\nConnection: close\n\n")
        assert found == (404 if status == 200 and path.endswith("none") else status)
        assert found != 403 or "http.hosts" in body
    assert ask(url, f"GET /health/ready HTTP/1.1\nHost: {host}\nConnection: close\n\n")[0] == 200


def test_the_address_it_listens_at_is_a_name() -> None:
    callers = Callers(HttpSettings(host="0.0.0.0"))
    scope = {"method": "GET", "server": ("10.1.2.3", 8000), "client": ("10.1.2.9", 1)}
    for host, good in (("10.1.2.3:8000", True), (socket.gethostname(), True), ("10.1.2.4", False)):
        asked = {**scope, "headers": [(b"host", host.encode())]}
        if good:
            callers.check(asked)
        else:
            with pytest.raises(ForbiddenProblem):
                callers.check(asked)
    Callers(HttpSettings(hosts=("*",))).check({**scope, "headers": [(b"host", b"any")]})


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (None, True),
        ("http://127.0.0.1:{port}", True),
        (PAGE, True),
        ("https://picks.lab", True),  # behind a proxy that tells another Host
        ("http://127.0.0.1:1", False),
        ("http://localhost:{port}", False),
        ("https://evil.example", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_foreign_pages_start_nothing(url: str, origin: str | None, allowed: bool) -> None:
    headers = {"Content-Type": "application/json"}
    if origin is not None:
        headers["Origin"] = origin.format(port=url.rpartition(":")[2])
    with httpx.Client(base_url=url, headers=headers) as asked:
        # No job may wait here, and one that is allowed to ask is told so.
        submitted = asked.post("/v1/jobs", json={"input": "."})
        assert submitted.status_code == (429 if allowed else 403), submitted.text
        for method, path in (("POST", "/v1/pick"), ("DELETE", "/v1/jobs/x")):
            found = asked.request(method, path, content=b"x" if method == "POST" else None)
            assert (found.status_code == 403) is not allowed
        assert asked.get("/v1/models").status_code == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", "text/json"]
)
def test_jobs_are_json(url: str, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    found = httpx.post(f"{url}/v1/jobs", content=b'{"input": "."}', headers=headers)
    assert found.status_code == 415
    assert "application/json" in found.json()["hint"]


@pytest.mark.slow
def test_forwarded_addresses_are_not_believed(url: str) -> None:
    """Else everybody has as many tries as they can think of addresses."""
    codes, names = [], set()
    for number in range(12):
        headers = {"X-Forwarded-For": f"10.0.0.{number}", "X-Real-IP": f"10.0.0.{number}"}
        names.add(httpx.get(f"{url}/v1/session", headers=headers).json()["name"])
        answer = httpx.post(f"{url}/v1/session", headers=headers, auth=("carol", "wrong"))
        codes.append(answer.status_code)
    assert names == {"127.0.0.1"}
    assert codes[:3] == [401, 401, 401]
    assert 429 in codes


def test_trusted_proxies_are_believed_and_no_others() -> None:
    async def client(settings: HttpSettings, peer: str, forwarded: str) -> str:
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

        seen = []

        async def app(scope: Any, receive: Any, send: Any) -> None:
            seen.append(Callers(settings).address(scope))

        trusting = ProxyHeadersMiddleware(app, list(settings.trusted_proxies))
        scope: Any = {"type": "http", "client": (peer, 1), "headers": []}
        scope["headers"] = [(b"x-forwarded-for", forwarded.encode())]
        await trusting(scope, None, None)  # type: ignore[arg-type]
        return seen[0]

    proxies = HttpSettings(trusted_proxies=("10.0.0.0/8",))
    for settings, peer, forwarded, address in (
        (proxies, "10.1.1.1", "6.6.6.6, 192.0.2.7", "192.0.2.7"),
        (proxies, "10.1.1.1", "192.0.2.7, 10.2.2.2", "192.0.2.7"),
        (proxies, "127.0.0.1", "192.0.2.7", "127.0.0.1"),
        (HttpSettings(), "127.0.0.1", "192.0.2.7", "127.0.0.1"),
    ):
        assert asyncio.run(client(settings, peer, forwarded)) == address
    with pytest.raises(ValueError, match="no network"):
        HttpSettings(trusted_proxies=("proxy",))


def test_what_ray_serves_proxy_believed_is_not_believed() -> None:
    """Where its environment does not forbid it, it takes the word of what is on loopback."""
    scope = {
        "client": ("192.0.2.7", 0),
        "headers": [(b"x-forwarded-for", b"192.0.2.7, 127.0.0.1")],
    }
    assert Callers(HttpSettings(), behind_proxy=True).address(scope) == "127.0.0.1"
    trusted = HttpSettings(trusted_proxies=("127.0.0.1",))
    assert Callers(trusted, behind_proxy=True).address(scope) == "192.0.2.7"


def test_a_key_is_given_once(url: str) -> None:
    for name, value in (("X-API-Key", ALICE), ("Authorization", f"Bearer {ALICE}")):
        for second in (value, "another"):
            answer = httpx.get(f"{url}/v1/models", headers=[(name, value), (name.lower(), second)])
            assert answer.status_code == 400, answer.text
            assert f"{name.lower()}: given twice" in answer.json()["detail"]
    assert httpx.get(f"{url}/health/live", headers=[("X-API-Key", "a")] * 2).status_code == 200
