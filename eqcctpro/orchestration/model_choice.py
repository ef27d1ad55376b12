"""The model that a run's settings name, and how it is run."""

from __future__ import annotations

from dataclasses import replace

from eqcctpro.archive.plan import Plan
from eqcctpro.config import PickConfig
from eqcctpro.models.locations import COMPOSED_CLASSES
from eqcctpro.models.picker import Picker
from eqcctpro.models.weights import WeightFiles, find_weights, split_name
from eqcctpro.pipeline.annotations import CURVE_FOLDER
from eqcctpro.pipeline.settings import PipelineSettings, resolve_settings
from eqcctpro.windows.placement import window_step

__all__ = ["describe", "expected_windows", "find_run_weights"]


def find_run_weights(config: PickConfig) -> WeightFiles:
    """The weight files that a configuration names."""
    parent, child = split_name(config.model)
    if parent not in COMPOSED_CLASSES:
        return find_weights(parent, child)
    from eqcctpro.models.eqcct import find_eqcct

    return find_eqcct(
        child,
        p_model=config.p_model,
        s_model=config.s_model,
        variant=config.model_arguments.get("variant", "eqcctpro"),
    )


def describe(config: PickConfig, weights: WeightFiles) -> tuple[Picker, PipelineSettings]:
    """The model that a configuration names, and the settings of its pipeline."""
    from eqcctpro.runtimes.select import load_picker

    picker = load_picker(weights)
    arguments = dict(config.model_arguments)
    if weights.variant:
        arguments.pop("variant", None)
    settings = resolve_settings(
        picker,
        grid=config.window_grid,
        p_threshold=config.p_threshold,
        s_threshold=config.s_threshold,
        detection_threshold=config.detection_threshold,
        bandpass=config.bandpass,
        arguments=arguments,
        start_ns=config.start_ns,
        end_ns=config.end_ns,
    )
    annotations = config.output.absolute() / CURVE_FOLDER
    return picker, replace(
        settings,
        item_timeout_s=config.item_timeout,
        annotations=str(annotations) if config.annotations else None,
        storage=config.storage,
    )


def expected_windows(plan: Plan, picker: Picker, settings: PipelineSettings) -> int:
    """Roughly how many windows the plan holds, from the times in the records' headers."""
    seconds = float(plan.files.seconds().sum())
    samples = seconds / len(picker.components) * (picker.sampling_rate or 100.0)
    return max(round(samples / window_step(picker, settings.windows)), len(plan.tasks))
