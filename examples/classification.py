# SPDX-License-Identifier: Apache-2.0
"""Two interleaved spirals: split, train with early stopping, look once at the sealed test rows."""

from __future__ import annotations

import numpy as np

import hotloop as hl


def spirals(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points (rows, 2) on two arms with a little noise, and the arm of each."""
    random = np.random.Generator(np.random.Philox(seed))
    arm = random.integers(0, 2, rows)
    turn = np.sqrt(random.uniform(0.05, 1, rows)) * 3 * np.pi
    angle = turn + arm * np.pi
    points = np.stack([np.cos(angle), np.sin(angle)], axis=1) * turn[:, None] / 10
    return points + random.normal(0, 0.02, points.shape), arm


def main() -> None:
    X, y = spirals(2000, seed=0)
    data = hl.split(X, y, seed=0)  # 70/15/15, evenly by class

    model = hl.nn.Sequential(
        hl.nn.Linear(2, 64), hl.nn.Tanh(), hl.nn.Linear(64, 64), hl.nn.Tanh(), hl.nn.Linear(64, 2)
    )
    trainer = hl.Trainer(
        model,
        loss="cross_entropy",
        optimizer=hl.optim.AdamW(3e-3),
        early_stopping=hl.EarlyStopping(patience=30),
    )
    run = trainer.fit(*data.train, validation=data.validation, epochs=300, batch_size=32)
    print(f"ended by {run.stop_reason} after {run.epochs} epochs, best epoch {run.best_epoch}")
    print(f"test accuracy {trainer.evaluate(data.test)['accuracy']:.3f}; {data.test}")


if __name__ == "__main__":
    main()
