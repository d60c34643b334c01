# SPDX-License-Identifier: Apache-2.0
"""Optimisers as data: defaults, checks, what the compiler and the files get from them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hotloop import optim
from hotloop.compile.plan import OptimizerSpec
from hotloop.optim import SGD, Adam, AdamW, RMSprop

ALL = [AdamW(), Adam(), SGD(), SGD(0.1, 0.9, nesterov=True), RMSprop(), RMSprop(momentum=0.9)]


def test_defaults_are_those_of_torch() -> None:
    assert AdamW() == AdamW(1e-3, (0.9, 0.999), eps=1e-8, weight_decay=1e-2, decay="all")
    assert Adam().weight_decay == 0
    assert SGD(0.1) == SGD(0.1, 0.0, nesterov=False, weight_decay=0.0)
    assert RMSprop() == RMSprop(1e-2, 0.99, eps=1e-8, weight_decay=0.0, momentum=0.0)


def test_adam_and_adamw_are_different_things() -> None:
    assert AdamW(weight_decay=0.1) != Adam(weight_decay=0.1)
    assert not isinstance(Adam(), AdamW)


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (AdamW(), ("exp_avg", "exp_avg_sq")),
        (Adam(), ("exp_avg", "exp_avg_sq")),
        (SGD(0.1), ()),
        (SGD(0.1, 0.9), ("momentum_buffer",)),
        (RMSprop(), ("square_avg",)),
        (RMSprop(momentum=0.5), ("square_avg", "momentum_buffer")),
    ],
)
def test_moments_carry_the_names_of_torch(optimizer: optim.Optimizer, names: tuple[str, ...]) -> None:
    assert optimizer.state_names == names
    assert optimizer.n_moments == len(names)


def test_spec_holds_what_shapes_the_steps_and_no_more() -> None:
    assert Adam(0.5, (0.8, 0.9), eps=1e-6, weight_decay=0.1, decay="weights").spec() == OptimizerSpec(
        "adam", beta1=0.8, beta2=0.9, eps=1e-6, decay="weights"
    )
    assert AdamW(1e-3).spec() == AdamW(1e-2, weight_decay=0.5).spec()  # both vary by step
    assert SGD(0.1, 0.9, nesterov=True).spec() == OptimizerSpec("sgd", momentum=0.9, nesterov=True)
    expected = OptimizerSpec("rmsprop", eps=1e-7, momentum=0.2, alpha=0.9)
    assert RMSprop(0.1, 0.9, eps=1e-7, momentum=0.2).spec() == expected


@pytest.mark.parametrize("optimizer", ALL, ids=repr)
def test_json_round_trip(optimizer: optim.Optimizer) -> None:
    assert optim.from_dict(json.loads(json.dumps(optimizer.to_dict()))) == optimizer


@pytest.mark.parametrize("cls", [AdamW, Adam, SGD, RMSprop])
@pytest.mark.parametrize(
    "parameters", [iter([np.zeros(3)]), [np.zeros(3)], (x for x in ()), np.zeros(3), {"a": 1}]
)
def test_parameters_instead_of_a_learning_rate_get_the_right_form_as_answer(
    cls: Any, parameters: Any
) -> None:
    form = rf"hl\.Trainer\(model, optimizer=hl\.optim\.{cls.__name__}\(lr=1e-3\)\)"
    with pytest.raises(TypeError, match=form):
        cls(parameters)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: AdamW(-1e-3), ValueError, r"\[AdamW\] lr .* >= 0, got -0.001"),
        (lambda: AdamW(float("nan")), ValueError, "lr"),
        (lambda: AdamW(float("inf")), ValueError, "lr"),
        (lambda: AdamW("1e-3"), TypeError, "lr must be a number"),
        (lambda: AdamW(True), TypeError, "lr must be a number"),
        (lambda: AdamW(1e-3, (0.9, 1.0)), ValueError, r"betas\[1\] must be in \[0, 1\)"),
        (lambda: AdamW(1e-3, (-0.1, 0.9)), ValueError, r"betas\[0\]"),
        (lambda: AdamW(1e-3, 0.9), TypeError, "betas must be a pair"),
        (lambda: Adam(eps=-1), ValueError, "eps"),
        (lambda: Adam(eps=0), ValueError, "eps must be > 0 in float32, got 0"),
        (lambda: RMSprop(eps=1e-40), ValueError, "eps must be > 0 in float32"),
        (lambda: Adam(weight_decay=-1), ValueError, "weight_decay"),
        (lambda: Adam(decay="biases"), ValueError, "decay must be one of 'all', 'weights'"),
        (lambda: SGD(0.1, 1.0), ValueError, "momentum"),
        (lambda: SGD(0.1, nesterov=True), ValueError, "nesterov=True needs momentum"),
        (lambda: SGD(0.1, 0.9, nesterov=1), TypeError, "nesterov"),
        (lambda: RMSprop(alpha=1.0), ValueError, "alpha"),
        (lambda: optim.resolve("adamax"), ValueError, "adam, sgd, rmsprop"),
        (lambda: optim.resolve(AdamW), TypeError, r"write hl.optim.AdamW\(\)"),
        (lambda: optim.resolve(1e-3), TypeError, "an optimizer is one of"),
        (lambda: optim.from_dict({"kind": "lion"}), ValueError, "unknown optimizer 'lion'"),
    ],
)
def test_bad_arguments(make: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        make()


def test_numpy_numbers_become_python_numbers() -> None:
    optimizer = AdamW(np.float64(0.5), [np.float32(0.5), 0])  # type: ignore[arg-type]
    assert optimizer == AdamW(0.5, (0.5, 0.0))
    assert type(optimizer.lr) is float
    assert all(type(beta) is float for beta in optimizer.betas)


@pytest.mark.parametrize(
    ("name", "optimizer"), [("adamw", AdamW()), ("Adam", Adam()), ("sgd", SGD()), ("rmsprop", RMSprop())]
)
def test_names(name: str, optimizer: optim.Optimizer) -> None:
    assert optim.resolve(name) == optimizer
    assert optim.resolve(optimizer) is optimizer
