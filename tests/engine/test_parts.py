# SPDX-License-Identifier: Apache-2.0
"""Parts of a data set: rows that the native loop gathers by number are those of a copy, bit for bit."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import _core
from hotloop.data import border
from hotloop.data.lazy import LazyRows, need_blocks
from hotloop.engine.native import Data, NativeEngine, predict
from hotloop.errors import InternalError
from hotloop.optim import AdamW
from hotloop.runtime.session import Session

RNG = np.random.default_rng(5)
N = 131
X = RNG.standard_normal((N, 7))
Y = (X[:, :3].sum(axis=1) > 0).astype(np.int32)
WEIGHT = RNG.random(N).astype(np.float32)


def session(threads: int = 1) -> Session:
    model = hl.nn.Sequential(hl.nn.Linear(7, 12), hl.nn.Tanh(), hl.nn.Dropout(0.2), hl.nn.Linear(12, 2))
    for number, (_, value) in enumerate(sorted(model.named_parameters())):
        value.data[...] = np.random.default_rng(number).standard_normal(value.data.shape) * 0.3
    return Session(model, AdamW(0.01), seed=4, threads=threads)


def trained(data: Data, held: Data, *, shuffle: bool, threads: int) -> dict[str, Any]:
    """All that two epochs leave, and what the model makes of the other rows."""
    own = session(threads)
    graph = own.graph_for({"x": np.empty((1, 7), np.float32)}, "test")
    spec = hl.losses.CrossEntropy().spec(n_outputs=2)
    engine = NativeEngine(own, graph, spec, ("accuracy",))
    run = engine.prepare(data, 32, shuffle=shuffle, run=1)
    params = own.params_table(run.executable.plan, graph, np.ones(data.steps(32)))
    for epoch in range(2):
        assert run.run(epoch, params, None, None) == (data.steps(32), "done")
    outputs = predict(own, graph, {"x": held.arrays["x"]})
    return {
        "parameters": own.memory.native.parameters.copy(), "totals": run.totals(), "outputs": outputs,
        "scores": np.array(list(engine.evaluate(held).metrics.values())),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("threads", [1, 2])
def test_parts_train_score_and_predict_as_copies_do(dtype: Any, shuffle: bool, threads: int) -> None:
    arrays = {"x": (X * 50 + 100).astype(dtype), "target": Y, "sample_weight": WEIGHT}
    rows = np.random.default_rng(1).permutation(N)  # in any order, which is the part's own
    kept, held = rows[:90], rows[90:]
    parts = Data(arrays, "index").parts(kept, held)
    copies = [Data(border.take(arrays, r), "index") for r in (kept, held)]
    assert [p.rows for p in parts] == [90, N - 90] and not need_blocks(parts[0].arrays)
    assert parts[0].arrays["x"].source is arrays["x"]  # not a copy
    found, want = (trained(*pair, shuffle=shuffle, threads=threads) for pair in (parts, copies))
    for name in want:
        np.testing.assert_array_equal(found[name], want[name], err_msg=name)


def test_a_part_of_a_part() -> None:
    (first,) = Data({"x": X.astype(np.float32), "target": Y}, "index").parts(np.arange(20, 80))
    (second,) = first.parts(np.array([3, 1, 59]))
    np.testing.assert_array_equal(second.arrays["x"][:], X.astype(np.float32)[[23, 21, 79]])
    np.testing.assert_array_equal(second.arrays["target"], Y[[23, 21, 79]])


def test_numbers_of_rows_that_are_not_there_are_refused() -> None:
    x = X.astype(np.float32)
    assert _core.Source([x, Y], [np.array([N - 1, 0]), np.array([0, 0])]).rows == 2
    for bad in ([0, N], [-1]):
        with pytest.raises(InternalError, match=f"a number of a row is not below {N}"):
            _core.Source([x], [np.array(bad)])
    with pytest.raises(InternalError, match="2-dimensional"):
        _core.Source([x], [np.array([[0]])])


def test_what_kernels_cannot_read_is_still_read_in_blocks(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert LazyRows(mapped, np.float32).in_place  # doubles become floats in the gather
    assert not LazyRows(mapped.astype(np.float16), np.float32).in_place
    assert not LazyRows(mapped[:, ::2], np.float32).in_place
    assert not LazyRows(X.astype(np.int32), np.float32).in_place


def test_a_held_out_part_copies_no_inputs() -> None:
    """The largest thing that a fit with validation=0.2 allocates is far below its inputs' 16 MB."""
    wide = np.random.default_rng(0).standard_normal((20_000, 200)).astype(np.float32)
    labels = (wide[:, 0] > 0).astype(np.int64)
    trainer = hl.Trainer(hl.nn.Sequential(hl.nn.Linear(200, 2)), "cross_entropy", progress=False, threads=1)
    trainer.fit(wide[:64], labels[:64], epochs=1)  # imports, plans
    tracemalloc.start()
    try:
        trainer.fit(wide, labels, validation=0.2, epochs=1, batch_size=256)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < wide.nbytes / 3
