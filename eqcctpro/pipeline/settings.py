"""Settings of the pipeline: what the model asks for, overridden by what the user asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from typing import Any, Literal, Self

from eqcctpro.errors import SettingsError
from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.spans import FOREVER_NS, Span
from eqcctpro.waveform.conditioning import Bandpass, Conditioning
from eqcctpro.waveform.preparation import Preparation
from eqcctpro.waveform.resampling import depends_on_all
from eqcctpro.windows.placement import WindowGrid, window_step

__all__ = ["Contradictions", "PipelineSettings", "resolve_settings"]

Contradictions = Literal["cut", "drop"]


@dataclass(frozen=True)
class PipelineSettings:
    """Everything between decoded records and picks, with no default left open.

    Attributes
    ----------
    windows : WindowSettings
    grid : {"trace", "absolute"}
    conditioning : Conditioning
    strict, flexible : bool
        Whether all components must be there, and whether 1 and 2 count as N and E.
    thresholds : dict
        Of every phase, and of ``"Detection"``.
    context_ns : int
        Data wanted around what a chunk owns, with what `preparation` needs.
    start_ns, end_ns : int or None
        Picks outside are dropped by rule, and counted.
    contradictions : {"cut", "drop"}
        Of records of a channel that contradict each other, leave out the stretch where they do,
        or all of them, as SeisBench does.
    preparation : Preparation
        Gaps that are filled, and filters that the user asks for.
    """

    windows: WindowSettings
    grid: WindowGrid
    conditioning: Conditioning
    strict: bool
    flexible: bool
    thresholds: dict[str, float]
    context_ns: int
    start_ns: int | None = None
    end_ns: int | None = None
    contradictions: Contradictions = "cut"
    preparation: Preparation = field(default_factory=Preparation)

    def prepared_by(self, preparation: Preparation) -> Self:
        """The same settings with a preparation, and the data around a chunk that it needs."""
        before, margin_ns = self.picked_context_ns, preparation.margin_ns
        return replace(self, preparation=preparation, context_ns=before + margin_ns)

    @property
    def picked_context_ns(self) -> int:
        """Context that is picked around a chunk: `context_ns` less the preparation's margin."""
        return self.context_ns - self.preparation.margin_ns

    @property
    def span(self) -> Span:
        """From `start_ns` to `end_ns`."""
        return Span(
            -FOREVER_NS if self.start_ns is None else self.start_ns,
            FOREVER_NS if self.end_ns is None else self.end_ns,
        )

    def needs_record(self, sampling_rate: float) -> bool:
        """True if a piece must be resampled with all of its record, as SeisBench does it."""
        how = self.conditioning
        if self.grid != "trace" or self.preparation.asked:
            return False
        if how.sampling_rate is None or how.filters:
            return False
        return depends_on_all(sampling_rate, how.sampling_rate)

    def applied(self, picker: Picker) -> dict[str, Any]:
        """Thresholds and arguments with their values, by the names that SeisBench has for them.

        What does not apply to the model is left out: `stride` where windows are moved by their
        overlap, `stacking` and `blinding` where windows are not joined.
        """
        windows, how = self.windows, self.conditioning
        joined = windows.picking != "window_peak"
        arguments = {
            "overlap": None if picker.output == "point" else windows.overlap,
            "stride": windows.stride if picker.output == "point" else None,
            "stacking": windows.stacking if joined and picker.output != "point" else None,
            "blinding": list(windows.blinding) if joined and picker.output != "point" else None,
            "strict": self.strict,
            "flexible_horizontal_components": self.flexible,
            "zerophase_resample": how.zerophase,
        }
        band = how.bandpass
        return {
            # Phases first.
            "thresholds": {
                name: self.thresholds[name]
                for name in sorted(self.thresholds, key=lambda name: name not in picker.phases)
            },
            "arguments": {name: value for name, value in arguments.items() if value is not None},
            "window_grid": self.grid,
            "window_samples": picker.in_samples,
            "window_step": window_step(picker, windows),
            "sampling_rate": picker.sampling_rate,
            "component_order": picker.recorded,
            "labels": list(picker.labels),
            "norm": picker.norm,
            **self.preparation.applied,
            "bandpass": None if band is None else [band.low, band.high],
            "filter": [how.filter_args, how.filter_kwargs]
            if how.filter_args or how.filter_kwargs
            else None,
        }


def resolve_settings(
    picker: Picker,
    *,
    grid: WindowGrid = "trace",
    p_threshold: float | None = None,
    s_threshold: float | None = None,
    detection_threshold: float | None = None,
    bandpass: tuple[float, float] | Literal["off"] | None = None,
    arguments: Mapping[str, Any] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
) -> PipelineSettings:
    """Combine a model's defaults with what a user sets.

    Parameters
    ----------
    picker : Picker
    bandpass : tuple of float or "off", optional
        Corners in Hz of EQCCTPro's filter; None takes the model's own.
    arguments : mapping
        Arguments of SeisBench's ``annotate`` and ``classify``: overlap, stride, stacking,
        blinding, strict, flexible_horizontal_components, zerophase_resample, and
        thresholds such as ``P_threshold``.  ``batch_size`` is not among them.

    Raises
    ------
    SettingsError
        An argument is unknown, has a wrong value, or does not apply to the model.
    """
    given = dict(arguments or {})
    thresholds = _thresholds(picker, p_threshold, s_threshold, detection_threshold, given)
    windows = _windows(picker, given)
    strict = _flag(given, "strict", default=False)
    flexible = _flag(given, "flexible_horizontal_components", default=True)
    zerophase = _flag(given, "zerophase_resample", default=True)
    if given:
        raise _unknown_argument(next(iter(given)), picker)
    band = picker.bandpass if bandpass is None else bandpass
    conditioning = Conditioning(
        picker.sampling_rate,
        zerophase,
        None if band is None or band == "off" else Bandpass(*band),
        picker.filter_args,
        picker.filter_kwargs,
    )
    return PipelineSettings(
        windows,
        grid,
        conditioning,
        strict,
        flexible,
        thresholds,
        context_ns(picker),
        start_ns,
        end_ns,
    )


def context_ns(picker: Picker) -> int:
    """Data wanted around what a chunk owns, so that its curves do not depend on the cut."""
    if picker.sampling_rate is None:
        return 0
    # One window reaches a sample from either side, and a pick's flanks need the same.
    return round(2 * picker.in_samples / picker.sampling_rate * 1e9)


def _thresholds(
    picker: Picker,
    p: float | None,
    s: float | None,
    detection: float | None,
    given: dict[str, Any],
) -> dict[str, float]:
    thresholds = dict(picker.thresholds)
    for initial, value in (("P", p), ("S", s)):
        if value is not None:
            phases = [phase for phase in picker.phases if phase.upper().startswith(initial)]
            if not phases:
                raise SettingsError(
                    f"{initial.lower()}_threshold: {picker.name} yields no {initial} picks"
                )
            thresholds.update(dict.fromkeys(phases, value))
    if detection is not None:
        if picker.detection_label is None:
            raise SettingsError(f"detection_threshold: {picker.name} yields no detections")
        thresholds["Detection"] = detection
    for name in [key for key in given if key.endswith("_threshold")]:
        label = name.removesuffix("_threshold")
        label = "Detection" if label == "detection" else label
        if label not in thresholds:
            raise SettingsError(
                f"{name}: {picker.name} has no curve {label!r}",
                hint=f"its curves are {', '.join(thresholds)}",
            )
        thresholds[label] = _number(name, given.pop(name))
    for label, value in thresholds.items():
        if not 0 < value < 1:
            raise SettingsError(f"{label}_threshold: {value} is not between 0 and 1")
    return thresholds


def _windows(picker: Picker, given: dict[str, Any]) -> WindowSettings:
    windows = picker.windows
    if "overlap" in given:
        overlap = _number("overlap", given.pop("overlap"))
        if overlap >= 1 and overlap != int(overlap):
            raise SettingsError(
                f"overlap: {overlap:g} is neither a share below 1 nor a number of samples"
            )
        samples = int(overlap * picker.in_samples) if overlap < 1 else int(overlap)
        windows = replace(windows, overlap=samples)
    if "stride" in given:
        stride = _number("stride", given.pop("stride"))
        if stride != int(stride):
            raise SettingsError(f"stride: {stride:g} is not a number of samples")
        windows = replace(windows, stride=int(stride))
    if "stacking" in given:
        stacking = str(given.pop("stacking")).lower()
        _require_stacking(picker, "stacking")
        if stacking not in ("avg", "max"):
            raise SettingsError(f"stacking: {stacking!r} is not known", hint="use avg or max")
        windows = replace(windows, stacking=stacking)  # type: ignore[arg-type]
    if "blinding" in given:
        _require_stacking(picker, "blinding")
        windows = replace(windows, blinding=_blinding(picker, given.pop("blinding")))
    if windows.overlap < 0:
        raise SettingsError(f"overlap: {windows.overlap} is negative")
    window_step(picker, windows)
    return windows


def _require_stacking(picker: Picker, name: str) -> None:
    if picker.windows.picking == "window_peak":
        raise SettingsError(
            f"{name}: {picker.name} picks on single windows, which are not joined",
            hint="use the argument variant=seisbench",
        )


def _blinding(picker: Picker, value: Any) -> tuple[int, int]:
    parts = value.strip("()[] ").split(",") if isinstance(value, str) else value
    try:
        before, after = (int(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"blinding: {value!r} is not a pair", hint="use 500,500") from error
    if before < 0 or after < 0 or before + after >= max(picker.out_samples, 2):
        raise SettingsError(
            f"blinding: ({before}, {after}) leaves nothing of {picker.out_samples} samples"
        )
    return before, after


def _flag(given: dict[str, Any], name: str, *, default: bool) -> bool:
    value = given.pop(name, default)
    if isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if text in {"true", "yes", "on", "1"}:
        return True
    if text in {"false", "no", "off", "0"}:
        return False
    raise SettingsError(f"{name}: {value!r} is not true or false")


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"{name}: {value!r} is not a number") from error
    if not math.isfinite(number):
        raise SettingsError(f"{name}: {value!r} is not a number")
    return number


def _unknown_argument(name: str, picker: Picker) -> SettingsError:
    known = [
        "overlap",
        "stride",
        "stacking",
        "blinding",
        "strict",
        "flexible_horizontal_components",
        "zerophase_resample",
        *(f"{label}_threshold" for label in picker.thresholds),
    ]
    close = get_close_matches(name, known, n=1)
    return SettingsError(
        f"model argument {name!r} is not known",
        hint=f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}",
    )
