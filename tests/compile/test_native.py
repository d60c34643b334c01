# SPDX-License-Identifier: Apache-2.0
"""The native executor runs whole plans as the interpreter does: real arena offsets, buffers that share bytes,
and outputs written over inputs included. float64 through the generic kernels, float32 through every ISA."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hotloop.compile import param_layout, state_layout
from hotloop.compile.interpret import Interpreter
from hotloop.compile.plan import LossSpec, OptimizerSpec, Plan, PlanSpec, TrainableSpec
from hotloop.graph import Graph, Rows, TensorType
from hotloop.rules.elementwise import UNARY
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import ADAMW, LOSSES, batch, mlp, runner, train_spec

_core = pytest.importorskip("hotloop._core")
executable = pytest.importorskip("hotloop.runtime.executable")

SPACES = {
    "parameter": "parameters",
    "gradient": "gradients",
    "moment1": "moment1",
    "moment2": "moment2",
    "state": "state",
}
BACKENDS = [("float64", "generic", 1e-10), *(("float32", isa, 2e-4) for isa in _core.isas())]


class Native:
    """A program on memory of its own, filled from an interpreter's."""

    def __init__(
        self,
        graph: Graph,
        spec: PlanSpec,
        plan: Plan,
        oracle: Interpreter,
        isa: str,
        *,
        reserve: bool = False,
    ) -> None:
        layout = param_layout(graph)
        self.plan = plan
        self.memory = _core.Memory(
            parameters=layout.size,
            state=state_layout(graph).size,
            counters=len(layout.entries),
            moments=2,
            dtype=plan.dtype,
        )
        if reserve:
            self.memory.reserve(accumulated=spec.accumulate, ema=spec.ema is not None)
        for kind, name in SPACES.items():
            getattr(self.memory, name)[:] = oracle.memory[kind]
        self.program = _core.Program(executable.native_plan(plan), self.memory, isa)
        self.team = _core.Team(2)

    def run(self, rows: int, inputs: dict[str, Any], **how: Any) -> None:
        for name, buffer in self.plan.inputs:
            self.program.buffer(buffer, rows)[:] = np.asarray(inputs[name]).ravel()
        self.program.run(self.team, rows, **how)


def compare(
    graph: Graph, spec: PlanSpec, rows: int, backend: tuple[str, str, float], *, steps: int = 2
) -> None:
    dtype, isa, tolerance = backend
    spec = dataclasses.replace(spec, dtype=dtype)
    oracle = runner(graph, spec)
    oracle.memory["state"][:] = 0.5
    native = Native(graph, spec, oracle.plan, oracle, isa)
    inputs = batch(graph, spec, rows)
    params = np.array([0.01, 0.1] * oracle.plan.n_groups + [0.4] * oracle.plan.n_dropout)
    for step in range(steps):
        how = {"params": params, "seed": 11, "run": 1, "step": step}
        outputs = oracle.run(rows, inputs, **how)
        native.run(rows, inputs, **how)
        for name, buffer in native.plan.outputs:
            np.testing.assert_allclose(
                native.program.buffer(buffer, rows), outputs[name], rtol=0, atol=tolerance
            )
    for kind, name in SPACES.items():
        have, want = getattr(native.memory, name), oracle.memory[kind]
        scale = max(float(np.abs(want).max(initial=0)), 1.0)
        np.testing.assert_allclose(have, want, rtol=0, atol=tolerance * scale, err_msg=kind)
    np.testing.assert_allclose(native.program.metrics, oracle.metrics, rtol=10 * tolerance, atol=tolerance)


def everything() -> Graph:
    """Embedding, three norms, a residual, dropout, softmax, reduction, transpose and slice in one model."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 6)))
    (h,) = builder.emit(
        "linear", x, builder.parameter("in.weight", (8, 6)), builder.parameter("in.bias", (8,))
    )
    ids = builder.input("ids", TensorType((Rows(),), "index"))
    (h,) = builder.emit("add", h, *builder.emit("embedding", builder.parameter("table", (3, 8)), ids))
    bn = [builder.parameter("bn.weight", (8,)), builder.parameter("bn.bias", (8,))]
    bn += [builder.state("bn.running_mean", (8,)), builder.state("bn.running_var", (8,))]
    (h,) = builder.emit("batch_norm", h, *bn, eps=1e-5, momentum=0.1)
    (g,) = builder.emit("gelu", h)
    (g,) = builder.emit("dropout", g, layer=0, p=0.4)
    (h,) = builder.emit("add", h, g)
    weight, bias = builder.parameter("ln.weight", (8,)), builder.parameter("ln.bias", (8,))
    h = builder.emit("layer_norm", h, weight, bias, n_axes=1, eps=1e-5)[0]
    h = builder.emit("rms_norm", h, builder.parameter("rms.weight", (8,)), n_axes=1, eps=1e-5)[0]
    (p,) = builder.emit("softmax", h)
    (m,) = builder.emit("mean", h, axes=(1,), keepdim=True)
    (h,) = builder.emit("mul", p, m)
    (h,) = builder.emit("sub", h, builder.parameter("shift", (1, 8)))
    (h,) = builder.emit("transpose", h, perm=(1, 0))
    (h,) = builder.emit("tanh", h)
    (h,) = builder.emit("transpose", h, perm=(1, 0))
    (h,) = builder.emit("slice", h, starts=(0, 1), stops=(None, 7))
    (h,) = builder.emit("linear", h, builder.parameter("out.weight", (3, 6)), None)
    return builder.build([("output", h)])


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("kind", LOSSES)
def test_training_with_every_loss(kind: str, backend: tuple[str, str, float]) -> None:
    loss = LossSpec(kind)
    if kind == "cross_entropy":
        loss = LossSpec(kind, label_smoothing=0.1, class_weight=(0.5, 1.0, 2.0))
    metric = "accuracy" if kind in ("cross_entropy", "bce_with_logits") else "regression"
    spec = train_spec(
        kind, rows=7, loss=loss, weighted=True, metrics=(metric,), optimizer=ADAMW, clip_norm=0.5
    )
    compare(mlp((5, 9, 3), "relu", 0.4), spec, 6, backend)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("mode", ["train", "eval", "vjp", "predict"])
def test_every_mode_of_a_model_of_everything(mode: str, backend: tuple[str, str, float]) -> None:
    sgd = OptimizerSpec("sgd", momentum=0.9, nesterov=True, decay="weights")
    spec = train_spec("mse", rows=9, optimizer=sgd, clip_value=0.3)
    compare(everything(), dataclasses.replace(spec, mode=mode), 8, backend)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("rows", [1, 31, 32])
def test_rows_up_to_the_maximum(rows: int, backend: tuple[str, str, float]) -> None:
    rms = OptimizerSpec("rmsprop", alpha=0.9, eps=1e-3, momentum=0.5)
    compare(
        mlp((17, 33, 19, 3), "gelu", 0.4), train_spec("cross_entropy", rows=32, optimizer=rms), rows, backend
    )


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.sampled_from([*UNARY, "dropout", "linear", "residual", "gate"]), min_size=1, max_size=9),
    st.integers(1, 6),
    st.booleans(),
)
def test_random_models(steps: list[str], rows: int, single: bool) -> None:
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 5)))
    layer = 0
    for i, step in enumerate(["linear", *steps]):
        if step == "linear":
            (h,) = builder.emit(
                "linear", h, builder.parameter(f"w{i}", (5, 5)), builder.parameter(f"b{i}", (5,))
            )
        elif step == "dropout":
            (h,) = builder.emit("dropout", h, layer=layer, p=0.4)
            layer += 1
        elif step == "residual":
            (h,) = builder.emit("add", h, *builder.emit("tanh", h))
        elif step == "gate":
            (h,) = builder.emit("mul", h, builder.parameter(f"g{i}", (5,)))
        else:
            (h,) = builder.emit("sigmoid", h)  # keeps chains of exp, log and reciprocal in range
            (h,) = builder.emit("affine", h, p0=0.5, p1=0.5)
            attrs = {"p0": 1.1, "p1": 20.0}
            names = ("p0", "p1")[: UNARY[step].parameters]
            (h,) = builder.emit(step, h, **{name: attrs[name] for name in names})
            (h,) = builder.emit("tanh", h)
    spec = train_spec("mse", rows=6, weighted=True)
    compare(builder.build([("output", h)]), spec, rows, BACKENDS[-1] if single else BACKENDS[0])


FROZEN = [("0.weight", "0.bias"), ("2.bias",), ("0.weight", "2.weight"), ("2.weight", "2.bias")]


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
@pytest.mark.parametrize("frozen", FROZEN, ids=str)
def test_plans_that_leave_parameters_alone(frozen: tuple[str, ...], backend: tuple[str, str, float]) -> None:
    trainable = TrainableSpec(frozen, n_rates=2, rates=(("4.weight", 1),), ages=(("4.bias", 1),))
    spec = train_spec("cross_entropy", rows=9, optimizer=ADAMW, clip_norm=0.3, trainable=trainable)
    compare(mlp((5, 17, 9, 4), "gelu", dropout=0.2), spec, 7, backend)


@pytest.mark.parametrize("backend", BACKENDS, ids=str)
def test_a_frozen_batch_norm(backend: tuple[str, str, float]) -> None:
    builder = GraphBuilder()
    h = builder.input("x", TensorType((Rows(), 5)))
    (h,) = builder.emit("linear", h, builder.parameter("0.weight", (19, 5)), None)
    affine = builder.parameter("1.weight", (19,)), builder.parameter("1.bias", (19,))
    statistics = builder.state("1.running_mean", (19,)), builder.state("1.running_var", (19,))
    (h,) = builder.emit("batch_norm", h, *affine, *statistics, eps=1e-5, momentum=0.1)
    (h,) = builder.emit("linear", h, builder.parameter("2.weight", (3, 19)), None)
    graph = builder.build([("output", h)])
    spec = train_spec("mse", rows=9, optimizer=ADAMW, trainable=TrainableSpec(("1.weight", "1.bias")))
    compare(graph, spec, 7, backend)
