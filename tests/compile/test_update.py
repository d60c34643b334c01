# SPDX-License-Identifier: Apache-2.0
"""The update section: each optimiser against its formula, clipping, groups, and being skipped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from hotloop.compile import compile_uncached
from hotloop.compile.interpret import Interpreter
from hotloop.compile.plan import OptimizerSpec, PlanSpec
from hotloop.errors import GraphError
from tests.compile.graphs import ADAMW, batch, kernels, mlp, runner, train_spec

Array = np.ndarray
LR, DECAY = 0.01, 0.1
GRAPH = mlp((4, 5, 3))


def updates(spec: PlanSpec, steps: int = 3, *, scale: float = 1.0) -> tuple[Interpreter, list[Array]]:
    """A few updates with gradients of our own. Gives the interpreter and the gradients."""
    run = runner(GRAPH, spec)
    rng = np.random.default_rng(5)
    real = run.memory["parameter"] != 0  # padding has no gradient
    gradients = [scale * rng.standard_normal(run.memory["gradient"].size) * real for _ in range(steps)]
    for gradient in gradients:
        run.memory["gradient"][:] = gradient
        run.run(2, {}, section="update", params=np.array([LR, DECAY] * run.plan.n_groups))
    return run, gradients


def vjp(optimizer: OptimizerSpec, **more: float) -> PlanSpec:
    return PlanSpec("vjp", 2, optimizer=optimizer, **more)  # type: ignore[arg-type]


def adam(p: Array, gradients: list[Array], *, decoupled: bool) -> Array:
    m = v = np.zeros_like(p)
    for t, g in enumerate(gradients, 1):
        if decoupled:
            p = p * (1 - LR * DECAY)
        else:
            g = g + DECAY * p
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        p = p - LR * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return p


def sgd(p: Array, gradients: list[Array], *, momentum: float, nesterov: bool = False) -> Array:
    b = np.zeros_like(p)
    for g in gradients:
        g = g + DECAY * p
        b = momentum * b + g
        p = p - LR * (g + momentum * b if nesterov else b)
    return p


def rmsprop(p: Array, gradients: list[Array], *, momentum: float) -> Array:
    v = b = np.zeros_like(p)
    for g in gradients:
        g = g + DECAY * p
        v = 0.9 * v + 0.1 * g * g
        b = momentum * b + g / (np.sqrt(v) + 1e-6)
        p = p - LR * b
    return p


OPTIMIZERS: dict[str, tuple[OptimizerSpec, Callable[[Array, list[Array]], Array]]] = {
    "adamw": (ADAMW, lambda p, g: adam(p, g, decoupled=True)),
    "adam": (dataclasses.replace(ADAMW, kind="adam"), lambda p, g: adam(p, g, decoupled=False)),
    "sgd": (OptimizerSpec("sgd"), lambda p, g: sgd(p, g, momentum=0)),
    "momentum": (OptimizerSpec("sgd", momentum=0.9), lambda p, g: sgd(p, g, momentum=0.9)),
    "nesterov": (
        OptimizerSpec("sgd", momentum=0.9, nesterov=True),
        lambda p, g: sgd(p, g, momentum=0.9, nesterov=True),
    ),
    "rmsprop": (OptimizerSpec("rmsprop", alpha=0.9, eps=1e-6), lambda p, g: rmsprop(p, g, momentum=0)),
    "rmsprop momentum": (
        OptimizerSpec("rmsprop", alpha=0.9, eps=1e-6, momentum=0.5),
        lambda p, g: rmsprop(p, g, momentum=0.5),
    ),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_follows_its_formula(name: str) -> None:
    spec, formula = OPTIMIZERS[name]
    start = runner(GRAPH, vjp(spec)).memory["parameter"].copy()
    run, gradients = updates(vjp(spec))
    np.testing.assert_allclose(run.memory["parameter"], formula(start, gradients), rtol=1e-12, atol=1e-15)
    assert run.memory["counter"].tolist() == [3] * 4  # one for each parameter


def test_groups_have_their_own_decay_and_counter() -> None:
    spec = vjp(OptimizerSpec("sgd", decay="weights"))
    run = runner(GRAPH, spec)
    start = run.memory["parameter"].copy()
    assert (run.plan.n_groups, kernels(run.plan).count("sgd")) == (2, 2)
    run.run(2, {}, section="update", params=np.array([0.1, 0.5, 0.1, 0.0]))
    biases = 32 + 16  # 0.weight (5, 4) takes 32 elements, 2.weight (3, 5) takes 16
    np.testing.assert_allclose(run.memory["parameter"][:biases], 0.95 * start[:biases])
    np.testing.assert_array_equal(run.memory["parameter"][biases:], start[biases:])
    assert run.memory["counter"].tolist() == [1] * 4


def test_clip_norm_scales_all_groups_by_one_factor() -> None:
    sgd_spec = OptimizerSpec("sgd", decay="weights")
    run, (gradient,) = updates(vjp(sgd_spec, clip_norm=0.5), 1, scale=3.0)
    free, _ = updates(vjp(sgd_spec), 1, scale=3.0)
    start = runner(GRAPH, vjp(sgd_spec)).memory["parameter"]
    norm = np.linalg.norm(gradient)
    np.testing.assert_allclose(
        run.memory["parameter"] - start + LR * DECAY * start,
        (free.memory["parameter"] - start + LR * DECAY * start) * 0.5 / (norm + 1e-6),
        atol=1e-14,
    )
    small, _ = updates(vjp(sgd_spec, clip_norm=1e6), 1)
    free, _ = updates(vjp(sgd_spec), 1)
    np.testing.assert_array_equal(small.memory["parameter"], free.memory["parameter"])


def test_clip_value_comes_before_clip_norm() -> None:
    spec = vjp(OptimizerSpec("sgd"), clip_value=0.25, clip_norm=0.5)
    assert kernels(compile_uncached(GRAPH, spec))[-4:] == ["clamp", "square_sum", "optimizer_begin", "sgd"]
    run, (gradient,) = updates(spec, 1)
    np.testing.assert_array_equal(run.memory["gradient"], np.clip(gradient, -0.25, 0.25))


def test_a_batch_of_zero_weight_changes_nothing() -> None:
    spec = train_spec("mse", weighted=True, optimizer=ADAMW)
    run = runner(GRAPH, spec)
    before = {kind: memory.copy() for kind, memory in run.memory.items() if kind != "gradient"}
    inputs = batch(GRAPH, spec, 4) | {"sample_weight": np.zeros(4)}
    run.run(4, inputs, params=np.array([LR, DECAY]))
    for kind, memory in before.items():
        np.testing.assert_array_equal(run.memory[kind], memory)
    assert run.metric("batch_loss") == [0.0]


@pytest.mark.parametrize("spec", [train_spec("mse", optimizer=ADAMW), vjp(ADAMW)])
def test_sections_run_apart_equal_sections_run_together(spec: PlanSpec) -> None:
    inputs = batch(GRAPH, train_spec("mse"), 2)
    whole, parts = runner(GRAPH, spec), runner(GRAPH, spec)
    params = np.array([LR, DECAY])
    for step in range(2):
        whole.run(2, inputs, params=params, step=step)
        for section in ("forward", "backward", "update"):
            given = {k: v for k, v in inputs.items() if (k == "doutput") is (section == "backward")}
            parts.run(2, given if section != "update" else {}, section=section, params=params, step=step)
    for kind in whole.memory:
        np.testing.assert_array_equal(whole.memory[kind], parts.memory[kind])


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(GraphError, match="unknown optimizer 'lion'; allowed: adam"):
        compile_uncached(GRAPH, vjp(OptimizerSpec("lion")))  # type: ignore[arg-type]
