# SPDX-License-Identifier: Apache-2.0
"""Schedules side by side, one of them a plain function of the step, on the same network and data.

The noise alone has a loss of 0.01, which a falling learning rate comes closer to than a constant one.
"""

from __future__ import annotations

import math

import numpy as np

import hotloop as hl


def inverse_root(step: int) -> float:
    """Full rate for 200 steps, then as one over the root of time."""
    return min(1.0, math.sqrt(200 / (step + 1)))


SCHEDULES = {
    "constant": None,
    "warm-up, then cosine": hl.schedules.Cosine(warmup=0.05),
    "one cycle": hl.schedules.OneCycle(pct_start=0.25),
    "own function": inverse_root,
}


def main() -> None:
    random = np.random.Generator(np.random.Philox(0))
    X = random.uniform(-3, 3, (2500, 2)).astype(np.float32)
    y = (np.sin(X[:, 0]) * np.cos(X[:, 1]) + random.normal(0, 0.1, 2500)).astype(np.float32)

    for name, schedule in SCHEDULES.items():
        model = hl.nn.Sequential(hl.nn.Linear(2, 64), hl.nn.Tanh(), hl.nn.Linear(64, 1))
        trainer = hl.Trainer(model, loss="mse", optimizer=hl.optim.Adam(3e-2), schedule=schedule, seed=0)
        run = trainer.fit(X, y, validation=0.2, epochs=50, batch_size=64)
        rates, best = run.history["lr"], min(run.history["val_loss"])
        print(f"{name:<22} lr {rates[0]:.1e} .. {rates[-1]:.1e}   best validation loss {best:.4f}")


if __name__ == "__main__":
    main()
