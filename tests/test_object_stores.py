"""Archives in an object store: a local server that speaks S3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from eqcctpro import PickConfig
from eqcctpro.archive.plan import InputSettings, Plan, make_plan
from eqcctpro.errors import InputChangedError, InputError, SettingsError

pytest.importorskip("s3fs", reason="the extra s3 is not installed")
moto_server = pytest.importorskip("moto.server", reason="moto's server is not installed")

COLUMNS = ["network", "station", "location", "channel", "phase", "time"]


class Store:
    """A store with the made-up network in several layouts."""

    def __init__(self, endpoint: str) -> None:
        import boto3

        self.options = {"endpoint_url": endpoint}
        self.client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")

    def put(self, bucket: str, key: str, content: bytes) -> None:
        self.client.put_object(Bucket=bucket, Key=key, Body=content)


def codes_of(path: Path) -> list[str]:
    return path.name.split("__")[0].split(".")


@pytest.fixture(scope="module")
def store(generated_network: Any) -> Iterator[Store]:
    archive = Path(generated_network[0])
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.delenv("AWS_PROFILE", raising=False)
        server.start()
        host, port = server.get_host_and_port()
        made = Store(f"http://{host}:{port}")
        for bucket in ("network", "scedc-pds", "ncedc-pds", "earthscope-geophysical-data"):
            made.client.create_bucket(Bucket=bucket)
        stations: dict[str, bytes] = {}
        for path in sorted(archive.glob("*/*/*.mseed")):
            net, sta, loc, cha = codes_of(path)
            content = path.read_bytes()
            made.put("network", f"chunks/{path.relative_to(archive)}", content)
            sds = f"2024/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.2024.350"
            made.put("network", f"sds/{sds}", content)
            scedc = f"2024/2024_350/{net}{sta:_<5}{cha}{loc:_<3}2024350.ms"
            made.put("scedc-pds", f"continuous_waveforms/{scedc}", content)
            ncedc = f"{net}/2024/2024.350/{sta}.{net}.{cha}.{loc}.D.2024.350"
            made.put("ncedc-pds", f"continuous_waveforms/{ncedc}", content)
            stations[f"{net}/2024/350/{sta}.{net}.2024.350"] = (
                stations.get(f"{net}/2024/350/{sta}.{net}.2024.350", b"") + content
            )
        for name, content in stations.items():
            made.put("earthscope-geophysical-data", f"miniseed/{name}", content)
        made.put("scedc-pds", "earthquake_catalogs/2024.catalog", b"no waveforms")
        made.put("network", "sds/README", b"no waveforms")
        yield made
        server.stop()


def plan_of(store: Store, *inputs: str, **settings: Any) -> Plan:
    config = PickConfig.checked(input=inputs, output="unused", storage=store.options, **settings)
    return make_plan(InputSettings.of(config))


@pytest.fixture(scope="module")
def expected(pick: Any, imported_model: str, generated_network: Any) -> Any:
    return pick(generated_network[0], model=imported_model).table.select(COLUMNS)


@pytest.mark.parametrize(
    ("address", "layout", "files"),
    [
        ("s3://network/chunks", "chunks", 16),
        ("s3://network/sds", "sds", 16),
        ("s3://scedc-pds", "scedc", 16),
        ("s3://scedc-pds/continuous_waveforms/", "scedc", 16),
        ("s3://ncedc-pds", "ncedc", 16),
        ("s3://earthscope-geophysical-data", "earthscope", 6),
        ("s3://network/chunks/*/DEM0[12]/*.mseed", "files", 6),
    ],
)
def test_layouts_are_recognised(
    store: Store, generated_network: Any, address: str, layout: str, files: int
) -> None:
    local = make_plan(InputSettings((Path(generated_network[0]),)))
    plan = plan_of(store, address)
    assert plan.layout == layout
    assert not plan.problems
    assert len(plan.files) == files
    names = sorted({task.name for task in local.tasks})
    assert sorted({task.name for task in plan.tasks}) == (names[:2] if "DEM" in address else names)


def test_only_what_is_wanted_is_looked_at(store: Store) -> None:
    plan = plan_of(store, "s3://scedc-pds", stations="XX.DEM02")
    assert [task.name for task in plan.tasks] == ["XX.DEM02.00.HH"]
    assert len(plan.files) == 3
    with pytest.raises(InputError, match="no data between"):
        plan_of(store, "s3://ncedc-pds", start="2023-01-01", end="2023-01-02")
    with pytest.raises(SettingsError, match=r"did you mean XX\.DEM0"):
        plan_of(store, "s3://earthscope-geophysical-data", stations="XX.DEM0A")


@pytest.mark.parametrize("address", ["s3://network/chunks", "s3://scedc-pds"])
def test_picks_are_those_of_the_files(
    pick: Any, imported_model: str, store: Store, expected: Any, address: str
) -> None:
    result = pick(address, model=imported_model, storage=store.options, overview=True)
    assert result.counts["failed"] == 0
    assert result.table.select(COLUMNS) == expected
    assert Path(result.summary["paths"]["overview"]).exists()


@pytest.mark.slow
def test_workers_read_the_store(
    pick: Any, imported_model: str, store: Store, expected: Any
) -> None:
    result = pick(
        "s3://network/sds",
        model=imported_model,
        mode="modelactor",
        workers=1,
        storage=store.options,
    )
    assert result.counts["failed"] == 0
    assert result.table.select(COLUMNS) == expected


def test_a_run_goes_on_only_with_the_same_objects(
    pick: Any, imported_model: str, store: Store, tmp_path: Path, generated_network: Any
) -> None:
    files = sorted(Path(generated_network[0]).glob("*/DEM0[12]/*.mseed"))
    for path in files:
        net, sta, loc, cha = codes_of(path)
        key = f"sds/2024/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.2024.350"
        store.put("network", f"again/{key}", path.read_bytes())
    first = f"again/sds/2024/{net}/{sta}/{cha}.D/{net}.{sta}.{loc}.{cha}.D.2024.350"
    address = "s3://network/again/sds"
    plan = plan_of(store, address)
    changed = files[-1].read_bytes()[512:]
    settings = {"model": imported_model, "storage": store.options, "output": tmp_path}
    with pytest.MonkeyPatch.context() as patch:
        # The object changes between the plan and the reading of it.
        from eqcctpro.orchestration import session

        def plan_and_change(given: InputSettings) -> Plan:
            planned = make_plan(given)
            store.put("network", first, changed)
            return planned

        patch.setattr(session, "make_plan", plan_and_change)
        result = pick(address, **settings)
    assert result.counts == {"done": 1, "empty": 0, "failed": 1} | {
        name: value for name, value in result.counts.items() if name.startswith("files")
    }
    (failed,) = result.summary["failed"]
    assert failed["error"] == InputChangedError.__name__
    assert len(plan.tasks) == 2
    store.put("network", first, files[-1].read_bytes())
    again = pick(address, **settings, resume="require")
    assert again.counts["done"] == 2
    assert again.counts["failed"] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"]["input"] == [address]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("s3://nothing-here/x", "nothing-here"),
        ("s3://network/nowhere", "holds no files"),
        ("nosuch://network/x", "nosuch"),
    ],
)
def test_addresses_that_lead_nowhere(store: Store, address: str, message: str) -> None:
    with pytest.raises((InputError, SettingsError), match=message):
        plan_of(store, address)


def test_secrets_are_no_settings() -> None:
    with pytest.raises(SettingsError, match="secret"):
        PickConfig.checked(input="s3://a/b", output="x", storage={"key": "mine"})


def test_addresses_stay_addresses() -> None:
    config = PickConfig.checked(input="s3://bucket/folder/", output="x")
    assert config.input == ("s3://bucket/folder",)
    assert PickConfig.checked(input="file:///tmp/x", output="x").input == (Path("/tmp/x"),)
    assert os.fspath(PickConfig.checked(input="a/b", output="x").input[0]) == "a/b"  # type: ignore[arg-type]
