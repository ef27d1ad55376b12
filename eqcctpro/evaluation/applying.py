"""Running what a finder answered: its settings in place of those that a user gave."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final

from eqcctpro.config import PickConfig
from eqcctpro.evaluation.canonical import model_name
from eqcctpro.evaluation.configuration import PARALLELISM, BestConfiguration
from eqcctpro.evaluation.machine import settings_for_this_machine

__all__ = ["take_configuration"]

# What a configuration does not say of these is left to the run; what it does not say of the
# others is left as the user gave it.
_WHOLE: Final = (
    *("mode", "workers", "concurrent_timechunks", "device", "threads", "inter_threads"),
    *("cpu_ids", "vram_mb"),
)
_ON_GPU: Final = ("vram_mb", "max_vram_mb", "gpu_vram_safety_cap", "cudnn_headroom")

_log = logging.getLogger("eqcctpro")


def take_configuration(
    best: BestConfiguration, values: Mapping[str, Any], stated: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Settings of a run, with how it runs taken from a finder's answer.

    Parameters
    ----------
    best : BestConfiguration
    values : mapping
        Fields of `eqcctpro.PickConfig` as the user's parameters give them.
    stated : mapping
        Those parameters of `eqcctpro.RunEQCCTPro` that the user gave.

    Returns
    -------
    dict, dict
        The fields to run with, and the user's parameters that they contradict.

    Raises
    ------
    SettingsError, RuntimeUnavailableError
        This machine has not the cores or GPUs.
    """
    settings, warnings = settings_for_this_machine(
        best.pick_settings(), cpus=best.cpus, machine=best.trial.machine
    )
    wanted = str(values["model"])
    if model_name(wanted).casefold() != best.model.casefold():
        warnings.append(
            f"the configuration was measured with {best.model}, this run picks with {wanted}"
        )
    taken = {**values, **{name: _default(name) for name in _WHOLE}, **settings}
    if settings["device"] == "cpu":
        taken |= {name: _default(name) for name in _ON_GPU}
    arguments = dict(taken["model_arguments"])
    if "batch_size" in settings:
        arguments.pop("batch_size", None)
    taken["model_arguments"] = arguments
    overridden = _contradicted(values, taken, stated)
    _log.info("configuration of a benchmark: %s", best)
    for sentence in warnings:
        _log.warning("%s", sentence)
    for name, value in overridden.items():
        _log.warning("%s=%r is overridden by the configuration of a benchmark", name, value)
    return taken, overridden


def _default(field: str) -> Any:
    return PickConfig.model_fields[field].default


def _contradicted(
    values: Mapping[str, Any], taken: Mapping[str, Any], stated: Mapping[str, Any]
) -> dict[str, Any]:
    """The parameters that a user gave and that do not hold any more."""
    changed = {
        parameter
        for field, parameter in PARALLELISM.items()
        if values.get(field) != taken.get(field)
    }
    if "mode" in changed:
        changed.add("ripper")
    if str(values["device"]).partition(":")[0] != str(taken["device"]).partition(":")[0]:
        changed.add("use_gpu")
    if values["model_arguments"] != taken["model_arguments"]:
        changed.add("model_arguments")
    return {name: value for name, value in stated.items() if name in changed}
