"""What EQCCTPro's parameters mean in settings of ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from eqcctpro.errors import SettingsError
from eqcctpro.notices import without_effect

__all__ = ["device_of", "model_name", "require"]


def model_name(given: Mapping[str, Any]) -> str:
    """``Parent/child`` of ``model_type`` and the parameters that go with it.

    Raises
    ------
    SettingsError
        One is missing, or belongs to the other type.
    """
    kind = str(given["model_type"]).lower()
    if kind == "seisbench":
        require(given, "seisbench_parent_model", "seisbench_child_model")
        for name in ("p_model_filepath", "s_model_filepath"):
            if given[name] is not None:
                raise SettingsError(f"{name} is for model_type='eqcct', not for 'seisbench'")
        return f"{given['seisbench_parent_model']}/{given['seisbench_child_model']}"
    if kind == "eqcct":
        for name in ("seisbench_parent_model", "seisbench_child_model"):
            if given[name] is not None:
                raise SettingsError(f"{name} is for model_type='seisbench', not for 'eqcct'")
        return "EQCCT/original"
    raise SettingsError(f"model_type: {kind!r} is not known", hint="use 'seisbench' or 'eqcct'")


def device_of(use_gpu: bool, selected_gpus: Sequence[int] | None, *, several: bool = True) -> str:
    """``cpu`` or ``cuda:0,1``.

    Parameters
    ----------
    use_gpu : bool
    selected_gpus : sequence of int or None
        CUDA devices; None, or none, takes those that CUDA shows to this process, as EQCCTPro
        does.
    several : bool
        Whether more than one can be used.
    """
    if not use_gpu:
        if selected_gpus:
            without_effect(f"selected_gpus={list(selected_gpus)}", "this run uses no GPU")
        return "cpu"
    gpus = list(selected_gpus or _visible_gpus())
    return "cuda:" + ",".join(str(gpu) for gpu in (gpus if several or selected_gpus else gpus[:1]))


def _visible_gpus() -> Sequence[int]:
    """Numbers of all GPUs; of the first one where none is seen, which the run will say."""
    from eqcctpro.resources.nvml import read_gpus

    return [gpu.index for gpu in read_gpus()[0]] or [0]


def require(given: Mapping[str, Any], *names: str) -> None:
    """Refuse parameters that are missing.

    Raises
    ------
    SettingsError
    """
    missing = [name for name in names if given[name] is None]
    if missing:
        raise SettingsError(f"{', '.join(missing)} must be given")
