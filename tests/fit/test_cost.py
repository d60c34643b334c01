# SPDX-License-Identifier: Apache-2.0
"""The cost of a run: what is counted is exact, asking leaves the model as it is, and a fit takes no more.

How well the time is predicted is a matter of the machine: bench/cost.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core

MEGABYTE = 10**6
REAL = 4  # bytes


def aligned(n: int) -> int:
    """Elements of a parameter with the padding behind it."""
    return -(-n // 16) * 16


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
    assert 0 < plan.seconds_per_epoch < 10
    assert "matmul" in plan.steps
    assert f"{plan.parameters} parameters" in str(plan)
    with pytest.raises(ValueError, match="callable loss"):
        hl.Trainer(toy.mlp(6, 3), lambda p, t: (p[:, 0], p)).plan(X, y)


def test_asking_first_does_not_change_the_run(toy: Any, digest: Any) -> None:
    X, y = toy.classes(100)
    digests = set()
    for asks in (False, True):
        trainer = hl.Trainer(toy.batch_norm(), seed=1)
        if asks:
            trainer.plan(X, y, batch_size=32)
        run = trainer.fit(X, y, epochs=2)
        digests.add((digest(trainer), *run.history["loss"]))
    assert len(digests) == 1


@pytest.mark.parametrize(("optimizer", "moments"), [("sgd", 0), ("rmsprop", 1), ("adamw", 2)])
def test_memory_is_counted_to_the_byte(toy: Any, optimizer: str, moments: int) -> None:
    X, y = toy.classes(100)
    trainer = hl.Trainer(toy.batch_norm(), optimizer=optimizer)
    plan = trainer.plan(X, y, batch_size=32)
    memory = trainer._session.memory
    parameters = sum(aligned(p.size) for p in trainer.model.parameters())
    state = 2 * aligned(8)  # running mean and variance
    counters = 8 * len(memory.layout.entries)
    assert plan.memory_bytes == REAL * ((2 + moments) * parameters + state) + counters
    assert plan.snapshot_bytes == REAL * ((1 + moments) * parameters + state) + counters
    assert plan.snapshot_bytes == memory.snapshot().native.nbytes
    native = memory.native
    spaces = (
        native.parameters,
        native.gradients,
        native.moment1,
        native.moment2,
        native.state,
        native.counters,
    )
    assert plan.memory_bytes == native.nbytes == sum(space.nbytes for space in spaces)
    assert plan.peak_bytes == plan.memory_bytes + plan.program_bytes + plan.snapshot_bytes
    trainer.restore_best = False
    assert trainer.plan(X, y, batch_size=32).snapshot_bytes == 0


def test_a_program_allocates_what_its_plan_says() -> None:
    memory = _core.Memory(parameters=16, state=0, counters=1, moments=0, dtype="float32")
    plan = _core.Plan(
        dtype="float32", max_rows=4, arena_bytes=4096, metric_doubles=5, prepare=0, constants=[1.0, 2.0, 3.0],
        n_groups=0, n_dropout=0, buffers=[], steps=[], stages=[],
    )  # fmt: skip
    assert memory.nbytes == 2 * 16 * REAL + 8
    assert _core.Program(plan, memory).nbytes == 4096 + 5 * 8 + 3 * REAL


def test_traffic_of_a_step_is_its_rows_and_operands() -> None:
    """A linear layer without loss of sense: every operand of its steps can be listed by hand."""
    X, y = np.zeros((64, 16), np.float32), np.zeros((64, 32), np.float32)
    trainer = hl.Trainer(hl.nn.Linear(16, 32), "mse", optimizer="sgd", metrics=None)
    plan = trainer.plan(X, y, batch_size=64)
    batch = REAL * 64 * (16 + 32)  # gathered: read from the data, written to the inputs
    # forward reads x, weight, bias; the loss reads prediction and target; dW reads x and the error
    least = 2 * batch + batch + REAL * (16 * 32 + 32) + 2 * REAL * 64 * 32
    assert least < plan.bytes_per_step < 4 * least
    half = trainer.plan(X, y, batch_size=32)
    assert plan.bytes_per_step / 2 < half.bytes_per_step < plan.bytes_per_step


def test_the_answer_takes_bounded_time(toy: Any) -> None:
    """Of a data set that would take many seconds an epoch, a second or so is timed."""
    X, y = np.zeros((40_000, 256), np.float32), np.zeros(40_000, np.int64)
    trainer = hl.Trainer(toy.mlp(256, 2048, 2048, 2), "cross_entropy", threads=1)
    trainer.plan(X[:512], y[:512], batch_size=512)  # compiled now
    begin = time.perf_counter()
    plan = trainer.plan(X, y, batch_size=512)
    assert plan.seconds_per_epoch > time.perf_counter() - begin


FIT = """
import re, sys
import numpy as np
import hotloop as hl

def status(key):
    with open("/proc/self/status") as file:
        return 1024 * int(re.search(rf"{key}:\\s+(\\d+) kB", file.read())[1])

def network(width):
    layers = [hl.nn.Linear(width, 4 * width), hl.nn.ReLU(), hl.nn.Linear(4 * width, width)]
    return hl.Trainer(hl.nn.Sequential(*layers), "mse", progress=False)

small = np.ones((64, 16), np.float32)
network(16).fit(small, small, epochs=1)  # loads whatever is loaded late
X = np.ones((600, 512), np.float32)
before = status("VmRSS")
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak is counted anew
trainer = network(512)
trainer.fit(X, X, epochs=2, batch_size=512)
took = status("VmHWM") - before
print(took, trainer.plan(X, X, batch_size=512).peak_bytes)
"""


@pytest.mark.skipif("libasan" in os.environ.get("LD_PRELOAD", ""), reason="its allocator keeps what is freed")
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux's peak of a process")
def test_a_fit_takes_its_plan_and_ten_megabytes() -> None:
    """2.1 M parameters: four buffers and three for the rollback are 59 MB."""
    path = str(Path(hl.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", FIT],
        capture_output=True, text=True, timeout=120, env={**os.environ, "PYTHONPATH": path},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    took, planned = map(int, done.stdout.split())
    parameters = 2 * 4 * 512 * 512 + 5 * 512
    # the plan's own: activations and their gradients, and the weights once more in panels for each direction
    assert 7 * REAL * parameters < planned < 9 * REAL * parameters + 16 * MEGABYTE
    assert 0.9 * planned < took < planned + 10 * MEGABYTE
