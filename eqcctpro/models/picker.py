"""Description of a picker as data.

A :class:`Picker` contains everything that the pipeline needs to know about a model: to cut
windows, to stack predictions and to find picks on them.  It is independent of frameworks:
the array function from windows to probabilities is a
:class:`eqcctpro.runtimes.base.Runtime`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["FEATURE_COMPONENTS", "Picker", "WindowSettings"]

#: Recorded components that features are computed from, in order.
FEATURE_COMPONENTS = "ZNE"


@dataclass(frozen=True)
class WindowSettings:
    """Settings of sliding windows, of the stacking of predictions, and of picking.

    Attributes
    ----------
    overlap : int
        Samples shared by neighbouring windows (``output="array"``).
    stride : int
        Samples between neighbouring windows (``output="point"``).
    stacking : {"avg", "max"}
        How overlapping predictions are stacked.
    blinding : tuple of int
        Prediction samples discarded at the start and the end of each window.
    blinded : tuple of int
        Single prediction samples that are discarded, too.
    picking : {"trigger", "window_peak"}
        ``"trigger"`` finds triggers on stacked curves; ``"window_peak"`` takes the highest peak
        of each window.
    """

    overlap: int
    stride: int
    stacking: Literal["avg", "max"]
    blinding: tuple[int, int]
    picking: Literal["trigger", "window_peak"] = "trigger"
    blinded: tuple[int, ...] = ()


@dataclass(frozen=True)
class Picker:
    """A model with its weights, described for the pipeline.

    Attributes
    ----------
    model, weights : str
        For example ``"EQTransformer"`` and ``"original"``.
    weights_sha256 : str
        Hash of the weight file.
    sampling_rate : float or None
        In Hz, as the model expects it; None accepts any.
    components : str
        Order of the input rows, for example ``"ZNE"``.
    in_samples : int
        Length of a window.
    output : {"array", "point"}
        A curve, or one value, per window and label.
    pred_sample : tuple of int
        First and last (exclusive) sample of a window that the curve covers; for ``"point"``
        ``(0, sample)``, the sample that the values are valid for.
    out_samples : int
        Samples of one window's curve (1 for ``"point"``).
    labels : tuple of str
        Names of the curves, in the order of the output's last axis.
    phases : tuple of str
        The labels that are picked.
    detection_label : str or None
        The label that yields detections.
    windows : WindowSettings
        The model's own defaults.
    thresholds : dict
        Default threshold of each phase, and of ``"Detection"`` if there is one.
    filter_args, filter_kwargs
        Filter that the model needs before resampling, in ObsPy's terms.
    bandpass : tuple of float or None
        Corners in Hz of EQCCTPro's band-pass, if the model expects it.
    features : dict or None
        Arguments of `eqcctpro.waveform.features.FeatureSettings` for a network with features as
        input in place of waveforms, such as DKPN.  `components` are then the channels of features.
    norm : str or None
        How the model normalises windows, in words; None if its class has only one way.
    """

    model: str
    weights: str
    weights_sha256: str
    sampling_rate: float | None
    components: str
    in_samples: int
    output: Literal["array", "point"]
    pred_sample: tuple[int, int]
    out_samples: int
    labels: tuple[str, ...]
    phases: tuple[str, ...]
    detection_label: str | None
    windows: WindowSettings
    thresholds: dict[str, float] = field(default_factory=dict)
    filter_args: Any = None
    filter_kwargs: Any = None
    bandpass: tuple[float, float] | None = None
    norm: str | None = None
    features: dict[str, Any] | None = None

    @property
    def name(self) -> str:
        """``model/weights``."""
        return f"{self.model}/{self.weights}"

    @property
    def recorded(self) -> str:
        """Components of a record that the model takes, in its order."""
        return self.components if self.features is None else FEATURE_COMPONENTS

    def to_json(self) -> str:
        """Serialise to JSON text; the inverse of :meth:`from_json`."""
        return json.dumps(asdict(self), indent=1, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Picker:
        """Rebuild a picker from :meth:`to_json`'s text."""
        data = json.loads(text)
        windows = data.pop("windows")
        for key in ("blinding", "blinded"):
            windows[key] = tuple(windows.get(key, ()))
        for key in ("pred_sample", "labels", "phases"):
            data[key] = tuple(data[key])
        if data.get("bandpass") is not None:
            data["bandpass"] = tuple(data["bandpass"])
        return cls(windows=WindowSettings(**windows), **data)
