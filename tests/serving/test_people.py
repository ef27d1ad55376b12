"""Keys, users and tokens: whoever is removed is removed, also while the service runs."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from served import free_port

from eqcctpro.errors import SettingsError
from eqcctpro.serving.app import create_app
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.pages import page_routes
from eqcctpro.serving.problems import UnauthorizedProblem
from eqcctpro.serving.routes import job_routes, session_routes, stream_routes
from eqcctpro.serving.security import Guard, hash_password, make_key
from eqcctpro.serving.security_settings import SecuritySettings
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings

SECRET = "s" * 40
CAROL = {"name": "carol", "password_hash": hash_password("right")}
DAVE = {"name": "dave", "password_hash": hash_password("other")}


def guard(**given: Any) -> Guard:
    return Guard(SecuritySettings.model_validate(given), SECRET)


def basic(name: str, password: str) -> dict[bytes, bytes]:
    text = base64.b64encode(f"{name}:{password}".encode())
    return {b"authorization": b"Basic " + text}


def bearer(token: str) -> dict[bytes, bytes]:
    return {b"authorization": f"Bearer {token}".encode()}


def test_a_token_ends_with_its_user_and_its_password() -> None:
    token = guard(users=[CAROL, DAVE]).log_in(basic("carol", "right")).token
    # The service starts again; what it signs with is kept in a file.
    assert guard(users=[DAVE, CAROL]).identify(bearer(token), "").name == "carol"
    changed = {"name": "carol", "password_hash": hash_password("right")}
    for users in ([DAVE], [DAVE, changed], [{**DAVE, "name": "carol"}]):
        with pytest.raises(UnauthorizedProblem):
            guard(users=users).identify(bearer(token), "")
    # Neither does it pass for one that another authenticator has given, nor the other way round.
    other = guard(authenticator="operator:eq")
    with pytest.raises(UnauthorizedProblem):
        other.identify(bearer(token), "")
    given = other.log_in(basic("carol", "carol")).token
    assert other.identify(bearer(given), "").name == "carol"
    with pytest.raises(UnauthorizedProblem):
        guard(users=[CAROL]).identify(bearer(given), "")


def test_keys_and_users_are_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("eqcctpro.serving.security._LOOK_S", 0.0)
    monkeypatch.setattr(logging.getLogger("eqcctpro"), "propagate", True)
    (alice, alice_hash), (bob, bob_hash) = make_key(), make_key()
    file = tmp_path / "people.json"

    def write(**people: Any) -> None:
        new = tmp_path / "new"
        new.write_text(json.dumps(people))
        new.replace(file)

    def knows(key: str) -> bool:
        try:
            return bool(one.identify({b"x-api-key": key.encode()}, "").name)
        except UnauthorizedProblem:
            return False

    write(api_keys=[{"name": "alice", "sha256": alice_hash}], users=[CAROL])
    one = guard(people_file=file)
    token = one.log_in(basic("carol", "right")).token
    assert (knows(alice), knows(bob)) == (True, False)
    write(api_keys=[{"name": "bob", "sha256": bob_hash}])
    assert (knows(alice), knows(bob)) == (False, True)
    with pytest.raises(UnauthorizedProblem):
        one.identify(bearer(token), "")
    for wrong in ("{", '{"api_keys": [{"name": "x", "sha256": "y"}]}', '{"keys": []}', "[]"):
        file.write_text(wrong)
        assert (knows(alice), knows(bob)) == (False, True)
        assert "keys and users stay what they were" in caplog.text
        caplog.clear()
        with pytest.raises(SettingsError, match="people"):
            guard(people_file=file)
    file.unlink()
    assert (knows(alice), knows(bob)) == (False, True)
    write(users=[CAROL], api_keys=[{"name": "alice", "sha256": alice_hash}])
    assert (knows(alice), knows(bob)) == (True, False)
    with pytest.raises(SettingsError, match="each name once"):
        guard(people_file=file, users=[CAROL])


def inside(folder: Path, **given: Any) -> tuple[Service, Any]:
    """The service's routes, without a model."""
    settings = ServeSettings.checked({"jobs": {"folder": folder}, **given})
    service = Service(settings, {}, Metrics(settings.metrics), Guard(settings.security, SECRET))
    hub = LocalHub(settings)
    routes = (page_routes(), session_routes(service), stream_routes(service, hub))
    return service, create_app(service, *routes, job_routes(service, hub))


def ask(app: Any, path: str) -> Any:
    async def run() -> Any:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.get(path)

    return asyncio.run(run())


def test_a_service_that_drains_answers_and_sends_clients_elsewhere(tmp_path: Path) -> None:
    service, app = inside(tmp_path)
    before = ask(app, "/v1/models")
    assert "connection" not in before.headers
    service.draining = True
    for path, status in (("/v1/models", 200), ("/health/ready", 503), ("/health/live", 200)):
        answer = ask(app, path)
        assert answer.status_code == status
        assert answer.headers["connection"] == "close"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:coroutine 'PickReplica.__del__'")
def test_a_replica_takes_requests_while_it_drains(tmp_path: Path, imported_model: str) -> None:
    from eqcctpro.serving.deployment import PickReplica

    settings = ServeSettings.checked(
        {
            "models": [{"name": imported_model, "runtime": "openvino"}],
            "http": {"port": free_port()},
            "replicas": {"threads": 1},
            "jobs": {"folder": tmp_path},
            "drain_s": 2.0,
        }
    )
    url = f"http://127.0.0.1:{settings.http.port}"
    found: list[int] = []

    async def live() -> None:
        replica = PickReplica.__new__(PickReplica)
        await replica.__init__(settings.model_dump_json(), SECRET)  # type: ignore[misc]
        found.append((await asyncio.to_thread(httpx.get, f"{url}/health/ready")).status_code)
        ending = asyncio.ensure_future(replica.__del__())
        await asyncio.sleep(0.3)
        for path in ("/health/ready", "/v1/models"):
            found.append((await asyncio.to_thread(httpx.get, f"{url}{path}")).status_code)
        await ending

    logger = logging.getLogger("eqcctpro")
    before = logger.handlers[:], logger.level, logger.propagate
    try:
        asyncio.run(live())
    finally:
        logger.handlers[:], logger.level, logger.propagate = before
    assert found == [200, 503, 200]
    with pytest.raises(httpx.ConnectError):
        httpx.get(url)


@pytest.mark.parametrize("probes", [False, True])
def test_probes_are_logged_where_they_fail(
    tmp_path: Path, probes: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("eqcctpro"), "propagate", True)
    caplog.set_level(logging.INFO, "eqcctpro.serving.access")
    service, app = inside(tmp_path, logs={"level": "debug" if probes else "info"})
    for path in ("/health/live", "/metrics", "/v1/models"):
        ask(app, path)
    service.draining = True
    ask(app, "/health/ready")
    lines = [record.getMessage() for record in caplog.records]
    asked = ["GET /v1/models 200", "GET /health/ready 503"]
    assert lines == [*(["GET /health/live 200", "GET /metrics 200"] if probes else []), *asked]
