"""The recurrence of EQTransformer as one kernel, interpreted where triton is installed."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from importlib.util import find_spec
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from eqcctpro.models import lstm  # noqa: E402

PROGRAM = """
import torch
from eqcctpro.models.lstm import _Recurrence
from eqcctpro.models.recurrence_kernel import recurrence_on_gpu
for seed, (steps, windows, width) in enumerate([(47, 21, 32), (9, 16, 16), (5, 1, 64)]):
    torch.manual_seed(seed)
    projected = torch.randn(steps, windows, 4 * width) * 2
    weights = torch.randn(width, 4 * width) / width**0.5
    expected = _Recurrence.apply(projected, weights, steps)
    print(float((recurrence_on_gpu(projected, weights) - expected).abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_the_kernel_equals_the_steps() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    differences = [float(line) for line in done.stdout.split()]
    assert len(differences) == 3 and max(differences) < 1e-6


def test_it_is_for_widths_that_suit() -> None:
    assert [width for width in range(1, 70) if lstm._suits_kernel(width)] == [16, 32, 64]


@pytest.mark.parametrize(
    ("result", "works"),
    [("raises", False), ("is off", False), ("is right", True)],
)
def test_a_kernel_that_fails_is_not_used(
    monkeypatch: pytest.MonkeyPatch, result: str, works: bool
) -> None:
    def kernel(projected: Any, weights: Any) -> Any:
        if result == "raises":
            raise OSError("no C compiler")
        return lstm._by_steps(projected, weights, 4) + (1e-3 if result == "is off" else 0)

    module = types.ModuleType("kernel")
    module.recurrence_on_gpu = kernel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "eqcctpro.models.recurrence_kernel", module)
    monkeypatch.setattr(lstm, "find_spec", lambda _: object())
    assert lstm._has_kernel.__wrapped__(torch.device("cpu")) is works


def test_without_triton_steps_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lstm, "find_spec", lambda _: None)
    assert not lstm._has_kernel.__wrapped__(torch.device("cpu"))
