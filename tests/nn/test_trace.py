# SPDX-License-Identifier: Apache-2.0
"""Tracing: which graphs models give, what forward may do, and what errors teach."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hotloop import nn
from hotloop.errors import DTypeError, GraphError, ShapeError
from hotloop.graph import Dim, Graph, Rows, TensorType, graph_from_json, graph_to_json
from hotloop.nn import functional as F
from hotloop.trace import Tensor, trace

B = Rows()


def real(*shape: Dim) -> TensorType:
    return TensorType(shape)


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def run(formula: Any, *shape: Dim) -> Graph:
    return trace(formula, {"x": TensorType(shape)})


def output(formula: Any, *shape: Dim) -> tuple[Dim, ...]:
    graph = run(formula, *shape)
    return graph.types[graph.output].shape


class Residual(nn.Module):
    def __init__(self) -> None:
        self.inner = nn.Linear(4, 4)
        self.gate = nn.Parameter((4,))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 - self.gate) + self.gate * F.relu(self.inner(x))


class Tied(nn.Module):
    def __init__(self) -> None:
        self.first = nn.Linear(3, 3)
        self.second = nn.Linear(3, 3, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(F.tanh(self.first(x)))


class Mixed(nn.Module):
    def __init__(self) -> None:
        self.table = nn.Embedding(10, 2)
        self.head = nn.Linear(5, 1)

    def forward(self, num: Tensor, cat: Tensor) -> Tensor:
        return self.head(F.cat([num, self.table(cat)], 1))


# ---- graphs


def test_mlp() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Dropout(0.1), nn.Linear(8, 2))
    graph = run(model, B, 4)
    assert ops(graph) == ["linear", "gelu", "dropout", "linear"]
    assert [n for n, _ in graph.parameters] == ["0.weight", "0.bias", "3.weight", "3.bias"]
    assert graph.types[graph.output] == TensorType((B, 2))
    assert graph.inputs == (("x", 0),)
    assert graph_from_json(graph_to_json(graph)) == graph


def test_residual_with_arithmetic_on_parameters() -> None:
    graph = run(Residual(), B, 4)
    assert ops(graph) == ["affine", "mul", "linear", "relu", "mul", "add"]
    # state-dict order, though forward used the gate first
    assert [n for n, _ in graph.parameters] == ["gate", "inner.weight", "inner.bias"]


def test_a_shared_parameter_is_one_value() -> None:
    graph = run(Tied(), B, 3)
    assert [n for n, _ in graph.parameters] == ["first.weight", "first.bias"]
    weight = dict(graph.parameters)["first.weight"]
    assert [node.inputs[1] for node in graph.nodes if node.op == "linear"] == [weight, weight]


def test_two_inputs_of_two_kinds() -> None:
    graph = trace(Mixed(), {"num": real(B, 3), "cat": TensorType((B,), "index")})
    assert [name for name, _ in graph.inputs] == ["num", "cat"]
    assert ops(graph) == ["embedding", "concat", "linear"]


def test_the_order_of_inputs_is_the_callers() -> None:
    graph = trace(Mixed(), {"cat": TensorType((B,), "index"), "num": real(B, 3)})
    assert [name for name, _ in graph.inputs] == ["cat", "num"]


def test_each_use_of_dropout_is_a_layer() -> None:
    drop = nn.Dropout(0.5)
    graph = run(nn.Sequential(drop, nn.ReLU(), drop), B, 4)
    assert [node.attr["layer"] for node in graph.nodes if node.op == "dropout"] == [0, 1]
    assert ops(run(nn.Dropout(0.0), B, 4)) == []


def test_batch_norm_reads_its_running_statistics() -> None:
    graph = run(nn.BatchNorm1d(3), B, 3)
    assert [name for name, _ in graph.states] == ["running_mean", "running_var"]
    assert output(nn.BatchNorm1d(3), B, 3, 7) == (B, 3, 7)
    assert ops(run(nn.BatchNorm1d(3), B, 3, 7)) == [
        "transpose",
        "reshape",
        "batch_norm",
        "reshape",
        "transpose",
    ]


def test_buffers_are_constants_of_forward() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            self.register_buffer("mean", np.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return (x - self.mean) / self.mean

    graph = run(Scaled(), B, 3)
    assert [name for name, _ in graph.states] == ["mean"]
    assert ops(graph) == ["sub", "div"]


def test_a_graph_module_gives_its_graph_back() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), Residual4to3())
    graph = run(model, B, 4)
    copy = nn.GraphModule(graph, model.state_dict(), aliases=model.tied_names())
    assert run(copy, B, 4) == graph
    assert list(copy.state_dict()) == list(model.state_dict())
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(copy.state_dict()[name], array)
    # and as a part of another model, with its dropout layer numbered after the outer one
    outer = run(nn.Sequential(nn.Dropout(), copy, nn.Linear(3, 1)), B, 4)
    assert [node.attr["layer"] for node in outer.nodes if node.op == "dropout"] == [0, 1]
    assert [n for n, _ in outer.parameters][:2] == ["1.0.weight", "1.0.bias"]


class Residual4to3(nn.Module):
    def __init__(self) -> None:
        self.inner = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def test_a_graph_module_keeps_shared_tensors_shared() -> None:
    model = Tied()
    copy = nn.GraphModule(run(model, B, 3), model.state_dict(), aliases=model.tied_names())
    dict(copy.named_parameters())["first.weight"].data[...] = 7.0
    assert (copy.state_dict()["second.weight"] == 7.0).all()
    assert [name for name, _ in copy.named_parameters()] == ["first.weight", "first.bias"]


def test_a_graph_module_checks_tensors_and_inputs() -> None:
    model = nn.Linear(4, 3)
    graph, tensors = run(model, B, 4), model.state_dict()
    with pytest.raises(ShapeError, match="'weight' must have shape \\(3, 4\\), got nothing"):
        nn.GraphModule(graph, {"bias": tensors["bias"]})
    with pytest.raises(ShapeError, match="must be \\[B, 4\\]"):
        run(nn.GraphModule(graph, tensors), B, 5)


# ---- what forward may do


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (lambda x: x.reshape(x.shape[0] * 2, -1), (Rows(2), 6)),
        (lambda x: x.view(-1, 3, 4), (B, 3, 4)),
        (lambda x: x.flatten(1), (B, 12)),
        (lambda x: x.flatten(), (Rows(12),)),
        (lambda x: x.unsqueeze(1), (B, 1, 4, 3)),
        (lambda x: x[:, None, :, :2].squeeze(1), (B, 4, 2)),
        (lambda x: x[..., 0], (B, 4)),
        (lambda x: x[:, -1, 1:], (B, 2)),
        (lambda x: x[:, 1, ..., None], (B, 3, 1)),
        (lambda x: x.transpose(1, 2), (B, 3, 4)),
        (lambda x: x.permute(2, 0, 1), (3, B, 4)),
        (lambda x: x.mean(), ()),
        (lambda x: x.sum(dim=(1, 2), keepdim=True), (B, 1, 1)),
        (lambda x: x.max(axis=-1), (B, 4)),
        (lambda x: x.max((0, 2), keepdim=True), (1, 4, 1)),
        (lambda x: x.min(1), (B, 3)),
        (lambda x: F.softmax(x, 1), (B, 4, 3)),
        (lambda x: abs(-x) ** 2 + x**0.5 - 1 / (x + 3) ** -1, (B, 4, 3)),
        (lambda x: np.float32(2.0) * x, (B, 4, 3)),
        (lambda x: x @ x.mean(0).T, (B, 4, 4)),
        (lambda x: x[:, 0, 0].unsqueeze(1).expand(x.shape[0], 5), (B, 5)),
    ],
)
def test_shapes_of_formulas(formula: Any, expected: tuple[Dim, ...]) -> None:
    assert output(formula, B, 4, 3) == expected


def test_numbers_become_affine() -> None:
    graph = run(lambda x: 1 - x, B)
    assert [(node.op, node.attr) for node in graph.nodes] == [("affine", {"p0": -1.0, "p1": 1.0})]
    assert ops(run(lambda x: (x + 0) * 1, B)) == []


def test_input_names() -> None:
    assert trace(nn.Linear(4, 2), {"features": real(B, 4)}).inputs[0][0] == "features"

    class Optional_(nn.Module):
        def forward(self, x: Tensor, scale: Tensor | None = None) -> Tensor:
            return x if scale is None else x * scale

    assert len(trace(Optional_(), {"anything": real(B, 4)}).inputs) == 1
    assert ops(trace(Optional_(), {"x": real(B, 4), "scale": real(B, 1)})) == ["mul"]
    for names in [("num",), ("num", "dog"), ("num", "cat", "dog")]:
        with pytest.raises(GraphError, match="takes num, cat"):
            trace(Mixed(), {name: real(B, 3) for name in names})


# ---- what forward may not do


@pytest.mark.parametrize(
    ("formula", "message"),
    [
        (lambda x: x if x > 0 else -x, "no numbers"),
        (lambda x: x if x == 0 else -x, "no numbers"),
        (lambda x: float(x.mean()), "no numbers"),
        (lambda x: [row for row in x], "no numbers"),  # noqa: C416
        (lambda x: x * len(x), "no numbers"),
        (lambda x: np.asarray(x), "no numbers"),
        (lambda x: np.exp(x), "np.exp"),
        (lambda x: x + np.ones(4), "register_buffer"),
        (lambda x: x**3, "\\*\\* 2"),
        (lambda x: x[0], "rows of the batch"),
        (lambda x: x[:, ::2], "step 1"),
        (lambda x: x[:, 9], "inside the axis"),
        (lambda x: x.T, "transpose"),
        (lambda x: x @ x, "without the batch"),
        (lambda x: x.mean(3), "axis must lie in -2..1"),
        (lambda x: x.mean((0, 0)), "named twice"),
        (lambda x: x.reshape(32, 4), "number of elements"),
        (lambda x: (x, x), "one tensor, got tuple"),
        (lambda x: None, "one tensor, got NoneType"),
        (lambda x: x + "a", "got str"),
        (lambda x: F.relu(np.ones(3)), "hotloop.ops"),
        (lambda x: x / 0, "number 0"),
        (lambda x: x + nn.Parameter((4,)), "not registered"),
        (lambda x: F.cat([x, x], 0), "must not be the batch"),
        (lambda x: F.cat([]), "at least one"),
    ],
)
def test_errors_teach(formula: Any, message: str) -> None:
    with pytest.raises((GraphError, ShapeError), match=message):
        run(formula, B, 4)


def test_errors_name_the_innermost_module() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            self.encoder = nn.Sequential(nn.Linear(4, 8), nn.Linear(9, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x)

    with pytest.raises(ShapeError, match=r"must be 9, got \(B, 8\).*\(in 'encoder.1', a Linear\)$"):
        run(Net(), B, 4)


def test_a_module_is_not_called_with_data() -> None:
    with pytest.raises(GraphError, match=r"got ndarray; for outputs use Trainer\.predict"):
        nn.Linear(2, 2)(np.zeros((1, 2)))
    with pytest.raises(GraphError, match="for inside forward"):
        nn.Parameter((3,)) * 2


def test_an_embedding_wants_integers() -> None:
    with pytest.raises(DTypeError, match=r"ids must be integers.*in Embedding"):
        run(nn.Embedding(4, 2), B)


def test_a_failed_trace_leaves_nothing_behind() -> None:
    with pytest.raises(ShapeError):
        run(nn.Linear(3, 3), B, 4)
    assert ops(run(nn.Linear(3, 3), B, 3)) == ["linear"]


def test_a_tensor_does_not_outlive_its_trace() -> None:
    kept: list[Tensor] = []
    run(lambda x: kept.append(x) or x, B)
    with pytest.raises(GraphError, match="another trace"):
        run(lambda x: x + kept[0], B)


def test_modules_without_forward_say_so() -> None:
    with pytest.raises(GraphError, match="no forward"):
        run(nn.Module(), B)
    with pytest.raises(GraphError, match="is a list"):
        run(nn.ModuleList([nn.ReLU()]), B)
