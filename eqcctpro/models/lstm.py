"""SeisBench's hand-written LSTMs in exports.  Imports torch.

Tracing makes one operator of each; that of hard sigmoids is then written out as an ONNX ``Scan``.
ONNX's ``LSTM`` takes a hard sigmoid, but OpenVINO refuses it; unrolled over its 47 steps the
recurrence takes a second to load.  A ``Scan`` over time runs on both.
"""

from __future__ import annotations

import logging
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import nn

from eqcctpro.errors import ExportError

__all__ = ["exportable_lstm", "write_out_recurrences"]

# Stands for a hard-sigmoid recurrence in the traced graph until that is written out.
_DOMAIN, _OPERATOR = "eqcctpro", "HardSigmoidLSTM"

#: Smallest width that matrix products in a kernel have.
_KERNEL_WIDTH = 16

#: By how much states of a kernel may differ from those of single steps.
_KERNEL_TOLERANCE = 1e-5

_log = logging.getLogger("eqcctpro")

#: ``hard_sigmoid(x) = clip(0.2 x + 0.5, 0, 1)``, as in Keras, EQTransformer's framework.
_HARD_SLOPE, _HARD_OFFSET = 0.2, 0.5


def exportable_lstm(lstm: Any) -> nn.Module:
    """A ``seisbench.models.base.CustomLSTM`` as one operator.

    Gates that are sigmoids make it torch's own LSTM, hard sigmoids a recurrence of ours.

    Raises
    ------
    ExportError
        Gates are something else.
    """
    from seisbench.models.base import hard_sigmoid

    cells = [lstm.cell_f, *([lstm.cell_b] if lstm.bidirectional else [])]
    gates = {cell.gate_activation for cell in cells}
    if gates == {hard_sigmoid}:
        return _HardSigmoidLSTM(cells)
    if gates == {torch.sigmoid}:
        return _plain_lstm(cells)
    raise ExportError(f"LSTM gates {gates} have no exportable form")


def _plain_lstm(cells: list[Any]) -> nn.LSTM:
    lstm = nn.LSTM(cells[0].input_size, cells[0].hidden_size, bidirectional=len(cells) == 2)
    with torch.no_grad():
        for cell, suffix in zip(cells, ("", "_reverse"), strict=False):
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                getattr(lstm, f"{name}_l0{suffix}").copy_(getattr(cell, name))
    return lstm.eval()


class _HardSigmoidLSTM(nn.Module):
    """An LSTM with hard-sigmoid gates, as weights of one recurrence.

    Both directions run as one recurrence on the record and its reverse: the states
    lie side by side, the recurrent weights on a block diagonal.  Gates are in the order
    input, forget, output, cell, and slope and offset of the hard sigmoid are part of
    the weights, so that a step clips the first three and takes tanh of the last.
    """

    def __init__(self, cells: list[Any]) -> None:
        super().__init__()
        directions, hidden, inputs = len(cells), cells[0].hidden_size, cells[0].input_size
        projection = torch.zeros(directions, inputs, 4, directions, hidden)
        recurrence = torch.zeros(directions, hidden, 4, directions, hidden)
        bias = torch.zeros(4, directions, hidden)
        for d, cell in enumerate(cells):
            for ours, theirs in enumerate((0, 1, 3, 2)):
                slope, offset = (_HARD_SLOPE, _HARD_OFFSET) if ours < 3 else (1.0, 0.0)
                rows = slice(theirs * hidden, (theirs + 1) * hidden)
                projection[d, :, ours, d] = slope * cell.weight_ih[rows].detach().T
                recurrence[d, :, ours, d] = slope * cell.weight_hh[rows].detach().T
                total = cell.bias_ih[rows] + cell.bias_hh[rows]
                bias[ours, d] = slope * total.detach() + offset
        width = directions * hidden
        self.directions, self.hidden = directions, hidden
        self.projection: torch.Tensor
        self.recurrence: torch.Tensor
        self.bias: torch.Tensor
        self.register_buffer("projection", projection.reshape(directions * inputs, 4 * width))
        self.register_buffer("recurrence", recurrence.reshape(width, 4 * width))
        self.register_buffer("bias", bias.reshape(4 * width))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Run over ``x`` of shape (time, batch, inputs)."""
        if self.directions == 2:
            x = torch.cat([x, x.flip(0)], dim=-1)
        projected = torch.matmul(x, self.projection) + self.bias
        states = _Recurrence.apply(projected, self.recurrence, int(projected.shape[0]))
        if self.directions == 2:
            forward, backward = states[..., : self.hidden], states[..., self.hidden :]
            states = torch.cat([forward, backward.flip(0)], dim=-1)
        return states, None


@cache
def _has_kernel(device: torch.device) -> bool:
    """True if the recurrence works as one kernel on a GPU, tried once in each process.

    Triton, which torch for GPUs brings along on Linux, compiles it; that may fail.
    """
    if find_spec("triton") is None:
        return False
    drawn = torch.Generator().manual_seed(0)
    projected = torch.randn(4, 3, 4 * _KERNEL_WIDTH, generator=drawn).to(device)
    weights = torch.randn(_KERNEL_WIDTH, 4 * _KERNEL_WIDTH, generator=drawn).to(device) / 4
    try:
        from eqcctpro.models.recurrence_kernel import recurrence_on_gpu

        difference = recurrence_on_gpu(projected, weights) - _by_steps(projected, weights, 4)
        worst = float(difference.abs().max())
    except Exception as error:  # whatever a compiler raises
        _log.warning("the recurrence is done step by step: triton fails (%s)", error)
        return False
    if not worst < _KERNEL_TOLERANCE:
        _log.warning("the recurrence is done step by step: the kernel is %.1e off", worst)
        return False
    return True


def _suits_kernel(width: int) -> bool:
    return width >= _KERNEL_WIDTH and width & (width - 1) == 0


def _by_steps(projected: torch.Tensor, recurrence: torch.Tensor, steps: int) -> torch.Tensor:
    """States of the recurrence; see `eqcctpro.models.recurrence_kernel.recurrence_on_gpu`."""
    width = recurrence.shape[0]
    h = c = projected.new_zeros(projected.shape[1], width)
    states = []
    for step in range(steps):
        gates = projected[step] + h @ recurrence
        i, f, o = torch.clamp(gates[:, : 3 * width], 0, 1).chunk(3, dim=1)
        c = f * c + i * torch.tanh(gates[:, 3 * width :])
        h = o * torch.tanh(c)
        states.append(h)
    return torch.stack(states)


class _Recurrence(torch.autograd.Function):
    """The loop over time, traced as one operator instead of one set of nodes a step."""

    @staticmethod
    def forward(
        _ctx: Any, projected: torch.Tensor, recurrence: torch.Tensor, steps: int
    ) -> torch.Tensor:
        width = recurrence.shape[0]
        if projected.is_cuda and _suits_kernel(width) and _has_kernel(projected.device):
            from eqcctpro.models.recurrence_kernel import recurrence_on_gpu

            return recurrence_on_gpu(projected.float(), recurrence.float())
        return _by_steps(projected, recurrence, steps)

    @staticmethod
    def symbolic(g: Any, projected: Any, recurrence: Any, steps: int) -> Any:
        width = recurrence.type().sizes()
        states = g.op(f"{_DOMAIN}::{_OPERATOR}", projected, recurrence)
        # Without a type the exporter warns on every operator that it does not know.
        states.setType(projected.type().with_sizes([steps, None, width[0] if width else None]))
        return states


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
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            constants[node.output[0]] = node.attribute[0].t
    nodes, count = [], 0
    for node in model.graph.node:
        if node.op_type != _OPERATOR or node.domain != _DOMAIN:
            nodes.append(node)
            continue
        weights = numpy_helper.to_array(constants[node.input[1]])
        written, initialisers = _scan(node, weights, f"recurrence_{count}")
        nodes.extend(written)
        model.graph.initializer.extend(initialisers)
        count += 1
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    domains = [entry for entry in model.opset_import if entry.domain != _DOMAIN]
    del model.opset_import[:]
    model.opset_import.extend(domains)
    return count


def _scan(node: Any, weights: Any, prefix: str) -> tuple[list[Any], list[Any]]:
    """Nodes and constants that compute ``node`` from zero states."""
    from onnx import helper, numpy_helper

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
    from onnx import TensorProto, helper

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
