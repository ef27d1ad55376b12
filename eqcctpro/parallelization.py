"""Memory tables of EQCCTPro 0.8.2, under the names that scripts import from ``parallelization``.

Runs plan with what `eqcctpro calibrate` has measured instead, see ``docs/resources.md``: changing
these tables changes no run.  All values are MB.
"""

from __future__ import annotations

from logging import Logger
from typing import Final

from eqcctpro.resources.published_footprints import published_tables, ripper_factor

__all__ = [
    "EQCCT_CPU_RAM_MB",
    "EQCCT_GPU_RAM_MB",
    "EQCCT_GPU_VRAM_MB",
    "RAM_BUFFER_MB",
    "SEISBENCH_MODEL_CPU_RAM_MB",
    "SEISBENCH_MODEL_RAM_MB",
    "SEISBENCH_MODEL_VRAM_MB",
    "VRAM_BUFFER_MB",
    "get_eqcct_ram_mb",
    "get_eqcct_vram_mb",
    "get_eqcct_vram_mb_ripper",
    "get_seisbench_model_ram_mb",
    "get_seisbench_model_vram_mb",
    "get_seisbench_model_vram_mb_ripper",
]

#: What EQCCTPro adds for each worker.
VRAM_BUFFER_MB: Final = 1024.0
RAM_BUFFER_MB: Final = 1536.0

_VRAM, _RAM_WITH_GPU, _RAM = published_tables()
_EQCCT = ("EQCCT", "original")

EQCCT_GPU_VRAM_MB: Final = _VRAM.pop(_EQCCT)
EQCCT_GPU_RAM_MB: Final = _RAM_WITH_GPU.pop(_EQCCT)
EQCCT_CPU_RAM_MB: Final = _RAM.pop(_EQCCT)

#: GPU memory, memory beside a GPU, and memory without one, by class and weights.
SEISBENCH_MODEL_VRAM_MB: Final = _VRAM
SEISBENCH_MODEL_RAM_MB: Final = _RAM_WITH_GPU
SEISBENCH_MODEL_CPU_RAM_MB: Final = _RAM


def get_seisbench_model_vram_mb(
    parent_model_name: str,
    child_model_name: str,
    default_mb: float = 500.0,
    logger: Logger | None = None,
) -> float:
    """GPU memory of a persistent worker, its buffer included."""
    model = (parent_model_name, child_model_name)
    return _of(SEISBENCH_MODEL_VRAM_MB, model, default_mb, logger) + VRAM_BUFFER_MB


def get_seisbench_model_vram_mb_ripper(
    parent_model_name: str,
    child_model_name: str,
    default_mb: float = 500.0,
    logger: Logger | None = None,
) -> float:
    """GPU memory of a Ripper task while it loads its model."""
    model = (parent_model_name, child_model_name)
    known = _of(SEISBENCH_MODEL_VRAM_MB, model, default_mb, logger)
    return known * ripper_factor(parent_model_name)


def get_seisbench_model_ram_mb(
    parent_model_name: str,
    child_model_name: str,
    use_gpu: bool = True,
    default_mb: float = 500.0,
    logger: Logger | None = None,
) -> float:
    """Memory of a worker, its buffer included."""
    table = SEISBENCH_MODEL_RAM_MB if use_gpu else SEISBENCH_MODEL_CPU_RAM_MB
    return _of(table, (parent_model_name, child_model_name), default_mb, logger) + RAM_BUFFER_MB


def _of(
    table: dict[tuple[str, str], float],
    model: tuple[str, str],
    default_mb: float,
    logger: Logger | None,
) -> float:
    if model not in table and logger is not None:
        logger.warning("%s is not in the table: %s MB is assumed", "/".join(model), default_mb)
    return table.get(model, default_mb)


def get_eqcct_vram_mb() -> float:
    """GPU memory of a persistent worker with EQCCT, its buffer included."""
    return EQCCT_GPU_VRAM_MB + VRAM_BUFFER_MB


def get_eqcct_vram_mb_ripper() -> float:
    """GPU memory of a Ripper task while it loads EQCCT."""
    return EQCCT_GPU_VRAM_MB * ripper_factor("EQCCT")


def get_eqcct_ram_mb(use_gpu: bool = True) -> float:
    """Memory of a worker with EQCCT, its buffer included."""
    return (EQCCT_GPU_RAM_MB if use_gpu else EQCCT_CPU_RAM_MB) + RAM_BUFFER_MB
