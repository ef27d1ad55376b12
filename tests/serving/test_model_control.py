"""Models come, change and go while the service runs, and nobody who asks notices."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from own_networks import save_networks, sha256
from served import free_port

from eqcctpro.errors import ModelError, SettingsError
from eqcctpro.serving.app import create_app
from eqcctpro.serving.client import PickClient, ServiceError
from eqcctpro.serving.engines import Engine, find_model
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.hub import LocalHub
from eqcctpro.serving.listener import Listener
from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.model_board import ModelBoard, Version
from eqcctpro.serving.model_keeper import ModelKeeper
from eqcctpro.serving.model_loading import LoadRequest, choice_to_load, open_version
from eqcctpro.serving.problems import (
    ConflictProblem,
    NotFoundProblem,
    Problem,
    UnavailableProblem,
)
from eqcctpro.serving.routes import job_routes, model_routes
from eqcctpro.serving.security import Guard, make_key
from eqcctpro.serving.service import Service
from eqcctpro.serving.settings import ServeSettings

EXAMPLE = example_miniseed()
(ADMIN, ADMIN_HASH), (ALICE, ALICE_HASH) = make_key(), make_key()
MODEL = "PhaseNetLight/net"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of three networks, and what is no network; and one outside."""
    folder = tmp_path_factory.mktemp("weights")
    save_networks(folder, "inside/one", "inside/two", "inside/three", "outside")
    (folder / "inside/broken.pt").write_bytes(b"no weights")
    shutil.copy(folder / "inside/one.json", folder / "inside/broken.json")
    (folder / "inside/link.pt").symlink_to(folder / "outside.pt")
    shutil.copy(folder / "outside.json", folder / "inside/link.json")
    return folder


def settings_of(weights: Path, folder: Path, **more: Any) -> ServeSettings:
    security = {
        "api_keys": [
            {"name": "root", "sha256": ADMIN_HASH, "role": "admin"},
            {"name": "alice", "sha256": ALICE_HASH},
        ],
        "model_roots": [weights / "inside"],
    }
    model = {"name": MODEL, "weights": f"PhaseNetLight/{weights}/inside/one.pt", "runtime": "torch"}
    given = {
        "models": [model],
        "http": {"port": free_port()},
        "replicas": {"threads": 1},
        "jobs": {"folder": folder / "jobs", "roots": [weights / "inside"]},
        "security": security,
    }
    return ServeSettings.checked({**given, **more})


class Running:
    """A service of one replica, in this process, at a port."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.url = f"http://127.0.0.1:{settings.http.port}"
        self.hub = LocalHub(settings)
        self.held = threading.Event()
        self.held.set()
        metrics = Metrics(settings.metrics)
        self.keeper = ModelKeeper(self.hub, self._open)
        self.service = Service(
            settings, self.keeper.begin(), metrics, Guard(settings.security, "x" * 32)
        )
        self.service.keeper = self.keeper
        self.keeper.follow(self.service.serve)
        routes = (model_routes(self.service, self.hub), job_routes(self.service, self.hub))
        self._listener = Listener(create_app(self.service, *routes), settings)
        self._listener.start()

    def _open(self, version: Version) -> Engine:
        engine = open_version(version, self.settings)
        if not version.started:
            self.held.wait(30)
        return engine

    def models(self, key: str = ADMIN) -> dict[str, Any]:
        answer = httpx.get(f"{self.url}/v1/models", headers={"X-API-Key": key})
        assert answer.status_code == 200
        return dict(answer.json())

    def post(self, path: str, key: str | None = ADMIN, **more: Any) -> Any:
        headers = {} if key is None else {"X-API-Key": key}
        return httpx.post(f"{self.url}/v1/models/{path}", headers=headers, timeout=60, **more)

    def close(self) -> None:
        self.held.set()
        self.service.stopping = True
        self._listener.close(10.0)
        self.keeper.close()
        for engine in self.service.engines.values():
            engine.online.close(5.0)
        self.hub.close()


@pytest.fixture(scope="module")
def running(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    one = Running(settings_of(weights, tmp_path_factory.mktemp("service")))
    yield one
    one.close()


@pytest.fixture
def client(running: Running) -> Iterator[PickClient]:
    with PickClient(running.url, key=ADMIN, retries=0) as opened:
        yield opened


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := what()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def curves(client: PickClient, model: str) -> Any:
    return client.annotate(EXAMPLE, model=model)["curves"][0]["values"]


def test_a_model_comes_and_goes(running: Running, client: PickClient, weights: Path) -> None:
    before = time.time()
    assert [model["name"] for model in running.models()["models"]] == [MODEL]
    loaded = client.load_model(
        "PhaseNetLight/other", weights="PhaseNetLight/two.pt", runtime="torch", p_threshold=0.9
    )
    assert loaded["state"] == "READY"
    # What a service that is started again needs to have it.
    again = ServeSettings.checked(
        {**running.settings.model_dump(exclude_unset=True), "models": [loaded["settings"]]}
    )
    (choice,) = again.models
    assert (choice.name, choice.p_threshold, choice.runtime) == (
        "PhaseNetLight/other",
        0.9,
        "torch",
    )
    assert find_model(choice).weights.sha256 == sha256(weights / "inside/two.pt")
    first, other = running.models()["models"]
    assert (first["name"], other["name"]) == (MODEL, "PhaseNetLight/other")
    assert other["weights_sha256"] == sha256(weights / "inside/two.pt")
    assert other["state"] == "READY" and other["thresholds"]["P"] == 0.9
    assert before < other["since"] < time.time() and first["since"] < other["since"]
    assert other["replicas"] == [1, 1]
    assert curves(client, MODEL) != curves(client, "PhaseNetLight/other")
    picked = client.pick(EXAMPLE, model="PhaseNetLight/other")
    assert picked["served_name"] == "PhaseNetLight/other"
    assert client.pick(EXAMPLE)["served_name"] == MODEL
    # What requests without a name get is never changed by the way.
    with pytest.raises(ServiceError, match=f"{MODEL} is the default"):
        client.unload_model(MODEL)
    with pytest.raises(ServiceError, match="is to be the default, is not served"):
        client.unload_model(MODEL, default="PhaseNetLight/never")
    assert "PhaseNetLight/other" in str(httpx.get(f"{running.url}/openapi.json").json())
    client.unload_model("PhaseNetLight/other")
    assert [model["name"] for model in running.models()["models"]] == [MODEL]
    with pytest.raises(ServiceError, match="is not served"):
        client.pick(EXAMPLE, model="PhaseNetLight/other")
    with pytest.raises(ServiceError, match="is not served"):
        client.unload_model("PhaseNetLight/other")
    with pytest.raises(ServiceError, match="the only model"):
        client.unload_model(MODEL)
    assert (other["weights"], other["default"], first["default"]) == (
        "PhaseNetLight/two",
        False,
        True,
    )
    until(lambda: len(running.keeper._held) == 1)


@pytest.mark.slow
def test_a_new_version_takes_over_without_a_refused_request(
    running: Running, client: PickClient, weights: Path
) -> None:
    old = curves(client, MODEL)
    problems: list[object] = []
    ended = threading.Event()
    answers: list[bool] = []

    def ask() -> None:
        with PickClient(running.url, key=ALICE, retries=0) as own:
            while not ended.is_set():
                try:
                    answers.append(curves(own, MODEL) == old)
                    if httpx.get(f"{running.url}/health/ready").status_code != 200:
                        problems.append("not ready")
                except Exception as error:
                    problems.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        running.held.clear()
        asked = threading.Thread(
            target=client.load_model, args=(MODEL,), kwargs={"weights": "PhaseNetLight/./two"}
        )
        asked.start()
        (change,) = until(lambda: running.models()["not_served"])
        assert (change["name"], change["state"]) == (MODEL, "LOADING")
        # One at a time.
        assert running.post("PhaseNetLight/x/load").status_code == 409
        assert running.post(f"{MODEL}/load").status_code == 409
        served = running.models()["models"][0]["weights_sha256"]
        assert served == sha256(weights / "inside/one.pt")
        count = len(answers)
        until(lambda: len(answers) > count + 5)
        assert all(answers)
        running.held.set()
        asked.join(30)
        count = len(answers)
        until(lambda: len(answers) > count + 5)
    finally:
        running.held.set()
        ended.set()
        for thread in threads:
            thread.join(30)
    assert not problems
    # First all from the old version, then all from the new one, but for what was under way.
    assert answers[0] and not answers[-1]
    (model,) = running.models()["models"]
    assert model["weights_sha256"] == sha256(weights / "inside/two.pt")
    assert running.models()["not_served"] == []
    until(lambda: len(running.keeper._held) == 1)
    # Jobs take it from now on, too.
    assert running.hub.board._models[MODEL].endswith("/inside/two")


@pytest.mark.slow
def test_requests_under_way_are_answered_when_their_model_goes(
    running: Running, client: PickClient
) -> None:
    client.load_model("PhaseNetLight/gone", weights="PhaseNetLight/three.pt", runtime="torch")
    engine = running.service.engines["PhaseNetLight/gone"]
    go, begun = threading.Event(), threading.Event()
    submit = engine.runtime.submit

    def held(windows: Any) -> Any:
        result = submit(windows)
        begun.set()

        def wait() -> Any:
            go.wait(30)
            return result()

        return wait

    engine.runtime.submit = held  # type: ignore[method-assign]
    found: list[Any] = []
    asking = threading.Thread(
        target=lambda: found.append(client.pick(EXAMPLE, model="PhaseNetLight/gone"))
    )
    asking.start()
    assert begun.wait(30)
    with PickClient(running.url, key=ADMIN) as other:
        other.unload_model("PhaseNetLight/gone")
        with pytest.raises(ServiceError, match="is not served"):
            other.pick(EXAMPLE, model="PhaseNetLight/gone")
    time.sleep(0.1)
    running.keeper.wake()
    assert not found and any(held is engine for held in running.keeper._held.values())
    go.set()
    asking.join(30)
    assert found[0]["stations"][0]["status"] == "done"
    running.keeper.wake()
    until(lambda: engine not in running.keeper._held.values())
    assert not engine.enter()


@pytest.mark.slow
def test_the_command_shows_loads_and_unloads(running: Running, cli: Callable[..., Any]) -> None:
    def run(*arguments: str, key: str = ADMIN) -> Any:
        return cli("serve", "models", running.url, "--key", key, *arguments)

    name = "PhaseNetLight/typed"
    loaded = run("--load", name, "--weights", "PhaseNetLight/three.pt")
    assert loaded.exit_code == 0, loaded.output
    assert [line.split(": ")[0] for line in loaded.output.splitlines()] == [
        *(MODEL, name),
        "until the service ends",
    ]
    assert [line.endswith("the default") for line in loaded.output.splitlines()][:2] == [
        True,
        False,
    ]
    assert f'{{"name": "{name}", "weights": "PhaseNetLight/' in loaded.output
    assert "weights PhaseNetLight/three (" in loaded.output
    assert name not in run("--unload", name).output
    assert "--unload" in run("--default", MODEL).output
    refused = run("--unload", MODEL, key=ALICE)
    assert refused.exit_code != 0 and "administrator's key" in refused.output
    assert "--load" in run("--weights", "PhaseNetLight/three.pt").output


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"weights": "PhaseNetLight/broken.pt"}, 422, "is not loaded"),
        ({"weights": "PhaseNetLight/absent.pt"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight/../outside.pt"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight/link.pt"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight//etc/passwd"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight/~/x.pt"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight/https://example.org/x.pt"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight/a\0b.pt"}, 403, "not in a folder"),
        ({"weights": "PhaseNetLight/never_heard_of"}, 422, "not asked for"),
        ({"weights": "Nonsense/one"}, 422, "no model class"),
        ({"weights": "one"}, 422, "does not name a model"),
        ({"p_threshold": 0}, 422, "p_threshold"),
        ({"arguments": {"nonsense": 1}}, 422, "nonsense"),
        ({"device": 3}, 422, "device"),
        ({"replicas": 3}, 422, "replicas"),
        ({"weights": "PhaseNet/original"}, 422, "are of PhaseNet;"),
        ({"weights": "EQCCT/../outside.pt"}, 422, "are of EQCCT;"),
    ],
)
def test_a_load_that_fails_changes_nothing_and_says_why(
    running: Running, client: PickClient, body: dict[str, Any], status: int, words: str
) -> None:
    before = running.models()["models"]
    answer = running.post(f"{MODEL}/load", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert "weights_only" not in answer.text and "pytorch" not in answer.text.lower()
    assert running.models()["models"] == before
    assert client.pick(EXAMPLE)["stations"]
    for change in running.models(ALICE)["not_served"]:
        assert (change["state"], change["reason"]) == ("UNAVAILABLE", "it could not be loaded")


def test_what_is_asked_for_elsewhere_than_in_the_body_is_refused(running: Running) -> None:
    for path in (f"{MODEL}/load?weights=PhaseNetLight/two.pt", f"{MODEL}/unload?default=x"):
        answer = running.post(path)
        assert answer.status_code == 422 and "is no parameter" in answer.json()["detail"]
        assert "body" in answer.json()["hint"]
    assert running.post(f"{MODEL}/unload", json={"defualt": MODEL}).status_code == 422
    settings = running.settings
    with pytest.raises(Problem, match="not in a folder"):
        choice_to_load("EQCCT/x", LoadRequest(weights="EQCCT/../outside.pt"), settings, None)
    # A name is of no class unless it begins with one.
    mine = choice_to_load("mine", LoadRequest(weights="PhaseNet/original"), settings, None)
    assert mine.weights == "PhaseNet/original"
    with pytest.raises(SettingsError, match="call it GPD/original"):
        ServeSettings.checked({"models": [{"name": "phasenet/original", "weights": "GPD/scedc"}]})


@pytest.mark.slow
def test_only_administrators_load_and_unload(
    running: Running, weights: Path, tmp_path: Path
) -> None:
    for path in (f"{MODEL}/load", f"{MODEL}/unload"):
        assert running.post(path, key=ALICE).status_code == 403
        assert running.post(path, key=None).status_code == 401
        assert running.post(path, key=ADMIN, content=b"{}").status_code in (409, 415)
    for name in ("a b", "x" * 100, "PhaseNetLight/a;b", "../x/y", "A/b/c"):
        assert running.post(f"{httpx.URL('/' + name).path[1:]}/load").status_code in (404, 422)
    # Without keys only where a setting says so, and never to ordinary keys.
    for security, allowed in (
        ({}, False),
        ({"open_models": True}, True),
        ({"open_models": True, "api_keys": [{"name": "a", "sha256": ALICE_HASH}]}, False),
    ):
        settings = ServeSettings.checked({"jobs": {"folder": tmp_path}, "security": security})
        guard = Guard(settings.security, "x" * 32)
        key = {b"x-api-key": ALICE.encode()} if "api_keys" in security else {}
        assert guard.is_administrator(guard.identify(key, "127.0.0.1")) == allowed


def test_a_load_is_refused_where_memory_is_short(running: Running, weights: Path) -> None:
    limited = running.settings.model_copy(
        update={"limits": running.settings.limits.model_copy(update={"model_memory_mb": 10.0})}
    )
    choice = choice_to_load(MODEL, LoadRequest(weights="PhaseNetLight/three.pt"), limited, None)
    with pytest.raises(ModelError, match="may take"):
        open_version(Version(9, choice, 0.0), limited)


class Process:
    """A process of a service, which loads nothing, but does as those do that load."""

    def __init__(self, board: ModelBoard, network: str | None = None) -> None:
        self.broken: set[str] = set()
        self.closed: list[int] = []
        self.hashes: dict[str, str] = {}
        place = SimpleNamespace(
            call_models=lambda method, *arguments: getattr(board, method)(*arguments)
        )
        self.keeper = ModelKeeper(place, self._open, network)
        self.keeper.begin()
        self.keeper._thread = threading.Thread()  # steps are taken one by one here

    def _open(self, version: Version) -> Any:
        weights = version.choice.weights or version.name
        if weights in self.broken:
            raise Problem(f"{weights} is broken here")
        picker = SimpleNamespace(weights_sha256=self.hashes.get(weights, weights))
        model = SimpleNamespace(picker=picker, name=version.name)
        online = SimpleNamespace(
            close=lambda: self.closed.append(version.number),
            pipeline=SimpleNamespace(runtime=SimpleNamespace(close=lambda: None)),
        )
        return Engine(model, online)  # type: ignore[arg-type]

    def step(self) -> None:
        self.keeper._step()
        loading = self.keeper._loading
        if loading is not None:
            loading.join()

    @property
    def serves(self) -> dict[str, str]:
        engines = self.keeper.engines
        return {name: engine.model.picker.weights_sha256 for name, engine in engines.items()}


def board_of(mode: str = "replicated") -> ModelBoard:
    models = [{"name": "A/a", "weights": "A/1"}, {"name": "B/b"}]
    given = {"models": models, "mode": mode, "replicas": {"count": 2}}
    return ModelBoard(ServeSettings.checked(given))


def load(board: ModelBoard, name: str, weights: str) -> int:
    return board.load(
        ServeSettings.checked({"models": [{"name": name, "weights": weights}]}).models[0]
    )


@pytest.mark.slow
def test_no_replica_serves_what_another_cannot_load() -> None:
    board = board_of()
    one, two = Process(board), Process(board)
    for process in (one, two):
        process.step()
    number = load(board, "A/a", "A/2")
    with pytest.raises(ConflictProblem):
        load(board, "C/c", "C/1")
    one.step()
    one.step()
    assert board.outcome(number).state == "LOADING" and one.serves["A/a"] == "A/1"
    two.step()
    two.step()
    # All have it, and each serves it when it hears of that.
    assert two.serves["A/a"] == "A/2" and board.outcome(number).state == "LOADING"
    one.step()
    assert one.serves == two.serves == {"A/a": "A/2", "B/b": "B/b"}
    assert board.outcome(number).state == "READY"
    one.step()
    two.step()
    assert one.closed == two.closed == [1]
    two.broken.add("A/3")
    number = load(board, "A/a", "A/3")
    for _ in range(3):
        one.step()
        two.step()
    outcome = board.outcome(number)
    assert outcome.state == "UNAVAILABLE" and "is broken here" in str(outcome.reason)
    assert one.serves == two.serves == {"A/a": "A/2", "B/b": "B/b"}
    assert number in one.closed  # what was loaded in vain
    # The same path holds something else on another machine.
    two.hashes["A/4"] = "another"
    number = load(board, "A/a", "A/4")
    for _ in range(3):
        one.step()
        two.step()
    assert "changed" in str(board.outcome(number).reason)
    # A replica that starts later has the present set; a lost one is not waited for.
    three = Process(board)
    assert three.serves == one.serves
    three.step()
    revision = board.unload("B/b")
    assert not board.followed(revision)
    for process in (one, two, three):
        process.step()
    assert board.followed(revision)
    assert one.serves == three.serves == {"A/a": "A/2"}
    report, heard = board._members[two.keeper._name]
    board._members[two.keeper._name] = report, heard - 1000
    number = load(board, "C/c", "C/1")
    for _ in range(2):
        one.step()
        three.step()
    one.step()
    assert board.outcome(number).state == "READY"
    with pytest.raises(NotFoundProblem):
        board.unload("B/b")


def test_the_default_changes_only_by_name() -> None:
    board = board_of()
    one = Process(board)
    for wrong in (None, "A/a", "C/c"):
        with pytest.raises((ConflictProblem, NotFoundProblem)):
            board.unload("A/a", wrong)
    assert one.keeper.default == "A/a"
    load(board, "C/c", "C/1")
    for _ in range(3):
        one.step()
    board.unload("A/a", "C/c")
    one.step()
    assert (one.keeper.default, list(one.serves)) == ("C/c", ["C/c", "B/b"])
    number = load(board, "A/a", "A/1")
    for _ in range(3):
        one.step()
    assert board.outcome(number).state == "READY" and one.keeper.default == "C/c"


def test_a_replica_without_the_default_serves_nothing_in_its_place() -> None:
    settings = ServeSettings.checked({"models": ["A/a", "B/b"]})
    metrics = Metrics(settings.metrics)
    online = SimpleNamespace(waiting=0, hung=0)
    other: Any = SimpleNamespace(online=online)
    service = Service(settings, {"B/b": other}, metrics, Guard(settings.security, "x" * 32))
    assert service.engine(None) is other
    service.keeper = SimpleNamespace(default="A/a")  # type: ignore[assignment]
    with pytest.raises(UnavailableProblem, match="A/a could not be loaded here"):
        service.engine(None)
    assert service.engine("B/b") is other


def test_a_hub_that_is_replaced_learns_what_is_served() -> None:
    board = board_of()
    one = Process(board)
    load(board, "A/a", "A/2")
    for _ in range(3):
        one.step()
    again = board_of()
    one.keeper._board = SimpleNamespace(
        call_models=lambda method, *arguments: getattr(again, method)(*arguments)
    )
    one.step()
    assert Process(again).serves == one.serves == {"A/a": "A/2", "B/b": "B/b"}
    assert load(again, "A/a", "A/3") > max(one.keeper._held)


@pytest.mark.slow
def test_networks_load_before_those_that_ask_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eqcctpro.serving.model_keeper._RELEASE_S", 0.0)
    board = board_of("staged")
    first, second = Process(board, "A/a"), Process(board, "B/b")
    assert (first.serves, second.serves) == ({"A/a": "A/1"}, {"B/b": "B/b"})
    fronts = [Process(board), Process(board)]
    for process in (first, second, *fronts):
        process.step()
    number = load(board, "B/b", "B/2")
    new = {"A/a": "A/1", "B/b": "B/2"}
    for front in fronts:
        front.step()
        assert number not in front.keeper._held
    second.step()
    first.step()
    assert number in second.keeper._held and number not in first.keeper._held
    second.step()
    for process in (*fronts, *fronts):
        process.step()
        assert 2 in second.keeper._held  # as long as somebody may ask for it
    fronts[0].step()
    assert [front.serves for front in fronts] == [new, new]
    for process in (*fronts, second, second):
        process.step()
    assert second.closed == [2] and second.serves == {"B/b": "B/2"}
    # A model that is new is executed where the first one is.
    number = load(board, "C/c", "C/1")
    for _ in range(4):
        for process in (first, second, *fronts):
            process.step()
    assert board.outcome(number).state == "READY"
    assert number in first.keeper._held and number not in second.keeper._held
    # So is one that a network replica holds that is started later.
    assert Process(board, "A/a").serves == {"A/a": "A/1", "C/c": "C/1"}


@pytest.mark.slow
def test_a_network_is_traced_elsewhere_than_where_requests_are_answered(
    running: Running, client: PickClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setenv("EQCCTPRO_CACHE", str(tmp_path))

    def trace(*_: object) -> None:
        raise AssertionError("Python's lock is held for seconds")

    monkeypatch.setattr("eqcctpro.models.export._trace", trace)
    name = "PhaseNetLight/apart"
    client.load_model(name, weights="PhaseNetLight/three.pt", runtime="openvino")
    assert running.service.engines[name].facts()["runtime"] == "openvino"
    assert client.pick(EXAMPLE, model=name)["stations"][0]["status"] == "done"
    client.unload_model(name)


@pytest.mark.slow
def test_large_libraries_are_loaded_while_other_threads_run() -> None:
    program = """
import sys, threading, time
from pathlib import Path
from eqcctpro.runtimes.libraries import load_libraries
beats, ended = [], threading.Event()
def beat():
    while not ended.wait(0.001):
        beats.append(time.monotonic())
threading.Thread(target=beat).start()
started = time.monotonic()
load_libraries("torch")
taken = time.monotonic() - started
during = sum(started < at < started + taken for at in beats)
ended.set()
assert "torch" not in sys.modules
assert "libtorch_cpu" in Path("/proc/self/maps").read_text()
assert during > 5 or taken < 0.05, (during, taken)
import torch
assert float(torch.ones(3).sum()) == 3
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
