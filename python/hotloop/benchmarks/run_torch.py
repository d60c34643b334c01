# SPDX-License-Identifier: Apache-2.0
"""torch's runners: the usual training loop, eager or compiled, at its fastest settings.

Eager: AdamW(fused=True), gradients set to None, no reading of the loss inside the loop. Compiled: the whole
forward with the loss is one graph (and so is its backward); the update is the fused one, or compiled too. On a GPU
(", cuda") data and the order of the rows are there; ", cuda bf16" computes products under autocast.
"""

from __future__ import annotations

import importlib
import time
from typing import Any

import numpy as np
import torch

from hotloop.benchmarks.networks import LEARNING_RATE, Network, Weights


def prepare(contestant: str, threads: int | None) -> None:
    torch.set_num_threads(threads or 1)
    if "compiled" in contestant:  # 2 s of imports, which are no part of a first step
        importlib.import_module("torch._inductor.compile_fx")


def make(network: Network, contestant: str, threads: int | None) -> TorchRunner:
    return TorchRunner(network, contestant)


class TorchRunner:
    def __init__(self, network: Network, contestant: str) -> None:
        self.network = network
        compiled, compiled_update = "compiled" in contestant, "update" in contestant
        self.device = "cuda" if ", cuda" in contestant else "cpu"
        if self.device == "cuda" and not torch.cuda.is_available():
            raise RuntimeError("torch sees no GPU")
        self.x, self.y = (torch.from_numpy(array).to(self.device) for array in network.data())
        layers: list[Any] = []
        for fan_in, fan_out in network.layers:
            layers += [
                torch.nn.Linear(fan_in, fan_out),
                torch.nn.ReLU() if network.activation == "relu" else torch.nn.Tanh(),
            ]
        self.model = torch.nn.Sequential(*layers[:-1]).to(self.device)
        # A rate in a tensor is data to the compiler; a number would be compiled in.
        rate = torch.tensor(LEARNING_RATE) if compiled_update else LEARNING_RATE
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=rate, fused=not compiled_update, capturable="graph" in contestant
        )
        loss = torch.nn.functional.cross_entropy
        if network.loss == "mse":
            loss = torch.nn.functional.mse_loss

        def plain_loss(x: Any, y: Any) -> Any:
            return loss(self.model(x), y)

        def loss_in_bf16(x: Any, y: Any) -> Any:
            with torch.autocast(self.device, torch.bfloat16):
                return loss(self.model(x), y)

        loss_of = loss_in_bf16 if "bf16" in contestant else plain_loss

        self.loss_of = torch.compile(loss_of, fullgraph=True, dynamic=False) if compiled else loss_of
        self.update: Any = self.optimizer.step
        if compiled_update:
            self.update = torch.compile(lambda: self.optimizer.step())
        self.reset()

    def reset(self) -> None:
        with torch.no_grad():
            for index, (w, b) in enumerate(self.network.weights()):
                layer = self.model[2 * index]
                layer.weight.copy_(torch.from_numpy(w.T))
                layer.bias.copy_(torch.from_numpy(b))
        for state in self.optimizer.state.values():  # in place: compiled code holds on to these tensors
            for value in state.values():
                value.zero_()

    def _step(self, x: Any, y: Any) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_of(x, y).backward()
        self.update()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def first_step(self) -> float:
        begin = time.perf_counter()
        batch = self.network.batch
        self._step(self.x[:batch].clone(), self.y[:batch].clone())
        self.wait()
        return time.perf_counter() - begin

    def run(self, epochs: int, *, shuffle: bool) -> None:
        network = self.network
        for _ in range(epochs):
            draw = torch.randperm if shuffle else torch.arange
            order = draw(network.rows, device=self.device)
            for begin in range(0, network.rows, network.batch):
                self.train_on(order[begin : begin + network.batch])
        self.wait()

    def train_on(self, rows: Any) -> None:
        self._step(self.x[rows], self.y[rows])

    def weights(self) -> Weights:
        layers = [self.model[2 * i] for i in range(len(self.network.layers))]
        return [
            (np.array(m.weight.detach().cpu().numpy().T), np.array(m.bias.detach().cpu().numpy()))
            for m in layers
        ]
