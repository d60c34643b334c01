# SPDX-License-Identifier: Apache-2.0
"""How parameters begin: torch's distributions, one stream per parameter, the same on every run."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hotloop import nn
from hotloop.nn import init


def test_linear_is_uniform_within_its_bound() -> None:
    layer = nn.Linear(100, 400).initialize(0)
    for values in (layer.weight.data, layer.bias.data):
        assert values.dtype == np.float32
        assert np.abs(values).max() <= 0.1
        assert np.abs(values).max() > 0.098
        # a uniform variable on [-b, b) has variance b^2 / 3; four standard errors
        assert abs(values.mean()) < 4 * 0.1 / math.sqrt(3 * values.size)
        assert values.var() == pytest.approx(0.01 / 3, rel=4 * math.sqrt(0.8 / values.size))


def test_embedding_is_standard_normal() -> None:
    values = np.sort(nn.Embedding(100, 501).initialize(0).weight.data.reshape(-1).astype(np.float64))
    n = values.size
    expected = 0.5 * (1 + np.array([math.erf(v / math.sqrt(2)) for v in values]))
    # Kolmogorov and Smirnov: 1.95 / sqrt(n) is exceeded once in a thousand
    distance = np.abs(expected - (np.arange(n) + 0.5) / n).max()
    assert distance < 1.95 / math.sqrt(n)
    assert values.max() > 3.5


def test_norms_begin_neutral() -> None:
    for layer in (nn.LayerNorm(5), nn.RMSNorm(5), nn.BatchNorm1d(5)):
        assert (layer.initialize(3).weight.data == 1).all()
    assert (nn.BatchNorm1d(5).state_dict()["running_var"] == 1).all()
    assert (nn.LayerNorm(5).initialize(3).bias.data == 0).all()


def test_the_same_seed_gives_the_same_bits() -> None:
    def make(seed: int) -> dict[str, np.ndarray]:
        return nn.Sequential(nn.Linear(4, 3), nn.Embedding(5, 2)).initialize(seed).state_dict()

    for name, array in make(7).items():
        np.testing.assert_array_equal(array, make(7)[name])
        assert not np.array_equal(array, make(8)[name])


def test_streams_belong_to_positions() -> None:
    short = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)).initialize(1).state_dict()
    long = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)).initialize(1).state_dict()
    for name, array in short.items():
        np.testing.assert_array_equal(array, long[name])
    assert not np.array_equal(long["0.weight"], long["1.weight"])


def test_known_values() -> None:
    # NumPy promises that raw streams do not change; these pin our use of them
    words = np.random.Philox(key=np.array([5, 2], np.uint64)).random_raw(3)
    expected = [np.float32(0.5 * (2 * (int(w) >> 40) * 2.0**-24 - 1)) for w in words]
    np.testing.assert_array_equal(init.Uniform(0.5).sample((3,), init.stream(5, 2)), expected)


def test_uninitialized_modules_begin_with_seed_0() -> None:
    fresh, explicit = nn.Linear(3, 3), nn.Linear(3, 3).initialize(0)
    assert not fresh.is_initialized
    np.testing.assert_array_equal(fresh.state_dict()["weight"], explicit.state_dict()["weight"])
    assert fresh.is_initialized


def test_a_single_parameter_read_early_keeps_its_values() -> None:
    layer = nn.Linear(3, 3)
    early = layer.weight.data.copy()
    layer.initialize(4, overwrite=False)
    np.testing.assert_array_equal(layer.weight.data, early)
    np.testing.assert_array_equal(layer.bias.data, nn.Linear(3, 3).initialize(4).bias.data)
    assert not np.array_equal(layer.initialize(4).weight.data, early)


def test_initialize_resets_buffers() -> None:
    norm = nn.BatchNorm1d(2).initialize(0)
    norm.running_mean.data[...] = 5.0
    norm.num_batches_tracked.data[...] = 3
    norm.initialize(0, overwrite=False)
    assert norm.num_batches_tracked.data == 3
    norm.initialize(0)
    assert (norm.running_mean.data == 0).all()
    assert norm.num_batches_tracked.data == 0


def test_odd_sizes_of_normal() -> None:
    three = init.Normal(2.0).sample((3,), init.stream(0, 0))
    four = init.Normal(2.0).sample((4,), init.stream(0, 0))
    np.testing.assert_array_equal(three, four[:3])
    assert np.isfinite(four).all()
