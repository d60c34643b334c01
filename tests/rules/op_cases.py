# SPDX-License-Identifier: Apache-2.0
"""One table of cases for the ops' tests: a name, a formula, the shapes of its operands; and how to run them.

Plans are made by the compiler's own passes. Operands are graph inputs, so that every gradient can be asked
for as the output of a plan.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from hotloop.compile import check_plan, differentiate
from hotloop.compile.interpret import Interpreter, session_memory
from hotloop.compile.lower import lower
from hotloop.compile.memory import plan_memory
from hotloop.compile.plan import Plan, PlanSpec
from hotloop.compile.simplify import simplify
from hotloop.graph import Dim, Graph, Rows, TensorType
from hotloop.nn import functional as F
from hotloop.rules.registry import GraphBuilder
from hotloop.trace import Tensor, trace

B = Rows()
DROP = np.array([0.3])  # the one dropout layer's p
STEP = 1e-6


@dataclass(frozen=True)
class Case:
    name: str
    formula: Callable[..., Tensor]
    operands: dict[str, tuple[Dim, ...]]
    ids: dict[str, tuple[tuple[Dim, ...], int]] = field(default_factory=dict)  # shape, number of entries
    positive: bool = False


def emit(op: str, **attrs: Any) -> Callable[..., Tensor]:
    return lambda x, *others: x.emit(op, *others, **attrs)


def unary(op: str, *, positive: bool = False, **attrs: float) -> Case:
    return Case(op, emit(op, **attrs), {"x": (B, 5)}, positive=positive)


def _frozen_norm(x: Tensor, weight: tuple[float, ...] = ()) -> Tensor:
    """A batch norm over statistics that stand still: constants, as are weight and bias."""

    def constant(*values: float) -> Tensor:
        return Tensor(x.recorder, x.recorder.emit("constant", values=values, shape=(len(values),))[0])

    affine = (constant(*weight), constant(1.0, 2.0, 3.0)) if weight else (None, None)
    statistics = constant(0.3, -0.2, 1.0), constant(0.5, 2.0, 1.5)
    return x.emit("batch_norm_eval", *affine, *statistics, eps=1e-3)


CASES = [
    unary("relu"),
    unary("leaky_relu", p0=0.1),
    unary("elu", p0=1.5),
    unary("selu"),
    unary("gelu"),
    unary("gelu_tanh"),
    unary("silu"),
    unary("mish"),
    unary("tanh"),
    unary("sigmoid"),
    unary("softplus", p0=2.0, p1=3.0),
    unary("exp"),
    unary("log", positive=True),
    unary("sqrt", positive=True),
    unary("square"),
    unary("abs"),
    unary("reciprocal", positive=True),
    unary("affine", p0=-1.7, p1=0.4),
    Case("add, column", lambda x, y: x + y, {"x": (B, 4), "y": (B, 1)}),
    Case("add, bias", lambda x, y: x + y, {"x": (B, 3, 4), "y": (4,)}),
    Case("sub, batch of one side", lambda x, y: x - y, {"x": (3, 1), "y": (B, 1, 4)}),
    Case("mul, middle", lambda x, y: x * y, {"x": (B, 2, 3), "y": (B, 1, 3)}),
    Case("mul, itself", lambda x: x * x, {"x": (B, 3)}),
    Case("div", lambda x, y: x / y, {"x": (B, 4), "y": (4,)}, positive=True),
    Case("numbers", lambda x: (1 - x / 2) * 3 + 2 / x - x**2, {"x": (B, 2)}, positive=True),
    Case("linear", F.linear, {"x": (B, 4), "w": (3, 4), "b": (3,)}),
    Case("linear, sequences", F.linear, {"x": (B, 2, 4), "w": (3, 4), "b": (3,)}),
    Case("linear, no bias", F.linear, {"x": (B, 4), "w": (3, 4)}),
    Case("matmul", lambda a, b: a @ b, {"a": (B, 2, 4), "b": (4, 3)}),
    Case("reshape", lambda x: x.reshape(-1, 3) * 2, {"x": (B, 2, 3)}),
    Case("transpose", lambda x: x.permute(0, 2, 1) * x.permute(0, 2, 1), {"x": (B, 2, 3)}),
    Case("transpose, batch", lambda x: x.transpose(0, 1), {"x": (B, 3)}),
    Case("slice", lambda x: x[:, 1:3, 2], {"x": (B, 4, 3)}),
    Case("pad", emit("pad", before=(0, 1), after=(0, 2)), {"x": (B, 3)}),
    Case("concat", lambda x, y: F.cat([x, y, x], 1), {"x": (B, 2, 3), "y": (B, 4, 3)}),
    Case("broadcast_to", lambda x: x.broadcast_to(2, 4, 3), {"x": (4, 1)}),
    Case("copy", emit("copy"), {"x": (B, 3)}),
    Case("sum, all", lambda x: x.sum(), {"x": (B, 3)}),
    Case("sum, apart", lambda x: x.sum((0, 2)), {"x": (B, 2, 3)}),
    Case("sum, apart, kept", lambda x: x.sum((1, 3), keepdim=True), {"x": (B, 2, 3, 2)}),
    Case("mean", lambda x: x.mean(-1), {"x": (B, 2, 3)}),
    Case("mean, batch", lambda x: x.mean((0, 1)), {"x": (B, 2, 3)}),
    Case("mean, length one", lambda x: x.mean(1), {"x": (B, 1, 3)}),
    Case("max", lambda x: x.max(1), {"x": (B, 4, 2)}),
    Case("max, apart", lambda x: x.max((0, 2), keepdim=True), {"x": (B, 2, 3)}),
    Case("min", lambda x: x.min(), {"x": (B, 3)}),
    Case("softmax", F.softmax, {"x": (B, 4)}),
    Case("softmax, middle", lambda x: F.softmax(x, 1), {"x": (B, 3, 2)}),
    Case("log_softmax", F.log_softmax, {"x": (B, 2, 4)}),
    Case("layer_norm", lambda x, w, b: F.layer_norm(x, (5,), w, b), {"x": (B, 5), "w": (5,), "b": (5,)}),
    Case("layer_norm, two axes", lambda x: F.layer_norm(x, (2, 3)), {"x": (B, 2, 3)}),
    Case("layer_norm, weight", lambda x, w: F.layer_norm(x, 3, w), {"x": (B, 2, 3), "w": (3,)}),
    Case("rms_norm", lambda x, w: F.rms_norm(x, (5,), w), {"x": (B, 2, 5), "w": (5,)}),
    Case("rms_norm, plain", lambda x: F.rms_norm(x, 5, eps=1e-3), {"x": (B, 5)}),
    Case(
        "batch_norm_train",
        lambda x, w, b: x.emit("batch_norm_train", w, b, None, None, eps=1e-3, momentum=0.1),
        {"x": (B, 3), "w": (3,), "b": (3,)},
    ),
    Case(
        "batch_norm_train, plain",
        lambda x: x.emit("batch_norm_train", None, None, None, None, eps=1e-3, momentum=0.1),
        {"x": (B, 3)},
    ),
    Case("batch_norm_eval", lambda x: _frozen_norm(x, (0.5, -1.0, 2.0)), {"x": (B, 3)}),
    Case("batch_norm_eval, plain", lambda x: _frozen_norm(x), {"x": (B, 3)}),
    Case("dropout", emit("dropout", layer=0, p=0.3), {"x": (B, 40)}),
    Case("embedding", lambda w, ids: F.embedding(ids, w), {"w": (6, 3)}, ids={"ids": ((B, 2), 6)}),
]


def graph_of(case: Case) -> Graph:
    types = types_of(case)
    return trace(by_name(case.formula, list(types)), types)


def plan_of(
    graph: Graph, rows: int, dtype: Literal["float32", "float64"] = "float32",
    device: Literal["cpu", "cuda"] = "cpu",
) -> Plan:  # fmt: skip
    spec = PlanSpec("predict", max_rows=rows, dtype=dtype, device=device)
    plan = lower(simplify(graph), spec, n_dropout=1)
    return check_plan(plan_memory(plan))


def interpret(plan: Plan, graph: Graph, rows: int, arrays: dict[str, np.ndarray]) -> np.ndarray:
    return Interpreter(plan, session_memory(graph)).run(rows, arrays, params=DROP)["output"]


def gradient_of(graph: Graph, name: str) -> Graph:
    """The graph of d sum(dy * output) / d name, with dy as one more input."""
    builder = GraphBuilder.extend(graph)
    dy = builder.input("dy", graph.types[graph.output])
    extended = builder.build(graph.outputs)
    wanted = dict(graph.inputs)[name]
    out = differentiate(extended, {graph.output: dy}, wrt={name: wanted}, keep={})
    ((_, value),) = out.outputs
    return Graph(out.types, out.nodes, out.inputs, out.parameters, out.states, (("output", value),))


def size_at(shape: tuple[Dim, ...], rows: int) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else d.per_row * rows for d in shape)


def draw(case: Case, rows: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    arrays: dict[str, np.ndarray] = {}
    for name, shape in case.operands.items():
        values = rng.standard_normal(size_at(shape, rows))
        # away from the kinks at 0 of relu, abs and their like
        values += 0.05 * np.sign(values)
        arrays[name] = 0.5 + np.abs(values) if case.positive else values
    for name, (shape, entries) in case.ids.items():
        arrays[name] = rng.integers(0, entries, size_at(shape, rows)).astype(np.int32)
    return arrays


def types_of(case: Case) -> dict[str, TensorType]:
    types = {name: TensorType(shape) for name, shape in case.operands.items()}
    return types | {name: TensorType(shape, "index") for name, (shape, _) in case.ids.items()}


def by_name(formula: Callable[..., Tensor], names: list[str]) -> Callable[..., Tensor]:
    """The formula under keyword arguments, in the order of its own."""
    return lambda **tensors: formula(*(tensors[n] for n in names))
