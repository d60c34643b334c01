# SPDX-License-Identifier: Apache-2.0
"""torch with the whole step in one CUDA graph: gather, forward, backward and update, replayed for each batch.

What an expert does by hand where the host's launches are the limit: the rows of a batch are copied into a tensor
that the graph reads, everything else is in the graph.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from hotloop.benchmarks import run_torch
from hotloop.benchmarks.networks import Network

WARM_UP = 3  # steps before a capture: torch's libraries make their workspaces

prepare = run_torch.prepare


def make(network: Network, contestant: str, threads: int | None) -> GraphRunner:
    return GraphRunner(network, contestant)


class GraphRunner(run_torch.TorchRunner):
    graph: Any = None

    def first_step(self) -> float:
        begin = time.perf_counter()
        self.rows = torch.arange(self.network.batch, device=self.device)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._step(self.x[self.rows], self.y[self.rows])
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)  # gradients live in the graph's memory
        with torch.cuda.graph(self.graph):
            self.loss_of(self.x[self.rows], self.y[self.rows]).backward()
            self.update()
        self.graph.replay()
        self.wait()
        return time.perf_counter() - begin

    def train_on(self, rows: Any) -> None:
        # backward adds to gradients that it finds; captured without any, it writes them anew in every replay
        self.rows.copy_(rows)
        self.graph.replay()
