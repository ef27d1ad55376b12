"""Settings of the service, without a service."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from pydantic import BaseModel

from eqcctpro.errors import SettingsError
from eqcctpro.notices import OldNameWarning
from eqcctpro.serving.renamed import GONE, MOVED
from eqcctpro.serving.sections import is_advanced
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.sources import PREFIX, gather_settings

ROOT = Path(__file__).parent.parent
MOST_USED = 30
FILE = __file__


def given(*assignments: str) -> ServeSettings:
    return gather_settings(None, None, assignments, {})


def fields(model: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings by their dotted names."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", field


FIELDS = dict(fields(ServeSettings))


def test_later_sources_count(tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(
        "models: [PhaseNet/original]\nhttp: {port: 1111, host: 127.0.0.2}\nlimits: {capacity: 5}\n"
    )
    environment = {"EQCCTPRO_SERVE_HTTP__PORT": "2222", "EQCCTPRO_SERVE_LIMITS__CAPACITY": "7"}
    assert gather_settings(file, environment={}).http.port == 1111
    settings = gather_settings(file, {"http.port": None}, environment=environment)
    assert (settings.http.port, settings.limits.capacity) == (2222, 7)
    settings = gather_settings(file, {"http.port": 3333}, ["limits.capacity=9"], environment)
    assert (settings.http.port, settings.limits.capacity) == (3333, 9)
    assert settings.http.host == "127.0.0.2"
    assert settings.models[0].name == "PhaseNet/original"
    assert settings.limits.max_body_mb == 64  # nobody said otherwise


def test_variables_hold_lists_ranges_and_nothing() -> None:
    settings = gather_settings(
        environment={
            "EQCCTPRO_SERVE_HTTP__HOSTS": "[picker, .lab]",
            "EQCCTPRO_SERVE_HTTP__TRUSTED_PROXIES": "10.0.0.0/8",
            "EQCCTPRO_SERVE_MODELS": "[{name: A/b, p_threshold: 0.4}]",
            "EQCCTPRO_SERVE_REPLICAS__COUNT": "1-8",
            "EQCCTPRO_SERVE_GRPC__PORT": "",
            "EQCCTPRO_MODELS": "/elsewhere",
        }
    )
    assert settings.http.hosts == ("picker", ".lab")
    assert settings.http.trusted_proxies == ("10.0.0.0/8",)
    assert settings.models[0].p_threshold == 0.4
    assert settings.replicas.scale == (1, 8, True)
    assert settings.grpc.port is None


@pytest.mark.parametrize(
    ("assignment", "word"),
    [
        ("http.prot=1", "http.prot: no such setting; did you mean http.port"),
        ("prot=1", "prot: no such setting; did you mean http.port"),
        ("http.port=high", "http.port"),
        ("http.port=99999", "http.port: .*65535"),
        ("limits=3", "limits: this is a table"),
        ("models=[]", "models: give at least one"),
        ("models=[A/b, A/b]", "each once"),
        ("models=[{name: A/b, p_threshold: 2}]", r"models\.0\.p_threshold"),
        ("models.0.p_threshold=0.1", r"models\.0\.p_threshold: items of a list"),
        ("address=ray://head:10001", "Ray's client"),
        ("metrics.buckets_s=[2, 1]", "ascending"),
        ("security.required=true", "api_keys"),
        ("security.api_keys=[{name: a, sha256: secret}]", "64 letters"),
        ("http.tls={certificate: /none, key: /none}", "no file"),
        ("http.trusted_proxies=[proxy]", "http.trusted_proxies: 'proxy' is no address"),
        ("replicas.count=0", "replicas.count: 0: give 1 to"),
        ("replicas.count=8-1", "replicas.count: 8-1: give .* the smaller number first"),
        ("replicas.count=many", "replicas.count: 'many' is no number and no range"),
        ("replicas.count=true", "replicas.count: True is no number"),
        ("nothing", "no value"),
    ],
)
def test_wrong_settings_are_named(assignment: str, word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        given(assignment)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SettingsError) as error:
        given("http.port=0", "limits.capacity=0", "logs.level=loud")
    for name in ("http.port", "limits.capacity", "logs.level"):
        assert name in error.value.message


@pytest.mark.parametrize("name", ["HTPP__PORT", "HTTP__PROT", "NOTHING"])
def test_a_misspelt_variable_is_an_error(name: str) -> None:
    with pytest.raises(SettingsError, match="no such setting"):
        gather_settings(environment={f"EQCCTPRO_SERVE_{name}": "1"})


@pytest.mark.parametrize("name", ["MODELS__0__P_THRESHOLD", "MODE__X"])
def test_a_part_of_what_has_none_is_an_error(name: str) -> None:
    with pytest.raises(SettingsError, match=f"EQCCTPRO_SERVE_{name}: .* has no parts"):
        gather_settings(environment={f"EQCCTPRO_SERVE_{name}": "1"})


def test_a_variable_that_cannot_be_read_is_named() -> None:
    with pytest.raises(SettingsError, match="EQCCTPRO_SERVE_HTTP__HOSTS"):
        gather_settings(environment={"EQCCTPRO_SERVE_HTTP__HOSTS": "[a"})


# Modes


@pytest.mark.parametrize(
    ("assignments", "mode", "scale", "networks", "proxy"),
    [
        ((), "single", (1, 1, False), 1, False),
        (("replicas.count=1",), "single", (1, 1, False), 1, False),
        (("replicas.count=4",), "replicated", (4, 4, False), 1, False),
        (("mode=replicated",), "replicated", (1, 1, False), 1, False),
        (("replicas.count=0-8",), "replicated", (0, 8, True), 1, True),
        (("address=auto",), "single", (1, 1, False), 1, True),
        (("mode=staged", "replicas.count=4"), "staged", (4, 4, False), 1, False),
        (("mode=staged", "replicas.networks=1-3"), "staged", (1, 1, False), 3, True),
    ],
)
def test_the_mode_decides_what_there_is(
    assignments: tuple[str, ...], mode: str, scale: Any, networks: int, proxy: bool
) -> None:
    settings = given(*assignments)
    assert (settings.mode, settings.replicas.scale) == (mode, scale)
    assert settings.replicas.network_scale.most == networks
    assert settings.behind_proxy is proxy
    again = ServeSettings.model_validate_json(settings.model_dump_json())
    assert again == settings  # as replicas get it


@pytest.mark.parametrize(
    ("assignments", "word"),
    [
        (("mode=single", "replicas.count=2"), "mode: single is one process.*mode=replicated"),
        (("mode=several",), "mode: .*replicated"),
        (("replicas.networks=2",), "replicas.networks: .*mode=staged"),
        (("replicas.count=4", "replicas.networks=2"), "replicas.networks: .*mode=staged"),
        (("replicas.scale_delay_s=3",), "replicas.scale_delay_s: .*1-8"),
        (("replicas.count=1-2", "drain_s=3"), "drain_s: .*drains by itself"),
        (
            (
                "address=auto",
                "http.tls={certificate: FILE, key: FILE, client_authority: FILE}".replace(
                    "FILE", __file__
                ),
            ),
            "http.tls.client_authority: .*keys",
        ),
    ],
)
def test_what_does_not_fit_the_mode_is_an_error(assignments: tuple[str, ...], word: str) -> None:
    with pytest.raises(SettingsError, match=word):
        given(*assignments)


def test_all_time_limits_follow_from_one() -> None:
    for seconds in (0.5, 30.0, 300.0):
        settings = given(f"limits.request_timeout_s={seconds}")
        limits = settings.limits
        assert limits.body_timeout_s == limits.forward_timeout_s == settings.shutdown_s == seconds
        assert limits.headers_timeout_s == min(seconds, 10)


# Old names


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (("replicas.min=1", "replicas.max=8"), ("replicas.count=1-8",)),
        (("replicas.placement=fused", "replicas.count=3"), ("replicas.count=3",)),
        (
            ("replicas.placement=staged", "replicas.front=4", "replicas.count=2"),
            ("mode=staged", "replicas.count=4", "replicas.networks=2"),
        ),
        (("replicas.placement=staged",), ("mode=staged", "replicas.networks=1")),
    ],
)
def test_old_names_with_one_meaning_are_understood(
    old: tuple[str, ...], new: tuple[str, ...]
) -> None:
    with pytest.warns(OldNameWarning) as said:
        found = given(*old)
    assert found == given(*new)
    assert len(said) == 1
    assert all(name.partition("=")[0] in MOVED or "count" in name for name in old)
    assert all(text in str(said[0].message) for text in new)


def test_old_variables_are_understood() -> None:
    with pytest.warns(OldNameWarning, match="write EQCCTPRO_SERVE_HTTP__PORT"):
        assert gather_settings(environment={"EQCCTPRO_SERVE__HTTP__PORT": "7"}).http.port == 7


@pytest.mark.parametrize(
    "assignments", [("replicas.min=1",), ("replicas.front=3",), ("mode=staged", "replicas.front=3")]
)
def test_old_names_without_their_others_say_what_to_write(assignments: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError, match=r"replicas\.(min|front).*replicas\.count"):
        given(*assignments)


@pytest.mark.parametrize("name", GONE)
def test_names_that_are_gone_say_what_to_do(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: there is no such setting any more: ..."):
        given(f"{name}=1")
    variable = PREFIX + name.replace(".", "__").upper()
    with pytest.raises(SettingsError, match=f"^{name}: "):
        gather_settings(environment={variable: "1"})
    section, _, inner = name.rpartition(".")
    file = tmp_path / "serve.json"
    file.write_text(json.dumps({section: {inner: 1}} if section else {inner: 1}))
    with pytest.raises(SettingsError, match=f"^{name}: "):
        gather_settings(file, environment={})


def test_renamed_names_lead_to_names_that_there_are() -> None:
    assert not (GONE.keys() | MOVED.keys()) & FIELDS.keys()
    assert set(MOVED.values()) <= FIELDS.keys()
    for text in GONE.values():
        named = {word.strip(",;:()") for word in text.split() if word.count(".") == 1}
        for name in (word.partition("=")[0] for word in named if word.split(".")[0].isalpha()):
            assert name in FIELDS or name.endswith("."), text


# What is said of settings


def test_every_setting_has_a_sentence_and_few_are_needed() -> None:
    def models(model: Any) -> Iterator[Any]:
        yield model
        for field in model.model_fields.values():
            for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from models(inner)

    for model in models(ServeSettings):
        for name, field in model.model_fields.items():
            section = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert section or (field.description or "").strip(), f"{model.__name__}.{name}"
    assert all(field.description.endswith(".") for field in FIELDS.values())
    assert sum(not is_advanced(field) for field in FIELDS.values()) <= MOST_USED


def test_numbers_have_bounds() -> None:
    for name, field in FIELDS.items():
        if field.annotation in (int, float, int | None, float | None):
            assert any(hasattr(one, "ge") or hasattr(one, "gt") for one in field.metadata), name


def test_the_page_lists_all_settings() -> None:
    sys.path.insert(0, str(ROOT / "scripts" / "documentation"))
    try:
        from reference import with_tables
    finally:
        sys.path.pop(0)
    text = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    assert with_tables(text) == text, "run scripts/documentation/reference.py docs/serving.md"
    assert all(f"| `{name}` |" in text for name in FIELDS)


def test_secrets_are_not_shown(cli: Any) -> None:
    digest, hashed = "a1" * 32, f"scrypt${'b2' * 16}${'c3' * 32}"
    people = (
        f"security.api_keys=[{{name: alice, sha256: {digest}}}]",
        f"security.users=[{{name: carol, password_hash: {hashed}}}]",
    )
    shown = cli("serve", "--set", people[0], "--set", people[1], "--show").stdout
    found = json.loads(shown)["security"]
    assert digest not in shown and hashed not in shown
    assert (found["api_keys"][0]["name"], found["users"][0]["name"]) == ("alice", "carol")
    assert given(*people).security.users[0].password_hash == hashed
    assert "hunter2" not in str(given("jobs.roots=[https://me:hunter2@example.org/a]").shown())
    for text in (
        "users=[{name: a, password_hash: hunter2}]",
        "users=hunter2",
        "api_keys=[hunter2]",
    ):
        with pytest.raises(SettingsError) as error:
            given(f"security.{text}")
        assert "hunter2" not in f"{error.value} {error.value.hint}"


def test_the_schema_and_the_settings_are_printed(cli: Any) -> None:
    schema = json.loads(cli("serve", "schema").stdout)
    assert schema["properties"]["models"]
    shown = cli("serve", "--port", 8123, "--replicas", "1-3", "--show")
    values = json.loads(shown.stdout)
    assert values["http"]["port"] == 8123
    assert (values["mode"], values["replicas"]["count"]) == ("replicated", "1-3")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gather_settings(values, environment={}).http.port == 8123


def test_the_command_says_which_names_are_old(cli: Any) -> None:
    said = cli("serve", "--set", "replicas={min: 1, max: 3}", "--show")
    assert said.exit_code == 0
    assert "warning: replicas.min, replicas.max: old names of settings" in said.stderr


def test_a_key_is_shown_once_and_kept_as_a_hash(cli: Any) -> None:
    import hashlib

    lines = cli("serve", "key", "alice").stdout.splitlines()
    key = lines[0].rsplit(" ", 1)[1]
    digest = hashlib.sha256(key.encode()).hexdigest()
    assert key not in lines[1]
    name, _, value = lines[1].removeprefix("for the settings: ").partition(": ")
    settings = given(f"{name}={value}")
    assert settings.security.api_keys[0].sha256 == digest
    assert settings.security.closed
