"""The memory tables of EQCCTPro 0.8.2, for models that run on torch.

Source: constants ``SEISBENCH_MODEL_VRAM_MB``, ``SEISBENCH_MODEL_RAM_MB``,
``SEISBENCH_MODEL_CPU_RAM_MB`` and ``EQCCT_*`` of EQCCTPro 0.8.2, as its authors measured
them: resident memory and, by NVML, GPU memory of a fresh process after it loaded a model
and classified one stream of 6,000 samples.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

__all__ = ["RIPPER_FACTORS", "published_footprint", "published_tables", "ripper_factor"]


class _Row(NamedTuple):
    vram: int
    ram_with_gpu: int
    ram: int


_TABLE = {
    "PhaseNet/original": _Row(500, 870, 502),
    "PhaseNet/stead": _Row(502, 889, 511),
    "PhaseNet/ethz": _Row(502, 900, 516),
    "PhaseNet/scedc": _Row(502, 889, 514),
    "PhaseNet/pisdl": _Row(502, 887, 501),
    "PhaseNet/instance": _Row(502, 897, 501),
    "PhaseNetLight/stead": _Row(500, 861, 502),
    "PhaseNetLight/ethz": _Row(500, 861, 498),
    "PhaseNetLight/scedc": _Row(500, 873, 512),
    "PhaseNetLight/instance": _Row(500, 861, 512),
    "EQTransformer/original": _Row(528, 1001, 521),
    "EQTransformer/original_nonconservative": _Row(530, 1017, 524),
    "EQTransformer/stead": _Row(528, 1017, 509),
    "EQTransformer/ethz": _Row(528, 1021, 511),
    "EQTransformer/scedc": _Row(528, 1025, 509),
    "EQTransformer/instance": _Row(528, 1019, 522),
    "GPD/original": _Row(584, 876, 576),
    "EQCCT/original": _Row(1732, 2311, 728),
}

_BY_LOWER_CASE = {name.lower(): row for name, row in _TABLE.items()}

#: How much more GPU memory a process takes while it loads a model than the tables say.
RIPPER_FACTORS = {
    "eqcct": 2.0,
    "eqtransformer": 2.0,
    "phasenet": 1.7,
    "phasenetlight": 1.7,
    "gpd": 1.8,
}
_OTHER_FACTOR = 1.8

#: Of the values for GPUs, what CUDA takes in every process before a model is loaded.  The
#: authors say "about 500"; less is assumed here, so that a worker's own limit is lower.
_CONTEXT_MB = 450.0


def ripper_factor(parent: str) -> float:
    """Factor for the GPU memory of a model's class while it is loaded."""
    return RIPPER_FACTORS.get(parent.lower(), _OTHER_FACTOR)


def published_tables() -> tuple[dict[tuple[str, str], float], ...]:
    """GPU memory, memory beside a GPU and memory without one, MB, by class and weights."""
    rows = {tuple(name.split("/")): row for name, row in _TABLE.items()}
    return tuple(
        {(k[0], k[1]): float(row[column]) for k, row in rows.items()} for column in range(3)
    )


def published_footprint(model: str, device: Literal["cpu", "cuda"]) -> dict[str, float] | None:
    """Arguments of a `Footprint`, MB, or None for a model that is not in the tables."""
    row = _BY_LOWER_CASE.get(model.lower())
    if row is None:
        return None
    if device == "cpu":
        return {"ram_mb": float(row.ram)}
    return {
        "ram_mb": float(row.ram_with_gpu),
        "vram_mb": float(row.vram),
        "vram_context_mb": _CONTEXT_MB,
    }
