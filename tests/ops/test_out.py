# SPDX-License-Identifier: Apache-2.0
"""Every function of `hotloop.ops` has a place for its result: one table, so that a new one cannot be forgotten."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import ops

Call = Callable[..., Any]


def numbers(*shape: int, seed: int = 0, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def x_of(dtype: Any) -> Any:
    return np.abs(numbers(6, 5, dtype=dtype)) + dtype(0.1)


#: name -> the call of the function on x (6, 5) of positive numbers; the result has x's shape.
CALLS: dict[str, Call] = {
    **{
        name: (lambda x, name=name, **out: getattr(ops, name)(x, **out))
        for name in (
            "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "tanh", "sigmoid", "softplus", "exp",
            "log", "sqrt", "softmax", "log_softmax",
        )
    },
    "dropout": lambda x, **out: ops.dropout(x, 0.5, seed=3, **out),
    "layer_norm": lambda x, **out: ops.layer_norm(x, 5, **out),
    "rms_norm": lambda x, **out: ops.rms_norm(x, 5, **out),
    "matmul": lambda x, **out: ops.matmul(x, np.eye(5, dtype=_dtype(x)) * 2, **out),
    "embedding": lambda x, **out: ops.embedding(np.array([5, 0, 1, 2, 3, 3]), x, **out),
}  # fmt: skip
#: name -> the same of a loss, whose gradient has x's shape.
LOSSES: dict[str, Call] = {
    "cross_entropy": lambda x, **out: ops.cross_entropy(x, np.arange(6) % 5, return_grad=True, **out),
    **{
        name: (lambda x, name=name, **out: getattr(ops, name)(x, numbers(6, 5, dtype=_dtype(x)), return_grad=True, **out))
        for name in ("mse", "mae", "huber", "bce_with_logits")
    },
}  # fmt: skip
#: These write to their first arguments.
IN_PLACE = {"adam_", "adamw_", "sgd_"}
ALL = {**CALLS, **LOSSES}


def _dtype(x: Any) -> Any:
    return np.dtype(str(x.dtype).removeprefix("torch."))


def result(name: str, x: Any, **out: Any) -> Any:
    """The array that the function gives: of a loss its gradient."""
    found = ALL[name](x, **out)
    return found[1] if name in LOSSES else found


def test_the_table_holds_every_function() -> None:
    assert set(ops.__all__) == set(ALL) | IN_PLACE
    for name in ALL:
        assert "out" in inspect.signature(getattr(ops, name)).parameters


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ALL)
def test_the_result_goes_where_it_should_and_has_the_same_bits(name: str, dtype: Any) -> None:
    x = x_of(dtype)
    expected = result(name, x)
    assert expected.shape == x.shape and expected.dtype == dtype
    out = np.full(x.shape, np.nan, dtype)
    assert result(name, x, out=out) is out
    assert out.tobytes() == expected.tobytes()
    loss = ALL[name](x)
    if name in LOSSES:
        assert loss[0] == ALL[name](x, out=out)[0]


@pytest.mark.parametrize("name", ALL)
def test_an_operand_as_out_gives_the_same_or_is_refused(name: str) -> None:
    x = x_of(np.float32)
    expected = result(name, x)
    if name == "matmul":
        with pytest.raises(ValueError, match=r"out overlaps an operand"):
            result(name, x, out=x)
        return
    assert result(name, x, out=x) is x
    assert x.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ALL)
def test_an_out_that_overlaps_an_operand_in_part(name: str) -> None:
    memory = np.zeros(35, np.float32)
    memory[:30] = x_of(np.float32).reshape(-1)
    x, out = memory[:30].reshape(6, 5), memory[5:].reshape(6, 5)
    expected = result(name, x.copy())
    if name == "matmul":
        with pytest.raises(ValueError, match=r"out overlaps an operand"):
            result(name, x, out=out)
        return
    assert result(name, x, out=out).tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ALL)
def test_an_out_that_does_not_fit_is_refused_and_not_touched(name: str) -> None:
    x = x_of(np.float32)
    frozen = np.zeros((6, 5), np.float32)
    frozen.flags.writeable = False
    for out, error, message in (
        (np.zeros((5, 6), np.float32), hl.ShapeError, r"out must be float32 \(6, 5\), got float32 \(5, 6\)"),
        (np.zeros((6, 5)), hl.DTypeError, r"out must be float32 \(6, 5\), got float64"),
        (np.zeros((5, 6), np.float32).T, ValueError, "out must be C-contiguous"),
        (frozen, ValueError, "out is read-only; pass a copy"),
        ([[0.0] * 5] * 6, TypeError, "out must be an array, got list"),
        (np.ma.zeros((6, 5), np.float32), TypeError, "out is a masked array"),
    ):
        with pytest.raises(error, match=rf"\[ops.{name}\] {message}"):
            ALL[name](x, out=out)
        assert not np.any(out)


@pytest.mark.parametrize("name", ALL)
def test_a_mask_is_not_dropped_silently(name: str) -> None:
    with pytest.raises(TypeError, match=r"is a masked array; fill it first: \w+.filled\(0\)"):
        ALL[name](np.ma.masked_greater(x_of(np.float32), 1))


@pytest.mark.parametrize("name", LOSSES)
def test_out_without_a_gradient_is_a_mistake(name: str) -> None:
    x = x_of(np.float32)
    with pytest.raises(ValueError, match=r"ask for it with return_grad=True"):
        getattr(ops, name)(x, np.arange(6) % 5 if name == "cross_entropy" else x, out=x.copy())


@pytest.mark.parametrize("name", sorted(IN_PLACE))
def test_an_update_writes_to_its_arguments_or_refuses(name: str) -> None:
    def call(param: Any) -> None:
        moments = [np.zeros(7, np.float32)] * (0 if name == "sgd_" else 1), np.zeros(7, np.float32)
        if name == "sgd_":
            ops.sgd_(param, numbers(7), lr=0.1)
        else:
            getattr(ops, name)(param, numbers(7), *moments[0], moments[1], step=1, lr=0.1)

    param = np.ones(7, np.float32)
    call(param)
    assert (param != 1).all()
    param.flags.writeable = False
    with pytest.raises(ValueError, match=rf"\[ops.{name}\] param is read-only"):
        call(param)
