# SPDX-License-Identifier: Apache-2.0
"""Shape rules: what they give, refuse, and say when they refuse; the layout arithmetic under them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotloop.errors import DTypeError, GraphError, InternalError, ShapeError
from hotloop.graph import Affine, Dim, Rows, TensorType
from hotloop.rules import RULES, rule_of
from hotloop.rules.dims import (
    MAX_DIMS,
    Shape,
    broadcast_shapes,
    broadcast_strides,
    dense_strides,
    merge_dims,
    resolve_shape,
    shape_from_attr,
    shape_to_attr,
    times,
)
from hotloop.rules.reduce import runs

B = Rows()


def shape(op: str, *operands: tuple[Dim, ...] | None, **attrs: Any) -> list[tuple[Dim, ...]]:
    types = [None if s is None else TensorType(s) for s in operands]
    return [t.shape for t in rule_of(op).shape(types, attrs)]


# ---- what the rules give


def test_products() -> None:
    assert shape("linear", (B, 4), (3, 4), (3,)) == [(B, 3)]
    assert shape("linear", (B, 7, 4), (3, 4), None) == [(B, 7, 3)]
    assert shape("matmul", (B, 4), (4, 3)) == [(B, 3)]
    assert shape("linear_grad_weight", (B, 7, 3), (B, 7, 4), bias=True) == [(3, 4), (3,)]
    assert shape("linear_grad_weight", (B, 3), (B, 4), bias=False) == [(3, 4)]


def test_shape_moves() -> None:
    assert shape("transpose", (B, 2, 3), perm=(2, 0, 1)) == [(3, B, 2)]
    assert shape("slice", (B, 5), starts=(0, 1), stops=(None, 4)) == [(B, 3)]
    assert shape("pad", (B, 3), before=(0, 1), after=(0, 2)) == [(B, 6)]
    assert shape("concat", (B, 2), (B, 3), (B, 1), axis=1) == [(B, 6)]
    assert shape("reshape", (B, 2, 3), shape=shape_to_attr((Rows(2), 3))) == [(Rows(2), 3)]
    assert shape("sum", (B, 2, 3), axes=(0, 2), keepdim=False) == [(2,)]
    assert shape("mean", (B, 2, 3), axes=(0, 2), keepdim=True) == [(1, 2, 1)]


def test_norms_give_their_statistics() -> None:
    assert shape("layer_norm", (B, 2, 3), (2, 3), None, eps=1e-5, n_axes=2) == [(B, 2, 3), (B,), (B,)]
    assert shape("rms_norm", (B, 2, 3), (3,), eps=1e-5, n_axes=1) == [(B, 2, 3), (B, 2)]
    assert shape("batch_norm_train", (B, 3), (3,), (3,), (3,), (3,), eps=1e-5, momentum=0.1) == [
        (B, 3), (3,), (3,),
    ]  # fmt: skip


# ---- what they refuse

REFUSED = [
    (ShapeError, "last dimension must be 4", "linear", [(B, 5), (3, 4), None], {}),
    (ShapeError, "expected \\(3,\\)", "linear", [(B, 4), (3, 4), (4,)], {}),
    (ShapeError, "without the batch", "matmul", [(B, 4), (B, 4, 3)], {}),
    (ShapeError, "without the batch", "matmul", [(3, 4), (B, 3)], {}),
    (ShapeError, "axis -1 is 4 against 3", "add", [(B, 4), (3,)], {}),
    (ShapeError, "axis -2 is B against 2", "mul", [(B, 4), (2, 4)], {}),
    (ShapeError, "hold the batch twice", "mul", [(B, 1), (1, B)], {}),
    (ShapeError, "axis -2 is B against 2B", "add", [(B, 4), (Rows(2), 4)], {}),
    (ShapeError, "no permutation", "transpose", [(B, 2)], {"perm": (0, 0)}),
    (ShapeError, "range 0:3 does not fit axis 0", "slice", [(B, 2)], {"starts": (0, 0), "stops": (3, None)}),
    (ShapeError, "range 1:1", "slice", [(3, 2)], {"starts": (1, 0), "stops": (1, None)}),
    (ShapeError, "part 1 does not fit", "concat", [(B, 2), (B, 2, 2)], {"axis": 1}),
    (ShapeError, "must not be the batch", "concat", [(B, 2), (B, 2)], {"axis": 0}),
    (ShapeError, "number of elements", "reshape", [(B, 6)], {"shape": (("B", 1), 5)}),
    (ShapeError, "rows of the batch would be mixed", "reshape", [(2, B)], {"shape": (("B", 2),)}),
    (ShapeError, "does not broadcast", "broadcast_to", [(B, 4)], {"shape": (1, 4)}),
    (ShapeError, "axes must be different", "sum", [(B, 4)], {"axes": (1, 1), "keepdim": False}),
    (ShapeError, "neighbours", "max", [(B, 4, 2)], {"axes": (0, 2), "keepdim": False}),
    (ShapeError, "fixed number of values", "softmax", [(4, B)], {}),
    (ShapeError, "not over the batch", "layer_norm", [(B, 4), None, None], {"n_axes": 2, "eps": 1e-5}),
    (ShapeError, "rows, channels", "batch_norm", [(B, 3, 4), *[None] * 4], {"eps": 1e-5, "momentum": 0.1}),
    (ShapeError, "rows differ", "linear_grad_weight", [(B, 3), (Rows(2), 4)], {"bias": False}),
    (ShapeError, "operand is missing", "relu", [None], {}),
    (DTypeError, "ids must be integers", "embedding", [(9, 2), (B,)], {}),
]


@pytest.mark.parametrize(("error", "message", "op", "operands", "attrs"), REFUSED, ids=lambda v: str(v)[:40])
def test_refusals(
    error: type[Exception], message: str, op: str, operands: list[Any], attrs: dict[str, Any]
) -> None:
    with pytest.raises(error, match=message):
        shape(op, *operands, **attrs)


@pytest.mark.parametrize("op", ["relu", "add", "linear", "transpose", "sum", "softmax", "dropout", "copy"])
def test_integers_are_ids_and_nothing_else(op: str) -> None:
    ids = TensorType((B, 4), "index")
    with pytest.raises(DTypeError, match="embedding"):
        rule_of(op).shape([ids, ids, None], {"perm": (0, 1), "axes": (1,), "keepdim": False})


def test_integers_may_be_reshaped() -> None:
    ids = TensorType((B, 4), "index")
    out = rule_of("reshape").shape([ids], {"shape": shape_to_attr((Rows(4),))})
    assert out == (TensorType((Rows(4),), "index"),)


def test_unknown_ops_are_named() -> None:
    with pytest.raises(GraphError, match="unknown op 'relu6'"):
        rule_of("relu6")


def test_batch_norm_without_a_mode_cannot_run() -> None:
    with pytest.raises(InternalError):
        RULES["batch_norm"].lower(None, None)  # type: ignore[arg-type]


# ---- arithmetic on shapes

fixed_shapes = st.lists(st.integers(1, 4), max_size=5).map(tuple)


@given(fixed_shapes, fixed_shapes)
def test_broadcasting_is_numpys(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    try:
        expected = np.broadcast_shapes(a, b)
    except ValueError:
        with pytest.raises(ShapeError):
            broadcast_shapes(a, b, "test")
    else:
        assert broadcast_shapes(a, b, "test") == expected


@given(fixed_shapes, st.data())
def test_broadcast_strides_read_what_numpy_reads(out: tuple[int, ...], data: st.DataObject) -> None:
    kept = data.draw(st.lists(st.booleans(), min_size=len(out), max_size=len(out)))
    drop = data.draw(st.integers(0, len(out)))
    own: Shape = tuple(d if k else 1 for d, k in zip(out, kept, strict=True))[drop:]
    strides = [s.const for s in broadcast_strides(own, out)]
    x = np.arange(int(np.prod(_ints(own)))).reshape(_ints(own))
    read = np.zeros(out, int)
    for index in np.ndindex(*out):
        read[index] = sum(i * s for i, s in zip(index, strides, strict=True))
    np.testing.assert_array_equal(read, np.broadcast_to(x, out))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple), st.data())
def test_merging_keeps_every_element_in_place(dims: tuple[int, ...], data: st.DataObject) -> None:
    perm = data.draw(st.permutations(range(len(dims))))
    own = dense_strides(dims)
    shape = tuple(dims[p] for p in perm)
    operands = (dense_strides(shape), tuple(own[p] for p in perm))
    try:
        merged, strides = merge_dims(shape, operands, "test")
    except GraphError:
        assert sum(d != 1 for d in shape) > MAX_DIMS
        return
    assert len(merged) == MAX_DIMS
    for before, after in zip(operands, strides, strict=True):
        wanted = [_dot(i, before) for i in np.ndindex(*_ints(shape))]
        found = [_dot(i, tuple(after)) for i in np.ndindex(*(d.const for d in merged))]
        assert wanted == found


def test_dense_tensors_of_any_rank_are_one_dimension() -> None:
    shape: Shape = (2, 3, B, 4, 5, 6)
    dims, _ = merge_dims(shape, [dense_strides(shape)], "test")
    assert dims == [Affine(0, 1)] * 3 + [Affine(720, 0)]


def test_too_many_dimensions_are_refused() -> None:
    shape: Shape = (2, 3, 2, 3, 2)
    backwards = dense_strides(shape[::-1])[::-1]
    with pytest.raises(GraphError, match="5 dimensions remain"):
        merge_dims(shape, [dense_strides(shape), backwards], "test")


def _ints(shape: Shape) -> tuple[int, ...]:
    return tuple(int(d) for d in shape)  # type: ignore[arg-type]


def _dot(index: tuple[int, ...], strides: tuple[Affine, ...]) -> int:
    return sum(i * s.const for i, s in zip(index, strides, strict=True))


@pytest.mark.parametrize(
    ("x", "wanted", "expected"),
    [
        ((B, 2, 3), (-1, 3), (Rows(2), 3)),
        ((B, 2, 3), (-1, 6), (B, 6)),
        ((Rows(6),), (B, -1), (B, 6)),
        ((Rows(6), 2), (-1, 3, 2), (Rows(2), 3, 2)),
        ((2, 6), (-1,), (12,)),
        ((B, 4), (B * 2, 2), (Rows(2), 2)),
    ],
)
def test_minus_one_is_what_remains(x: Shape, wanted: tuple[Any, ...], expected: Shape) -> None:
    assert resolve_shape(x, wanted, "test") == expected


@pytest.mark.parametrize("wanted", [(-1, -1), (-1, 5), (B, B, -1), (Rows(4), -1), (-1, 0), (-2, 3), (2.0, 3)])
def test_what_cannot_remain_is_refused(wanted: tuple[Any, ...]) -> None:
    with pytest.raises(ShapeError):
        resolve_shape((B, 6), wanted, "test")


def test_a_fixed_size_cannot_take_the_batch() -> None:
    # 32 and the rest: (32, B * 6 / 32) is not whole for every batch
    with pytest.raises(ShapeError, match="symbolic"):
        resolve_shape((B, 6), (32, -1), "test")
    # (2, 3B) would be whole, but rows of the batch would be cut in two
    assert resolve_shape((B, 6), (2, -1), "test") == (2, Rows(3))
    with pytest.raises(ShapeError, match="mixed"):
        shape("reshape", (B, 6), shape=shape_to_attr((2, Rows(3))))


def test_attributes_hold_shapes() -> None:
    for shape in [(), (B,), (Rows(3), 2), (1, 2, 3)]:
        assert shape_from_attr(shape_to_attr(shape)) == shape


def test_the_batch_cannot_meet_itself() -> None:
    assert times(Affine(0, 3), Rows(2)) == Affine(6, 0)
    with pytest.raises(GraphError, match="batch once"):
        times(Affine(1, 0), Rows(1))


@given(st.lists(st.integers(1, 3), min_size=1, max_size=6).map(tuple), st.data())
def test_runs_cover_exactly_the_reduced_axes(shape: tuple[int, ...], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(shape) - 1)))
    axes = tuple(sorted(chosen))
    spans = runs(shape, axes)
    covered = {i for begin, end in spans for i in range(begin, end)}
    assert {i for i in covered if shape[i] != 1} == {i for i in axes if shape[i] != 1}
    for (_, end), (begin, _) in itertools.pairwise(spans):
        assert any(shape[i] != 1 and i not in axes for i in range(end, begin))
