# SPDX-License-Identifier: Apache-2.0
"""Plans on a device for tests: programs beside an interpreter's memory, epochs beside the CPU's, and the
emulator's freedoms."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hotloop import _core
from hotloop.compile import compile_uncached, param_layout, state_layout
from hotloop.compile.interpret import Interpreter
from hotloop.compile.plan import Plan, PlanSpec
from hotloop.graph import Graph
from hotloop.runtime.executable import native_plan
from tests.compile.graphs import runner
from tests.gpu.kernel_harness import LIBRARIES, open_device

SPACES = {
    "parameter": "parameters",
    "gradient": "gradients",
    "moment1": "moment1",
    "moment2": "moment2",
    "state": "state",
}
#: What a GPU is free to do and the emulator does on demand: graphs and blocks in any order, work and copies
#: as late as they may be.
MODES = ("forward", "random=1 deferred", "random=2 eager", "reversed deferred")


@contextmanager
def emulating(device: str, mode: str) -> Iterator[None]:
    """The emulator's mode for a while; a GPU takes its own."""
    if device != "simt":
        yield
        return
    set_mode = ctypes.CDLL(str(LIBRARIES["simt"])).hotloop_simt_mode
    assert set_mode(mode.encode()) == 0, mode
    try:
        yield
    finally:
        set_mode(b"forward")


def device_spec(spec: PlanSpec) -> PlanSpec:
    """The same for a device: in stages, and without packed panels."""
    return dataclasses.replace(spec, dtype="float32", spread=True, device="cuda")


def memory_for(graph: Graph, spec: PlanSpec, oracle: Interpreter | None = None) -> Any:
    """A session's memory, filled from an interpreter's."""
    layout = param_layout(graph)
    memory = _core.Memory(
        parameters=layout.size, state=state_layout(graph).size, counters=len(layout.entries), moments=2,
        dtype="float32",
    )  # fmt: skip
    memory.reserve(accumulated=spec.accumulate, ema=spec.ema is not None)
    if oracle is not None:
        for kind, name in SPACES.items():
            getattr(memory, name)[:] = oracle.memory[kind]
    return memory


class Setting:
    """A plan compiled for a device, its memory with random parameters, and programs on both sides."""

    def __init__(self, graph: Graph, spec: PlanSpec, seed: int = 1) -> None:
        self.graph, self.spec = graph, device_spec(spec)
        self.plan: Plan = compile_uncached(graph, self.spec)
        on_cpu = dataclasses.replace(self.spec, device="cpu", spread=False)
        self.oracle = runner(graph, on_cpu, seed=seed)
        self.params = np.array([0.02, 0.1] * self.plan.n_groups + [0.4] * self.plan.n_dropout)

    def memory(self) -> Any:
        return memory_for(self.graph, self.spec, self.oracle)

    def program(self, device: str, memory: Any) -> Any:
        return _core.DeviceProgram(native_plan(self.plan), memory, open_device(device))

    @property
    def inputs(self) -> list[int]:
        return [buffer for _, buffer in self.plan.inputs]

    def on_cpu(self) -> tuple[Any, Any]:
        """(memory, program) of the plan that a CPU would be given."""
        memory = self.memory()
        return memory, _core.Program(native_plan(self.oracle.plan), memory)

    def cpu_inputs(self) -> list[int]:
        return [buffer for _, buffer in self.oracle.plan.inputs]


def put_all(program: Any, plan: Plan, values: dict[str, Any]) -> None:
    """Fill every input of a program on a device."""
    for name, buffer in plan.inputs:
        dtype = np.int32 if plan.buffers[buffer].dtype == "index" else np.float32
        program.put(buffer, np.ascontiguousarray(values[name], dtype).ravel())


def contents(memory: Any) -> dict[str, np.ndarray]:
    """Copies of all that a memory holds."""
    names = ("parameters", "gradients", "moment1", "moment2", "state", "counters", "accumulated", "ema")
    return {name: getattr(memory, name).copy() for name in names}


def assert_same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def assert_near(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float) -> None:
    for name, value in a.items():
        scale = max(float(np.abs(b[name]).max(initial=0)), 1.0)
        np.testing.assert_allclose(value, b[name], rtol=0, atol=tolerance * scale, err_msg=name)
