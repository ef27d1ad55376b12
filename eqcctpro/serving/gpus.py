"""GPUs of the service: shares of its processes, and the device of a model in one of them."""

from __future__ import annotations

import sys

from eqcctpro.config import parse_device
from eqcctpro.errors import SettingsError
from eqcctpro.serving.settings import ModelSettings, ServeSettings

__all__ = ["device_here", "gpu_ids", "gpu_share"]

#: Ray books four decimals of a GPU.
_STEPS = 10_000


def gpu_ids(settings: ServeSettings) -> list[int]:
    """GPUs that the models of the settings name, by torch's numbers."""
    return sorted({index for choice in settings.models for index in _gpus(choice)})


def gpu_share(settings: ServeSettings, choice: ModelSettings | None = None) -> float:
    """Share of a GPU that Ray books for a process with a network.

    Where Ray is the service's own, its GPUs are shared out among the processes; on a cluster
    each takes a whole one.

    Parameters
    ----------
    settings : ServeSettings
    choice : ModelSettings, optional
        The model of the process, where it has only one.

    Raises
    ------
    SettingsError
        The processes would wait for more GPUs than there are, for ever.
    """
    replicas, gpus = settings.replicas, len(gpu_ids(settings))
    if not (gpus if choice is None else _gpus(choice)):
        return 0.0
    processes = replicas.scale.most
    if settings.mode == "staged":
        processes = replicas.network_scale.most * sum(map(bool, map(_gpus, settings.models)))
    if settings.address is not None:
        return 1.0 if replicas.gpus is None else replicas.gpus
    each = -(-processes // gpus)
    fair = (_STEPS // each) / _STEPS
    share = fair if replicas.gpus is None else replicas.gpus
    room = gpus // share if share > 1 else gpus * int(1 / share + 1e-9) if share else processes
    if room < processes:
        raise SettingsError(
            f"replicas.gpus: {processes} processes with {share:g} of a GPU each do not fit "
            f"{gpus} {'GPU' if gpus == 1 else 'GPUs'}",
            hint=f"give at most {fair:g}, or leave it out",
        )
    return share


def device_here(device: str, settings: ServeSettings) -> str:
    """A device as this process numbers it, which may be one of Ray.

    Ray shows a process the GPU of which it has booked a share, and that one alone; a process
    without a share sees the GPUs of the settings, numbered from 0.
    """
    kind, numbers = parse_device(device)
    ray = sys.modules.get("ray")
    if kind != "cuda" or ray is None or not ray.is_initialized():
        return device
    if ray.get_runtime_context().get_accelerator_ids().get("GPU"):
        return "cuda:0"
    known = gpu_ids(settings)
    if settings.address is None and numbers[0] in known:
        return f"cuda:{known.index(numbers[0])}"
    return device


def _gpus(choice: ModelSettings) -> tuple[int, ...]:
    return parse_device(choice.device)[1]
