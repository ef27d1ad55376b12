"""What deploys live runs: files that parse, and names in them that exist."""

from __future__ import annotations

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest
import yaml
from live_status import status_of
from repository import ROOT

pytest.importorskip("prometheus_client", reason="the extra `serve` is not installed")

from eqcctpro.live.metrics import LiveMetrics
from eqcctpro.live.outbox import Outbox
from eqcctpro.live.sinks.opening import check_sinks

DEPLOY = ROOT / "deploy"


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names that the metrics of a live run have."""
    outbox = Outbox(tmp_path_factory.mktemp("outbox") / "state.sqlite")
    text = LiveMetrics(status_of, outbox).text().decode()
    outbox.close()
    return set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))


def assert_known(expressions: list[str], series: set[str]) -> None:
    assert expressions
    for expression in expressions:
        used = set(re.findall(r"\beqcctpro_\w+", expression))
        for name in used:
            assert name in series or re.sub(r"_bucket$", "", name) in series, name
        assert used or "up{" in expression


def test_the_dashboard_shows_series_that_there_are(series: set[str]) -> None:
    board = json.loads((DEPLOY / "grafana/dashboards/live.json").read_text())
    assert_known([one["expr"] for panel in board["panels"] for one in panel["targets"]], series)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    other = json.loads((DEPLOY / "grafana/dashboards/eqcctpro.json").read_text())
    assert board["uid"] != other["uid"]


def test_alerts_watch_series_that_there_are(series: set[str]) -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus/live-alerts.yml").read_text())["groups"]
    assert_known([rule["expr"] for group in groups for rule in group["rules"]], series)


def test_compose_rehearses_with_options_that_there_are() -> None:
    from eqcctpro.live.settings import LiveConfig

    compose = yaml.safe_load((DEPLOY / "live.compose.yaml").read_text())
    services = compose["services"]
    command = services["live"]["command"]
    assert services["live"]["entrypoint"] == ["eqcctpro", "live"]
    source = f"seedlink://rehearsal:{services['rehearsal']['command'][-4]}"
    assert command[0] == source
    options = {command[at].strip("-"): command[at + 1] for at in range(1, len(command), 2)}
    check_sinks([options["sink"]])
    assert options.pop("http-key") == "$${EQCCTPRO_LIVE_KEY}"
    assert options.keys() <= {*LiveConfig.model_fields, "sink"}
    scrape = yaml.safe_load((DEPLOY / "prometheus/live.yml").read_text())
    (job,) = scrape["scrape_configs"]
    port = options["http"].rpartition(":")[2]
    assert job["static_configs"][0]["targets"] == [f"live:{port}"]
    assert (DEPLOY / "prometheus" / scrape["rule_files"][0]).is_file()
    for name, service in services.items():
        # Nothing is open to a network by itself.
        assert all(one.startswith("127.0.0.1:") for one in service.get("ports", ())), name
        for volume in service.get("volumes", ()):
            place = volume.split(":")[0]
            assert (
                place in compose["volumes"] or place.startswith("${") or (DEPLOY / place).exists()
            )


def test_the_unit_of_systemd_starts_the_command_and_waits_for_its_word() -> None:
    from eqcctpro.config_files import load_config_file
    from eqcctpro.live.settings import LiveConfig

    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read(DEPLOY / "systemd/eqcctpro-live.service")
    command = shlex.split(unit["Service"]["ExecStart"])
    assert command[0].endswith("bin/eqcctpro")
    assert command[1:3] == ["live", "--config"]
    assert unit["Service"]["Type"] == "notify" and int(unit["Service"]["WatchdogSec"]) > 60
    settings = load_config_file(DEPLOY / "systemd" / Path(command[3]).name)
    asked = LiveConfig.checked(**settings)
    check_sinks(asked.sinks)
    assert asked.http.startswith("127.0.0.1:")
