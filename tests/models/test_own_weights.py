"""Weights of one's own: what tensors do not say is asked for, checked and recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eqcctpro import EQCCTProError
from eqcctpro.errors import SettingsError, WeightsError
from eqcctpro.models.description import described_weights
from eqcctpro.models.weights import find_weights

DESCRIBED = {"component_order": "ENZ", "labels": "PSN", "norm": "peak", "sampling_rate": "100"}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PhaseNet of one's own, by SeisBench's ``save`` and as a bare state dict."""
    import seisbench.models as sbm

    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(5)
    model = sbm.PhaseNet(phases="PSN", norm="peak", component_order="ENZ")
    with torch.no_grad():
        model.out.weight *= 12
    model.save(str(folder / "whole"))
    torch.save(model.state_dict(), folder / "bare.pt")
    return folder


@pytest.mark.slow
def test_a_described_state_dict_picks_as_the_saved_model(
    saved: Path, pick: Any, generated_network: Any, tmp_path: Path, caplog: Any
) -> None:
    archive = generated_network[0]
    expected = pick(archive, model=f"PhaseNet/{saved}/whole", output=tmp_path / "whole")
    assert expected.counts["picks"] > 5
    found = pick(
        archive,
        model=f"PhaseNet/{saved}/bare.pt",
        model_arguments=dict(DESCRIBED),
        output=tmp_path / "bare",
    )
    left_out = ["run_id", "weights"]
    assert found.table.drop_columns(left_out) == expected.table.drop_columns(left_out)
    assert found.summary["applied"]["component_order"] == "ENZ"
    assert found.summary["applied"]["norm"] == "peak"
    said = found.summary["weights"]["description"]["PhaseNet"]
    assert said["settings"] == {**DESCRIBED, "sampling_rate": 100} and said["defaults"] == []
    written = expected.summary["weights"]["description"]["PhaseNet"]
    assert written["settings"] == {} and written["json"]["component_order"] == "ENZ"
    other = pick(
        archive,
        model=f"PhaseNet/{saved}/bare.pt",
        model_arguments={**DESCRIBED, "component_order": "ZNE"},
        output=tmp_path / "other",
    )
    assert other.table.drop_columns(left_out) != expected.table.drop_columns(left_out)
    assert other.summary["run_id"] != found.summary["run_id"]


@pytest.mark.slow
def test_exports_of_two_descriptions_are_two(saved: Path) -> None:
    from eqcctpro.models.export import trial_windows
    from eqcctpro.runtimes.select import open_picker

    files = find_weights("PhaseNet", str(saved / "bare.pt"))
    curves = []
    for norm in ("peak", "std"):
        described = described_weights(files, {**DESCRIBED, "norm": norm})
        picker, runtime = open_picker(described, runtime="onnxruntime", threads=1)
        assert picker.norm == norm and picker.components == "ENZ" and picker.phases == ("P", "S")
        curves.append(runtime.predict(trial_windows(3, 3001)).copy())
        runtime.close()
    assert np.abs(curves[0] - curves[1]).max() > 0.01


@pytest.mark.slow
def test_the_command_refuses_a_bare_state_dict_and_says_what_is_missing(
    saved: Path, cli: Any, generated_network: Any, tmp_path: Path
) -> None:
    command = ["pick", generated_network[0], "-o", tmp_path, "--model", f"PhaseNet/{saved}/bare.pt"]
    refused = cli(*command, "--set", "norm=peak")
    assert refused.exit_code == 4 and not list(tmp_path.glob("picks.*"))
    said = " ".join(refused.output.split())
    assert "bare.pt is a bare state dict" in said
    assert "its component order, labels and sampling rate" in said
    assert "--set component_order=ZNE" in said and "bare.json with model_args" in said
    given = [part for name, value in DESCRIBED.items() for part in ("--set", f"{name}={value}")]
    taken = cli(*command, *given, "--no-overview", "--runtime", "torch")
    assert taken.exit_code == 0, taken.output
    said = " ".join(taken.output.split())
    assert "component_order=ENZ, labels=PSN, norm=peak, sampling_rate=100 as set" in said


def test_a_json_beside_it_is_a_description(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes((saved / "bare.pt").read_bytes())
    description = {"model_args": {"component_order": "ENZ", "phases": "PSN", "norm": "peak"}}
    (tmp_path / "mine.json").write_text(json.dumps(description))
    files = find_weights("PhaseNet", str(tmp_path / "mine.pt"))
    assert described_weights(files, {}).described == ()
    same = described_weights(files, {"component_order": "ENZ", "labels": "P,S,N"})
    assert same.described == ()
    with pytest.raises(SettingsError, match=r"ZNE contradicts .*mine\.json, which says ENZ"):
        described_weights(files, {"component_order": "ZNE"})
    (tmp_path / "mine.json").write_text("{}")
    with pytest.raises(WeightsError, match="is a bare state dict"):
        described_weights(files, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("component_order", "ZZE"),
        ("component_order", "Z-N"),
        ("labels", "PP"),
        ("labels", "P,,N"),
        ("norm", "loud"),
        ("sampling_rate", "fast"),
        ("sampling_rate", -1),
        ("in_samples", 3000.5),
        ("norm_detrend", "maybe"),
    ],
)
def test_impossible_descriptions_are_named(saved: Path, name: str, value: Any) -> None:
    files = find_weights("PhaseNet", str(saved / "bare.pt"))
    with pytest.raises(SettingsError, match=name):
        described_weights(files, {**DESCRIBED, name: value})


def test_the_python_interface_says_so_at_construction(saved: Path, tmp_path: Path) -> None:
    from eqcctpro import RunEQCCTPro

    given: dict[str, Any] = {
        "model_type": "seisbench",
        "seisbench_parent_model": "PhaseNet",
        "seisbench_child_model": str(saved / "bare.pt"),
        "input_dir": str(tmp_path),
        "output_dir": str(tmp_path / "out"),
    }
    with pytest.raises(EQCCTProError, match="is a bare state dict"):
        RunEQCCTPro(**given)
    RunEQCCTPro(**given, model_arguments=dict(DESCRIBED))


def test_the_classes_that_need_less_are_seisbenchs() -> None:
    """What is asked of each class is what its constructor takes."""
    import inspect

    import seisbench.models as sbm

    from eqcctpro.models import description
    from eqcctpro.models.locations import PICKER_CLASSES

    for name in PICKER_CLASSES:
        kind = getattr(sbm, name)
        if not issubclass(kind, sbm.WaveformModel):
            continue
        named = {
            parameter
            for base in kind.__mro__
            if base not in (sbm.WaveformModel, sbm.SeisBenchModel) and "__init__" in vars(base)
            for parameter in inspect.signature(base.__init__).parameters
        }
        asked = description.needed_of(name)
        if name in ("DPPDetector", "DPPPicker") or name.startswith("EQCCT"):
            continue  # they cannot be run by themselves, or are normalised by the variant
        assert ("norm" in asked) == ("norm" in named and name != "DKPN"), name
        assert ("labels" in asked) == ("phases" in named), name


def test_networks_of_eqcct_need_their_order_only(tmp_path: Path, seisbench_cache: Path) -> None:
    from eqcctpro.models.eqcct import describe_eqcct, find_eqcct

    given = {}
    for branch in "PS":
        found = find_weights(f"EQCCT{branch}", "original", fetch=False)
        state = torch.load(found.weight_path, weights_only=True)
        path = given[f"{branch.lower()}_model"] = tmp_path / f"{branch}.pt"
        torch.save({name: tensor * 1.001 for name, tensor in state.items()}, path)
    files = find_eqcct("mine", find_weights, **given)
    with pytest.raises(WeightsError, match=r"P\.pt is a bare state dict.* its component order;"):
        described_weights(files, {"variant": "seisbench"})
    described = described_weights(files, {"component_order": "ZNE"})
    assert describe_eqcct(described).components == "ZNE"
    with pytest.raises(SettingsError, match="only component_order can be said"):
        described_weights(files, {"component_order": "ZNE", "norm": "std"})


def test_the_authors_networks_of_eqcct_have_one_order(test_data: Path) -> None:
    from eqcctpro.models.eqcct import find_eqcct

    folder = test_data / "models" / "eqcct"
    p, s = folder / "test_trainer_024.h5", folder / "test_trainer_021.h5"
    files = find_eqcct("original", find_weights, p_model=p, s_model=s)
    assert described_weights(files, {"component_order": "ENZ"}).sha256 == files.sha256
    with pytest.raises(SettingsError, match="own weights, which take ENZ"):
        described_weights(files, {"component_order": "ZNE"})


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("cut", "damaged"),
        ("model", "whole Python object.*model.save"),
        ("checkpoint", "checkpoint of a training: its weights are under 'model_state_dict'"),
    ],
)
def test_files_that_are_no_state_dict(saved: Path, tmp_path: Path, kind: str, words: str) -> None:
    path = tmp_path / f"{kind}.pt"
    if kind == "cut":
        path.write_bytes((saved / "bare.pt").read_bytes()[:3000])
    elif kind == "model":
        torch.save(torch.nn.Linear(2, 2), path)
    else:
        state = torch.load(saved / "bare.pt", weights_only=True)
        torch.save({"epoch": 3, "model_state_dict": state}, path)
    with pytest.raises(WeightsError, match=words):
        described_weights(find_weights("PhaseNet", str(path)), {})


@pytest.mark.parametrize(
    ("name", "value"), [("overlap", 1.5), ("stride", 2.5), ("overlap", "nan"), ("stride", "inf")]
)
def test_shares_of_samples_are_refused(
    generated_network: Any, imported_model: str, pick: Any, name: str, value: object
) -> None:
    with pytest.raises(SettingsError, match=name):
        pick(generated_network[0], model=imported_model, model_arguments={name: value})
