"""The machine that a benchmark ran on, and running its answer on this one."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from eqcctpro.config import PickConfig, parse_device
from eqcctpro.errors import RuntimeUnavailableError, SettingsError
from eqcctpro.evaluation.canonical import model_name
from eqcctpro.evaluation.configuration import PARALLELISM, BestConfiguration
from eqcctpro.resources.hardware import available_cores
from eqcctpro.resources.nvml import read_gpus

__all__ = ["describe_machine", "settings_for_this_machine", "take_configuration"]

_CPU_INFO = Path("/proc/cpuinfo")


def describe_machine() -> str:
    """Processor, cores and GPUs of this machine, as the benchmarks record them.

    Without the machine's name: it changes with every container, and equal machines are alike.
    """
    gpus = [gpu.name for gpu in read_gpus()[0]]
    return ", ".join([_processor(), f"{os.cpu_count() or 1} cores", *gpus])


def _processor() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def settings_for_this_machine(
    settings: Mapping[str, Any], *, cpus: int, machine: str
) -> tuple[dict[str, Any], list[str]]:
    """Settings that were measured, as this machine can run them.

    Parameters
    ----------
    settings : mapping
        Fields of `eqcctpro.PickConfig`.
    cpus : int
        Cores that the measurement had.
    machine : str
        Where it was made; empty if that is not known.

    Returns
    -------
    dict, list of str
        The settings, and what somebody should know about them.

    Raises
    ------
    SettingsError
        There are not that many cores here.
    RuntimeUnavailableError
        A GPU is not here.
    """
    warnings = []
    here = describe_machine()
    if machine and machine != here:
        warnings.append(
            f"the configuration was measured on another machine ({machine}; this is {here}): "
            "another one may be faster here"
        )
    chosen = dict(settings)
    cores = available_cores()
    asked = [int(core) for core in settings.get("cpu_ids") or ()]
    wanted = len(set(asked)) or cpus
    if wanted > len(cores):
        raise SettingsError(
            f"the configuration needs {wanted} cores; this process may use {len(cores)}: {cores}",
            hint="benchmark this machine, or ask a finder for a configuration with fewer CPUs",
        )
    if not set(asked) <= set(cores):
        warnings.append(f"cores {asked} are not all here; cores {cores[:wanted]} are used instead")
        asked = []
    chosen["cpu_ids"] = tuple(asked or cores[:wanted])
    _check_gpus(str(settings.get("device", "cpu")))
    return chosen, warnings


def _check_gpus(device: str) -> None:
    wanted = set(parse_device(device)[1])
    if not wanted:
        return
    gpus, note = read_gpus()
    missing = sorted(wanted - {gpu.index for gpu in gpus})
    if missing:
        raise RuntimeUnavailableError(
            f"the configuration needs GPU {', '.join(map(str, missing))}, which is not here"
            + (f" ({note})" if note else ""),
            hint="benchmark this machine, or take a configuration of its CPUs",
        )


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
