# SPDX-License-Identifier: Apache-2.0
"""Accuracy of the functions in every unit, in units of the last place over the whole range of float32, and
their values where a polynomial has none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from hotloop import _core
from hotloop.reference.elementwise import sigmoid, softplus
from tests.kernels.harness import call

FLOAT = np.finfo(np.float32)
_erfc = np.frompyfunc(math.erfc, 1, 1)


def gelu(x: np.ndarray) -> np.ndarray:
    return x * _erfc(-x * math.sqrt(0.5)).astype(np.float64) / 2


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))


Function = Callable[[np.ndarray], np.ndarray]

#: name: (float64 function, p0, p1, sample (least, most), bound in ulp). The bounds are what was measured on
#: all of float32, rounded up. gelu loses digits where x is
#: negative (1 + erf cancels, as in torch), so it is judged on the other half.
FUNCTIONS: dict[str, tuple[Function, float, float, tuple[float, float], float]] = {
    "exp": (np.exp, 0, 0, (-np.inf, np.inf), 1.0),
    "log": (np.log, 0, 0, (-np.inf, np.inf), 0.9),
    "tanh": (np.tanh, 0, 0, (-np.inf, np.inf), 2.0),
    "sigmoid": (sigmoid, 0, 0, (-np.inf, np.inf), 1.9),
    "softplus": (softplus, 1, math.inf, (-np.inf, np.inf), 1.7),
    "elu": (np.expm1, 1, 0, (-np.inf, 0.0), 1.6),
    "gelu": (gelu, 0, 0, (0.0, np.inf), 2.0),
    "gelu_tanh": (gelu_tanh, 0, 0, (0.0, np.inf), 2.3),
    "silu": (lambda x: x * sigmoid(x), 0, 0, (-80.0, np.inf), 2.5),
    "sqrt": (np.sqrt, 0, 0, (-np.inf, np.inf), 0.5),
    "reciprocal": (lambda x: 1 / x, 0, 0, (-np.inf, np.inf), 0.5),
}


def run(name: str, x: np.ndarray, isa: str, p0: float = 0.0, p1: float = 0.0) -> np.ndarray:
    y = np.full_like(x, -123.0)
    call(f"{name}_fwd", dict(y=y, x=x, n=x.size, p0=p0, p1=p1), isa)
    return y


def ulps(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of the exact value; infinite where only one of them is special."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        _, exponent = np.frexp(exact)
        unit = np.ldexp(1.0, np.maximum(exponent, -125) - 24)
        distance = np.abs(got.astype(np.float64) - exact) / unit
        brim = np.abs(np.abs(exact) / float(FLOAT.max) - 1) < 1e-6
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    distance[same & ~np.isfinite(rounded)] = 0
    distance[brim] = 0  # half an ulp decides between the largest number and infinity
    # kernels flush denormals: what is below the smallest normal number may be 0
    distance[(np.abs(exact) < FLOAT.smallest_normal) & (np.abs(got) <= FLOAT.smallest_normal)] = 0
    return np.where(np.isnan(distance), np.inf, distance)


@pytest.mark.parametrize("isa", _core.isas())
@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("stride", [4099, pytest.param(67, marks=pytest.mark.deep)])
def test_error_over_all_of_float32(name: str, isa: str, stride: int) -> None:
    function, p0, p1, (least, most), bound = FUNCTIONS[name]
    worst, at, count = 0.0, 0.0, 0
    for first in range(0, 2**32, 2**28):  # in parts, to stay small in memory
        bits = np.arange(first + first % stride, first + 2**28, stride, dtype=np.uint32)
        x = bits.view(np.float32)
        x = x[(x >= least) & (x <= most) & (np.abs(x) >= FLOAT.smallest_normal)]
        if not x.size:
            continue
        count += x.size
        with np.errstate(all="ignore"):
            error = ulps(run(name, x, isa, p0, p1), function(x.astype(np.float64)))
        if error.max() > worst:
            worst, at = float(error.max()), float(x[error.argmax()])
    assert count > 400_000
    assert worst <= bound, f"{name}: {worst:.3f} ulp at {at!r}"


#: name: (arguments, values); compared with their signs.
SPECIAL: dict[str, tuple[list[float], list[float]]] = {
    "exp": ([math.inf, -math.inf, 0.0, -0.0, 89.0, -110.0], [math.inf, 0.0, 1.0, 1.0, math.inf, 0.0]),
    "log": (
        [math.inf, 0.0, -0.0, 1.0, -1.0, -math.inf],
        [math.inf, -math.inf, -math.inf, 0.0, math.nan, math.nan],
    ),
    "tanh": ([math.inf, -math.inf, 0.0, -0.0, 20.0, -20.0], [1.0, -1.0, 0.0, -0.0, 1.0, -1.0]),
    "sigmoid": ([math.inf, -math.inf, 0.0, -0.0, 40.0], [1.0, 0.0, 0.5, 0.5, 1.0]),
    "gelu": ([math.inf, 0.0, -0.0, 30.0, -30.0], [math.inf, 0.0, -0.0, 30.0, -0.0]),
    "relu": ([math.inf, -math.inf, 0.0, -1.0, 2.0], [math.inf, 0.0, 0.0, 0.0, 2.0]),
    "silu": ([math.inf, 0.0, -0.0], [math.inf, 0.0, -0.0]),
    "sqrt": ([math.inf, 0.0, -0.0, -1.0], [math.inf, 0.0, -0.0, math.nan]),
    "abs": ([-math.inf, -0.0, -2.0], [math.inf, 0.0, 2.0]),
    "reciprocal": ([math.inf, -math.inf, 0.0, -0.0], [0.0, -0.0, math.inf, -math.inf]),
}


@pytest.mark.parametrize("isa", _core.isas())
def test_gelu_of_negative_numbers(isa: str) -> None:
    """Where digits cancel the error stays that of a number near 1, times x; far to the left there is none."""
    x = np.linspace(-20.0, 0.0, 200_001, dtype=np.float32)
    got, exact = run("gelu", x, isa), gelu(x.astype(np.float64))
    assert np.all(np.abs(got - exact) <= 2**-23 * np.abs(x))
    assert np.all(got <= 0)
    np.testing.assert_array_equal(got[x < -6], 0.0)


@pytest.mark.parametrize("name", SPECIAL)
def test_special_values(name: str, unit: tuple[str, type]) -> None:
    isa, dtype = unit
    if dtype is np.float64 and name == "exp":
        pytest.skip("the arguments are the ends of float32")
    arguments, values = SPECIAL[name]
    got = run(name, np.array(arguments, dtype), isa)
    want = np.array(values, dtype)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(np.signbit(got[~np.isnan(want)]), np.signbit(want[~np.isnan(want)]))


@pytest.mark.parametrize(
    "name",
    [name for name in _core.kernels() if name.endswith("_fwd") and _core.activation_index(name[:-4]) >= 0],
)
def test_nan_in_nan_out(name: str, unit: tuple[str, type]) -> None:
    isa, dtype = unit
    x = np.array([np.nan] * 11, dtype)  # a whole vector and a tail
    assert np.isnan(run(name.removesuffix("_fwd"), x, isa, 1.0, 1.0)).all()
