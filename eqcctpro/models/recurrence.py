"""Hard-sigmoid recurrences written out as ONNX ``Scan``.  Imports onnx.

ONNX's ``LSTM`` takes a hard sigmoid, but OpenVINO refuses it; unrolled over its 47
steps the recurrence takes a second to load.  A ``Scan`` over time runs on both.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

__all__ = ["write_out_recurrences"]

DOMAIN, OPERATOR = "eqcctpro", "HardSigmoidLSTM"


def write_out_recurrences(model: Any) -> int:
    """Replace every recurrence of ``model`` by a ``Scan``.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.

    Returns
    -------
    int
        Number of recurrences replaced.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    nodes, count = [], 0
    for node in model.graph.node:
        if node.op_type != OPERATOR or node.domain != DOMAIN:
            nodes.append(node)
            continue
        weights = numpy_helper.to_array(constants[node.input[1]])
        written, initialisers = _scan(node, weights, f"recurrence_{count}")
        nodes.extend(written)
        model.graph.initializer.extend(initialisers)
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    domains = [entry for entry in model.opset_import if entry.domain != DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    return count


def _scan(node: Any, weights: Any, prefix: str) -> tuple[list[Any], list[Any]]:
    """Nodes and constants that compute ``node`` from zero states."""
    width = weights.shape[0]

    def name(part: str) -> str:
        return f"{prefix}/{part}"

    def constant(part: str, values: Any) -> Any:
        return numpy_helper.from_array(np.ascontiguousarray(values), name(part))

    initialisers = [
        constant("batch_axis", np.array([1], np.int64)),
        constant("width", np.array([width], np.int64)),
        constant("weights", weights),
        constant("gates", np.array([3 * width, width], np.int64)),
        constant("thirds", np.array([width] * 3, np.int64)),
        constant("zero", np.float32(0)),
        constant("one", np.float32(1)),
    ]
    body = _step(name, width)
    nodes = [
        helper.make_node("Shape", [node.input[0]], [name("shape")]),
        helper.make_node("Gather", [name("shape"), name("batch_axis")], [name("batch")]),
        helper.make_node("Concat", [name("batch"), name("width")], [name("state_shape")], axis=0),
        helper.make_node("ConstantOfShape", [name("state_shape")], [name("state")]),
        helper.make_node(
            "Scan",
            [name("state"), name("state"), node.input[0]],
            [name("last_h"), name("last_c"), node.output[0]],
            num_scan_inputs=1,
            body=body,
        ),
    ]
    return nodes, initialisers


def _step(name: Any, width: int) -> Any:
    """One time step as a graph: (h, c, projected input) to (h, c, output)."""

    def value(label: str, columns: int) -> Any:
        return helper.make_tensor_value_info(name(label), TensorProto.FLOAT, [None, columns])

    def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> Any:
        return helper.make_node(
            operator,
            [name(part) for part in inputs.split()],
            [name(part) for part in outputs.split()],
            **attributes,
        )

    nodes = [
        node("MatMul", "h weights", "recurrent"),
        node("Add", "recurrent projected", "sum"),
        node("Split", "sum gates", "gate_sum cell_sum", axis=1),
        node("Clip", "gate_sum zero one", "gate"),
        node("Split", "gate thirds", "input_gate forget_gate output_gate", axis=1),
        node("Tanh", "cell_sum", "cell_input"),
        node("Mul", "forget_gate c", "kept"),
        node("Mul", "input_gate cell_input", "added"),
        node("Add", "kept added", "next_c"),
        node("Tanh", "next_c", "squashed"),
        node("Mul", "output_gate squashed", "next_h"),
        node("Identity", "next_h", "output"),
    ]
    return helper.make_graph(
        nodes,
        name("step"),
        [value("h", width), value("c", width), value("projected", 4 * width)],
        [value("next_h", width), value("next_c", width), value("output", width)],
    )
