"""Settings of the service, without a service."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from repository import ROOT

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")

from pydantic import BaseModel
from served import free_port

from eqcctpro.errors import SettingsError
from eqcctpro.notices import OldNameWarning
from eqcctpro.serving.renamed import GONE, MOVED
from eqcctpro.serving.sections import is_advanced
from eqcctpro.serving.settings import ServeSettings
from eqcctpro.serving.sources import PREFIX, gather_settings
from eqcctpro.serving.start import check_files, check_start

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
            "eqcctpro_serve_limits__capacity": "7",
            "EQCCTPRO_MODELS": "/elsewhere",
        }
    )
    assert settings.http.hosts == ("picker", ".lab")
    assert settings.http.trusted_proxies == ("10.0.0.0/8",)
    assert settings.models[0].p_threshold == 0.4
    assert settings.replicas.scale == (1, 8, True)
    assert settings.limits.capacity == 7
    with pytest.raises(SettingsError, match="EQCCTPRO_SERVE_GRPC__PORT is empty"):
        gather_settings(environment={"EQCCTPRO_SERVE_GRPC__PORT": ""})


def test_a_table_adds_to_what_is_given_of_it() -> None:
    settings = gather_settings(
        None, {"replicas.count": "3"}, ["replicas={threads: 2}", "replicas.cpus=4"], {}
    )
    assert (settings.replicas.count, settings.replicas.threads, settings.replicas.cpus) == (3, 2, 4)


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
        ("nothing", "no name with a value"),
        ("http.port=true", "http.port: True is no number"),
        ("limits.capacity=true", "limits.capacity: True is no number"),
        ("metrics.buckets_s=[true, 2]", "metrics.buckets_s: True is no number"),
        ("models=[{name: A/b, bandpass: [false, 2]}]", "bandpass: False is no number"),
        ("http={port: 1, host: a, port: 2}", "http cannot be read: .*column 20: port is given tw"),
        ("drain_s=2024-13-45", "drain_s cannot be read"),
        ("http.host=a b", "http.host: 'a b' is no address and no name"),
        ("http.host=127.0.0.256", "http.host: .* is no address and no name"),
        ("http.host=''", "http.host: .* is no address and no name"),
        ("address=''", "address: it is empty"),
        ("metrics.port=8000", "http.port and metrics.port are the same"),
        ("grpc.port=8000", "http.port and grpc.port are the same"),
        ("http.root_path=picker", "http.root_path: give a path such as /picker"),
        ("logs.traces=nonsense", "logs.traces: give the address of a collector, such as"),
        ("security.authenticator=x", "security.authenticator: name a function as"),
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


@pytest.mark.parametrize(
    ("assignments", "words"),
    [
        (("mode=single", "replicas.placement=staged"), ("mode is single", "replicas.placement")),
        (
            ("mode=replicated", "replicas.count=3", "replicas.placement=staged"),
            ("mode is replicated", "replicas.placement"),
        ),
        (("mode=staged", "replicas.placement=fused"), ("mode is staged", "replicas.placement")),
        (("replicas.placement=bogus",), ("replicas.placement", "fused or staged")),
        (("replicas.placement=",), ("replicas.placement", "fused or staged")),
        (("replicas.min=1", "replicas.max=2", "replicas.count=2"), ("replicas.min", "count")),
        (("replicas.min=", "replicas.max="), ("replicas.min", "count")),
        (("replicas.min=a", "replicas.max=2"), ("replicas.count", "a-2")),
        (("replicas.placement=staged", "replicas.front=0"), ("replicas.count: 0",)),
        (("replicas.placement=staged", "replicas.count=0"), ("replicas.networks: 0",)),
        (
            ("mode=staged", "replicas.placement=staged", "replicas.front=2"),
            ("replicas.front", "mode given"),
        ),
        (
            ("replicas.networks=2", "replicas.placement=staged", "replicas.front=2"),
            ("replicas.front", "replicas.networks given"),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore::eqcctpro.notices.OldNameWarning")
def test_an_old_name_overrules_no_current_one(
    assignments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    with pytest.raises(SettingsError) as error:
        given(*assignments)
    assert all(word in error.value.message for word in words), error.value.message


def test_beside_a_current_name_counts_mean_what_they_do_today() -> None:
    with pytest.warns(OldNameWarning):
        found = given("mode=staged", "replicas.placement=staged", "replicas.count=4")
    assert found == given("mode=staged", "replicas.count=4")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("EQCCTPRO_SERVE_HTTP__PORT=8003", "EQCCTPRO_SERVE__HTTP__PORT=8001"),
        ("EQCCTPRO_SERVE_HTTP={port: 8003}", "EQCCTPRO_SERVE__HTTP__PORT=8001"),
        ("EQCCTPRO_SERVE_HTTP__PORT=8003", "eqcctpro_serve_http__port=8001"),
    ],
)
@pytest.mark.filterwarnings("ignore::eqcctpro.notices.OldNameWarning")
def test_two_variables_of_one_setting_agree(one: str, other: str) -> None:
    environment = dict(text.split("=", 1) for text in (other, one))
    with pytest.raises(SettingsError, match="say two things of one setting") as error:
        gather_settings(environment=environment)
    assert all(name in error.value.message for name in environment)
    name, other_name = one.partition("=")[0], other.partition("=")[0]
    if "{" not in one:
        same = {name: "8003", other_name: "8003"}
        assert gather_settings(environment=same).http.port == 8003


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


@pytest.mark.parametrize(
    "assignment",
    [
        "logs.traces=http://user:hunter2@host",
        "logs.traces=http://user:hun@ter/hunter2@host",
        "http.trusted_proxies=[http://user:hunter2@host]",
        "http.host=http://user:hunter2@host",
        "http.port=http://user:hunter2@host",
        "security.users=[{name: a, password: hunter2",
        "security.users=[{name: a, password: *hunter2}]",
        "security.users=[{name: a, password: !hunter2 x}]",
        "security.users=[{name: a, password: !hunter2!x y}]",
        "security.users=[{name: a, password: %hunter2}]",
        "security.users:[{password: hunter2}]",
        "security.users:[{password: hunter2, a=1}]",
        "security=hunter2",
        "security=[hunter2]",
        "security.session_s=hunter2",
        "security.required=hunter2",
    ],
)
def test_secrets_are_not_echoed(assignment: str) -> None:
    name, equals, value = assignment.partition("=")
    variable = PREFIX + name.replace(".", "__").upper()
    sources = [([assignment], {})]
    sources += [([], {variable: value})] if equals and ":" not in name else []
    for assignments, environment in sources:
        with pytest.raises(SettingsError) as error:
            gather_settings(None, None, assignments, environment)
        assert "hunter2" not in f"{error.value} {error.value.hint}"
        assert name.partition(":")[0].partition(".")[0] in error.value.message.lower()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "security:\n  users: [{name: a, password: hunter2\n", "line 3, column 1"),
        ("a.yaml", "security: {a: 'hunter2\n", "line 2, column 1"),
        ("a.yaml", "http:\n  port: 1\n  port: 2\n", "line 3, column 3: port is given twice"),
        ("a.yaml", 'a: "\\hunter2"\n', "line 1, column 6"),
        ("a.yaml", "a: hunter2\0\n", "character 11"),
        ("a.yaml", "a: " + "[" * 1000, "nested"),
        ("a.json", '{"http": {"port": 1, "port": 2}}', "port is given twice"),
        ("a.json", '{"a": "hunter2', "line 1 column"),
        ("a.json", "[" * 100_000, "nested"),
        ("a.toml", "[http]\nport = 1\nport = 2\n", "port is given twice .at line 3"),
        ("a.toml", "password = hunter2\n", "line 1, column"),
        ("a.conf", "", "the name must end in .toml, .yaml or .json"),
    ],
)
def test_a_wrong_file_is_told_by_its_place(
    name: str, text: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / name
    file.write_text(text)
    for options in ({"config": file}, {"assignments": [f"security.people_file={file}"]}):
        with pytest.raises(SettingsError, match=words) as error:
            settings = gather_settings(environment={}, **options)
            check_files(settings)
        assert "hunter2" not in f"{error.value} {error.value.hint} {error.value.__cause__}"
        setting = "config: " if "config" in options else "security.people_file: "
        assert error.value.message.startswith(setting)


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_a_file_with_nothing_says_nothing(text: str, tmp_path: Path) -> None:
    for name in ("a.yaml", "a.yml"):
        file = tmp_path / name
        file.write_text(text)
        assert gather_settings(file, environment={}) == given()


def test_an_alias_in_a_file_is_no_key_given_twice(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "models:\n- &a {name: A/b, p_threshold: 0.3}\n- {<<: *a, name: C/d, p_threshold: 0.4}\n"
    )
    first, second = gather_settings(file, environment={}).models
    assert (first.p_threshold, second.p_threshold) == (0.3, 0.4)


@pytest.mark.slow
def test_what_needs_no_start_is_checked_before_settings_are_shown(cli: Any, tmp_path: Path) -> None:
    for assignment in (
        f"security.people_file={tmp_path / 'none.yaml'}",
        f"security.secret_file={tmp_path / 'none'}",
        f"jobs.roots={tmp_path / 'none'}",
        "metrics.port=8000",
    ):
        said = cli("serve", "--set", assignment, "--show")
        assert said.exit_code == 2
        assert assignment.partition("=")[0] in said.stderr
    said = cli("serve", "--model", "", "--show")
    assert said.exit_code == 2 and "--model: it is empty" in said.stderr


def test_a_folder_for_jobs_is_tried_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "roots").mkdir()
    port = f"http.port={free_port()}"
    for folder in ("/proc/nope", tmp_path / "file" / "jobs"):
        settings = given(f"jobs.roots={tmp_path / 'roots'}", f"jobs.folder={folder}", port)
        with pytest.raises(SettingsError, match=r"jobs\.folder: .* cannot be written"):
            check_start(settings)


@pytest.mark.parametrize("end", ["", "/", "/v1/traces", "/v1/traces/"])
def test_a_collector_has_one_address(end: str) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="no OpenTelemetry")
    from eqcctpro.serving.tracing import _otlp_exporter

    address = given(f"logs.traces=http://host:1/a{end}").logs.traces
    assert address is not None
    assert _otlp_exporter(address)._endpoint == "http://host:1/a/v1/traces"


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
