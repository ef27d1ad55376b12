"""Runtimes that execute a network: torch, ONNX Runtime or OpenVINO."""
