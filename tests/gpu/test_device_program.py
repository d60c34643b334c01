# SPDX-License-Identifier: Apache-2.0
"""Programs on a device run whole plans as the interpreter does, whatever runs beside what."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from hotloop import _core
from hotloop.compile import compile_uncached
from hotloop.compile.plan import ARENA_KINDS, LossSpec, OptimizerSpec, PlanSpec
from hotloop.errors import DeviceError
from hotloop.graph import Graph
from hotloop.runtime.session import native_plan
from tests.compile.graphs import ADAMW, LOSSES, batch, mlp, runner, schema, train_spec
from tests.compile.test_native import everything
from tests.gpu.device_plans import (
    MODES,
    SPACES,
    Setting,
    assert_same,
    contents,
    device_spec,
    emulating,
    memory_for,
    put_all,
)
from tests.gpu.kernel_harness import on_devices, open_device

#: float32 sums in another order than the interpreter's float64 ones; the CPU's units are held to the same.
TOLERANCE = 2e-4


def compare(device: str, graph: Graph, spec: PlanSpec, rows: int, steps: int = 2) -> None:
    """Steps beside the interpreter's on the same plan: outputs, everything trained, and the metrics."""
    spec = device_spec(spec)
    oracle = runner(graph, spec)
    oracle.memory["state"][:] = 0.5
    memory = memory_for(graph, spec, oracle)
    program = _core.DeviceProgram(native_plan(oracle.plan), memory, open_device(device))
    values = batch(graph, spec, rows)
    params = np.array([0.01, 0.1] * oracle.plan.n_groups + [0.4] * oracle.plan.n_dropout)
    for step in range(steps):
        how: dict[str, Any] = {"params": params, "seed": 11, "run": 1, "step": step}
        outputs = oracle.run(rows, values, **how)
        put_all(program, oracle.plan, values)
        program.run(rows, **how)
        for name, buffer in oracle.plan.outputs:
            np.testing.assert_allclose(program.get(buffer, rows), outputs[name], rtol=0, atol=TOLERANCE)
    for kind, name in SPACES.items():
        have, want = getattr(memory, name), oracle.memory[kind]
        scale = max(float(np.abs(want).max(initial=0)), 1.0)
        np.testing.assert_allclose(have, want, rtol=0, atol=TOLERANCE * scale, err_msg=kind)
    np.testing.assert_allclose(program.metrics, oracle.metrics, rtol=10 * TOLERANCE, atol=TOLERANCE)


@on_devices
@pytest.mark.parametrize("kind", LOSSES)
def test_training_with_every_loss(device: str, kind: str) -> None:
    loss = LossSpec(kind)
    if kind == "cross_entropy":
        loss = LossSpec(kind, label_smoothing=0.1, class_weight=(0.5, 1.0, 2.0))
    metric = "accuracy" if kind in ("cross_entropy", "bce_with_logits") else "regression"
    spec = train_spec(
        kind, rows=7, loss=loss, weighted=True, metrics=(metric,), optimizer=ADAMW, clip_norm=0.5
    )
    compare(device, mlp((5, 9, 3), "relu", 0.4), spec, 6)


@on_devices
@pytest.mark.parametrize("mode", ["train", "eval", "vjp", "predict"])
def test_every_mode_of_a_model_of_everything(device: str, mode: str) -> None:
    sgd = OptimizerSpec("sgd", momentum=0.9, nesterov=True, decay="weights")
    spec = train_spec("mse", rows=9, optimizer=sgd, clip_value=0.3)
    compare(device, everything(), dataclasses.replace(spec, mode=mode), 8)  # type: ignore[arg-type]


@on_devices
@pytest.mark.parametrize("rows", [1, 31, 32])
def test_rows_up_to_the_maximum(device: str, rows: int) -> None:
    rms = OptimizerSpec("rmsprop", alpha=0.9, eps=1e-3, momentum=0.5)
    spec = train_spec("cross_entropy", rows=32, optimizer=rms)
    compare(device, mlp((17, 33, 19, 3), "gelu", 0.4), spec, rows)


# --- order ----------------------------------------------------------------------------------------


def trained(device: str, setting: Setting, mode: str) -> dict[str, np.ndarray]:
    """What three steps leave, of whole batches and a smaller one."""
    with emulating(device, mode):
        memory = setting.memory()
        program = setting.program(device, memory)
        for step, rows in enumerate((9, 4, 9)):
            put_all(program, setting.plan, batch(setting.graph, setting.spec, rows, seed=step))
            program.run(rows, params=setting.params, seed=5, step=step)
        return {**contents(memory), "metrics": program.metrics.copy()}


@on_devices
def test_no_order_that_the_graph_allows_changes_a_bit(device: str) -> None:
    spec = train_spec("mse", rows=9, optimizer=ADAMW, clip_norm=0.5, ema=0.9)
    setting = Setting(everything(), spec)
    first = trained(device, setting, MODES[0])
    assert np.isfinite(first["metrics"]).all() and first["metrics"][0] > 0
    for mode in MODES[1:]:
        assert_same(trained(device, setting, mode), first)


def reachable(order: list[list[int]]) -> list[set[int]]:
    """For each launch all that come before it."""
    before: list[set[int]] = []
    for after in order:
        before.append(set(after).union(*(before[i] for i in after)))
    return before


@on_devices
def test_launches_wait_for_those_whose_bytes_they_touch_and_no_others(device: str) -> None:
    """Against a plain search over the plan's buffers; one edge less or more would show."""
    spec = train_spec("cross_entropy", rows=8, optimizer=ADAMW)
    setting = Setting(mlp((6, 12, 3), "tanh"), spec)
    plan = setting.plan
    program = setting.program(device, setting.memory())
    order, calls = program.order(8), program.calls(8)
    assert [i for begin, end in calls for i in range(begin, end)] == list(range(len(plan.steps)))
    kinds = {name: {f: k for f, k, _ in fields} for name, fields in schema().items()}
    width = {"real": 4, "index": 4, "double": 8, "int64": 8}

    def touched(step: Any) -> list[tuple[str, int, int, bool]]:
        found = []
        for name, value in step.fields:
            if hasattr(value, "buffer"):
                b = plan.buffers[value.buffer]
                kind = "arena" if b.kind in ARENA_KINDS else b.kind
                begin = b.offset + value.offset * width[b.dtype]
                writes = kinds[step.kernel][name] not in ("In", "InOpt")
                found.append((kind, begin, b.offset + b.size.at(8) * width[b.dtype], writes))
        return found

    uses = [[use for step in plan.steps[begin:end] for use in touched(step)] for begin, end in calls]
    before = reachable(order)
    for i, mine in enumerate(uses):
        needed = {
            j
            for j in range(i)
            for a in mine
            for b in uses[j]
            if a[0] == b[0] and a[1] < b[2] and b[1] < a[2] and (a[3] or b[3])
        }
        assert needed <= before[i], calls[i]
        assert set(order[i]) <= needed, calls[i]
        for j in order[i]:
            assert not any(j in before[k] for k in order[i]), (i, j)


@on_devices
def test_gradients_of_different_layers_wait_for_neither_each_other_nor_the_update(device: str) -> None:
    setting = Setting(mlp((6, 40, 40, 3), "relu"), train_spec("cross_entropy", rows=8, optimizer=ADAMW))
    order = setting.program(device, setting.memory()).order(8, batches=2)
    half = len(order) // 2
    before = reachable(order)
    pairs = [(i, j) for i in range(half) for j in range(i) if j not in before[i]]
    assert pairs, "everything is in one row"
    beside = [
        j for j in range(half) if j not in before[half]
    ]  # what the next batch's begin need not wait for
    assert beside


# --- values in and out, and what goes wrong -------------------------------------------------------


@on_devices
def test_values_go_in_and_come_back(device: str) -> None:
    setting = Setting(mlp((5, 7, 3)), train_spec("cross_entropy", rows=300_000))
    program = setting.program(device, setting.memory())
    x, target = setting.inputs
    rng = np.random.default_rng(0)
    for rows in (3, 0, 300_000):  # the last takes more than what is copied on the side
        values = rng.standard_normal((rows, 5)).astype(np.float32)
        labels = rng.integers(0, 3, rows).astype(np.int32)
        program.put(x, values)
        program.put(target, labels)
        np.testing.assert_array_equal(program.get(x, rows), values.ravel())
        np.testing.assert_array_equal(program.get(target, rows), labels)
    for wrong in (np.zeros(5), np.zeros(5, np.int32), np.zeros((5, 2), np.float32).T):
        with pytest.raises(Exception, match="takes a dense array of float32"):
            program.put(x, wrong)
    with pytest.raises(Exception, match="elements for buffer"):
        program.put(x, np.zeros(5 * 300_001, np.float32))
    with pytest.raises(Exception, match="rows"):
        program.get(x, 300_001)
    assert program.isa.split()[0] == device and program.nbytes > 4 * 5 * 300_000


@on_devices
def test_steps_that_are_repeated_count_on(device: str) -> None:
    setting = Setting(mlp((5, 7, 3), "tanh", 0.5), train_spec("mse", rows=6, optimizer=ADAMW))
    found = []
    for times in (1, 3):
        memory = setting.memory()
        program = setting.program(device, memory)
        put_all(program, setting.plan, batch(setting.graph, setting.spec, 6))
        for step in range(0, 3, times):
            program.run(6, params=setting.params, seed=2, step=step, times=times)
        found.append(contents(memory))
    assert_same(*found)


@on_devices
def test_what_was_prepared_from_the_parameters_is_made_anew_when_they_change(device: str) -> None:
    setting = Setting(mlp((5, 7, 3)), dataclasses.replace(train_spec("mse", rows=6), mode="predict"))
    memory = setting.memory()
    program = setting.program(device, memory)
    values = batch(setting.graph, setting.spec, 6)
    output = setting.plan.outputs[0][1]

    def predict() -> np.ndarray:
        put_all(program, setting.plan, values)
        program.run(6, params=setting.params)
        found: np.ndarray = program.get(output, 6)
        return found

    first = predict()
    np.testing.assert_array_equal(predict(), first)
    memory.parameters[:] *= 2
    assert not np.array_equal(predict(), first)
    memory.parameters[:] /= 2
    np.testing.assert_array_equal(predict(), first)


@on_devices
def test_no_room_leaves_everything_usable(device: str) -> None:
    small = Setting(mlp((5, 7, 3)), train_spec("mse", rows=6, optimizer=ADAMW))
    memory = small.memory()
    program = small.program(device, memory)
    before = contents(memory)
    # 2**40 rows of 5 numbers: more than any device has
    large = compile_uncached(small.graph, dataclasses.replace(small.spec, max_rows=2**40))
    with pytest.raises(DeviceError, match="memory") as caught:
        _core.DeviceProgram(native_plan(large), memory, open_device(device))
    assert caught.value.status == 4
    assert_same(contents(memory), before)
    put_all(program, small.plan, batch(small.graph, small.spec, 6))
    program.run(6, params=small.params)
    assert np.isfinite(program.metrics).all()
    assert not np.array_equal(memory.parameters, before["parameters"])


@on_devices
def test_float64_and_snapshots_are_refused(device: str) -> None:
    setting = Setting(mlp((5, 7, 3)), train_spec("mse", rows=6))
    with pytest.raises(Exception, match="float32"):
        _core.Memory(parameters=4, state=0, counters=1, moments=0, dtype="float64").attach(
            open_device(device)
        )
    sizes = memory_for(setting.graph, setting.spec)
    bare = _core.Memory(
        parameters=len(sizes.parameters), state=0, counters=len(sizes.counters), moments=2, dtype="float32",
        gradients=False,
    )  # fmt: skip
    with pytest.raises(Exception, match="snapshot"):
        setting.program(device, bare)
