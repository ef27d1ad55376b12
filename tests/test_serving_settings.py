"""Settings of the service, without a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from eqcctpro.errors import SettingsError
from eqcctpro.serving.sources import gather_settings


def test_later_sources_count(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text("models: [PhaseNet/original]\nhttp: {port: 1111, host: 127.0.0.2}\n")
    environment = {"EQCCTPRO_SERVE__HTTP__PORT": "2222", "EQCCTPRO_SERVE__LIMITS__CAPACITY": "7"}
    assert gather_settings(file, environment={}).http.port == 1111
    settings = gather_settings(file, {"http.port": None}, environment=environment)
    assert (settings.http.port, settings.limits.capacity) == (2222, 7)
    settings = gather_settings(
        file, {"http.port": 3333}, ["limits.capacity=9", "models.0.p_threshold=0.4"], environment
    )
    assert (settings.http.port, settings.limits.capacity) == (3333, 9)
    assert settings.http.host == "127.0.0.2"
    assert settings.models[0].name == "PhaseNet/original"
    assert settings.models[0].p_threshold == 0.4


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("http.prot=1", "http.prot"),
        ("http.port=high", "http.port"),
        ("http.port=99999", "http.port"),
        ("limits=3", "limits"),
        ("models=[]", "models"),
        ("models=[A/b, A/b]", "each once"),
        ("models.7.p_threshold=0.1", "no item 7"),
        ("replicas.max=3", "belong together"),
        ("address=ray://head:10001", "Ray's client"),
        ("metrics.buckets_s=[2, 1]", "ascending"),
        ("security.required=true", "api_keys"),
        ("security.api_keys=[{name: a, sha256: secret}]", "64 letters"),
        ("http.tls={certificate: /none, key: /none}", "no file"),
        (
            f"http={{listener: proxy, tls: {{certificate: {__file__}, key: {__file__}, "
            f"client_authority: {__file__}}}}}",
            "listener=replica",
        ),
        ("nothing", "no value"),
    ],
)
def test_wrong_settings_are_named(assignment: str, word: str) -> None:
    given = [assignment] if not assignment.startswith("models.") else ["models=[A/b]", assignment]
    with pytest.raises(SettingsError, match=word):
        gather_settings(None, None, given, {})


def test_a_misspelt_variable_is_an_error() -> None:
    with pytest.raises(SettingsError, match="no such setting"):
        gather_settings(environment={"EQCCTPRO_SERVE__HTPP__PORT": "1"})


def test_the_schema_and_the_settings_are_printed(cli: Any) -> None:
    schema = json.loads(cli("serve", "schema").stdout)
    assert schema["properties"]["models"]
    shown = json.loads(cli("serve", "--port", 8123, "--show").stdout)
    assert shown["http"]["port"] == 8123


def test_a_key_is_shown_once_and_kept_as_a_hash(cli: Any) -> None:
    import hashlib

    lines = cli("serve", "key", "alice").stdout.splitlines()
    key = lines[0].rsplit(" ", 1)[1]
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert key not in lines[1]
    name, _, value = lines[1].removeprefix("for the settings: ").partition(": ")
    settings = gather_settings(None, None, [f"{name}={value}"], {})
    assert settings.security.api_keys[0].sha256 == digest
    assert settings.security.closed
