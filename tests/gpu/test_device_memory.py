# SPDX-License-Identifier: Apache-2.0
"""A memory with a copy on a device: whoever looks sees the newest bytes, and what is written in a view is
what the next run reads, on either side."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from hotloop import _core
from tests.compile.graphs import ADAMW, batch, mlp, train_spec
from tests.gpu.device_plans import MODES, Setting, assert_near, assert_same, contents, emulating, put_all
from tests.gpu.kernel_harness import on_devices, open_device

ROWS = 6


def setting() -> Setting:
    return Setting(mlp((5, 7, 3), "tanh"), train_spec("mse", rows=ROWS, optimizer=ADAMW, ema=0.9))


class Both:
    """The same memory and step on a device and on the CPU."""

    def __init__(self, device: str) -> None:
        self.setting = setting()
        self.memory = self.setting.memory()
        self.program = self.setting.program(device, self.memory)
        self.cpu_memory, self.cpu = self.setting.on_cpu()
        self.values = batch(self.setting.graph, self.setting.spec, ROWS)
        self.step = 0

    def run(self) -> None:
        put_all(self.program, self.setting.plan, self.values)
        for name, buffer in self.setting.oracle.plan.inputs:
            self.cpu.buffer(buffer, ROWS)[:] = self.values[name].ravel()
        how: dict[str, Any] = {"params": self.setting.params, "step": self.step}
        self.program.run(ROWS, **how)
        self.cpu.run(_core.Team(1), ROWS, **how)
        self.step += 1

    def assert_near(self) -> None:
        assert_near(contents(self.memory), contents(self.cpu_memory), 2e-5)


@on_devices
@pytest.mark.parametrize("mode", [MODES[0], "deferred"])
def test_views_are_true_both_ways(device: str, mode: str) -> None:
    with emulating(device, mode):
        both = Both(device)
        both.run()
        both.assert_near()
        lent, cpu_lent = both.memory.parameters, both.cpu_memory.parameters
        before = lent.copy()
        both.run()  # a view follows the run
        assert not np.array_equal(lent, before)
        np.testing.assert_allclose(lent, cpu_lent, atol=2e-5)
        lent[:] += 0.25  # and what is written in it is where the next one begins
        cpu_lent[:] += 0.25
        both.memory.moment1[:] *= 0.5
        both.cpu_memory.moment1[:] *= 0.5
        both.run()
        both.assert_near()
        both.memory.counters[:] = 10
        both.cpu_memory.counters[:] = 10
        del lent, cpu_lent
        gc.collect()
        both.run()
        both.assert_near()
        assert (both.memory.counters == 11).all()


@on_devices
def test_views_that_were_there_before_the_device_follow_it(device: str) -> None:
    case = setting()
    memory = case.memory()
    lent = memory.parameters
    before = lent.copy()
    assert memory.device_nbytes == 0
    memory.attach(open_device(device))
    memory.attach(open_device(device))  # once is enough
    assert memory.device_nbytes >= 4 * lent.size * 5
    program = case.program(device, memory)
    put_all(program, case.plan, batch(case.graph, case.spec, ROWS))
    program.run(ROWS, params=case.params)
    assert not np.array_equal(lent, before)


@on_devices
def test_a_cpu_program_goes_on_where_a_device_ended(device: str) -> None:
    both = Both(device)
    there = _core.Program(_cpu_plan(both.setting), both.memory)
    both.run()
    for name, buffer in both.setting.oracle.plan.inputs:
        there.buffer(buffer, ROWS)[:] = both.values[name].ravel()
        both.cpu.buffer(buffer, ROWS)[:] = both.values[name].ravel()
    for program in (there, both.cpu):
        program.run(_core.Team(1), ROWS, params=both.setting.params, step=1)
    both.assert_near()
    both.step = 2
    both.run()
    both.assert_near()


def _cpu_plan(case: Setting) -> Any:
    from hotloop.runtime.session import native_plan

    return native_plan(case.oracle.plan)


def fresh(like: Any, *, gradients: bool = False) -> Any:
    return _core.Memory(
        parameters=len(like.parameters), state=len(like.state), counters=len(like.counters), moments=2,
        dtype="float32", gradients=gradients,
    )  # fmt: skip


@on_devices
def test_snapshots_of_a_device_live_there_and_restore_every_bit(device: str) -> None:
    both = Both(device)
    snapshot = fresh(both.memory)
    both.run()
    snapshot.copy_from(both.memory)
    assert snapshot.device_nbytes > 0
    kept = contents(both.memory)
    both.run()
    assert not np.array_equal(both.memory.parameters, kept["parameters"])
    both.memory.copy_from(snapshot)
    names = ("parameters", "moment1", "moment2", "state", "counters")
    now = contents(both.memory)
    assert_same({name: now[name] for name in names}, kept)
    assert_same({name: contents(snapshot)[name] for name in names}, kept)


@on_devices
def test_snapshots_from_the_host_reach_the_device(device: str) -> None:
    both = Both(device)
    snapshot = fresh(both.memory)
    snapshot.copy_from(both.memory)  # nothing ran: the host's bytes are as new as any
    assert snapshot.device_nbytes == 0
    both.run()
    lent = both.memory.parameters
    both.memory.copy_from(snapshot)
    np.testing.assert_array_equal(lent, snapshot.parameters)
    both.cpu_memory.copy_from(snapshot)
    both.run()
    np.testing.assert_allclose(both.memory.parameters, both.cpu_memory.parameters, atol=2e-5)


@on_devices
def test_the_average_begins_and_changes_places_where_the_newer_bytes_are(device: str) -> None:
    both = Both(device)
    for _ in range(2):
        for memory in (both.memory, both.cpu_memory):
            memory.begin_ema()
        both.run()
        both.run()
        for memory in (both.memory, both.cpu_memory):
            memory.exchange_ema()
        both.assert_near()
        assert not np.array_equal(both.memory.parameters, both.memory.ema)
        for memory in (both.memory, both.cpu_memory):
            memory.exchange_ema()
    assert both.memory.ema_counter[0] == 2


@on_devices
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("looked", [False, True])
def test_numbers_that_are_none_are_found_on_either_side(device: str, bad: float, looked: bool) -> None:
    both = Both(device)
    both.run()
    assert both.memory.is_finite()
    both.memory.parameters[-1] = bad
    assert not both.memory.is_finite()  # on the host
    put_all(both.program, both.setting.plan, both.values)
    both.program.run(ROWS, params=both.setting.params)
    held = both.memory.state if looked else None
    assert not both.memory.is_finite()  # on the device
    del held


@on_devices
def test_room_may_be_added_later(device: str) -> None:
    both = Both(device)
    plain = fresh(both.memory, gradients=True)
    plain.attach(open_device(device))
    before = plain.device_nbytes
    plain.reserve(accumulated=True, ema=True)
    assert plain.device_nbytes >= before + 2 * 4 * len(both.memory.parameters)
    plain.reserve(accumulated=True, ema=True)
    assert plain.accumulated.size == plain.ema.size == len(both.memory.parameters)
