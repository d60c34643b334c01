# SPDX-License-Identifier: Apache-2.0
"""Networks, batch sizes and thread counts drawn at random: the bits of a run depend on none of the latter,
and predictions on no batch. Thousands of runs, so they are not part of every change.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hotloop as hl

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1800)]

SLOW = settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
LAYERS = {
    "relu": hl.nn.ReLU,
    "gelu": hl.nn.GELU,
    "tanh": hl.nn.Tanh,
    "dropout": lambda: hl.nn.Dropout(0.3),
}

widths = st.lists(st.integers(1, 130), min_size=1, max_size=3)
kinds = st.lists(st.sampled_from(sorted(LAYERS)), min_size=0, max_size=2)


def network(features: int, hidden: list[int], kinds: list[str], classes: int, norm: bool) -> Any:
    layers: list[Any] = []
    for width in hidden:
        layers.append(hl.nn.Linear(features, width))
        layers += [hl.nn.LayerNorm(width)] if norm else []
        layers += [LAYERS[kind]() for kind in kinds]
        features = width
    return hl.nn.Sequential(*layers, hl.nn.Linear(features, classes))


def data(rows: int, features: int, classes: int) -> tuple[Any, Any]:
    rng = np.random.default_rng(rows * 1000 + features)
    return rng.standard_normal((rows, features), dtype=np.float32), rng.integers(0, classes, rows)


@SLOW
@given(
    rows=st.integers(3, 300), features=st.integers(1, 70), hidden=widths, kinds=kinds, classes=st.integers(2, 20),
    batch=st.integers(1, 100), threads=st.integers(2, 7), norm=st.booleans(), frozen=st.integers(0, 2**16),
)  # fmt: skip
def test_threads_change_no_bit(
    rows: int,
    features: int,
    hidden: list[int],
    kinds: list[str],
    classes: int,
    batch: int,
    threads: int,
    norm: bool,
    frozen: int,
) -> None:
    x, y = data(rows, features, classes)
    states = []
    for count in (1, threads):
        model = network(features, hidden, kinds, classes, norm)
        for i, parameter in enumerate(list(model.parameters())[:-1]):  # the last bias is always trained
            parameter.frozen = bool(frozen >> i & 1)
        trainer = hl.Trainer(model, loss="cross_entropy", threads=count, seed=5, progress=False)
        trainer.fit(x, y, epochs=2, batch_size=batch)
        states.append({name: value.copy() for name, value in model.state_dict().items()})
    for name, value in states[0].items():
        np.testing.assert_array_equal(value.view(np.uint32), states[1][name].view(np.uint32), err_msg=name)


@SLOW
@given(
    rows=st.integers(2, 200),
    features=st.integers(1, 70),
    hidden=widths,
    kinds=kinds,
    part=st.integers(1, 199),
)
def test_a_row_predicts_the_same_bits_in_any_batch(
    rows: int, features: int, hidden: list[int], kinds: list[str], part: int
) -> None:
    x, y = data(rows, features, 3)
    trainer = hl.Trainer(
        network(features, hidden, kinds, 3, norm=False), loss="cross_entropy", progress=False
    )
    trainer.fit(x, y, epochs=1, batch_size=16)
    whole = trainer.predict(x)
    begin = part % rows
    np.testing.assert_array_equal(trainer.predict(x[begin:]), whole[begin:])
    np.testing.assert_array_equal(trainer.predict(x[begin : begin + 1]), whole[begin : begin + 1])
