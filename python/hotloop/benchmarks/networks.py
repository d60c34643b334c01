# SPDX-License-Identifier: Apache-2.0
"""The networks that training is measured on, with their data, first weights and operation counts.

From a network whose step is a few microseconds of arithmetic to one of a hundred milliseconds. Everything is
made from one seed, so that every contestant, in a process of its own, makes the same numbers.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
#: One (fan_in, fan_out) matrix and one (fan_out,) bias per layer.
Weights = list[tuple[Floats, Floats]]

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Network:
    """A fully connected network and the epoch it is trained on; the last layer has no activation.

    sizes     of the layers, input and output included
    batch     rows of a step
    steps     of an epoch
    """

    sizes: tuple[int, ...]
    batch: int
    steps: int
    loss: Literal["cross_entropy", "mse"] = "cross_entropy"
    activation: Literal["relu", "tanh"] = "relu"

    @property
    def key(self) -> str:
        """The sizes as text, a run of equal layers as one.

        >>> Network((28, 300, 300, 300, 2), batch=100, steps=1).key
        '28-300x3-2'
        """
        parts: list[tuple[int, int]] = []
        for size in self.sizes:
            same = parts and parts[-1][0] == size and len(parts) > 1
            parts = [*parts[:-1], (size, parts[-1][1] + 1)] if same else [*parts, (size, 1)]
        # Two equal layers read better in full: 10-32-32-10.
        text = [f"{size}x{n}" if n > 2 else "-".join([str(size)] * n) for size, n in parts]
        return "-".join(text)

    @property
    def name(self) -> str:
        return f"{self.key}, batch {self.batch}"

    @property
    def rows(self) -> int:
        return self.batch * self.steps

    @property
    def layers(self) -> list[tuple[int, int]]:
        return list(itertools.pairwise(self.sizes))

    @property
    def parameters(self) -> int:
        return sum(fan_in * fan_out + fan_out for fan_in, fan_out in self.layers)

    @property
    def flops_per_step(self) -> float:
        """Products alone: forward, weight gradient and input gradient of each layer, at 2 operations per
        multiply-add, less the input gradient of the first, which nobody needs.

        flops = 2 batch (3 sum_l in_l out_l - in_1 out_1)
        """
        macs = [fan_in * fan_out for fan_in, fan_out in self.layers]
        return 2.0 * self.batch * (3 * sum(macs) - macs[0])

    def data(self) -> tuple[Floats, NDArray[Any]]:
        """X (rows, sizes[0]) float32 and a target that a linear rule of X explains: int64 labels (rows,),
        or float32 (rows, sizes[-1]) for mse."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, self.sizes[0]), dtype=np.float32)
        rule = rng.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)
        scores = x @ (rule / np.float32(np.sqrt(self.sizes[0])))
        return x, np.argmax(scores, axis=1) if self.loss == "cross_entropy" else scores

    def weights(self) -> Weights:
        """First weights, uniform within 1 / sqrt(fan_in), as torch's Linear begins."""
        rng = np.random.default_rng(1)
        found = []
        for fan_in, fan_out in self.layers:
            bound = 1 / np.sqrt(fan_in)
            w = rng.uniform(-bound, bound, (fan_in, fan_out)).astype(np.float32)
            found.append((w, rng.uniform(-bound, bound, fan_out).astype(np.float32)))
        return found


def loss_value(network: Network, weights: Weights) -> float:
    """The mean loss over all rows, in float64: one judge for every contestant's weights."""
    data, target = network.data()
    x = data.astype(np.float64)
    for index, (w, b) in enumerate(weights):
        x = x @ w + b
        if index < len(weights) - 1:
            x = np.maximum(x, 0) if network.activation == "relu" else np.tanh(x)
    if network.loss == "mse":
        return float(np.mean((x - target) ** 2))
    top = x.max(axis=1, keepdims=True)
    log_sum = np.log(np.exp(x - top).sum(axis=1)) + top[:, 0]
    return float(np.mean(log_sum - x[np.arange(len(x)), target]))


#: The epoch of the first is scikit-learn's digits; the others have enough rows for a shuffle to cost what it
#: does in earnest, and few enough for an epoch of the largest to stay below a second.
NETWORKS = (
    Network((64, 128, 10), batch=32, steps=56),
    Network((10, 32, 32, 10), batch=128, steps=56),
    Network((10, 45, 45, 10), batch=128, steps=56),
    Network((10, 46, 46, 10), batch=128, steps=56),
    Network((4, 120, 84, 2), batch=32, steps=56),
    Network((784, 30, 10), batch=32, steps=56),
    Network((28, 300, 300, 300, 300, 300, 2), batch=100, steps=32),
    Network((784, 512, 512, 10), batch=128, steps=16),
    Network((1024, 4096, 1024), batch=512, steps=8, loss="mse"),
)


def selected(names: str | None) -> tuple[Network, ...]:
    """The networks of a comma-separated list of keys such as ``64-128-10,784-30-10``; None: all.

    Raises `ValueError` for a key that is not known.
    """
    if names is None:
        return NETWORKS
    known = {network.key: network for network in NETWORKS}
    wanted = [name.strip() for name in names.split(",")]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(
            f"[bench] no network {unknown[0]!r}; allowed: {', '.join(known)}; write them with commas between"
        )
    return tuple(known[name] for name in wanted)
