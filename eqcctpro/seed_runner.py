"""`EQCCTMSeedRunner`: `RunEQCCTPro` with the name and parameters of early releases of EQCCTPro."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqcctpro.api import RunEQCCTPro
from eqcctpro.errors import SettingsError
from eqcctpro.notices import one_warning, warn_user, without_effect
from eqcctpro.parameters import known_parameters

if TYPE_CHECKING:
    from eqcctpro.times import Time

__all__ = ["EQCCTMSeedRunner"]

PathLike = str | Path


class EQCCTMSeedRunner(RunEQCCTPro):
    """A picking run with the parameters of EQCCTPro 0.3 to 0.6; deprecated.

    Parameters that `RunEQCCTPro` has under the same name mean the same, and its others are taken
    too.

    Parameters
    ----------
    number_of_concurrent_predictions : int, optional
        Older name of `number_of_concurrent_station_predictions`.
    set_vram_mb : float, optional
        GPU memory of all workers together, MB: `max_vram_mb` of `RunEQCCTPro`.
    timechunk_dt, waveform_overlap : float, optional
        None stands for 1 and 0 minutes.
    **others
        Further parameters of `RunEQCCTPro`.

    Raises
    ------
    SettingsError
        A parameter is unknown, or given under both of its names.
    EQCCTProError
        As in `RunEQCCTPro`.

    Warns
    -----
    DeprecationWarning
        Always.
    """

    def __init__(
        self,
        use_gpu: bool = False,
        input_dir: PathLike | None = None,
        output_dir: PathLike | None = None,
        log_filepath: PathLike | None = None,
        p_model_filepath: PathLike | None = None,
        s_model_filepath: PathLike | None = None,
        number_of_concurrent_station_predictions: int | None = None,
        number_of_concurrent_timechunk_predictions: int | None = None,
        intra_threads: int = 1,
        inter_threads: int = 1,
        P_threshold: float | None = None,
        S_threshold: float | None = None,
        specific_stations: str | None = None,
        csv_dir: PathLike | None = None,
        best_usecase_config: bool | None = None,
        set_vram_mb: float | None = None,
        selected_gpus: Sequence[int] | None = None,
        cpu_id_list: Sequence[int] | None = None,
        start_time: Time | None = None,
        end_time: Time | None = None,
        timechunk_dt: float | None = None,
        waveform_overlap: float | None = None,
        *,
        number_of_concurrent_predictions: int | None = None,
        **others: Any,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in {"self", "others", "__class__"}}
        given |= known_parameters(RunEQCCTPro, others)
        _rename(
            given, "number_of_concurrent_predictions", "number_of_concurrent_station_predictions"
        )
        pool = given.pop("set_vram_mb")
        if pool is not None and use_gpu:
            given["set_vram_mb"] = pool
            _rename(given, "set_vram_mb", "max_vram_mb")
        warn_user("EQCCTMSeedRunner is now RunEQCCTPro", DeprecationWarning)
        with one_warning():
            if pool is not None and not use_gpu:
                without_effect(f"set_vram_mb={pool}", "this run uses no GPU")
            super().__init__(**{name: value for name, value in given.items() if value is not None})


def _rename(given: dict[str, Any], old: str, new: str) -> None:
    """Move a value to the parameter's present name."""
    value = given.pop(old, None)
    if value is None:
        return
    if given.get(new) is not None:
        raise SettingsError(f"{old} and {new} are the same parameter: give one of them")
    given[new] = value
