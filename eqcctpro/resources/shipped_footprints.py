"""Measured memory of workers that run exported models, by class of model and runtime.

Measured with ``eqcctpro calibrate`` on a machine with 2 vCPU (AMD EPYC, AVX-512), Linux,
Python 3.11, OpenVINO 2026.4, ONNX Runtime 1.31: highest proportional set size of a fresh
process with two threads, rounded up.  The weights of a class differ in values, not in size.
"""

from __future__ import annotations

from typing import Any

__all__ = ["SHIPPED"]


def _row(ram: float, load: float, window: float, batch: int) -> dict[str, Any]:
    return {"ram_mb": ram, "load_mb": load, "ram_per_window_mb": window, "batch_size": batch}


SHIPPED: dict[tuple[str, str], dict[str, Any]] = {
    ("phasenet", "openvino"): _row(185.0, 150.0, 0.17, 64),
    ("phasenet", "onnxruntime"): _row(165.0, 120.0, 0.45, 64),
    ("phasenetlight", "openvino"): _row(175.0, 170.0, 0.17, 64),
    ("phasenetlight", "onnxruntime"): _row(165.0, 115.0, 0.59, 64),
    ("eqtransformer", "openvino"): _row(195.0, 170.0, 0.23, 32),
    ("eqtransformer", "onnxruntime"): _row(155.0, 115.0, 0.81, 32),
    ("gpd", "openvino"): _row(180.0, 140.0, 0.03, 256),
    ("gpd", "onnxruntime"): _row(175.0, 120.0, 0.07, 256),
    ("eqcct", "openvino"): _row(245.0, 190.0, 0.50, 32),
    ("eqcct", "onnxruntime"): _row(305.0, 125.0, 4.95, 32),
}
