# SPDX-License-Identifier: Apache-2.0
"""The optimisers beyond one step: long trajectories, clipping, skipped steps, and the place of an element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.kernels.native import run, same_bits, units

N, STEPS = 500, 200
LR, DECAY = 0.02, 0.05
Array = np.ndarray
Step = Callable[[dict[str, Array], Array, int, type], None]


# torch.optim's updates in torch's order of operations; in float32 they round where torch rounds.


def _torch_adam(s: dict[str, Array], g: Array, t: int, dtype: type, decoupled: bool) -> None:
    if decoupled:
        s["param"] *= dtype(1 - LR * DECAY)
    else:
        g = g + dtype(DECAY) * s["param"]
    s["exp_avg"] += dtype(1 - 0.9) * (g - s["exp_avg"])
    s["exp_avg_sq"] *= dtype(0.999)
    s["exp_avg_sq"] += dtype(1 - 0.999) * g * g
    denominator = np.sqrt(s["exp_avg_sq"]) / dtype(np.sqrt(1 - 0.999**t)) + dtype(1e-8)
    s["param"] += dtype(-LR / (1 - 0.9**t)) * s["exp_avg"] / denominator


def _torch_sgd(s: dict[str, Array], g: Array, t: int, dtype: type, nesterov: bool) -> None:
    g = g + dtype(DECAY) * s["param"]
    s["momentum_buffer"] *= dtype(0.9)
    s["momentum_buffer"] += g
    g = g + dtype(0.9) * s["momentum_buffer"] if nesterov else s["momentum_buffer"]
    s["param"] += dtype(-LR) * g


def _torch_rmsprop(s: dict[str, Array], g: Array, t: int, dtype: type) -> None:
    g = g + dtype(DECAY) * s["param"]
    s["square_avg"] *= dtype(0.99)
    s["square_avg"] += dtype(1 - 0.99) * g * g
    s["momentum_buffer"] *= dtype(0.9)
    s["momentum_buffer"] += g / (np.sqrt(s["square_avg"]) + dtype(1e-8))
    s["param"] += dtype(-LR) * s["momentum_buffer"]


ADAM: dict[str, Any] = dict(beta1=0.9, beta2=0.999, eps=1e-8)
RMSPROP: dict[str, Any] = dict(alpha=0.99, eps=1e-8, momentum=0.9)
# name -> (kernel, its attributes, its state, torch's step)
RULES: dict[str, tuple[str, dict[str, Any], list[str], Step]] = {
    "adam": ("adam", dict(ADAM, decoupled=0), ["exp_avg", "exp_avg_sq"],
             lambda s, g, t, d: _torch_adam(s, g, t, d, decoupled=False)),
    "adamw": ("adam", dict(ADAM, decoupled=1), ["exp_avg", "exp_avg_sq"],
              lambda s, g, t, d: _torch_adam(s, g, t, d, decoupled=True)),
    "sgd": ("sgd", dict(momentum=0.9), ["momentum_buffer"],
            lambda s, g, t, d: _torch_sgd(s, g, t, d, nesterov=False)),
    "nesterov": ("sgd", dict(momentum=0.9, nesterov=1), ["momentum_buffer"],
                 lambda s, g, t, d: _torch_sgd(s, g, t, d, nesterov=True)),
    "rmsprop": ("rmsprop", RMSPROP, ["square_avg", "momentum_buffer"], _torch_rmsprop),
}  # fmt: skip


class Valley:
    """Gradients of a badly scaled quadratic with noise; every run sees the same noise."""

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        self.curvature = 10.0 ** rng.uniform(-3, 0.5, N)
        self.noise = rng.standard_normal((STEPS, N))
        self.start = rng.standard_normal(N)

    def gradient(self, param: Array, t: int) -> Array:
        return (self.curvature * param.astype(np.float64) + 0.1 * self.noise[t - 1]).astype(param.dtype)


def _state(valley: Valley, names: list[str], dtype: type) -> dict[str, Array]:
    return {"param": valley.start.astype(dtype), **{name: np.zeros(N, dtype) for name in names}}


def _begin(isa: str, counter: Array, **fields: Any) -> Array:
    defaults = dict(scalars=np.full(8, np.nan), counter=counter, n_counter=1, beta1=0.9, beta2=0.999)
    return run("optimizer_begin", isa, groups=(LR, DECAY), **{**defaults, **fields}).scalars


@pytest.mark.parametrize("rule", RULES)
@units
def test_200_steps_stay_as_close_to_float64_as_torch(isa: str, dtype: type, rule: str) -> None:
    kernel, attributes, names, torch_step = RULES[rule]
    valley = Valley()
    exact, rounded = _state(valley, names, np.float64), _state(valley, names, np.float32)
    ours, counter = _state(valley, names, dtype), np.zeros(1, np.int64)
    for t in range(1, STEPS + 1):
        torch_step(exact, valley.gradient(exact["param"], t), t, np.float64)
        torch_step(rounded, valley.gradient(rounded["param"], t), t, np.float32)
        grad = valley.gradient(ours["param"], t)
        run(kernel, isa, n=N, grad=grad, scalars=_begin(isa, counter), **ours, **attributes)
    assert counter[0] == STEPS
    error, error_of_torch = (
        np.sqrt(np.mean((state["param"] - exact["param"]) ** 2)) for state in (ours, rounded)
    )
    assert error <= (2 * error_of_torch if dtype is np.float32 else 1e-13)


@pytest.mark.parametrize("rule", RULES)
@units
def test_a_skipped_step_touches_nothing(isa: str, dtype: type, rule: str) -> None:
    kernel, attributes, names, _ = RULES[rule]
    counter = np.array([5], np.int64)
    scalars = _begin(isa, counter, total=np.zeros(1))
    assert scalars[0] == 1 and counter[0] == 5
    state = _state(Valley(), names, dtype)
    before = {name: value.copy() for name, value in state.items()}
    run(kernel, isa, n=N, grad=np.full(N, np.nan, dtype), scalars=scalars, **state, **attributes)
    assert all(same_bits(before[name], state[name]) for name in state)


@pytest.mark.parametrize("rule", RULES)
@units
def test_an_element_has_the_same_bits_wherever_it_stands(isa: str, dtype: type, rule: str) -> None:
    """Long runs begin at a boundary of vectors, wherever that is."""
    kernel, attributes, names, _ = RULES[rule]
    count = 9001
    rng = np.random.default_rng(3)
    scalars = _begin(isa, np.array([9], np.int64))
    state = {name: np.abs(rng.standard_normal(count)).astype(dtype) for name in ("param", *names)}
    grad = rng.standard_normal(count).astype(dtype)
    whole = {name: value.copy() for name, value in state.items()}
    run(kernel, isa, n=count, grad=grad, scalars=scalars, **whole, **attributes)
    for begin, end in ((0, 1), (1, 8), (8, 30), (30, 4500), (4500, count)):
        piece = {name: value[begin:end].copy() for name, value in state.items()}
        run(kernel, isa, n=end - begin, grad=grad[begin:end].copy(), scalars=scalars, **piece, **attributes)
        assert all(same_bits(whole[name][begin:end], piece[name]) for name in state)


@units
def test_first_step_of_momentum_is_the_gradient(isa: str, dtype: type) -> None:
    param, grad = np.ones(9, dtype), np.arange(9, dtype=dtype)
    buffer = np.zeros(9, dtype)
    scalars = np.array([0, 1, 0, 1, 1, 1, 1, 0], np.float64)
    run("sgd", isa, n=9, param=param, momentum_buffer=buffer, grad=grad, scalars=scalars, momentum=0.9)
    assert same_bits(buffer, grad)
    assert same_bits(param, (1 - grad).astype(dtype))


@units
def test_begin_counts_corrects_and_reads_its_group(isa: str, dtype: type) -> None:
    counter, scalars = np.full(4, 41, np.int64), np.empty(8)
    fields = dict(scalars=scalars, counter=counter, total=np.array([3.0]), group=1, beta1=0.9, beta2=0.999)
    run("optimizer_begin", isa, groups=(1.0, 2.0, 0.25, 0.5), n_counter=3, **fields)
    assert counter.tolist() == [42, 42, 42, 41]  # those of its segment
    np.testing.assert_allclose(
        scalars, [0, 0.25, 0.5, 1, 1 - 0.9**42, np.sqrt(1 - 0.999**42), 42, 0], rtol=1e-15
    )


@pytest.mark.parametrize(
    ("squares", "clip_norm", "scale"),
    [
        ([9.0, 16.0], 1.0, 1 / (5 + 1e-6)),
        ([9.0, 16.0], 5.1, 1.0),
        ([9.0, 16.0], 0.0, 1.0),  # 0: not clipped
        ([0.0, 0.0], 1.0, 1.0),
        ([np.inf, 0.0], 1.0, 0.0),
        ([np.nan, 0.0], 1.0, np.nan),  # as torch: a NaN in the norm spoils the step, so that it is seen
    ],
)
@units
def test_clipping_scales_as_clip_grad_norm(
    isa: str, dtype: type, squares: list[float], clip_norm: float, scale: float
) -> None:
    partial = np.array([*squares, 1e9])  # the last is beyond n_partial
    scalars = _begin(isa, np.zeros(1, np.int64), partial=partial, n_partial=2, clip_norm=clip_norm)
    np.testing.assert_allclose(scalars[3], scale, rtol=1e-15)
    np.testing.assert_allclose(scalars[7], np.sqrt(sum(squares)), rtol=1e-15)
