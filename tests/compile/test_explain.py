# SPDX-License-Identifier: Apache-2.0
"""The table shows every step, every operand and the totals."""

from __future__ import annotations

import re

from hotloop.compile import compile_uncached, explain
from hotloop.compile.plan import PlanSpec
from tests.compile.graphs import ADAMW, mlp, train_spec


def test_a_training_plan() -> None:
    plan = compile_uncached(mlp((64, 128, 10), "relu"), train_spec("cross_entropy", rows=32, optimizer=ADAMW))
    text = explain(plan)
    lines = text.splitlines()
    assert lines[0] == "train plan, float32, up to 32 rows (B)"
    assert [line for line in lines if line in ("forward", "backward", "update", "totals")] == [
        "forward", "backward", "update", "totals",
    ]  # fmt: skip
    numbered = [line for line in lines if re.match(r"  +\d+  ", line)]
    assert [line.split()[1] for line in numbered] == [step.kernel for step in plan.steps]
    product = next(line for line in numbered if "linear_fused" in line and "matmul" in line)
    # 2 * 32 * 64 * 128 operations of the product and 32 * 128 of the activation
    assert "528k flop" in product
    assert re.search(r"a=x\[64B\]@\d+", product)
    assert "bias=0.bias[128]" in product
    assert "grad:2.weight[1280]" in text
    assert "parameters  9,610" in text
    assert f"arena       {plan.arena_bytes / 1e6:.3f} MB" in text
    assert re.search(r"FLOPs +1\.3\d?M per step of 32 rows, 41\.\dk per row", text)


def test_flops_of_the_plan_are_the_sum_over_its_steps() -> None:
    plan = compile_uncached(mlp((64, 128, 10)), PlanSpec("predict", 32))
    assert plan.flops.per_row == sum(step.flops.per_row for step in plan.steps)
    assert plan.flops.per_row >= 2 * (64 * 128 + 128 * 10)
    assert plan.flops.const == 0
