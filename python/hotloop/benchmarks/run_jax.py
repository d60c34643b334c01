# SPDX-License-Identifier: Apache-2.0
"""JAX's runner: jit around all epochs of a call, `lax.scan` over the steps, state donated.

The order of the rows is drawn on the device: by one sort of random bits, or by `jax.random.permutation`, which
is what one would write at first but sorts twice. AdamW is written out; nothing is returned but the state,
so that the compiler may drop the loss's value. A process has as many threads as it may use processors.
"""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hotloop.benchmarks.networks import LEARNING_RATE, Network, Weights

BETA1, BETA2, EPSILON, DECAY = 0.9, 0.999, 1e-8, 1e-2


def prepare(contestant: str, threads: int | None) -> None:
    """XLA sizes its pools by the affinity; it reads it at its first use, which is still to come."""
    if threads is not None:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-threads:])


def make(network: Network, contestant: str, threads: int | None) -> JaxRunner:
    if ", cuda" in contestant and jax.default_backend() != "gpu":
        raise RuntimeError("JAX sees no GPU")
    return JaxRunner(network, one_sort="permutation" not in contestant)


def _loss(network: Network, params: Any, x: Any, y: Any) -> Any:
    *hidden, last = params
    for w, b in hidden:
        x = jax.nn.relu(x @ w + b) if network.activation == "relu" else jnp.tanh(x @ w + b)
    z = x @ last[0] + last[1]
    if network.loss == "mse":
        return jnp.mean((z - y) ** 2)
    return jnp.mean(jax.nn.logsumexp(z, axis=1) - jnp.take_along_axis(z, y[:, None], 1)[:, 0])


def _adamw(state: Any, gradients: Any) -> Any:
    """theta (1 - lr decay) - lr m_hat / (sqrt(v_hat) + eps), leaf by leaf."""
    params, m, v, t = state
    t = t + 1
    m = jax.tree.map(lambda a, g: BETA1 * a + (1 - BETA1) * g, m, gradients)
    v = jax.tree.map(lambda a, g: BETA2 * a + (1 - BETA2) * g * g, v, gradients)
    rate, root = LEARNING_RATE / (1 - BETA1**t), jnp.sqrt(1 - BETA2**t)

    def update(p: Any, a: Any, b: Any) -> Any:
        return p * (1 - LEARNING_RATE * DECAY) - rate * a / (jnp.sqrt(b) / root + EPSILON)

    return jax.tree.map(update, params, m, v), m, v, t


def _drawn(key: Any, rows: int, *, one_sort: bool) -> Any:
    if not one_sort:
        return jax.random.permutation(key, rows)
    return jnp.argsort(jax.random.bits(key, (rows,)))


def _train(
    network: Network, one_sort: bool, state: Any, x: Any, y: Any, key: Any, epochs: Any, shuffle: Any
) -> Any:
    def step(state: Any, rows: Any) -> tuple[Any, None]:
        gradients = jax.grad(lambda params: _loss(network, params, x[rows], y[rows]))(state[0])
        return _adamw(state, gradients), None

    def epoch(index: Any, state: Any) -> Any:
        order = lax.cond(
            shuffle,
            lambda: _drawn(jax.random.fold_in(key, index), network.rows, one_sort=one_sort).astype(jnp.int32),
            lambda: jnp.arange(network.rows, dtype=jnp.int32),
        )
        return lax.scan(step, state, order.reshape(network.steps, network.batch))[0]

    return lax.fori_loop(0, epochs, epoch, state)


class JaxRunner:
    def __init__(self, network: Network, *, one_sort: bool) -> None:
        self.network = network
        self.one_sort = one_sort
        x, y = network.data()
        self.x, self.y = jnp.asarray(x), jnp.asarray(y)
        self.key = jax.random.key(0)
        self.calls = 0
        self.compiled: Any = None
        self.reset()

    def reset(self) -> None:
        params = [(jnp.asarray(w), jnp.asarray(b)) for w, b in self.network.weights()]
        zeros = [jax.tree.map(jnp.zeros_like, params) for _ in range(2)]
        self.state: Any = (params, *zeros, jnp.float32(0))

    def first_step(self) -> float:
        """Compilation of the whole loop and a step's share of its first epoch."""
        begin = time.perf_counter()
        train = jax.jit(partial(_train, self.network, self.one_sort), donate_argnums=0)
        self.compiled = train.lower(self.state, self.x, self.y, self.key, 1, True).compile()
        compiled = time.perf_counter() - begin
        self.run(1, shuffle=True)
        return compiled + (time.perf_counter() - begin - compiled) / self.network.steps

    def run(self, epochs: int, *, shuffle: bool) -> None:
        self.calls += 1
        key = jax.random.fold_in(self.key, self.calls)
        self.state = self.compiled(self.state, self.x, self.y, key, epochs, shuffle)
        jax.block_until_ready(self.state)

    def weights(self) -> Weights:
        return [(np.array(w), np.array(b)) for w, b in self.state[0]]
