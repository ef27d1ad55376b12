"""Networks in deployments of their own, behind Ray Serve's proxies for HTTP and gRPC."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

grpc = pytest.importorskip("grpc", reason="the extra `serve` is not installed")
pytest.importorskip("fastapi", reason="the extra `serve` is not installed")


from own_networks import save_networks, sha256
from served import Served, free_port, served

from eqcctpro.serving.client import PickClient, ServiceError
from eqcctpro.serving.example import example_miniseed
from eqcctpro.serving.security import make_key

pytestmark = pytest.mark.exhaustive

EXAMPLE = example_miniseed()
KEY, DIGEST = make_key()
ADMIN, ADMIN_DIGEST = make_key()


@pytest.fixture(scope="module")
def grpc_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that models are loaded from."""
    folder = tmp_path_factory.mktemp("weights")
    save_networks(folder, "one", "two")
    (folder / "broken.pt").write_bytes(b"no weights")
    (folder / "broken.json").write_text((folder / "one.json").read_text())
    return folder


@pytest.fixture(scope="module")
def service(
    tmp_path_factory: pytest.TempPathFactory, imported_model: str, grpc_port: int, weights: Path
) -> Iterator[Served]:
    settings = (
        f"models=[{{name: {imported_model}, runtime: openvino}}]",
        f"grpc.port={grpc_port}",
        "mode=staged",
        "replicas.count=2-2",
        "replicas.threads=1",
        "limits.capacity=8",
        f"security.api_keys=[{{name: tester, sha256: {DIGEST}}}, "
        f"{{name: root, sha256: {ADMIN_DIGEST}, role: admin}}]",
        f"security.model_roots=[{weights}]",
        "security.open_metrics=true",
    )
    with served(tmp_path_factory.mktemp("staged"), *settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(service: Served) -> Iterator[PickClient]:
    with PickClient(service.url, key=KEY) as opened:
        yield opened


def times(picks: list[Any]) -> list[tuple[str, str]]:
    return [(pick["phase"], pick["time"]) for pick in picks]


@pytest.fixture(scope="module")
def local_picks(imported_model: str) -> list[tuple[str, str]]:
    """Picks of the example, in this process."""
    from eqcctpro.serving.trial import pick_example

    return times(pick_example(imported_model))


def test_picks_are_the_same_through_all_stages(
    service: Served, client: PickClient, local_picks: list[tuple[str, str]]
) -> None:
    assert local_picks

    def ask(_: int) -> list[tuple[str, str]]:
        with PickClient(service.url, key=KEY) as own:
            return times(own.pick(EXAMPLE)["picks"])

    with ThreadPoolExecutor(6) as pool:
        assert all(found == local_picks for found in pool.map(ask, range(24)))
    assert client.models()[0]["runtime"] == "remote"


def test_metrics_are_of_all_replicas(client: PickClient) -> None:
    line = next(
        line
        for line in client.metrics().splitlines()
        if line.startswith("eqcctpro_stations_total{") and 'status="done"' in line
    )
    assert float(line.rsplit(" ", 1)[1]) >= 24


def test_the_stream_is_of_all_replicas(client: PickClient, service: Served) -> None:
    until = time.monotonic() + 10
    heard: list[str] = []
    with PickClient(service.url, key=KEY) as own:
        for event, _ in own.stream("unknown-0"):
            heard.append(event)
            if len(heard) >= 24 or time.monotonic() > until:
                break
    assert len(set(heard)) == 24


def call(channel: Any, method: str, request: Any, reply: str, **metadata: str) -> Any:
    from eqcctpro.serving.grpc_messages import SERVICE, message

    ask = channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=type(request).SerializeToString,
        response_deserializer=message(reply).FromString,
    )
    given = [("application", "eqcctpro"), *((k.replace("_", "-"), v) for k, v in metadata.items())]
    return ask(request, metadata=given, timeout=30)


def test_grpc_gives_the_same_picks(
    service: Served, grpc_port: int, local_picks: list[tuple[str, str]]
) -> None:
    from eqcctpro.serving.grpc_messages import message

    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        request = message("PickRequest")(body=EXAMPLE)
        reply = call(channel, "Pick", request, "PickReply", x_api_key=KEY)
        assert [(pick.phase, pick.time) for pick in reply.picks] == local_picks
        curves = call(channel, "Annotate", request, "PickReply", x_api_key=KEY).curves
        assert curves and len(curves[0].values) % (4 * len(curves[0].labels)) == 0
        (model,) = call(
            channel, "Models", message("ModelsRequest")(), "ModelsReply", x_api_key=KEY
        ).models
        assert model.runtime == "remote"
        for wrong, metadata, code in (
            (request, {}, grpc.StatusCode.UNAUTHENTICATED),
            (message("PickRequest")(), {"x_api_key": KEY}, grpc.StatusCode.INVALID_ARGUMENT),
            (
                message("PickRequest")(body=EXAMPLE, p_threshold=2),
                {"x_api_key": KEY},
                grpc.StatusCode.INVALID_ARGUMENT,
            ),
        ):
            with pytest.raises(grpc.RpcError) as error:
                call(channel, "Pick", wrong, "PickReply", **metadata)
            assert error.value.code() == code


def test_grpc_tells_of_itself(service: Served, grpc_port: int) -> None:
    reflection = pytest.importorskip("grpc_reflection.v1alpha.reflection_pb2")
    from grpc_reflection.v1alpha import reflection_pb2_grpc

    from eqcctpro.serving.grpc_messages import SERVICE

    with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        asked = [reflection.ServerReflectionRequest(list_services="")]
        (answer,) = stub.ServerReflectionInfo(iter(asked), timeout=20)
        names = [service.name for service in answer.list_services_response.service]
        assert SERVICE in names


def test_models_come_change_and_go_everywhere(service: Served, weights: Path) -> None:
    name = "PhaseNetLight/mine"
    ended = threading.Event()
    problems: list[Exception] = []
    seen: list[str] = []

    def ask(model: str | None) -> None:
        while not ended.is_set():
            # A connection of its own each time: any replica may answer.
            try:
                with PickClient(service.url, key=KEY, retries=20) as own:
                    seen.append(own.annotate(EXAMPLE, model=model)["stations"][0]["status"])
            except Exception as error:
                problems.append(error)

    def versions() -> set[tuple[str, ...]]:
        found = set()
        for _ in range(12):
            with PickClient(service.url, key=KEY) as own:
                found.add(tuple(model["weights_sha256"] for model in own.models()))
        return found

    with PickClient(service.url, key=ADMIN, timeout_s=120.0) as admin:
        (before,) = versions()
        admin.load_model(name, weights="PhaseNetLight/one.pt", runtime="torch")
        assert versions() == {(*before, sha256(weights / "one.pt"))}
        assert [model["replicas"] for model in admin.models()] == [[2, 2], [2, 2]]
        threads = [threading.Thread(target=ask, args=(model,)) for model in (None, name, name)]
        for thread in threads:
            thread.start()
        try:
            admin.load_model(name, weights="PhaseNetLight/two.pt")
            assert versions() == {(*before, sha256(weights / "two.pt"))}
            with pytest.raises(ServiceError, match="is not loaded"):
                admin.load_model(name, weights="PhaseNetLight/broken.pt")
            assert versions() == {(*before, sha256(weights / "two.pt"))}
        finally:
            count = len(seen)
            until = time.monotonic() + 60
            while len(seen) < count + 6 and time.monotonic() < until:
                time.sleep(0.1)
            ended.set()
            for thread in threads:
                thread.join(60)
        assert not problems
        assert set(seen) == {"done"}
        admin.unload_model(name)
        assert versions() == {before}
        with pytest.raises(ServiceError, match="is not served"):
            admin.pick(EXAMPLE, model=name)


def test_it_ends_well(service: Served) -> None:
    assert service.stop() == 0
