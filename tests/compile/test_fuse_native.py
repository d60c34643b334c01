# SPDX-License-Identifier: Apache-2.0
"""A native training step leaves the same bits whether its nodes are fused or each has a kernel of its own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from hotloop.compile import compile_uncached
from hotloop.graph import Graph
from hotloop.rules.elementwise import UNARY
from tests.compile.graphs import ADAMW, batch, mlp, runner, train_spec
from tests.compile.test_fuse import NORMS, after_matmul, attrs_of, residual
from tests.compile.test_native import SPACES, Native, _core

ROWS = 33
UNITS = [("float64", "generic"), *(("float32", isa) for isa in _core.isas())]


def same_bits(graph: Graph, unit: tuple[str, str]) -> None:
    dtype, isa = unit
    spec = train_spec("huber", rows=ROWS, optimizer=ADAMW, weighted=True)
    spec = dataclasses.replace(spec, dtype=dtype)
    oracle = runner(graph, spec)
    # small and positive, for exp, log and sqrt
    oracle.memory["parameter"][:] = 0.1 * np.abs(oracle.memory["parameter"])
    inputs = {name: np.abs(values) for name, values in batch(graph, spec, ROWS).items()}
    params = np.array([1e-3, 0.1] * oracle.plan.n_groups + [0.4] * oracle.plan.n_dropout)
    runs = []
    for fused in (True, False):
        plan = compile_uncached(graph, spec, fused=fused)
        runs.append((plan, Native(graph, spec, plan, oracle, isa)))
        for step in range(2):
            runs[-1][1].run(ROWS, inputs, params=params, seed=11, run=1, step=step)
    (with_fusion, fused_run), (without, plain_run) = runs
    assert len(with_fusion.steps) < len(without.steps)
    for kind, name in SPACES.items():
        np.testing.assert_array_equal(
            getattr(fused_run.memory, name), getattr(plain_run.memory, name), err_msg=kind
        )
    assert np.any(fused_run.memory.gradients)
    assert np.isfinite(fused_run.memory.gradients).all()
    np.testing.assert_array_equal(fused_run.program.metrics, plain_run.program.metrics)


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("activation", UNARY)
@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_every_activation(activation: str, dropout: float, unit: tuple[str, str]) -> None:
    same_bits(mlp((5, 37, 3), activation, dropout, **attrs_of(activation)), unit)


@pytest.mark.parametrize("unit", UNITS, ids=str)
def test_gradients_of_matmul(unit: tuple[str, str]) -> None:
    same_bits(after_matmul("gelu", 0.4), unit)


@pytest.mark.parametrize("unit", UNITS, ids=str)
@pytest.mark.parametrize("norm", NORMS)
def test_residual_connections(norm: str | None, unit: tuple[str, str]) -> None:
    same_bits(residual("silu", 0.4, norm=norm), unit)
