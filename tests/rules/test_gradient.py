# SPDX-License-Identifier: Apache-2.0
"""Every op's gradient against central differences, in float64, through the passes and the interpreter.

The scalar that is differentiated is sum(dy * f(operands)) for a fixed random dy.
"""

from __future__ import annotations

import numpy as np
import pytest

from hotloop.graph import Affine, TensorType
from hotloop.nn import functional as F
from hotloop.rules.registry import RULES
from hotloop.trace import trace
from tests.rules.op_cases import CASES, STEP, B, Case, draw, gradient_of, graph_of, interpret, plan_of


@pytest.mark.parametrize("rows", [2, 5])
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_gradient_is_the_difference_quotient(case: Case, rows: int) -> None:
    graph = graph_of(case)
    arrays = draw(case, rows)
    forward = plan_of(graph, rows)
    y = interpret(forward, graph, rows, arrays)
    dy = np.random.default_rng(1).standard_normal(y.size)
    for name in case.operands:
        gradient_graph = gradient_of(graph, name)
        plan = plan_of(gradient_graph, rows)
        found = interpret(plan, gradient_graph, rows, arrays | {"dy": dy})
        expected = np.zeros(arrays[name].size)
        for i in range(expected.size):
            ends = []
            for sign in (1.0, -1.0):
                moved = arrays[name].copy().reshape(-1)
                moved[i] += sign * STEP
                ends.append(interpret(forward, graph, rows, arrays | {name: moved}) @ dy)
            expected[i] = (ends[0] - ends[1]) / (2 * STEP)
        np.testing.assert_allclose(found, expected, rtol=2e-6, atol=2e-8, err_msg=name)


def test_every_differentiable_op_has_a_case() -> None:
    seen = set()
    for case in CASES:
        seen |= {node.op for node in graph_of(case).nodes}
    # losses are tested with their objective; a constant has no operand
    elsewhere = {"cross_entropy", "mse", "mae", "huber", "bce_with_logits", "constant"}
    assert {name for name, rule in RULES.items() if rule.grad is not None} - elsewhere == seen - elsewhere


def test_flops_follow_the_batch() -> None:
    graph = trace(lambda x, w: F.linear(x, w), {"x": TensorType((B, 4)), "w": TensorType((3, 4))})
    node = graph.nodes[0]
    rule = RULES["linear"]
    assert rule.flops is not None
    types = [None if v is None else graph.types[v] for v in node.inputs]
    assert rule.flops(types, node.attr) == Affine(2 * 4 * 3, 0)
