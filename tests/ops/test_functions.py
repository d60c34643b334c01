# SPDX-License-Identifier: Apache-2.0
"""Functions of arrays against NumPy in float64, in place and not, for shapes around the vectors."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import hotloop as hl
from hotloop import ops

erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(x, 0)


FUNCTIONS: dict[str, Any] = {
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(x)),
    "selu": lambda x: 1.0507009873554805 * np.where(x > 0, x, 1.6732632423543772 * np.expm1(x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x * sigmoid(x),
    "mish": lambda x: x * np.tanh(softplus(x)),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "softplus": softplus,
    "exp": np.exp,
    "log": lambda x: np.log(np.abs(x)),
    "sqrt": lambda x: np.sqrt(np.abs(x)),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementwise(name: str, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    for shape in ((), (1,), (7,), (3, 17), (0, 4), (2, 3, 5), (100_003,)):
        x = (3 * rng.standard_normal(shape)).astype(dtype)
        argument = np.abs(x) if name in ("log", "sqrt") else x
        expected = FUNCTIONS[name](x.astype(np.float64))
        got = getattr(ops, name)(argument)
        assert got.shape == shape and got.dtype == dtype
        np.testing.assert_allclose(got, expected, rtol=2e-6 if dtype == np.float32 else 1e-12, atol=1e-6)
        out = np.empty(shape, dtype)
        assert getattr(ops, name)(argument, out=out) is out
        assert out.tobytes() == got.tobytes()
        same = np.array(argument)
        assert getattr(ops, name)(same, out=same) is same
        assert same.tobytes() == got.tobytes()


def test_strided_overlapping_and_read_only_arguments() -> None:
    x = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)
    expected = np.maximum(x, 0)
    assert np.array_equal(ops.relu(x.T), expected.T)
    assert np.array_equal(ops.relu(x[:, ::-2]), expected[:, ::-2])
    line = np.arange(-5, 5, dtype=np.float32)
    assert np.array_equal(ops.relu(line[:-1], out=line[1:]), np.maximum(np.arange(-5, 4), 0))
    x.flags.writeable = False
    assert np.array_equal(ops.relu(x), expected)
    with pytest.raises(ValueError, match=r"\[ops.relu\] out is read-only"):
        ops.relu(x, out=x)
    with pytest.raises(ValueError, match="out must be C-contiguous"):
        ops.relu(x, out=np.empty((4, 3), np.float32).T)


def test_gelu_by_the_tanh_formula() -> None:
    x = np.linspace(-4, 4, 33)
    expected = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    np.testing.assert_allclose(ops.gelu(x, "tanh"), expected, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="approximate must be 'none' or 'tanh', got 'fast'"):
        ops.gelu(x, "fast")  # type: ignore[arg-type]


@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax_along_any_axis(axis: int) -> None:
    x = np.random.default_rng(1).standard_normal((4, 9, 6)).astype(np.float32) * 30
    shifted = x.astype(np.float64) - x.max(axis, keepdims=True)
    expected = np.exp(shifted) / np.exp(shifted).sum(axis, keepdims=True)
    np.testing.assert_allclose(ops.softmax(x, axis), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(ops.log_softmax(x, axis), np.log(expected), rtol=1e-4, atol=1e-4)
    own = x.copy()
    assert ops.softmax(own, axis, out=own) is own
    np.testing.assert_allclose(own, expected, rtol=1e-5, atol=1e-7)
    with pytest.raises(hl.ShapeError, match=r"axis must be in \[-3, 3\), got 3"):
        ops.softmax(x, 3)


def test_norms_over_the_last_dimensions() -> None:
    rng = np.random.default_rng(2)
    x, weight, bias = rng.standard_normal((5, 3, 8)), rng.standard_normal((3, 8)), rng.standard_normal((3, 8))
    flat = x.reshape(5, 24)
    normal = (flat - flat.mean(1, keepdims=True)) / np.sqrt(flat.var(1, keepdims=True) + 1e-5)
    expected = normal.reshape(x.shape) * weight + bias
    np.testing.assert_allclose(ops.layer_norm(x, (3, 8), weight, bias), expected, rtol=1e-12, atol=1e-12)
    scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + np.finfo(float).eps)
    np.testing.assert_allclose(ops.rms_norm(x, 8), scaled, rtol=1e-12)
    own = x.copy()
    np.testing.assert_allclose(
        ops.layer_norm(own, (3, 8), weight, bias, out=own), expected, rtol=1e-12, atol=1e-12
    )
    with pytest.raises(hl.ShapeError, match=r"x must end in the dimensions \(4,\), got \(5, 3, 8\)"):
        ops.layer_norm(x, 4)
    with pytest.raises(hl.ShapeError, match=r"weight must be \(8,\), got \(3, 8\)"):
        ops.layer_norm(x, 8, weight)


def test_embedding_and_its_bad_index() -> None:
    table = np.arange(12, dtype=np.float32).reshape(4, 3)
    ids = np.array([[0, 3], [2, 2]], np.uint8)
    assert np.array_equal(ops.embedding(ids, table), table[ids])
    with pytest.raises(hl.LabelError, match=r"ids\[1, 0\] is 4; allowed 0 to 3"):
        ops.embedding(np.array([[0, 1], [4, 9]]), table)


def test_cross_entropy_and_its_gradient() -> None:
    rng = np.random.default_rng(3)
    logits, labels = rng.standard_normal((6, 5)), np.array([0, 4, 2, 2, 1, 3])
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for smoothing in (0.0, 0.1):
        target = np.eye(5)[labels] * (1 - smoothing) + smoothing / 5
        loss, grad = ops.cross_entropy(logits, labels, return_grad=True, label_smoothing=smoothing)
        assert loss == pytest.approx(-(target * log_p).sum(1).mean(), rel=1e-12)
        np.testing.assert_allclose(grad, (np.exp(log_p) - target) / 6, atol=1e-13)
        assert ops.cross_entropy(logits, labels, label_smoothing=smoothing) == loss
    with pytest.raises(hl.LabelError, match=r"labels\[2\] is -1; allowed 0 to 4"):
        ops.cross_entropy(logits, np.array([0, 1, -1, 5, 0, 0]))


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "bce_with_logits"])
def test_losses_and_their_gradients(name: str) -> None:
    rng = np.random.default_rng(4)
    p, t = 2 * rng.standard_normal((7, 3)), rng.random((7, 3))
    d = p - t
    values = {
        "mse": (d**2, 2 * d),
        "mae": (np.abs(d), np.sign(d)),
        "huber": (np.where(np.abs(d) <= 1, d**2 / 2, np.abs(d) - 0.5), np.clip(d, -1, 1)),
        "bce_with_logits": (np.logaddexp(0, p) - t * p, sigmoid(p) - t),
    }[name]
    loss, grad = getattr(ops, name)(p, t, return_grad=True)
    assert loss == pytest.approx(values[0].mean(), rel=1e-12)
    np.testing.assert_allclose(grad, values[1] / p.size, rtol=1e-10, atol=1e-15)
    assert getattr(ops, name)(p[:, 0], t[:, 0]) == pytest.approx(values[0][:, 0].mean(), rel=1e-12)


def test_dropout_is_a_function_of_seed_and_offset() -> None:
    x = np.ones((1000, 100), np.float32)
    y = ops.dropout(x, 0.25, seed=7)
    assert abs((y == 0).mean() - 0.25) < 0.01
    assert y.mean() == pytest.approx(1.0, abs=0.01)
    assert ops.dropout(x, 0.25, seed=7).tobytes() == y.tobytes()
    assert ops.dropout(x, 0.25, seed=7, offset=1).tobytes() != y.tobytes()
    assert ops.dropout(x, 0.25, seed=8).tobytes() != y.tobytes()
    assert np.array_equal(ops.dropout(x[:3], 0.0, seed=0), x[:3])
    with pytest.raises(ValueError, match=r"p must be in \[0, 1\), got 1"):
        ops.dropout(x, 1.0, seed=0)


def test_optimiser_steps_follow_their_formulas() -> None:
    rng = np.random.default_rng(5)
    p, m, v = rng.standard_normal(37), np.zeros(37), np.zeros(37)
    q, qm, qv = p.copy(), m.copy(), v.copy()
    for step in range(1, 4):
        g = rng.standard_normal(37)
        ops.adamw_(p, g, m, v, step=step, lr=0.1, weight_decay=0.3)
        qm += 0.1 * (g - qm)
        qv = 0.999 * qv + 0.001 * g * g
        q *= 1 - 0.1 * 0.3
        q -= 0.1 * (qm / (1 - 0.9**step)) / (np.sqrt(qv / (1 - 0.999**step)) + 1e-8)
    np.testing.assert_allclose(p, q, rtol=1e-12)
    np.testing.assert_allclose(v, qv, rtol=1e-12)
    buffer, r = np.zeros(37), q.copy()
    ops.sgd_(q, g, buffer, lr=0.1, momentum=0.9)
    np.testing.assert_allclose(q, r - 0.1 * g, rtol=1e-12)
    with pytest.raises(ValueError, match="needs a momentum_buffer"):
        ops.sgd_(q, g, lr=0.1, momentum=0.9)
    with pytest.raises(ValueError, match="two of the arrays overlap"):
        ops.adamw_(p, g, m, m, step=1, lr=0.1)
    with pytest.raises(hl.ShapeError, match=r"grad must be \(37,\), as param, got \(36,\)"):
        ops.adam_(p, g[:36], m, v, step=1, lr=0.1)


class Producer:
    """An array that is known through DLPack alone."""

    def __init__(self, array: np.ndarray, device: int = 1) -> None:
        self.array, self.device = array, device

    def __dlpack__(self, **how: Any) -> Any:
        return self.array.__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device, 0


def test_any_producer_of_dlpack_is_read_and_gets_numpy() -> None:
    x = np.array([-1.0, 2.0], np.float32)
    assert np.array_equal(ops.relu(Producer(x)), [0, 2])
    with pytest.raises(hl.DeviceError, match="x is not in the memory of the CPU"):
        ops.relu(Producer(x, device=2))


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        ([1.0], TypeError, "x must be an array, got list"),
        (np.arange(3), hl.DTypeError, "x must be float32 or float64, got int64; use x.astype"),
        (np.ones(3, np.float16), hl.DTypeError, "got float16"),
        (np.ones(3, ">f4"), hl.DTypeError, "got >f4"),
    ],
)
def test_what_is_no_array_of_floats_is_refused(x: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        ops.relu(x)
