"""Stacking and triggering against SeisBench's and ObsPy's own implementations."""

from __future__ import annotations

import numpy as np
import pytest

from eqcctpro.models.picker import Picker, WindowSettings
from eqcctpro.picks.trigger import find_triggers, find_triggers_on
from eqcctpro.windows.stacking import CurveStack, StackLayout, stack_alike

trigger_onset = pytest.importorskip("obspy.signal.trigger").trigger_onset


def test_triggers_equal_obspy_on_random_curves() -> None:
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(4000):
        curve = rng.random(rng.integers(1, 60)).astype(np.float32)
        if rng.random() < 0.3:
            curve = np.round(curve * 10) / np.float32(10)  # samples equal to the threshold
        if rng.random() < 0.3:
            curve[rng.random(len(curve)) < 0.1] = np.nan
        threshold = float(rng.choice([0.1, 0.3, 0.5, 0.7, 0.9]))
        expected = np.array(trigger_onset(curve, threshold, threshold / 2)).reshape(-1, 2)
        triggers = find_triggers(curve, threshold)
        np.testing.assert_array_equal(triggers.onset, expected[:, 0])
        np.testing.assert_array_equal(triggers.end, expected[:, 1])
        for onset, end, peak in zip(triggers.onset, triggers.end, triggers.peak, strict=True):
            assert peak == onset + np.argmax(curve[onset : end + 1])
        found += len(expected)
    assert found > 4000


@pytest.mark.slow
def test_triggers_of_many_curves_are_those_of_each() -> None:
    rng = np.random.default_rng(3)
    found = 0
    for _ in range(500):
        curves = rng.choice(
            np.array([0, 0.1, 0.2, 0.3, 0.9, np.nan], dtype=np.float32),
            size=(int(rng.integers(1, 6)), int(rng.integers(1, 40))),
        )
        thresholds = rng.choice([0.2, 0.3, 0.6], size=len(curves)).tolist()
        together = find_triggers_on(curves, thresholds)
        for row, (curve, threshold) in enumerate(zip(curves, thresholds, strict=True)):
            alone = find_triggers(curve, threshold)
            for one, many in zip(alone, together.triggers, strict=True):
                np.testing.assert_array_equal(many[together.curve == row], one)
            found += len(alone.peak)
    assert found > 1000


def _picker(samples: int) -> Picker:
    windows = WindowSettings(overlap=0, stride=1, stacking="avg", blinding=(0, 0))
    return Picker(
        model="M", weights="w", weights_sha256="0", sampling_rate=100.0, components="ZNE",
        in_samples=samples, output="array", pred_sample=(0, samples), out_samples=samples,
        labels=("P", "S"), phases=("P", "S"), detection_label=None, windows=windows,
    )  # fmt: skip


@pytest.mark.parametrize("stacking", ["avg", "max"])
@pytest.mark.parametrize(
    ("blinding", "single"), [((0, 0), ()), ((3, 5), ()), ((0, 4), (7, 2)), ((3, 1), (2, 3, 8))]
)
def test_stacking_equals_seisbench(
    stacking: str, blinding: tuple[int, int], single: tuple[int, ...]
) -> None:
    stack_windows = pytest.importorskip("seisbench.ext.utils").stack_windows
    rng = np.random.default_rng(1)
    for _ in range(200):
        samples = int(rng.integers(10, 40))
        step = int(rng.integers(1, samples + 4))
        offsets = np.arange(int(rng.integers(1, 9))) * step
        offsets = np.unique(np.append(offsets, offsets[-1] + int(rng.integers(0, step + 1))))
        windows = rng.random((len(offsets), samples, 2)).astype(np.float32)
        blinded = windows.copy()
        blinded[:, : blinding[0]] = np.nan
        blinded[:, samples - blinding[1] :] = np.nan
        blinded[:, list(single)] = np.nan
        expected = stack_windows(windows=blinded, offsets=offsets.astype(np.intp), method=stacking)
        settings = WindowSettings(
            overlap=0,
            stride=1,
            stacking=stacking,  # type: ignore[arg-type]
            blinding=blinding,
            blinded=single,
        )
        layout = StackLayout.of(_picker(samples), settings, offsets.astype(np.intp))
        cut = int(rng.integers(0, len(offsets) + 1))
        for labels in ([0, 1], [1], [1, 0]):
            stack = CurveStack(layout, labels)
            stack.add(windows[:cut])
            stack.add(windows[cut:])
            assert stack.complete
            np.testing.assert_array_equal(stack.finish(), expected.T[labels])
        several = stack_alike(np.stack([windows, 0.5 * windows]), layout, [1, 0])
        np.testing.assert_array_equal(several[0], expected.T[::-1])
        np.testing.assert_array_equal(several[1], 0.5 * expected.T[::-1])
