# SPDX-License-Identifier: Apache-2.0
"""Every op of the registry has a converter, or a reason; and every converter runs in onnxruntime to 1e-5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import hotloop as hl
from hotloop.export.convert import evaluated
from hotloop.export.ops import CONVERTERS, NOT_EXPORTED, why_not
from hotloop.graph import Rows, TensorType
from hotloop.nn import functional as F
from hotloop.rules import RULES
from hotloop.rules.dims import shape_to_attr
from hotloop.trace import Tensor, trace
from tests.export.runtime import assert_equal_to_1e5


def emitted(x: Tensor, op: str, **attrs: Any) -> Tensor:
    """An op without operands, which no function of the library gives."""
    return Tensor(x.recorder, x.recorder.emit(op, **attrs)[0])


class Described(hl.nn.Module):
    """A function of x (batch, 3, 4) and of the module's own arrays."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        rng = np.random.default_rng(1)
        self.function = function
        for name, shape in {"w": (5, 4), "b": (5,), "m": (4, 6), "c": (4,), "d": (4,)}.items():
            setattr(self, name, hl.nn.Parameter(rng.standard_normal(shape).astype(np.float32)))
        self.mean = hl.nn.Buffer(rng.standard_normal(4).astype(np.float32))
        self.var = hl.nn.Buffer(rng.uniform(0.5, 2, 4).astype(np.float32))

    def forward(self, x: Any) -> Any:
        return self.function(self, x)


CASES: dict[str, Callable[[Any, Any], Any]] = {
    "relu": lambda m, x: F.relu(x),
    "leaky_relu": lambda m, x: F.leaky_relu(x, 0.2),
    "elu": lambda m, x: F.elu(x, 0.7),
    "selu": lambda m, x: F.selu(x),
    "gelu": lambda m, x: F.gelu(x),
    "gelu_tanh": lambda m, x: F.gelu(x, "tanh"),
    "silu": lambda m, x: F.silu(x),
    "mish": lambda m, x: F.mish(x),
    "tanh": lambda m, x: F.tanh(x),
    "sigmoid": lambda m, x: F.sigmoid(x),
    "softplus": lambda m, x: F.softplus(x, 1.5, 0.5),
    "exp": lambda m, x: F.exp(x),
    "log": lambda m, x: F.log(F.square(x) + 0.5),
    "sqrt": lambda m, x: F.sqrt(F.square(x) + 0.5),
    "square": lambda m, x: F.square(x),
    "abs": lambda m, x: abs(x),
    "reciprocal": lambda m, x: 1 / (F.square(x) + 0.5),
    "affine": lambda m, x: 2 * x - 3,
    "add": lambda m, x: x + m.c,
    "sub": lambda m, x: m.c - x,
    "mul": lambda m, x: x * m.c,
    "div": lambda m, x: x / (F.square(m.c) + 1),
    "linear": lambda m, x: F.linear(x, m.w, m.b),
    "matmul": lambda m, x: x @ m.m,
    "softmax": lambda m, x: F.softmax(x, 1),
    "log_softmax": lambda m, x: F.log_softmax(x),
    "layer_norm": lambda m, x: F.layer_norm(x, (3, 4)) + F.layer_norm(x, 4, m.c, m.d, 0.1) + F.layer_norm(x, 4, m.c),
    "rms_norm": lambda m, x: F.rms_norm(x, 4, m.c) + F.rms_norm(x, (3, 4), eps=0.1),
    "batch_norm": lambda m, x: x.reshape(-1, 4).emit(
        "batch_norm", None, None, m.mean.symbol(), m.var.symbol(), eps=0.1, momentum=0.1
    ).reshape(-1, 3, 4),
    "sum": lambda m, x: x.sum(1) + x.sum((1, 2), keepdim=True).reshape(-1, 1),
    "mean": lambda m, x: x.mean(2, keepdim=True) + x.emit("mean", axes=(), keepdim=False),
    "max": lambda m, x: x.max(1),
    "reshape": lambda m, x: x.reshape(-1, 2, 6),
    "transpose": lambda m, x: x.transpose(1, 2),
    "slice": lambda m, x: x[:, 1:, 1:3] + x[:, :2, :2].emit("slice", starts=(0, 0, 0), stops=(None, None, None)),
    "pad": lambda m, x: x.emit("pad", before=(0, 1, 0), after=(0, 0, 2)),
    "concat": lambda m, x: F.concat([x, x[:, :, :1]], 2),
    "broadcast_to": lambda m, x: x + m.c.symbol().broadcast_to(*x.shape) * x[:, :1].broadcast_to(*x.shape),
    "fill": lambda m, x: x + emitted(x, "fill", shape=shape_to_attr((Rows(), 3, 1)), value=0.25),
    "constant": lambda m, x: x * emitted(x, "constant", values=(1.0, 2.0, 3.0, 4.0), shape=(4,)),
}  # fmt: skip


def data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((33, 3, 4)).astype(np.float32), "ids": rng.integers(0, 7, (33, 2))}


@pytest.mark.parametrize("op", CASES)
def test_a_converter_computes_what_its_op_does(op: str, tmp_path: Path) -> None:
    model = Described(CASES[op])
    graph = evaluated(trace(model, {"x": TensorType((Rows(), 3, 4))}))
    assert ("batch_norm_eval" if op == "batch_norm" else op) in {node.op for node in graph.nodes}
    assert_equal_to_1e5(model, data()["x"], tmp_path / "model.onnx")


def test_ids_pick_the_same_rows_of_a_table(tmp_path: Path) -> None:
    class Ids(hl.nn.Module):
        def __init__(self) -> None:
            self.table = hl.nn.Embedding(7, 3)
            self.out = hl.nn.Linear(10, 2)

        def forward(self, x: Any, ids: Any) -> Any:
            rows = self.table(ids.reshape(-1, 1, 2)).reshape(-1, 6)
            return self.out(F.concat([rows, x.mean(1)], 1))

    assert_equal_to_1e5(Ids(), data(), tmp_path / "model.onnx")


def test_every_op_has_a_converter_or_a_reason() -> None:
    for op in RULES:
        assert (op in CONVERTERS) != (why_not(op) is not None), op
    assert set(CONVERTERS) <= set(RULES)
    assert set(NOT_EXPORTED) <= set(RULES)


def test_every_converter_is_run_above() -> None:
    assert set(CONVERTERS) == (set(CASES) - {"batch_norm"}) | {"batch_norm_eval", "embedding"}
