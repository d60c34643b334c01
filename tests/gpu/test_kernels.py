# SPDX-License-Identifier: Apache-2.0
"""Kernels of flat tensors, copies, reductions, embeddings, metrics and optimisers on devices: all cases of the CPU's
kernels, sizes around the border of each path, equal bits twice, and the paths that only a device has."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hotloop.reference import REFERENCES
from tests.cases import Fields, KernelCase
from tests.gpu.kernel_harness import (
    DEVICE_CONTEXT,
    call_device,
    check_case,
    on_devices,
    run_device,
    with_cases,
)
from tests.kernels.harness import SCHEMA, assert_same_bits, initial

KERNELS = (
    "add", "sub", "mul", "div", "copy", "reduce_sum", "reduce_max_fwd", "reduce_max_bwd", "embedding_fwd",
    "embedding_bwd", "row_weight", "loss_stats", "accuracy", "top_k_accuracy", "binary_accuracy", "regression_stats",
    "accumulate_begin", "accumulate", "square_sum", "adam", "sgd", "rmsprop", "ema_begin", "ema",
)  # fmt: skip


@on_devices
@with_cases(*KERNELS)
def test_like_the_reference(device: str, case: KernelCase) -> None:
    check_case(device, case)


@on_devices
@with_cases("add", "copy", "embedding_fwd", "accumulate", "square_sum", "adam", "sgd", "rmsprop", "ema")
def test_operands_off_a_boundary(device: str, case: KernelCase) -> None:
    check_case(device, case, shift=4)


@on_devices
@with_cases(*KERNELS)
def test_equal_bits_twice(device: str, case: KernelCase) -> None:
    start = initial(case, case.fields(np.float32))
    assert_same_bits(run_device(device, case, start), run_device(device, case, start), "the second run")


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32)


def check(device: str, kernel: str, label: str, **fields: Any) -> None:
    """Beside the reference, with the harness's rule; fields that are not given are absent or 0."""
    values = {name: fields.get(name, None if element else 0) for name, _, element in SCHEMA[kernel]}
    check_case(device, KernelCase(kernel, label, lambda rng, dtype: values))


# d: sizes; then the strides of out and x
COPIES = [
    ("below a tile", (1, 1, 15, 40), (0, 0, 40, 1), (0, 0, 1, 15)),
    ("one tile", (1, 1, 32, 32), (0, 0, 32, 1), (0, 0, 1, 32)),
    ("tiles and one", (1, 1, 65, 33), (0, 0, 33, 1), (0, 0, 1, 65)),
    ("matrices", (2, 3, 17, 34), (1734, 578, 34, 1), (1734, 578, 1, 17)),
    ("out by columns", (1, 1, 40, 50), (0, 0, 1, 40), (0, 0, 50, 1)),
    ("middle", (3, 40, 2, 20), (1600, 40, 20, 1), (1600, 1, 40, 80)),
    ("four apart", (1, 1, 8, 12), (0, 0, 24, 2), (0, 0, 12, 1)),
    ("rows of four", (1, 2, 5, 8), (0, 64, 12, 1), (0, 40, 8, 1)),
    ("rows of five", (1, 2, 5, 5), (0, 64, 12, 1), (0, 25, 5, 1)),
    ("spread", (2, 1, 9, 4), (36, 0, 4, 1), (1, 0, 0, 0)),
]


@on_devices
@pytest.mark.parametrize(("label", "sizes", "out", "x"), COPIES, ids=[c[0] for c in COPIES])
def test_copies(device: str, label: str, sizes: Any, out: Any, x: Any) -> None:
    extent = [1 + sum((n - 1) * s for n, s in zip(sizes, strides, strict=True)) for strides in (out, x)]
    fields: Fields = {"out": np.full(extent[0], 7, np.float32), "x": normal(extent[1])}
    for i in range(4):
        fields |= {f"d{i}": sizes[i], f"o{i}": out[i], f"x{i}": x[i]}
    want = fields["out"].copy()
    REFERENCES["copy"](SimpleNamespace(**{**fields, "out": want}), DEVICE_CONTEXT)
    call_device(device, "copy", fields)
    np.testing.assert_array_equal(fields["out"], want)


# (outer, reduce, inner): a block's columns, lanes and matrices; runs of 16 elements a lane; more blocks than runs pay
REDUCTIONS = [
    (1, 4096, 1), (1, 4097, 1), (1, 60000, 1), (2, 20001, 1), (7, 4100, 1), (513, 33, 1), (1, 3000, 2), (1, 2049, 5),
    (1, 2048, 32), (1, 1000, 33), (3, 700, 9), (2, 5, 300), (300, 4, 3), (20, 3, 31),
]  # fmt: skip


@on_devices
@pytest.mark.parametrize("shape", REDUCTIONS, ids=str)
@pytest.mark.parametrize("mean", [0, 1])
def test_sums_cut_in_runs(device: str, shape: tuple[int, int, int], mean: int) -> None:
    outer, reduce, inner = shape
    x, out = normal(*shape), np.empty((outer, inner), np.float32)
    sizes = {"outer": outer, "reduce": reduce, "inner": inner}
    check(device, "reduce_sum", str(shape), out=out, x=x, mean=mean, **sizes)


@on_devices
@pytest.mark.parametrize("shape", REDUCTIONS, ids=str)
def test_maxima_cut_in_runs(device: str, shape: tuple[int, int, int]) -> None:
    x = np.round(4 * normal(*shape))
    x[0, shape[1] // 2, -1] = np.nan
    out, (outer, reduce, inner) = x.max(axis=1), shape
    sizes = {"outer": outer, "reduce": reduce, "inner": inner}
    check(device, "reduce_max_fwd", str(shape), out=np.empty_like(out), x=x, **sizes)
    dout = normal(outer, inner, seed=1)
    check(device, "reduce_max_bwd", str(shape), dx=np.empty_like(x), dout=dout, x=x, out=out, **sizes)


# (n, vocab, dim): one segment and several, lists that are emptied in between, slices of columns
EMBEDDINGS = [
    (2048, 100, 4),
    (4097, 200, 3),
    (9000, 300, 5),
    (5000, 1, 2),
    (3000, 3, 40),
    (70, 9, 300),
    (0, 5, 3),
]


@on_devices
@pytest.mark.parametrize("shape", EMBEDDINGS, ids=str)
def test_embedding_gradients(device: str, shape: tuple[int, int, int]) -> None:
    n, vocab, dim = shape
    ids = np.random.default_rng(n).integers(0, vocab, n).astype(np.int32)
    ids[n // 3 : n // 2] = vocab - 1  # one comes up often
    sizes = {"n": n, "vocab": vocab, "dim": dim}
    check(
        device, "embedding_bwd", str(shape), dweight=np.empty((vocab, dim), np.float32), dy=normal(n, dim), ids=ids,
        **sizes,
    )  # fmt: skip


# (n, vocab, dim, share of the ids by id): from 8192 ids on those that are frequent are summed in pieces
FREQUENT = [
    (8192, 300, 40, {7: 0.5}),
    (20000, 700, 33, {0: 0.3, 699: 0.3, 5: 0.1}),
    (9000, 200, 300, {3: 0.2, -1: 0.4}),  # two slabs of columns; ids that are none are frequent, too
    (8200, 150, 1, dict.fromkeys(range(64), 1 / 64)),
    (8191, 150, 4, {149: 1.0}),
    (8300, 180, 5, {0: 1.0}),
]


@on_devices
@pytest.mark.parametrize(("n", "vocab", "dim", "shares"), FREQUENT, ids=str)
def test_frequent_ids_of_a_large_table(
    device: str, n: int, vocab: int, dim: int, shares: dict[int, float]
) -> None:
    """Whole numbers exactly, and equal bits twice for others."""
    rng = np.random.default_rng(n)
    ids = rng.integers(0, vocab, n).astype(np.int32)
    frequent = rng.choice([*shares, vocab], n, p=[*shares.values(), 1 - sum(shares.values())])
    ids = np.where(frequent < vocab, frequent, ids).astype(np.int32)
    dy = rng.integers(-4, 5, (n, dim)).astype(np.float32)
    fields: Fields = dict(
        dweight=np.empty((vocab, dim), np.float32), dy=dy, ids=ids, n=n, vocab=vocab, dim=dim
    )
    call_device(device, "embedding_bwd", fields, times=2)
    want = np.zeros((vocab, dim), np.float32)
    np.add.at(want, ids[ids >= 0], dy[ids >= 0])
    np.testing.assert_array_equal(fields["dweight"], want)
    bits = set()
    for _ in range(2):
        fields["dy"] = normal(n, dim)
        call_device(device, "embedding_bwd", fields)
        bits.add(fields["dweight"].tobytes())
    assert len(bits) == 1


@on_devices
def test_ids_out_of_range_touch_nothing(device: str) -> None:
    ids = np.array([1, -1, 3, 0, -(2**31), 2**31 - 1], np.int32)
    fields: Fields = dict(y=np.empty((6, 4), np.float32), weight=normal(3, 4), ids=ids, n=6, vocab=3, dim=4)
    call_device(device, "embedding_fwd", fields)
    good = (ids >= 0) & (ids < 3)
    np.testing.assert_array_equal(fields["y"][good], fields["weight"][ids[good]])
    assert np.isnan(fields["y"][~good]).all()
    dy = normal(6, 4, seed=1)
    back: Fields = dict(dweight=np.empty((3, 4), np.float32), dy=dy, ids=ids, n=6, vocab=3, dim=4)
    call_device(device, "embedding_bwd", back)
    np.testing.assert_array_equal(back["dweight"], np.stack([dy[3], dy[0], np.zeros(4, np.float32)]))


@on_devices
@pytest.mark.parametrize("rows", [1, 255, 4096, 4097, 9000])
def test_weights_and_losses_of_many_rows(device: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    sample, of_class = rng.random(rows, np.float32), rng.random(3, np.float32)
    labels = rng.integers(0, 3, rows).astype(np.int32)
    empty = {"weight": np.empty(rows, np.float32), "drow": np.empty(rows, np.float32), "total": np.empty(1)}
    for given in (
        {},
        {"sample_weight": sample},
        {"sample_weight": np.zeros(rows, np.float32)},
        {"class_weight": of_class, "labels": labels},
        {"sample_weight": sample, "class_weight": of_class, "labels": labels},
    ):
        check(device, "row_weight", f"{rows} {sorted(given)}", rows=rows, **empty, **given)
    losses = normal(rows)
    check(
        device, "loss_stats", str(rows), loss=np.empty(1), totals=np.array([3.0, 4.0]), row_loss=losses, weight=sample,
        rows=rows,
    )  # fmt: skip


@on_devices
@pytest.mark.parametrize("shape", [(1, 1), (5000, 2), (700, 3), (300, 64), (40, 65), (3, 1000)], ids=str)
def test_metrics_of_many_rows(device: str, shape: tuple[int, int]) -> None:
    rows, cols = shape
    rng = np.random.default_rng(cols)
    logits = np.round(2 * normal(*shape))  # with ties
    logits.ravel()[:: max(7, cols)] = np.nan
    labels = rng.integers(0, cols, rows).astype(np.int32)
    probs = np.round(4 * rng.random(shape)).astype(np.float32)
    sizes = {"rows": rows, "cols": cols}
    totals = np.array([1.0, 2.0])
    check(device, "accuracy", "labels", totals=totals, logits=logits, labels=labels, **sizes)
    check(device, "accuracy", "probs", totals=totals, logits=logits, probs=probs, **sizes)
    for k in (1, 2, cols):
        check(device, "top_k_accuracy", str(k), totals=totals, logits=logits, labels=labels, top_k=k, **sizes)
    check(
        device, "binary_accuracy", "", totals=totals, logits=logits, target=np.float32(probs > 1.5), **sizes
    )
    check(
        device, "regression_stats", "", totals=np.arange(1.0 + 4 * cols), pred=normal(*shape), target=probs, **sizes
    )  # fmt: skip


@on_devices
def test_optimizer_begin(device: str) -> None:
    """Counting, skipping, clipping, and the parameters of the group, over some steps."""
    rng = np.random.default_rng(0)
    for n_partial, total, clip in (
        (0, None, 0.0),
        (1, 2.0, 0.0),
        (300, 2.0, 0.5),
        (300, 0.0, 0.5),
        (700, 1.0, 1e9),
    ):
        fields: Fields = dict(
            scalars=np.full(8, np.nan), counter=np.full(600, 4, np.int64), n_counter=600, n_partial=n_partial,
            total=None if total is None else np.array([total]), partial=rng.random(n_partial) if n_partial else None,
            group=1, clip_norm=clip, beta1=0.9, beta2=0.999,
        )  # fmt: skip
        want = {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in fields.items()}
        for step in range(3):
            call_device(device, "optimizer_begin", fields)
            REFERENCES["optimizer_begin"](SimpleNamespace(**want), DEVICE_CONTEXT)
            np.testing.assert_array_equal(fields["counter"], want["counter"])
            np.testing.assert_allclose(fields["scalars"], want["scalars"], rtol=1e-14, err_msg=f"step {step}")


@on_devices
def test_workspaces_can_be_used_again(device: str) -> None:
    """What kernels leave in the counters is 0: the same call again, without clearing, gives the same."""
    x = normal(1, 20000, 3)
    fields: Fields = dict(out=np.empty(3, np.float32), x=x, outer=1, reduce=20000, inner=3, mean=0)
    call_device(device, "reduce_sum", fields, times=3)
    np.testing.assert_allclose(fields["out"], x.astype(np.float64).sum((0, 1)), rtol=1e-6)
    totals = np.zeros(2)
    logits, labels = normal(5000, 3), np.zeros(5000, np.int32)
    right = int((logits.argmax(1) == 0).sum())
    metric: Fields = dict(totals=totals, logits=logits, labels=labels, probs=None, rows=5000, cols=3)
    call_device(device, "accuracy", metric, times=3)
    np.testing.assert_array_equal(totals, [3 * right, 15000])
