# SPDX-License-Identifier: Apache-2.0
"""What training and evaluation make of dropout and batch_norm."""

from __future__ import annotations

import numpy as np

from hotloop.compile.plan import TrainableSpec
from hotloop.compile.specialize import specialize
from hotloop.graph import Graph, Rows, TensorType
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import kernels, runner, train_spec


def normalised() -> Graph:
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 3)))
    w, b = builder.parameter("bn.weight", (3,)), builder.parameter("bn.bias", (3,))
    mean, var = builder.state("bn.running_mean", (3,)), builder.state("bn.running_var", (3,))
    (h,) = builder.emit("batch_norm", x, w, b, mean, var, eps=1e-5, momentum=0.1)
    (h,) = builder.emit("dropout", h, layer=0, p=0.5)
    return builder.build([("output", h)])


def test_evaluation() -> None:
    graph = specialize(normalised(), training=False)
    assert [node.op for node in graph.nodes] == ["batch_norm_eval"]
    assert graph.output == graph.nodes[0].outputs[0]


def test_training() -> None:
    graph = specialize(normalised(), training=True)
    assert [node.op for node in graph.nodes] == ["batch_norm_train", "dropout"]
    assert graph.nodes[1].inputs == graph.nodes[0].outputs[:1]


def test_training_updates_running_statistics_and_evaluation_reads_them() -> None:
    graph = normalised()
    rng = np.random.default_rng(0)
    x, y = rng.normal(3, 2, (6, 3)), np.zeros((6, 3))
    train = runner(graph, train_spec("mse"))
    train.memory["state"][16:19] = 1.0  # running_var
    train.run(6, {"x": x, "target": y}, params=np.array([0.5]))
    np.testing.assert_allclose(train.memory["state"][:3], 0.1 * x.mean(0))
    np.testing.assert_allclose(train.memory["state"][16:19], 0.9 + 0.1 * x.var(0, ddof=1))
    spec = train_spec("mse")
    evaluation = runner(graph, type(spec)("eval", 6, loss=spec.loss))
    before = evaluation.memory["state"].copy()
    evaluation.memory["state"][16:19] = before[16:19] = 4.0
    evaluation.run(6, {"x": x, "target": y})
    assert kernels(evaluation.plan)[0] == "batch_norm_eval"
    np.testing.assert_array_equal(evaluation.memory["state"], before)
    weight, bias = evaluation.memory["parameter"][:3], evaluation.memory["parameter"][16:19]
    expected = (x / np.sqrt(4.0 + 1e-5) * weight + bias) ** 2
    np.testing.assert_allclose(evaluation.metric("loss")[0], expected.mean(1).sum())


def test_a_batch_norm_that_is_frozen_as_a_whole_evaluates() -> None:
    frozen = specialize(normalised(), training=True, frozen=("bn.weight", "bn.bias"))
    assert [node.op for node in frozen.nodes] == ["batch_norm_eval", "dropout"]
    in_part = specialize(normalised(), training=True, frozen=("bn.weight",))
    assert [node.op for node in in_part.nodes] == ["batch_norm_train", "dropout"]
    spec = train_spec("mse", trainable=TrainableSpec(("bn.weight", "bn.bias")))
    run = runner(normalised(), spec)
    run.memory["state"][16:19] = 1.0
    before = run.memory["state"].copy()
    run.run(6, {"x": np.ones((6, 3)), "target": np.zeros((6, 3))}, params=np.array([0.5]))
    np.testing.assert_array_equal(run.memory["state"], before)
