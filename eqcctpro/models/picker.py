"""What a picker is, as data.

A :class:`Picker` says everything that the pipeline has to know about a model to cut
windows for it, to put its predictions together and to find picks on them.  It
knows nothing of frameworks: the array function that turns windows into
probabilities is a :class:`eqcctpro.runtimes.base.Runtime`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = ["FEATURE_COMPONENTS", "Picker", "WindowSettings"]

#: What is recorded where features are made of it, in the order that they are made of.
FEATURE_COMPONENTS = "ZNE"


@dataclass(frozen=True)
class WindowSettings:
    """How windows are laid over a record and put together again.

    Attributes
    ----------
    overlap : int
        Samples shared by neighbouring windows (``output="array"``).
    stride : int
        Samples between neighbouring windows (``output="point"``).
    stacking : {"avg", "max"}
        How overlapping predictions are joined.
    blinding : tuple of int
        Prediction samples discarded at the start and the end of each window.
    blinded : tuple of int
        Single prediction samples that are discarded too.
    picking : {"trigger", "window_peak"}
        Whether curves are joined and triggers looked for on them, or each window's
        highest peak is taken.
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
        Hz that the model expects; None takes the data as they are.
    components : str
        Order of the input rows, for example ``"ZNE"``.
    in_samples : int
        Length of a window.
    output : {"array", "point"}
        Whether a window yields curves or one value per label.
    pred_sample : tuple of int
        First and last (exclusive) sample of a window that the curve describes; for
        ``"point"`` ``(0, sample)``, the sample that the values are valid for.
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
        Default threshold of each phase, and of ``"Detection"`` where there is one.
    filter_args, filter_kwargs
        A filter that the model asks for before resampling, in ObsPy's terms.
    bandpass : tuple of float or None
        Corners in Hz of EQCCTPro's band-pass, where the model expects it.
    features : dict or None
        Of a network that reads features in place of waveforms, as DKPN does: arguments of
        `eqcctpro.waveform.features.FeatureSettings`.  `components` are then the channels of
        features.
    norm : str or None
        How the model normalises windows, in words; None where its class has one way only.
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
