# SPDX-License-Identifier: Apache-2.0
"""Small plain arrays take a way of their own through native code; it must be the general one in all but time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hotloop as hl
from hotloop import _core, ops

Call = Callable[..., Any]

#: name -> (function of x and a row w, the native way of its plain arrays)
CALLS: dict[str, tuple[Call, str]] = {
    "relu": (lambda x, w, **out: ops.relu(x, **out), "plain_unary"),
    "gelu": (lambda x, w, **out: ops.gelu(x, "tanh", **out), "plain_unary"),
    "elu": (lambda x, w, **out: ops.elu(x, 0.5, **out), "plain_unary"),
    "softmax": (lambda x, w, **out: ops.softmax(x, **out), "plain_softmax"),
    "log_softmax": (lambda x, w, **out: ops.log_softmax(x, x.ndim - 1, **out), "plain_softmax"),
    "layer_norm": (lambda x, w, **out: ops.layer_norm(x, x.shape[-1], w, w, **out), "plain_layer_norm"),
    "layer_norm, tuple": (
        lambda x, w, **out: ops.layer_norm(x, (x.shape[-1],), None, w, 1e-3, **out), "plain_layer_norm",
    ),
    "rms_norm": (lambda x, w, **out: ops.rms_norm(x, x.shape[-1], w, **out), "plain_rms_norm"),
    "rms_norm, eps": (lambda x, w, **out: ops.rms_norm(x, x.shape[-1], None, 1e-3, **out), "plain_rms_norm"),
    "dropout": (lambda x, w, **out: ops.dropout(x, 0.3, seed=5, offset=2, **out), "plain_dropout"),
}  # fmt: skip


def generally(monkeypatch: pytest.MonkeyPatch, call: Call, x: Any, w: Any) -> Any:
    """The result of the general way."""
    with monkeypatch.context() as patched:
        for name in {name for _, name in CALLS.values()}:
            patched.setattr(_core, name, lambda *_: None)
        return call(x, w)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (2, 3, 17), (9, 64), (1000, 65), (1100, 130)])
@pytest.mark.parametrize("name", CALLS)
def test_bits_are_those_of_the_general_way(
    monkeypatch: pytest.MonkeyPatch, name: str, shape: tuple[int, ...], dtype: Any
) -> None:
    call, _ = CALLS[name]
    random = np.random.default_rng(1)
    x, w = random.standard_normal(shape).astype(dtype), random.standard_normal(shape[-1]).astype(dtype)
    expected = generally(monkeypatch, call, x, w)
    before = x.tobytes()
    for out in (None, np.full_like(x, np.nan)):
        found = call(x, w, out=out)
        assert out is None or found is out
        assert type(found) is np.ndarray and found.dtype == dtype and found.shape == shape
        assert found.flags.c_contiguous and found.flags.writeable
        assert found.tobytes() == expected.tobytes()
    assert x.tobytes() == before


@pytest.mark.parametrize("name", CALLS)
def test_the_quick_way_is_taken(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    call, native = CALLS[name]
    given_back: list[bool] = []
    real = getattr(_core, native)

    def watched(*arguments: Any) -> Any:
        found = real(*arguments)
        given_back.append(found is not None)
        return found

    monkeypatch.setattr(_core, native, watched)
    x, w = np.ones((4, 8), np.float32), np.ones(8, np.float32)
    call(x, w)
    call(x, w, out=np.empty_like(x))
    assert given_back == [True, True]
    call(x[:, ::2], w[:4].copy())  # strides
    call(np.ones((4, 0), np.float32), np.ones(0, np.float32))
    call(np.asfortranarray(x), w)
    call(np.ones((400, 400), np.float32), np.ones(400, np.float32))  # worth a team
    assert given_back[2:] == [False] * 4


@given(
    rows=st.integers(1, 5), cols=st.integers(1, 40), shift=st.integers(-50, 50), name=st.sampled_from(sorted(CALLS))
)  # fmt: skip
def test_an_out_that_overlaps_in_part_holds_the_result(rows: int, cols: int, shift: int, name: str) -> None:
    call, _ = CALLS[name]
    n = rows * cols
    memory = np.random.default_rng(2).standard_normal(n + 100).astype(np.float32)
    x, w = memory[50 : 50 + n].reshape(rows, cols), np.linspace(-1, 1, cols, dtype=np.float32)
    expected = call(x.copy(), w)
    out = memory[50 + shift : 50 + shift + n].reshape(rows, cols)
    assert call(x, w, out=out).tobytes() == expected.tobytes()


def test_weights_beside_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("layer_norm", "rms_norm"):
        call, _ = CALLS[name]
        memory = np.random.default_rng(3).standard_normal((5, 8)).astype(np.float32)
        x = np.random.default_rng(4).standard_normal((5, 8)).astype(np.float32)
        expected = generally(monkeypatch, call, x, memory[2].copy())
        assert call(x, memory[2], out=memory).tobytes() == expected.tobytes(), name  # w lies in out


def test_what_is_not_plain_is_explained() -> None:
    x = np.ones((2, 4), np.float32)
    with pytest.raises(hl.ShapeError, match=r"axis must be in \[-2, 2\), got 2 for \(2, 4\)"):
        ops.softmax(x, 2)
    with pytest.raises(TypeError, match=r"x is a masked array; fill it first"):
        ops.softmax(np.ma.array(x))
    with pytest.raises(hl.DTypeError, match="x must be float32 or float64, got int64"):
        ops.relu(np.ones(3, np.int64))
    with pytest.raises(hl.ShapeError, match=r"weight must be \(4,\), got \(3,\)"):
        ops.layer_norm(x, 4, np.ones(3, np.float32))
    with pytest.raises(hl.DTypeError, match="weight is float64 beside float32"):
        ops.rms_norm(x, 4, np.ones(4))
    with pytest.raises(TypeError, match=r"normalized_shape must be whole numbers, got ndarray; give 4"):
        ops.layer_norm(x, np.ones(4, np.float32))
    with pytest.raises(TypeError, match=r"normalized_shape must be whole numbers, got float; give 4"):
        ops.rms_norm(x, 4.0)  # type: ignore[arg-type]
    swapped = x.astype(">f4")
    with pytest.raises(hl.DTypeError, match="must be float32 or float64"):
        ops.softmax(swapped)
