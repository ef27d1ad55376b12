"""Translation of EQCCTPro's parameters into settings of this package."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import Parameter, signature
from typing import Any

from eqcctpro.errors import SettingsError
from eqcctpro.notices import without_effect

__all__ = [
    "check_times",
    "device_of",
    "known_parameters",
    "model_fields",
    "model_name",
    "require",
]

_OF_EQCCT = ("p_model_filepath", "s_model_filepath")
_OF_SEISBENCH = ("seisbench_parent_model", "seisbench_child_model")


def model_name(given: Mapping[str, Any]) -> str:
    """``Parent/child`` of ``model_type`` and the parameters that go with it.

    Raises
    ------
    SettingsError
        One is missing, or SeisBench's names are given without their type.
    """
    kind = str(given["model_type"]).lower()
    if kind == "seisbench":
        require(given, "seisbench_parent_model", "seisbench_child_model")
        model = f"{given['seisbench_parent_model']}/{given['seisbench_child_model']}"
        _not_for(given, _OF_EQCCT, model)
        return model
    if kind == "eqcct":
        # Files of EQCCT say that EQCCT is meant; without them the type may just be missing.
        if all(given[name] is None for name in _OF_EQCCT):
            for name in _OF_SEISBENCH:
                if given[name] is not None:
                    raise SettingsError(f"{name} is for model_type='seisbench', not for 'eqcct'")
        _not_for(given, _OF_SEISBENCH, "EQCCT")
        return "EQCCT/original"
    raise SettingsError(f"model_type: {kind!r} is not known", hint="use 'seisbench' or 'eqcct'")


def model_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """`PickConfig`'s fields that say which model, and where EQCCT's files are.

    Raises
    ------
    SettingsError
        As `model_name`.
    """
    name = model_name(given)
    files = given if str(given["model_type"]).lower() == "eqcct" else dict.fromkeys(_OF_EQCCT)
    return {
        "model": name,
        "p_model": files["p_model_filepath"],
        "s_model": files["s_model_filepath"],
    }


def _not_for(given: Mapping[str, Any], names: Sequence[str], model: str) -> None:
    for name in names:
        if given[name] is not None:
            without_effect(f"{name}={str(given[name])!r}", f"the model is {model}")


def check_times(given: Mapping[str, Any]) -> None:
    """Refuse a start without an end, and time chunks without either.

    Raises
    ------
    SettingsError
    """
    if (given["start_time"] is None) != (given["end_time"] is None):
        raise SettingsError("start_time and end_time belong together: give both, or neither")
    if given["start_time"] is None and (given["timechunk_dt"], given["waveform_overlap"]) != (1, 0):
        raise SettingsError(
            "timechunk_dt and waveform_overlap need start_time and end_time",
            hint="without them the folders are the time chunks",
        )


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


def known_parameters(
    kind: Callable[..., Any], others: Mapping[str, Any], further: Collection[str] = ()
) -> dict[str, Any]:
    """Further keyword arguments, if they are parameters.

    Parameters
    ----------
    kind : callable
        What takes them.
    others : mapping
    further : collection of str
        Further names, as of earlier releases, which are parameters too.

    Raises
    ------
    SettingsError
        One is unknown.
    """
    from difflib import get_close_matches

    found = signature(kind).parameters.values()
    known = [one.name for one in found if one.kind is not Parameter.VAR_KEYWORD]
    known += sorted(further)
    for name in others:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            raise SettingsError(
                f"there is no parameter {name}",
                hint=f"did you mean {close[0]}?" if close else f"see {kind.__name__}",
            )
    return dict(others)
