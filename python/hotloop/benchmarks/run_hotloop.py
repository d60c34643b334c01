# SPDX-License-Identifier: Apache-2.0
"""hotloop's runner: whole calls of `Trainer.fit`, with everything a user pays for.

Checks of the data, history, the copy for a rollback and one native call per epoch are all inside.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

import hotloop as hl
from hotloop.benchmarks.networks import LEARNING_RATE, Network, Weights

#: The variant that scikit-learn, which has no AdamW, is compared with before timing.
ADAM = "hotloop, Adam"


def prepare(contestant: str, threads: int | None) -> None:
    """Nothing to limit: the trainer takes its thread count."""
    assert hl.Trainer is not None  # loaded here, so that its import is no part of a first step


def make(network: Network, contestant: str, threads: int | None) -> HotloopRunner:
    """``contestant``: "hotloop", "hotloop, Adam", "hotloop, cuda", "hotloop, cuda bf16", "hotloop, simt"."""
    device, _, precision = contestant.partition(", ")[2].partition(" ")
    if device in ("", "Adam"):
        return HotloopRunner(network, threads, adam=contestant == ADAM)
    return HotloopRunner(network, threads, device=device, precision=precision or "float32")


class HotloopRunner:
    def __init__(
        self, network: Network, threads: int | None, *, adam: bool = False, device: str = "cpu",
        precision: str = "float32",
    ) -> None:  # fmt: skip
        self.network = network
        self.threads = threads
        self.adam = adam
        self.where: Any = {"device": device, "precision": precision}
        self.x, self.y = network.data()
        self.reset()

    def reset(self) -> None:
        network = self.network
        layers: list[hl.nn.Module] = []
        for fan_in, fan_out in network.layers:
            layers += [
                hl.nn.Linear(fan_in, fan_out),
                hl.nn.ReLU() if network.activation == "relu" else hl.nn.Tanh(),
            ]
        self.model = hl.nn.Sequential(*layers[:-1])
        state: dict[str, Any] = {}
        for index, (w, b) in enumerate(network.weights()):
            state |= {f"{2 * index}.weight": np.ascontiguousarray(w.T), f"{2 * index}.bias": b}
        self.model.load_state_dict(state)
        optimizer = hl.optim.Adam(LEARNING_RATE) if self.adam else hl.optim.AdamW(LEARNING_RATE)
        self.trainer = hl.Trainer(
            self.model, loss=network.loss, optimizer=optimizer, threads=self.threads, progress=False,
            **self.where,
        )  # fmt: skip

    def first_step(self) -> float:
        begin = time.perf_counter()
        batch = self.network.batch
        self.trainer.fit(self.x[:batch], self.y[:batch], epochs=1, batch_size=batch)
        return time.perf_counter() - begin

    def run(self, epochs: int, *, shuffle: bool) -> None:
        self.trainer.fit(
            self.x, self.y, epochs=epochs, batch_size=self.network.batch, shuffle=shuffle,
            reset_optimizer=False,
        )  # fmt: skip

    def weights(self) -> Weights:
        state = self.model.state_dict()
        count = len(self.network.layers)
        return [
            (np.array(state[f"{2 * i}.weight"], np.float32).T, np.array(state[f"{2 * i}.bias"], np.float32))
            for i in range(count)
        ]
