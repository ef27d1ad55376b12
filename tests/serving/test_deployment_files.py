"""What deploys the service: files that parse, and names in them that exist."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from repository import ROOT

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from eqcctpro.serving.metrics import Metrics
from eqcctpro.serving.settings import MetricsSettings, ServeSettings
from eqcctpro.serving.sources import PREFIX, gather_settings

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def series() -> set[str]:
    """Names that the service's metrics have."""
    text = Metrics(MetricsSettings()).text().decode()
    return set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


def used_in(expression: str) -> set[str]:
    return set(re.findall(r"\beqcctpro_\w+", expression))


def without_ending(name: str) -> str:
    return re.sub(r"_(bucket|sum|count|created)$", "", name)


def assert_known(expressions: list[str], series: set[str]) -> None:
    assert expressions
    for expression in expressions:
        for name in used_in(expression):
            assert name in series or without_ending(name) in series, name


def test_the_dashboard_shows_series_that_there_are(series: set[str]) -> None:
    board = json.loads((DEPLOY / "grafana/dashboards/eqcctpro.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert all(used_in(expression) for expression in expressions)
    assert_known(expressions, series)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    source = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )
    known = {entry["uid"] for entry in source["datasources"]}
    assert {panel["datasource"]["uid"] for panel in board["panels"]} == known


def test_alerts_watch_series_that_there_are(series: set[str]) -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())["groups"]
    assert_known([rule["expr"] for group in groups for rule in group["rules"]], series)


def test_compose_starts_the_service_with_settings_that_there_are() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    picker = compose["services"]["picker"]
    assert (DEPLOY / picker["build"]["context"] / picker["build"]["dockerfile"]).is_file()
    digest = "0" * 64
    environment = {
        name: value.replace("${EQCCTPRO_KEY_SHA256:?make a key with eqcctpro serve key}", digest)
        for name, value in picker["environment"].items()
    }
    command = picker["command"]
    given = [command[at + 1] for at, word in enumerate(command) if word == "--set"]
    settings = gather_settings(None, None, given, environment)
    assert settings.security.api_keys[0].sha256 == digest
    assert str(settings.jobs.folder) == "/jobs"
    for service in compose["services"].values():
        # Nothing is open to a network by itself.
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (
                source in compose["volumes"]
                or source.startswith("${")
                or (DEPLOY / source).exists()
            )
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    (job,) = scrape["scrape_configs"]
    assert job["static_configs"][0]["targets"] == [f"picker:{ServeSettings().http.port}"]
    assert job["metrics_path"] == MetricsSettings.path


def test_the_image_is_made_of_what_there_is() -> None:
    lines = re.sub(r"\\\n", " ", (DEPLOY / "Dockerfile").read_text()).splitlines()
    for line in lines:
        word, _, rest = line.partition(" ")
        if word == "COPY" and "--from" not in rest:
            for name in shlex.split(rest)[:-1]:
                assert (ROOT / name).exists(), name
        if word == "ENV":
            assert rest
    settings = dict(re.findall(rf"({PREFIX}\w+)=(\S+)", "\n".join(lines)))
    assert gather_settings(environment=settings).http.host == "0.0.0.0"
    extras = set(re.findall(r"'\.\[([\w,]+)\]'", "\n".join(lines))[0].split(","))
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in extras)


def test_the_ray_service_names_what_there_is() -> None:
    import importlib

    manifest = yaml.safe_load((DEPLOY / "kubernetes/rayservice.yaml").read_text())
    pins = (ROOT / "constraints.txt").read_text()
    assert f"ray=={manifest['spec']['rayClusterConfig']['rayVersion']}" in pins
    config = yaml.safe_load(manifest["spec"]["serveConfigV2"])
    (application,) = config["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    settings = gather_settings(application["args"], environment={})
    assert settings.behind_proxy
    assert settings.replicas.scale == (1, 8, True)
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema(**config)


def test_a_file_for_ray_serve_is_printed(cli: Any) -> None:
    from ray.serve.schema import ServeDeploySchema

    printed = cli("serve", "build", "--model", "A/b", "--set", "replicas.count=8-1", "--set", "x=1")
    assert printed.exit_code == 2
    printed = cli(
        *("serve", "build", "--model", "PhaseNet/original", "--set", "grpc.port=9000"),
        *("--set", "replicas.count=1-4"),
    )
    config = yaml.safe_load(printed.stdout)
    ServeDeploySchema(**config)
    settings = gather_settings(config["applications"][0]["args"], environment={})
    assert settings.models[0].name == "PhaseNet/original"
    assert settings.replicas.scale == (1, 4, True)
    assert settings.address == "auto"


def test_the_unit_of_systemd_starts_the_command() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "systemd/eqcctpro.service")
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[0].endswith("bin/eqcctpro")
    assert command[1:3] == ["serve", "--config"]
    assert int(unit["Service"]["TimeoutStopSec"]) > ServeSettings().shutdown_s
    settings = gather_settings(DEPLOY / "systemd/serve.yaml", environment={})
    assert settings.http.local


def test_the_messages_are_those_of_the_file() -> None:
    pytest.importorskip("google.protobuf")
    from eqcctpro.serving import grpc_messages

    text = Path(grpc_messages.__file__).with_name("picker.proto").read_text()
    text = re.sub(r"//.*", "", text)
    written: dict[str, list[tuple[str, str, str, str]]] = {}
    for name, body in re.findall(r"message (\w+) \{(.*?)\}", text, re.DOTALL):
        written[name] = re.findall(r"(optional|repeated)?\s*(\w+) (\w+) = (\d+);", body)
    methods = re.findall(r"rpc (\w+)\((\w+)\) returns \((\w+)\)", text)
    description = grpc_messages.file_description()
    assert set(written) == {one.name for one in description.message_type}
    for one in description.message_type:
        fields = [(field.name, str(field.number)) for field in one.field]
        assert fields == [(name, number) for _, _, name, number in written[one.name]]
        for field, (often, kind, _, _) in zip(one.field, written[one.name], strict=True):
            kinds: Any = type(field)
            assert (field.label == kinds.LABEL_REPEATED) == (often == "repeated")
            assert field.proto3_optional == (often == "optional")
            assert field.type_name.rpartition(".")[2] == kind or field.type == getattr(
                kinds, f"TYPE_{kind.upper()}"
            )
    (service,) = description.service
    found = [
        (one.name, one.input_type.rpartition(".")[2], one.output_type.rpartition(".")[2])
        for one in service.method
    ]
    assert found == methods
