"""What the cores or a GPU reach: a large float32 matrix product in each library that is here."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from eqcctpro.runtimes.slices import available_cores

__all__ = ["MATRIX", "matrix_products"]

#: Rows and columns.
MATRIX: Final = 4096

Float32 = NDArray[np.float32]


def matrix_products(device: str, threads: int) -> dict[str, Callable[[], object]]:
    """The matrix product, by library.

    Which library is the fastest differs between processors, by a factor of two and more.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; on a GPU torch multiplies, without TF32 unless
        that was switched on.
    threads : int
        On a CPU.  NumPy takes all cores, and is left out if fewer are asked for.
    """
    random = np.random.default_rng(7)
    left, right = (random.standard_normal((MATRIX, MATRIX), np.float32) for _ in range(2))
    products: dict[str, Callable[[], object]] = {"torch": _by_torch(left, right, device, threads)}
    if device != "cpu":
        return products
    if threads == available_cores():
        result = np.empty_like(left)
        products["numpy"] = lambda: np.matmul(left, right, out=result)
    if find_spec("onnxruntime") is not None and find_spec("onnx") is not None:
        products["onnxruntime"] = _by_onnxruntime(left, right, threads)
    if find_spec("openvino") is not None:
        products["openvino"] = _by_openvino(left, right, threads)
    return products


def _by_torch(left: Float32, right: Float32, device: str, threads: int) -> Callable[[], object]:
    import torch

    operands = [torch.from_numpy(matrix).to(device) for matrix in (left, right)]
    result = torch.empty_like(operands[0])

    def multiply() -> None:
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.mm(*operands, out=result)
        if device != "cpu":
            torch.cuda.synchronize(device)
        torch.set_num_threads(before)

    return multiply


def _by_onnxruntime(left: Float32, right: Float32, threads: int) -> Callable[[], object]:
    import onnxruntime
    from onnx import TensorProto, helper

    def matrix(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [MATRIX, MATRIX])

    product = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph(
        [product], "product", [matrix("left"), matrix("right")], [matrix("product")]
    )
    # Releases that are far older than any runtime that is supported.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"left": left, "right": right})


def _by_openvino(left: Float32, right: Float32, threads: int) -> Callable[[], object]:
    import openvino
    from openvino import opset13

    shape = [MATRIX, MATRIX]
    operands = [opset13.parameter(shape, openvino.Type.f32) for _ in range(2)]
    model = openvino.Model([opset13.matmul(*operands, False, False)], operands)
    settings = {
        # Some processors would shorten the operands otherwise.
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([left, right], share_inputs=True, share_outputs=True)
