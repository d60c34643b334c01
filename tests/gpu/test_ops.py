# SPDX-License-Identifier: Apache-2.0
"""Every op and each of its gradients on a device: what the float64 interpreter says. (That those gradients are
right is shown by central differences in tests/rules/test_gradient.py.)"""

from __future__ import annotations

import numpy as np
import pytest

from hotloop import _core
from hotloop.graph import Graph
from hotloop.runtime.executable import native_plan
from tests.gpu.kernel_harness import on_devices, open_device
from tests.rules.op_cases import CASES, DROP, Case, draw, gradient_of, graph_of, interpret, plan_of

ROWS = 5


def run(device: str, graph: Graph, arrays: dict[str, np.ndarray]) -> np.ndarray:
    plan = plan_of(graph, ROWS, device="cuda")
    assert "pack_panels" not in {step.kernel for step in plan.steps}
    memory = _core.Memory(parameters=0, state=0, counters=0, moments=0, dtype="float32")
    program = _core.DeviceProgram(native_plan(plan), memory, open_device(device))
    for name, buffer in plan.inputs:
        if name in arrays:
            dtype = np.int32 if plan.buffers[buffer].dtype == "index" else np.float32
            program.put(buffer, np.ascontiguousarray(arrays[name], dtype))
    program.run(ROWS, params=DROP)
    found: np.ndarray = program.get(dict(plan.outputs)["output"], ROWS)
    return found


@on_devices
@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_device_is_what_the_interpreter_says(device: str, case: Case) -> None:
    graph, arrays = graph_of(case), draw(case, ROWS)
    expected = interpret(plan_of(graph, ROWS), graph, ROWS, arrays)
    np.testing.assert_allclose(run(device, graph, arrays), expected, rtol=2e-5, atol=2e-5)
    arrays["dy"] = np.random.default_rng(1).standard_normal(expected.size)
    for name in case.operands:
        gradient = gradient_of(graph, name)
        expected = interpret(plan_of(gradient, ROWS), gradient, ROWS, arrays)
        found = run(device, gradient, arrays)
        np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5, err_msg=name)
