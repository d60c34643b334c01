# SPDX-License-Identifier: Apache-2.0
"""Stages mean what they promise: the rows of a rows stage may be taken block by block, in any order, and the
steps of a chunks stage may run in any order. Shown in float64 by an interpreter that does just that."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop.compile import check_plan, compile_uncached
from hotloop.compile.check import native_schema
from hotloop.compile.interpret import Array, Interpreter
from hotloop.compile.memory import lifetimes
from hotloop.compile.plan import LossSpec, Operand, Plan, PlanSpec, Stage
from hotloop.errors import InternalError
from hotloop.graph import Graph, Rows, TensorType
from hotloop.trace import trace
from tests.compile.graphs import ADAMW, batch, mlp, runner, train_spec

pytestmark = pytest.mark.skipif(native_schema() is None, reason="stages need the kernels' schema")
f = hl.nn.functional
ROWS = 23


class InStages(Interpreter):
    """Runs rows stages block by block from the last block to the first, chunks stages from the last step on.

    Nothing is poisoned at the end of its life: a block may be ahead of another by a whole stage.
    """

    first_row = 0

    def run(self, rows: int, inputs: Mapping[str, Array], **how: Any) -> dict[str, Array]:
        self._rows = rows
        self._fill_inputs(inputs)
        context = self._context(how.get("params"), how.get("seed", 0), 0, how.get("step", 0))
        for stage in self.plan.stages:
            blocks = (
                [(at, min(5, rows - at)) for at in range(0, rows, 5)] if stage.kind == "rows" else [(0, rows)]
            )
            for self.first_row, self._rows in reversed(blocks):
                steps = range(stage.begin, stage.end)
                for index in steps if stage.kind == "rows" else reversed(steps):
                    self._run_step(
                        self.plan.steps[index], dataclasses.replace(context, first_row=self.first_row)
                    )
            self.first_row, self._rows = 0, rows
        return {name: self._view(Operand(buffer)).copy() for name, buffer in self.plan.outputs}

    def _view(self, operand: Operand) -> Array:
        per_row = self.plan.buffers[operand.buffer].size.per_row
        if not per_row or not self.first_row:
            return super()._view(operand)
        rows, first = self._rows, self.first_row
        self._rows, self.first_row = first + rows, 0
        view = super()._view(Operand(operand.buffer, operand.offset + per_row * first))
        self._rows, self.first_row = rows, first
        return view


class Residual(hl.nn.Module):
    def __init__(self) -> None:
        self.table = hl.nn.Embedding(3, 4)
        self.stem = hl.nn.Linear(10, 8)
        self.norm = hl.nn.LayerNorm(8)
        self.rms = hl.nn.RMSNorm(8)
        self.inner = hl.nn.Linear(8, 8)
        self.drop = hl.nn.Dropout(0.4)
        self.head = hl.nn.Linear(8, 3)

    def forward(self, num: Any, cat: Any) -> Any:
        h = self.stem(f.concat([num, self.table(cat)], 1))
        h = h + self.drop(f.gelu(self.inner(self.norm(h))))
        return self.head(self.rms(h) * f.sigmoid(h))


def traced(module: Any, **types: TensorType) -> Graph:
    return trace(module.initialize(0), types or {"x": TensorType((Rows(), 10))})


GRAPHS = {
    "mlp": lambda: mlp((10, 17, 9, 3), "gelu", dropout=0.3),
    "relu": lambda: mlp((10, 8, 8, 8, 3), "relu"),
    "residual": lambda: traced(
        Residual(), num=TensorType((Rows(), 6)), cat=TensorType((Rows(),), "index")
    ),
    "batch norm": lambda: traced(
        hl.nn.Sequential(hl.nn.Linear(10, 7), hl.nn.BatchNorm1d(7), hl.nn.Tanh(), hl.nn.Dropout(0.2), hl.nn.Linear(7, 3))
    ),
}  # fmt: skip
LOSSES = ("cross_entropy", "mse")


def spread(graph: Graph, spec: PlanSpec) -> tuple[Interpreter, InStages]:
    """The plan step by step and in stages, each on a memory of its own with equal parameters."""
    plain = runner(graph, spec)
    staged = compile_uncached(graph, dataclasses.replace(spec, spread=True))
    memory = {kind: values.copy() for kind, values in plain.memory.items()}
    return plain, InStages(check_plan(staged), memory)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", GRAPHS)
def test_a_training_step_in_stages_is_the_step(name: str, loss: str) -> None:
    graph = GRAPHS[name]()
    spec = train_spec(loss, rows=ROWS, optimizer=ADAMW, weighted=True, clip_norm=0.1)
    plain, staged = spread(graph, spec)
    assert sorted(s.kernel for s in plain.plan.steps) == sorted(s.kernel for s in staged.plan.steps)
    params = np.array([1e-2, 0.1, *[0.3] * plain.plan.n_dropout])
    for step, rows in enumerate((ROWS, 7, 1)):
        if rows == 1 and name == "batch norm":
            continue
        for each in (plain, staged):
            each.run(rows, batch(graph, spec, rows, seed=step), params=params, seed=5, step=step)
    for kind, values in plain.memory.items():
        # the same sums in other blocks: NumPy's own order of summation may differ by the shape
        np.testing.assert_allclose(staged.memory[kind], values, rtol=1e-9, atol=1e-12, err_msg=kind)
    np.testing.assert_allclose(staged.metrics, plain.metrics, rtol=1e-9)


@pytest.mark.parametrize("mode", ["predict", "eval"])
@pytest.mark.parametrize("name", GRAPHS)
def test_evaluation_in_stages(name: str, mode: Any) -> None:
    graph = GRAPHS[name]()
    loss = {"loss": LossSpec("cross_entropy"), "target": "index"} if mode == "eval" else {}
    spec = PlanSpec(mode, ROWS, **loss)  # type: ignore[arg-type]
    plain, staged = spread(graph, spec)
    given = batch(graph, spec, ROWS)
    expected, found = plain.run(ROWS, given), staged.run(ROWS, given)
    assert expected.keys() == found.keys()
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-12)
    np.testing.assert_allclose(staged.metrics, plain.metrics, rtol=1e-9)


def staged_plan(graph: Graph, **more: Any) -> Plan:
    return compile_uncached(graph, train_spec("cross_entropy", rows=32, optimizer=ADAMW, spread=True, **more))


def test_an_mlp_needs_four_phases_that_a_team_shares() -> None:
    plan = staged_plan(mlp((64, 128, 64, 10), "relu", dropout=0.1))
    assert [s.kind for s in plan.stages] == ["chunks", "rows", "chunks", "chunks", "chunks"]
    first, rows, gradients, begin, update = (
        {step.kernel for step in plan.steps[s.begin : s.end]} for s in plan.stages
    )
    assert first == {"pack_panels", "row_weight"}
    assert "cross_entropy" in rows
    assert gradients == {"matmul", "loss_stats"}
    assert begin == {"optimizer_begin"}  # one piece of work: no thread is waited for
    assert update == {"adam"}
    inputs = {buffer for _, buffer in plan.inputs}
    touched = {
        v.buffer
        for step in plan.steps[: plan.stages[0].end]
        for _, v in step.fields
        if isinstance(v, Operand)
    }
    assert not inputs & touched  # the batch may be gathered meanwhile


def test_what_mixes_rows_ends_a_stage_of_rows() -> None:
    plan = staged_plan(GRAPHS["batch norm"]())
    mixing = {"batch_norm_fwd", "batch_norm_bwd", "loss_stats", "row_weight", "adam", "pack_panels"}
    for stage in plan.stages:
        if stage.kind == "rows":
            assert not mixing & {step.kernel for step in plan.steps[stage.begin : stage.end]}
    weight_gradients = [
        index for index, step in enumerate(plan.steps)
        if step.kernel == "matmul" and dict(step.fields)["k"].per_row  # type: ignore[union-attr]
    ]  # fmt: skip
    assert weight_gradients
    assert all(s.kind == "chunks" for i in weight_gradients for s in plan.stages if s.begin <= i < s.end)


def test_buffers_of_one_stage_share_no_bytes_unless_one_is_written_over_the_other() -> None:
    plan = staged_plan(mlp((64, 128, 64, 32, 10), "gelu", dropout=0.1))
    lives = lifetimes(plan)
    stage = next(s for s in plan.stages if s.kind == "rows")
    alive = sorted(
        (plan.buffers[b].offset, plan.buffers[b].offset + life.n_bytes)
        for b, life in lives.items()
        if life.begin <= stage.begin <= life.end and life.n_bytes
    )
    for (low, end), (high, other) in zip(alive, alive[1:], strict=False):
        assert end <= high or (low, end) == (high, other)


def test_broken_stages_are_refused() -> None:
    plan = staged_plan(mlp((6, 5, 3)))
    update = plan.section("update")[0]
    broken = {
        "expected to begin": (Stage("chunks", 1, len(plan.steps)),),
        "end at": (Stage("chunks", 0, 1),),
        "another section": (Stage("rows", 0, update + 1), Stage("chunks", update + 1, len(plan.steps))),
    }
    for message, stages in broken.items():
        with pytest.raises(InternalError, match=message):
            check_plan(dataclasses.replace(plan, stages=stages))
