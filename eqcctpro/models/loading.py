"""Weights as torch modules, whichever model they are of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eqcctpro.models.checksums import require_sha256
from eqcctpro.models.eqcct import describe_eqcct
from eqcctpro.models.picker import Picker

if TYPE_CHECKING:
    from seisbench.models import WaveformModel
    from torch import nn

    from eqcctpro.models.eqcct_curves import EqcctCurves
    from eqcctpro.models.weight_files import WeightFiles

__all__ = ["curve_module", "describe_model", "load_model"]


def load_model(files: WeightFiles) -> tuple[Picker, WaveformModel | EqcctCurves]:
    """Build a model, load its weights and describe it.

    Parameters
    ----------
    files : WeightFiles

    Returns
    -------
    picker : Picker
    module : seisbench.models.WaveformModel or EqcctCurves
        In evaluation mode, on the CPU.

    Raises
    ------
    ModelError
        If the weights cannot be loaded, or the model works in a way that the pipeline
        cannot follow.
    """
    if files.parts:
        from eqcctpro.models.eqcct_curves import load_eqcct

        return describe_eqcct(files), load_eqcct(files)
    from eqcctpro.models.seisbench import describe, load_module

    # Before, for a clear message; and behind, for it may be exchanged while it is read.
    require_sha256(files.weight_path, files.sha256)
    module = load_module(
        files.parent, files.weight_path, files.metadata_path, dict(files.described)
    )
    require_sha256(files.weight_path, files.sha256)
    return describe(module, files.parent, files.child, files.sha256), module


def describe_model(files: WeightFiles) -> Picker:
    """Describe weights; loads them only if the description depends on it."""
    return describe_eqcct(files) if files.parts else load_model(files)[0]


def curve_module(module: WaveformModel | EqcctCurves) -> nn.Module:
    """The array function of a loaded model: raw windows to curves."""
    from eqcctpro.models.eqcct_curves import EqcctCurves
    from eqcctpro.models.seisbench import curve_module as seisbench_curves

    return module if isinstance(module, EqcctCurves) else seisbench_curves(module)
