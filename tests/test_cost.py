# SPDX-License-Identifier: Apache-2.0
"""The cost of a run: what is counted, and that asking leaves the model as it is."""

from __future__ import annotations

from typing import Any

import pytest

import hotloop as hl


def test_plan_counts_and_leaves_the_model(toy: Any, digest: Any) -> None:
    X, y = toy.classes(100)
    trainer = hl.Trainer(toy.batch_norm(), "cross_entropy", optimizer=hl.optim.AdamW())
    trainer.fit(X, y, epochs=1)
    before = digest(trainer)
    plan = trainer.plan(X, y, batch_size=32)
    assert digest(trainer) == before
    assert plan.parameters == sum(p.size for p in trainer.model.parameters()) == 6 * 8 + 8 + 16 + 8 * 3 + 3
    assert (plan.rows, plan.batch_size, plan.steps_per_epoch) == (100, 32, 4)
    products = 2 * (6 * 8 + 8 * 3) * 32  # of the forward pass alone
    assert 2 * products < plan.flops_per_step < 10 * products
    assert 3 * plan.flops_per_step < plan.flops_per_epoch < 4 * plan.flops_per_step
    assert plan.memory_bytes >= 4 * 4 * plan.parameters
    assert plan.peak_bytes == plan.memory_bytes + plan.arena_bytes
    assert 0 < plan.seconds_per_epoch < 10
    assert "matmul" in plan.steps
    assert f"{plan.parameters} parameters" in str(plan)
    with pytest.raises(ValueError, match="callable loss"):
        hl.Trainer(toy.mlp(6, 3), lambda p, t: (p[:, 0], p)).plan(X, y)
