"""Selection of the model that a run's settings name, and of its execution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from eqcctpro.archive.plan import Plan
from eqcctpro.config import ModelConfig, PickConfig, PickingConfig
from eqcctpro.errors import WeightsNotFoundError
from eqcctpro.models.description import described_weights, without_description
from eqcctpro.models.known_curves import known_curves
from eqcctpro.models.locations import COMPOSED_CLASSES
from eqcctpro.models.picker import Picker
from eqcctpro.models.weight_files import WeightFiles, split_name
from eqcctpro.models.weights import find_weights, may_be_fetched
from eqcctpro.picks.annotations import CURVE_FOLDER
from eqcctpro.pipeline.settings import PipelineSettings, resolve_settings
from eqcctpro.runtimes.select import check_runtime, load_picker
from eqcctpro.sources.task_settings import TaskSettings
from eqcctpro.waveform.preparation import Preparation
from eqcctpro.windows.placement import window_step

__all__ = [
    "check_model",
    "check_runtimes",
    "describe",
    "describe_picking",
    "describe_run",
    "expected_windows",
    "find_run_weights",
    "fit_to_model",
    "prepare_model",
]

_Config = TypeVar("_Config", bound=ModelConfig)


def find_run_weights(config: ModelConfig, *, fetch: bool = True) -> WeightFiles:
    """Find the weight files that a configuration names.

    Parameters
    ----------
    config : ModelConfig
    fetch : bool
        Whether they may be downloaded.

    Raises
    ------
    ModelError
        There are none, they are damaged, or a bare state dict without a description.
    SettingsError
        An argument contradicts the file beside them.
    """
    parent, child = split_name(config.model)
    if parent not in COMPOSED_CLASSES:
        return described_weights(find_weights(parent, child, fetch=fetch), config.model_arguments)
    from eqcctpro.models.eqcct import find_eqcct

    found = find_eqcct(
        child,
        find_weights,
        p_model=config.p_model,
        s_model=config.s_model,
        variant=config.model_arguments.get("variant", "eqcctpro"),
        fetch=fetch,
    )
    return described_weights(found, config.model_arguments)


def check_model(config: PickConfig, runtimes: Sequence[str] = ()) -> PickConfig:
    """Find errors in the choice of a model before a run, without torch and without a network.

    Weights that are not on this machine yet, and a class that is known too little, are left to
    the run.

    Parameters
    ----------
    config : PickConfig
    runtimes : sequence of str
        What is to execute the model, where not the setting says it.

    Returns
    -------
    PickConfig
        Without thresholds of what the model does not yield, with a `SettingsWarning`.

    Raises
    ------
    UnknownModelError, WeightsNotFoundError, WeightsError
        There is no such class or file, or it is damaged.
    RuntimeUnavailableError
        A runtime is not installed, or does not execute this model on this device.
    SettingsError
        An argument is wrong.
    """
    weights = _weights_here(config)
    if config.address is None:
        check_runtimes(config, runtimes)
    curves = None if weights is None else known_curves(weights)
    return config if curves is None else _without_thresholds(config, config.model, *curves)


def check_runtimes(config: PickConfig, runtimes: Sequence[str] = ()) -> None:
    """Check that this machine's runtimes can execute a run's model on its device.

    Parameters
    ----------
    config : PickConfig
    runtimes : sequence of str
        As in `check_model`.

    Raises
    ------
    RuntimeUnavailableError
        One is not installed, or does not.
    """
    composed = split_name(config.model)[0] in COMPOSED_CLASSES
    for runtime in runtimes or (config.runtime,):
        check_runtime(runtime, config.device, config.model, composed=composed)


def _weights_here(config: PickConfig) -> WeightFiles | None:
    """Local weights, or None if they may have to be downloaded."""
    try:
        return find_run_weights(config, fetch=False)
    except WeightsNotFoundError:
        named = [path for path in (config.p_model, config.s_model) if path is not None]
        if not named and may_be_fetched(*split_name(config.model)):
            return None
        raise


def prepare_model(config: PickConfig) -> PickConfig:
    """Find, download and load a run's model once, so that errors show before any work.

    Returns
    -------
    PickConfig
        As `fit_to_model` returns it.

    Raises
    ------
    ModelError
        There are no such weights, or they cannot be used.
    SettingsError
        A threshold or argument does not fit the model.
    """
    weights = find_run_weights(config)
    picker = load_picker(weights)
    config = fit_to_model(config, picker)
    describe_run(config, weights, picker)
    return config


def fit_to_model(config: _Config, picker: Picker) -> _Config:
    """Remove thresholds of labels that the model does not yield, with a warning."""
    initials = frozenset(phase[:1].upper() for phase in picker.phases)
    return _without_thresholds(config, picker.name, initials, picker.detection_label is not None)


def _without_thresholds(
    config: _Config, name: str, phases: frozenset[str], detects: bool
) -> _Config:
    for initial in ("P", "S"):
        field = f"{initial.lower()}_threshold"
        if initial not in phases and getattr(config, field) is not None:
            config = config.without(field, f"{name} yields no {initial} picks")
    if not detects and config.detection_threshold is not None:
        config = config.without("detection_threshold", f"{name} yields no detections")
    return config


def describe(
    config: ModelConfig, weights: WeightFiles, picker: Picker | None = None
) -> tuple[Picker, PipelineSettings]:
    """Description of the model that a configuration names, and settings of its pipeline.

    Parameters
    ----------
    config : ModelConfig
    weights : WeightFiles
    picker : Picker, optional
        The model, where it was described before.

    Raises
    ------
    SettingsError
        A threshold or argument does not fit the model.
    """
    picker = picker or load_picker(weights)
    arguments = without_description(config.model_arguments)
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
    )
    return picker, settings


def describe_picking(
    config: PickingConfig, weights: WeightFiles, picker: Picker | None = None
) -> tuple[Picker, PipelineSettings]:
    """As `describe`, with the preparation of the waveforms.

    Parameters
    ----------
    config : PickingConfig
    weights : WeightFiles
    picker : Picker, optional
        The model, where it was described before.

    Raises
    ------
    SettingsError
        A threshold or argument does not fit the model.
    """
    picker, settings = describe(config, weights, picker)
    filled = config.fill_gaps != "none"
    settings = settings.prepared_by(
        Preparation(config.fill_gaps, config.longest_gap if filled else None, config.filters)
    )
    return picker, replace(settings, contradictions=config.contradictions)


def describe_run(
    config: PickConfig, weights: WeightFiles, picker: Picker | None = None
) -> tuple[Picker, TaskSettings]:
    """As `describe`, with what a run's settings say of its input and output.

    Parameters
    ----------
    config : PickConfig
    weights : WeightFiles
    picker : Picker, optional
        The model, where it was described before.

    Raises
    ------
    SettingsError
        A threshold or argument does not fit the model.
    """
    picker, settings = describe_picking(config, weights, picker)
    annotations = config.output.absolute() / CURVE_FOLDER
    settings = replace(settings, start_ns=config.start_ns, end_ns=config.end_ns)
    return picker, TaskSettings.of(
        settings,
        item_timeout_s=config.item_timeout,
        annotations=str(annotations) if config.annotations else None,
        storage=config.storage,
        input_roots=config.absolute().input_roots,
    )


def expected_windows(plan: Plan, picker: Picker, settings: PipelineSettings) -> int:
    """Estimated number of windows in the plan, from the times in the records' headers."""
    seconds = float(plan.files.seconds().sum())
    samples = seconds / len(picker.recorded) * (picker.sampling_rate or 100.0)
    return max(round(samples / window_step(picker, settings.windows)), len(plan.tasks))
