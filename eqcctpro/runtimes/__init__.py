"""What executes a network: torch, ONNX Runtime or OpenVINO."""
