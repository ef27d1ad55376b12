"""SeisBench's models as pickers: loading their weights, describing them, their arrays.

SeisBench builds and loads the network and stays the reference for what it computes;
its handling of streams is not used.  torch and seisbench are imported on first use.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eqcctpro.errors import ModelError, UnknownModelError, WeightsError
from eqcctpro.models.picker import Picker, WindowSettings

if TYPE_CHECKING:
    from seisbench.models import WaveformModel

    from eqcctpro.models.curves import CurveModule

__all__ = ["curve_module", "describe", "load_module", "load_picker_module"]

#: Stages of SeisBench's ``annotate``/``classify`` that the pipeline does itself.  A
#: class that overrides one of them works in a way that the pipeline would not follow.
_STREAM_HOOKS = (
    "annotate_stream_pre",
    "annotate_stream_validate",
    "classify_stream_pre",
    "classify",
    "annotate",
    "_get_in_pred_samples",
    "_cut_fragments_array",
    "_cut_fragments_point",
    "_stack_predictions_array_ext",
)

#: Overridden stages that the pipeline implements.
_FOLLOWED = {("DKPN", "annotate_stream_pre")}

#: Labels that are no arrivals.
_NOT_PHASES = frozenset({"N", "Noise", "Detection"})

#: Threshold for classes that define none for a phase; as in EQCCTP's ``classify``.
_THRESHOLD_OF_LAST_RESORT = 0.3

#: Prediction samples that BasicPhaseAE always discards: the last ones, and one near the beginning.
_FIXED_BLINDING = {"BasicPhaseAE": (0, 130)}
_FIXED_BLINDED = {"BasicPhaseAE": (130,)}


def load_module(
    parent: str,
    weight_path: Path,
    metadata_path: Path | None,
    described: Mapping[str, Any] | None = None,
) -> WaveformModel:
    """Build a SeisBench model and load its weights, without executing foreign code.

    Parameters
    ----------
    parent : str
        Class name in ``seisbench.models``.
    weight_path : pathlib.Path
        State dict as written by torch.
    metadata_path : pathlib.Path or None
        SeisBench's JSON beside it; its ``model_args`` go to the constructor, its
        ``default_args`` become the model's defaults.
    described : mapping, optional
        Arguments of the constructor and ``labels`` that the JSON lacks.

    Returns
    -------
    seisbench.models.WaveformModel
        In evaluation mode, on the CPU.

    Raises
    ------
    UnknownModelError
        If SeisBench has no such picker.
    WeightsError
        If a file is damaged or belongs to another model.
    """
    kind = _model_class(parent)
    _require_plain_streams(kind, parent)
    metadata = _read_metadata(metadata_path)
    _check_requirement(kind, metadata, metadata_path)
    arguments = _arguments(kind, described or {}) | metadata.get("model_args", {})
    try:
        module: WaveformModel = _build(kind, arguments)
    except (TypeError, ValueError) as error:
        raise WeightsError(
            f"{metadata_path or parent}: {parent} cannot be built from these model_args: {error}",
            hint="the file belongs to another class or another release of SeisBench",
        ) from error
    _load_state(module, parent, weight_path)
    module._weights_metadata = {**metadata, "model_args": arguments}
    module._parse_metadata()
    return module.eval()


def describe(module: WaveformModel, parent: str, child: str, sha256: str) -> Picker:
    """Fill a :class:`Picker` from a SeisBench model.

    Parameters
    ----------
    module : seisbench.models.WaveformModel
        As :func:`load_module` returns it.
    parent, child : str
        Names of the class and of the weights.
    sha256 : str
        Hash of the weight file.

    Raises
    ------
    ModelError
        If the class works in a way that windows, curves and thresholds cannot express.
    """
    _require_window_picker(module, parent)
    labels = _labels(module)
    detection = "Detection" if "Detection" in labels else None
    phases = tuple(str(p) for p in getattr(module, "phases", labels) if str(p) not in _NOT_PHASES)
    if detection is None and not phases:
        raise ModelError(f"{parent} yields {', '.join(labels)}: neither a phase nor a detection")
    point = module.output_type == "point"
    window = (0, int(module.pred_sample)) if point else tuple(int(s) for s in module.pred_sample)
    picker = Picker(
        model=parent,
        weights=child,
        weights_sha256=sha256,
        sampling_rate=None if module.sampling_rate is None else float(module.sampling_rate),
        components="".join(module.component_order),
        in_samples=int(module.in_samples),
        output=module.output_type,
        pred_sample=(window[0], window[1]),
        out_samples=_out_samples(module, parent, len(labels)),
        labels=labels,
        phases=phases,
        detection_label=detection,
        windows=_window_settings(module, parent),
        thresholds=_thresholds(module, phases, detection),
        filter_args=module.filter_args,
        filter_kwargs=module.filter_kwargs,
        norm=_norm(module),
        features=_features(module, parent),
    )
    # Through JSON, so that a picker is the same whether described or read from a cache.
    return Picker.from_json(picker.to_json())


def curve_module(module: WaveformModel) -> CurveModule:
    """Wrap a SeisBench model as a function from raw windows to curves."""
    from eqcctpro.models.curves import CurveModule

    return CurveModule(module)


def load_picker_module(
    parent: str, child: str, weight_path: Path, metadata_path: Path | None, sha256: str
) -> tuple[Picker, CurveModule]:
    """Load weights, and return both the picker and its array function."""
    module = load_module(parent, weight_path, metadata_path)
    return describe(module, parent, child, sha256), curve_module(module)


def _model_class(parent: str) -> Any:
    import seisbench.models as sbm

    kind = getattr(sbm, parent, None)
    known = [
        name
        for name in sbm.__all__
        if isinstance(getattr(sbm, name), type)
        and issubclass(getattr(sbm, name), sbm.WaveformModel)
        and name != "WaveformModel"
    ]
    if parent in known:
        return kind
    if kind is not None:
        raise UnknownModelError(
            f"seisbench.models.{parent} is not a picker that takes windows of waveforms",
            hint=f"pickers are {', '.join(known)}",
        )
    by_lower_case = {name.lower(): name for name in known}
    close = difflib.get_close_matches(parent.lower(), by_lower_case, n=3, cutoff=0.5)
    names = [by_lower_case[name] for name in close]
    raise UnknownModelError(
        f"SeisBench has no model {parent!r}",
        hint=f"did you mean {' or '.join(names)}?" if names else f"known: {', '.join(known)}",
    )


def _named(kind: Any) -> set[str]:
    """Names of arguments that a class's constructor takes or passes on."""
    return {
        name
        for base in kind.__mro__
        if "__init__" in vars(base)
        for name in inspect.signature(base.__init__).parameters
    }


def _build(kind: Any, arguments: Mapping[str, Any]) -> Any:
    """Construct a model of a class.

    ``VariableLengthPhaseNet.save`` writes arguments of PhaseNet that its own constructor does
    not take; those that are false have no effect, and are left out.
    """
    try:
        return kind(**arguments)
    except TypeError as error:
        refused = next((name for name in arguments if f"{name!r}" in str(error)), None)
        if refused is None or arguments[refused]:
            raise
        return _build(kind, {name: arguments[name] for name in arguments if name != refused})


def _arguments(kind: Any, described: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a description of weights to arguments of a class's constructor."""
    arguments, named = dict(described), _named(kind)
    if (labels := arguments.pop("labels", None)) is not None:
        arguments["phases" if "phases" in named else "labels"] = labels
        if "classes" in named:
            arguments["classes"] = len(labels)
    if "component_order" in arguments and "in_channels" in named:
        arguments["in_channels"] = len(arguments["component_order"])
    return arguments


def _read_metadata(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        metadata = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise WeightsError(f"{path}: is not a JSON object with model_args")
    return metadata


def _check_requirement(kind: Any, metadata: dict[str, Any], path: Path | None) -> None:
    try:
        kind._check_version_requirement(metadata)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}", hint="pip install --upgrade seisbench") from error


def _load_state(module: WaveformModel, parent: str, path: Path) -> None:
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weight file") from error
    except Exception as error:  # bytes that are no weights fail in torch in many ways
        # Torch's own message advises to load them in a way that runs code.
        raise WeightsError(
            f"{path}: is damaged or holds more than weights", hint="fetch the weights again"
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, not a state dict")
    problem = _mismatch(module.state_dict(), state)
    if problem:
        raise WeightsError(
            f"{path}: are not weights of {parent} as its metadata describes it: {problem}",
            hint="check the model's name and the JSON file beside the weights",
        )
    module.load_state_dict(state, strict=True)


def _mismatch(expected: dict[str, Any], found: dict[str, Any]) -> str | None:
    """Describe why the state dict ``found`` cannot be loaded; None if it can."""

    def first(keys: list[str]) -> str:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return ", ".join(keys[:3]) + more

    missing = [key for key in expected if key not in found]
    unexpected = [key for key in found if key not in expected]
    parts = []
    if missing:
        parts.append(f"missing {first(missing)}")
    if unexpected:
        parts.append(f"unexpected {first([str(key) for key in unexpected])}")
    for key in expected:
        shape = getattr(found.get(key, expected[key]), "shape", None)
        if shape is None:
            parts.append(f"{key} is not a tensor")
            break
        if tuple(shape) != tuple(expected[key].shape):
            parts.append(f"{key} has shape {tuple(shape)}, not {tuple(expected[key].shape)}")
            break
    return "; ".join(parts) or None


def _require_plain_streams(kind: type, parent: str) -> None:
    """Raise ModelError if a class replaces a stage that the pipeline does itself."""
    from seisbench.models import WaveformModel

    for hook in _STREAM_HOOKS:
        if (kind.__name__, hook) in _FOLLOWED:
            continue
        if getattr(kind, hook) is not getattr(WaveformModel, hook):
            raise _unsuitable(parent, f"treats streams in a way of its own ({hook})")


def _require_window_picker(module: WaveformModel, parent: str) -> None:
    """Raise ModelError unless the pipeline can drive the model by windows and curves."""
    grouping = module._grouping.grouping
    if module.output_type not in ("array", "point"):
        raise _unsuitable(parent, "yields neither curves nor point probabilities")
    if grouping != "instrument":
        raise _unsuitable(parent, f"groups traces by {grouping!r}, not by instrument")
    if callable(module.labels):
        raise _unsuitable(parent, "yields waveforms, not probabilities")
    if module.in_samples is None or module.allow_padding:
        raise _unsuitable(parent, "takes windows of variable length (no in_samples given)")
    _require_plain_streams(type(module), parent)


def _unsuitable(parent: str, reason: str) -> ModelError:
    return ModelError(
        f"{parent} cannot be run on batches of windows: it {reason}",
        hint="run it with SeisBench itself, or choose another picker",
    )


def _labels(module: WaveformModel) -> tuple[str, ...]:
    labels = module.labels if module.labels is not None else range(int(module.classes))
    return tuple(str(label) for label in labels)


def _default(module: WaveformModel, key: str) -> Any:
    """A model argument as SeisBench resolves it: of the weights, otherwise of the class."""
    if key in module.default_args:
        return module.default_args[key]
    return module._annotate_args[key][1]


def _window_settings(module: WaveformModel, parent: str) -> WindowSettings:
    overlap = _default(module, "overlap")
    overlap = int(overlap * module.in_samples) if overlap < 1 else int(overlap)
    stacking = str(_default(module, "stacking")).lower()
    if not 0 <= overlap < module.in_samples:
        raise ModelError(f"{parent}: overlap {overlap} does not fit {module.in_samples} samples")
    if stacking not in ("avg", "max"):
        raise ModelError(f"{parent}: unknown stacking {stacking!r}")
    blinding = _FIXED_BLINDING.get(type(module).__name__, (0, 0))
    if "blinding" in module._annotate_args:
        blinding = _default(module, "blinding")
    return WindowSettings(
        overlap=overlap,
        stride=int(_default(module, "stride")),
        stacking="max" if stacking == "max" else "avg",
        blinding=(int(blinding[0]), int(blinding[1])),
        blinded=_FIXED_BLINDED.get(type(module).__name__, ()),
    )


def _thresholds(
    module: WaveformModel, phases: tuple[str, ...], detection: str | None
) -> dict[str, float]:
    defaults, arguments = module.default_args, module._annotate_args
    thresholds = {}
    for phase in phases:
        key = f"{phase}_threshold"
        fallback = arguments.get(key) or arguments.get("*_threshold")
        own = fallback[1] if fallback else _THRESHOLD_OF_LAST_RESORT
        thresholds[phase] = float(defaults.get(key, own))
    if detection is not None:
        thresholds[detection] = float(_default(module, "detection_threshold"))
    return thresholds


def _features(module: WaveformModel, parent: str) -> dict[str, Any] | None:
    """Settings of the features that DKPN's network takes as input; None for other classes."""
    if type(module).__name__ != "DKPN":
        return None
    from eqcctpro.waveform.features import FeatureSettings

    made = module._feature_component_order
    if "".join(module.component_order) != made:
        raise ModelError(
            f"{parent}: component_order {module.component_order} is not {made}",
            hint=f"{parent} makes these channels of the vertical, north and east components",
        )
    if module.mode != "rms":
        raise ModelError(f"{parent}: mode {module.mode!r} is not known", hint="use mode rms")
    return {name: getattr(module, name) for name in FeatureSettings.__dataclass_fields__}


def _norm(module: WaveformModel) -> str | None:
    """Normalisation of windows, in words; None if a class has only one way."""
    norm = getattr(module, "norm", None)
    if norm is None or type(module).__name__ == "DKPN":
        return None
    words = ["peak"] if getattr(module, "norm_amp_per_comp", False) else [str(norm)]
    words += ["of each component"] if getattr(module, "norm_amp_per_comp", False) else []
    words += ["after detrending"] if getattr(module, "norm_detrend", False) else []
    return " ".join(words)


def _out_samples(module: WaveformModel, parent: str, labels: int) -> int:
    """Length of a window's curve, determined by running windows of zeros."""
    import torch

    components = len(module.component_order)
    try:
        curves = curve_module(module)(torch.zeros(2, components, int(module.in_samples)))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        order = "".join(module.component_order)
        raise ModelError(
            f"{parent} does not take {components} components ({order}) "
            f"of {module.in_samples} samples: {reason}",
            hint="check component_order and in_channels in the weights' metadata",
        ) from error
    if curves.ndim != 3 or curves.shape[2] != labels:
        raise ModelError(
            f"{parent} yields an array of shape {tuple(curves.shape)} for {labels} labels"
        )
    return int(curves.shape[1])
