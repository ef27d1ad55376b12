"""Weights of small networks that have learnt nothing, as SeisBench saves them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def save_networks(folder: Path, *names: str) -> None:
    """Save a PhaseNetLight for each name; no two are alike."""
    import torch
    from seisbench import models

    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(number)
        models.PhaseNetLight(phases="NPS", norm="std").save(str(path))


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
