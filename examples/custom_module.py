# SPDX-License-Identifier: Apache-2.0
"""A residual network of one's own: subclass Module, write forward once, and it is traced and compiled."""

from __future__ import annotations

import numpy as np

import hotloop as hl
from hotloop.trace import Tensor


class Residual(hl.nn.Module):
    """``x + f(norm(x))`` with a hidden layer in f: (rows, width) to (rows, width)."""

    def __init__(self, width: int, hidden: int) -> None:
        self.norm = hl.nn.LayerNorm(width)
        self.up = hl.nn.Linear(width, hidden)
        self.down = hl.nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(hl.nn.functional.gelu(self.up(self.norm(x))))


class Network(hl.nn.Module):
    def __init__(self, n_in: int, width: int, depth: int, n_out: int) -> None:
        self.embed = hl.nn.Linear(n_in, width)
        self.blocks = hl.nn.Sequential(*(Residual(width, 2 * width) for _ in range(depth)))
        self.head = hl.nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.embed(x)))


def main() -> None:
    random = np.random.Generator(np.random.Philox(0))
    X = random.normal(size=(5000, 8))
    y = (X[:, 0] * X[:, 1] + np.abs(X[:, 2]) - X[:, 3] ** 2 / 2 > 0).astype(int)

    trainer = hl.Trainer(Network(8, 32, 3, 2), loss="cross_entropy", optimizer=hl.optim.AdamW(2e-3), seed=1)
    print(trainer.fit(X[:4000], y[:4000], validation=0.2, epochs=30, batch_size=64))
    parameters = sum(value.size for value in trainer.model.state_dict().values())
    accuracy = trainer.evaluate(X[4000:], y[4000:])["accuracy"]
    print(f"{parameters} parameters, accuracy {accuracy:.3f} on rows it has not seen")


if __name__ == "__main__":
    main()
