# SPDX-License-Identifier: Apache-2.0
"""Passes over data on a device: the CPU's order, number of steps, answers and sums; equal bits however the
pass is cut, whatever the order of what may run side by side, resident or streamed."""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from typing import Any

import numpy as np
import pytest

from hotloop import _core
from hotloop.compile.plan import PlanSpec
from hotloop.errors import InternalError
from hotloop.graph import Graph, Rows, TensorType
from hotloop.rules.registry import GraphBuilder
from tests.compile.graphs import ADAMW, mlp, train_spec
from tests.gpu.device_plans import MODES, Setting, assert_near, assert_same, contents, emulating
from tests.gpu.kernel_harness import on_devices, open_device

ROWS, BATCH = 187, 8
BATCHES = -(-ROWS // BATCH)


def arrays(graph: Graph, spec: PlanSpec, rows: int = ROWS, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = [rng.standard_normal((rows, 5)).astype(np.float32)]
    if spec.target == "index":
        found.append(rng.integers(0, 3, rows))
    else:
        found.append(rng.standard_normal((rows, 3)).astype(np.float32))
    if spec.weighted:
        found.append(rng.uniform(0.5, 2, rows))  # float64, which is converted on the device
    return found


class Run:
    """A training run on a device, and the same on the CPU."""

    def __init__(self, device: str, *, budget: int | None = None, **spec: Any) -> None:
        self.device = device
        made = train_spec(spec.pop("loss", "cross_entropy"), rows=BATCH, optimizer=ADAMW, **spec)
        self.setting = Setting(mlp((5, 9, 3), "tanh", 0.3), made)
        self.data = arrays(self.setting.graph, made)
        self.memory = self.setting.memory()
        self.program = self.setting.program(device, self.memory)
        self.source = _core.DeviceSource(open_device(device), self.data, budget)

    def epoch(self, epoch: int = 0, **how: Any) -> tuple[int, str]:
        return _core.run_epoch_on_device(
            self.program, self.source, inputs=self.setting.inputs, **self.how(epoch, how)
        )

    def how(self, epoch: int, how: dict[str, Any]) -> dict[str, Any]:
        given = {"batch_size": BATCH, "shuffle": True, "seed": 3, "run": 1, "epoch": epoch}
        return given | {"step": epoch * BATCHES, "params": self.params()} | how

    def params(self) -> np.ndarray:
        """A schedule, one row for each step."""
        table = np.repeat(self.setting.params[None], BATCHES, 0)
        table[:, 0] *= np.linspace(1, 0.1, BATCHES)
        return table

    def everything(self) -> dict[str, np.ndarray]:
        return {**contents(self.memory), "metrics": self.program.metrics.copy()}


class OnCpu(Run):
    def __init__(self, like: Run) -> None:
        self.setting, self.data = like.setting, like.data
        self.memory, self.program = like.setting.on_cpu()
        self.team = _core.Team(1)
        self.source = _core.Source(self.data)

    def epoch(self, epoch: int = 0, **how: Any) -> tuple[int, str]:
        inputs = self.setting.cpu_inputs()
        return _core.run_epoch(self.program, self.source, self.team, inputs=inputs, **self.how(epoch, how))


@on_devices
@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("accumulate", [1, 3, 50])
@pytest.mark.parametrize("budget", [None, 1500], ids=["resident", "streamed"])
def test_epochs_are_those_of_the_cpu(device: str, loss: str, accumulate: int, budget: int | None) -> None:
    run = Run(device, budget=budget, loss=loss, weighted=True, accumulate=accumulate > 1, ema=0.9)
    assert run.source.resident == (budget is None) and run.source.rows == ROWS
    cpu = OnCpu(run)
    for epoch in range(3):
        answers = [r.epoch(epoch, accumulate=accumulate, check_finite=True) for r in (run, cpu)]
        assert answers == [(BATCHES, "done")] * 2
        np.testing.assert_allclose(run.program.metrics, cpu.program.metrics, rtol=2e-5)
        assert_near(contents(run.memory), contents(cpu.memory), 2e-4)
    if accumulate == 1:
        assert (run.memory.counters == 3 * BATCHES).all()


def giver() -> Setting:
    """A model that gives its inputs back: every row says where it was read."""
    builder = GraphBuilder()
    x = builder.input("x", TensorType((Rows(), 2)))
    ids = builder.input("ids", TensorType((Rows(),), "index"))
    table = builder.parameter("table", (300, 2))
    (row,) = builder.emit("embedding", table, ids)
    (out,) = builder.emit("add", x, row)
    graph = builder.build([("output", out)])
    return Setting(graph, PlanSpec("predict", BATCH, "float32"))


@on_devices
@pytest.mark.parametrize("shuffle", [False, True])
def test_rows_come_in_the_order_of_the_cpu_whatever_their_type(device: str, shuffle: bool) -> None:
    case = giver()
    memory = case.memory()
    memory.parameters[:600] = np.arange(600)
    order = _core.permutation(ROWS, seed=3, run=1, epoch=2) if shuffle else np.arange(ROWS)
    for kind in (np.uint8, np.float32, np.float64):
        for index in (np.int32, np.int64):
            X = np.arange(2 * ROWS).reshape(ROWS, 2).astype(kind)
            numbers = np.arange(ROWS)[::-1].astype(index)
            want = (X + np.arange(600).reshape(300, 2)[numbers]).astype(np.float32)[order]
            for budget in (None, 0, 600):
                program = case.program(device, memory)
                source = _core.DeviceSource(open_device(device), [X, numbers], budget)
                got = np.full((ROWS, 2), np.nan, np.float32)
                _core.run_epoch_on_device(
                    program, source, inputs=case.inputs, batch_size=BATCH, shuffle=shuffle, seed=3, run=1, epoch=2,
                    params=np.zeros((1, 0)), outputs=[(case.plan.outputs[0][1], got)],
                )  # fmt: skip
                np.testing.assert_array_equal(got, want)


@on_devices
@pytest.mark.parametrize("shuffle", [False, True])
def test_parts_read_the_rows_of_their_numbers_from_one_copy(device: str, shuffle: bool) -> None:
    """Of an array that two parts share, and one that is the part's own; resident, and in pieces."""
    case = giver()
    memory = case.memory()
    memory.parameters[:600] = np.arange(600)
    X = np.arange(2 * ROWS).reshape(ROWS, 2).astype(np.float32)
    for budget in (None, 0, 600):
        shared = _core.SharedRows(open_device(device), X)
        for begin, end in ((0, 100), (40, ROWS)):
            rows = np.random.default_rng(begin).permutation(ROWS)[begin:end]
            order = np.arange(len(rows))
            if shuffle:
                order = _core.permutation(len(rows), seed=3, run=1, epoch=2)
            own = np.arange(len(rows))[::-1].astype(np.int32)
            source = _core.DeviceSource(open_device(device), [shared, own], budget, numbers=[rows, None])
            assert source.resident == shared.resident == (budget is None) and source.rows == len(rows)
            if budget is None:
                assert source.nbytes == X.nbytes + rows.nbytes + own.nbytes
            got = np.full((len(rows), 2), np.nan, np.float32)
            _core.run_epoch_on_device(
                case.program(device, memory), source, inputs=case.inputs, batch_size=BATCH, shuffle=shuffle,
                seed=3, run=1, epoch=2, params=np.zeros((1, 0)), outputs=[(case.plan.outputs[0][1], got)],
            )  # fmt: skip
            want = (X[rows] + np.arange(600).reshape(300, 2)[own]).astype(np.float32)[order]
            np.testing.assert_array_equal(got, want)
    with pytest.raises(InternalError, match=f"a number of a row is not below {ROWS}"):
        _core.DeviceSource(open_device(device), [X], numbers=[np.array([ROWS])])


@on_devices
@pytest.mark.parametrize("accumulate", [1, 3, 40])
@pytest.mark.parametrize("mode", MODES)
def test_equal_bits_resident_or_streamed_however_many_batches_a_launch_holds(
    device: str, mode: str, accumulate: int
) -> None:
    """A batch that takes a second goes alone; of those that take a microsecond 32 would go in one launch."""
    seen = []
    for budget, seconds in ((None, 1.0), (None, 5e-3), (None, 1e-6), (0, 1e-6), (900, 5e-3), (2500, 1e-6)):
        with emulating(device, mode):
            run = Run(device, budget=budget, accumulate=accumulate > 1)
            run.program.batch_seconds = seconds
            for epoch in range(2):
                assert run.epoch(epoch, accumulate=accumulate) == (BATCHES, "done")
            seen.append(run.everything())
    for other in seen[1:]:
        assert_same(other, seen[0])


@on_devices
def test_two_runs_give_equal_bits_in_any_order(device: str) -> None:
    seen = []
    for mode in (*MODES, MODES[0]):
        with emulating(device, mode):
            run = Run(device)
            assert run.program.batch_seconds < 0
            for epoch in range(2):
                run.epoch(epoch)
            assert run.program.batch_seconds > 0  # measured meanwhile
            seen.append(run.everything())
    for other in seen[1:]:
        assert_same(other, seen[0])


@on_devices
@pytest.mark.parametrize("budget", [None, 900])
@pytest.mark.parametrize("cuts", [(1,), (7, 8), (23,), (5, 9, 17)], ids=str)
def test_a_pass_that_is_paused_and_goes_on_ends_in_the_same_bits(
    device: str, cuts: tuple[int, ...], budget: int | None
) -> None:
    whole = Run(device, budget=budget, accumulate=True)
    assert whole.epoch(accumulate=4) == (BATCHES, "done")
    parts = Run(device, budget=budget, accumulate=True)
    for begin, end in zip((0, *cuts), (*cuts, BATCHES), strict=True):
        status = "done" if end == BATCHES else "paused"
        answer = parts.epoch(accumulate=4, first_batch=begin, batches=end - begin)
        assert answer == (end - begin, status)
        kept = parts.program.metrics.copy()
        parts.program.metrics[...] = kept  # where a resumed run brings its totals
    assert_same(parts.everything(), whole.everything())


@on_devices
def test_pieces_of_an_epoch_count_on(device: str) -> None:
    whole = Run(device, loss="mse", accumulate=True)
    whole.epoch(shuffle=False, accumulate=3)
    parts = Run(device, loss="mse", accumulate=True)
    before = 0
    for begin, end in ((0, 40), (40, 48), (48, ROWS)):
        parts.source = _core.DeviceSource(open_device(device), [a[begin:end] for a in parts.data])
        steps, status = parts.epoch(shuffle=False, accumulate=3, before=before, more=end < ROWS)
        assert (steps, status) == (-(-(end - begin) // BATCH), "done")
        before += steps
    assert_same(parts.everything(), whole.everything())


@on_devices
@pytest.mark.parametrize("at", [0, 1, 9, 22, BATCHES - 1])
@pytest.mark.parametrize("first", [0, 1, 6])
def test_a_loss_that_is_not_finite_ends_the_pass_where_it_ends_on_the_cpu(
    device: str, at: int, first: int
) -> None:
    run = Run(device, loss="mse")
    run.program.batch_seconds = 3e-3  # eight batches of a launch
    run.data[0][at * BATCH] = np.inf
    run.source = _core.DeviceSource(open_device(device), run.data)
    cpu = OnCpu(run)
    for r in (run, cpu):
        r.program.metrics[:] = 1
    answers = [r.epoch(shuffle=False, check_finite=True, first_batch=first) for r in (run, cpu)]
    assert answers[0] == answers[1]
    assert answers[0][1] == ("diverged" if at >= first else "done")
    assert run.epoch(shuffle=False)[1] == "done"  # nobody asks


@on_devices
def test_a_pass_that_begins_with_totals_that_are_none_ends_at_once(device: str) -> None:
    run = Run(device, loss="mse")
    cpu = OnCpu(run)
    for r in (run, cpu):
        r.program.metrics[0] = np.nan
        assert r.epoch(check_finite=True, first_batch=5) == (1, "diverged")


@on_devices
def test_the_stop_flag_and_the_deadline_end_a_pass_between_batches(device: str) -> None:
    run = Run(device)
    stop = _core.StopFlag()
    stop.set()
    assert run.epoch(stop=stop) == (1, "stopped")
    assert run.epoch(deadline_s=0.0) == (1, "time")
    assert run.epoch(stop=stop, batches=1) == (1, "paused")  # the last one is not asked
    stop.clear()
    # stopped in the middle from another thread, the rest makes up the same bits
    large = Run(device)
    rows = np.tile(np.arange(ROWS), 400)
    large.data = [a[rows] for a in large.data]
    large.source = _core.DeviceSource(open_device(device), large.data)
    threading.Timer(0.1, stop.set).start()
    steps, status = large.epoch(stop=stop, params=large.setting.params[None])
    assert status == "stopped" and 0 < steps < -(-len(rows) // BATCH)
    assert (large.memory.counters == steps).all()


@on_devices
def test_a_signal_ends_a_pass(device: str) -> None:
    run = Run(device)
    rows = np.tile(np.arange(ROWS), 4000)
    source = _core.DeviceSource(open_device(device), [a[rows] for a in run.data])
    run.source = source

    def handler(*_: Any) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.15)
        with pytest.raises(KeyboardInterrupt):
            run.epoch(params=run.setting.params[None])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    run.source = _core.DeviceSource(open_device(device), run.data)
    assert run.epoch() == (BATCHES, "done")  # everything is usable after it


@on_devices
def test_an_evaluation_packs_once_and_leaves_parameters_alone(device: str) -> None:
    run = Run(device)
    spec = dataclasses.replace(run.setting.spec, mode="eval", optimizer=None)
    case = Setting(run.setting.graph, spec)
    program = case.program(device, run.memory)
    before = contents(run.memory)
    totals = []
    for _ in range(2):
        answer = _core.run_epoch_on_device(
            program, run.source, inputs=case.inputs, batch_size=BATCH, shuffle=False,
            params=np.zeros((1, len(case.params))),
        )  # fmt: skip
        assert answer == (BATCHES, "done")
        totals.append(program.metrics.copy())
    np.testing.assert_array_equal(totals[0], totals[1])
    assert totals[0][1] == ROWS
    assert_same(contents(run.memory), before)


@on_devices
def test_bound_epochs_are_the_same(device: str) -> None:
    run, bound = Run(device), Run(device)
    made = _core.DeviceEpoch(
        bound.program,
        bound.source,
        inputs=bound.setting.inputs,
        batch_size=BATCH,
        shuffle=True,
        seed=3,
        run=1,
    )
    for epoch in range(2):
        run.epoch(epoch)
        assert made.run(epoch, bound.params()) == (BATCHES, "done")
        assert made.run(epoch, bound.params(), None, None, BATCHES, 0) == (0, "done")
    assert_same(bound.everything(), run.everything())


@on_devices
def test_what_does_not_fit_is_refused_before_anything_changes(device: str) -> None:
    run = Run(device)
    before = run.everything()
    for how, message in (
        ({"batch_size": BATCH + 1}, "batch size"),
        ({"params": run.params()[:3]}, "step parameters"),
        ({"first_batch": BATCHES + 1}, "batch"),
        ({"params": np.zeros((1, 1))}, "step parameters"),
    ):
        with pytest.raises(Exception, match=message):
            run.epoch(**how)
    with pytest.raises(Exception, match="rows"):
        _core.DeviceSource(open_device(device), [run.data[0], run.data[1][:3]])
    with pytest.raises(Exception, match="16"):
        _core.DeviceSource(open_device(device), run.data * 9)
    assert_same(run.everything(), before)


@on_devices
def test_a_view_taken_during_a_pass_is_true_after_it(device: str) -> None:
    run = Run(device)
    rows = np.tile(np.arange(ROWS), 12)
    run.source = _core.DeviceSource(open_device(device), [a[rows] for a in run.data])
    views: list[np.ndarray] = []

    def look() -> None:
        time.sleep(0.02)
        views.append(run.memory.parameters)

    thread = threading.Thread(target=look)
    thread.start()
    run.epoch(params=run.setting.params[None])
    thread.join()
    np.testing.assert_array_equal(views[0], run.memory.parameters)
    fresh = contents(run.memory)["parameters"]
    np.testing.assert_array_equal(views[0], fresh)
