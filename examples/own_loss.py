# SPDX-License-Identifier: Apache-2.0
"""A training loop of one's own around `hl.TrainStep`, with a loss that no library knows: forward, backward, update."""

import numpy as np

import hotloop as hl

LEVELS = np.array([0.1, 0.5, 0.9], np.float32)  # quantiles that the network learns, one output each


def pinball(prediction: np.ndarray, y: np.ndarray) -> tuple[float, np.ndarray]:
    """The quantile loss (Koenker and Bassett 1978): its mean, and its gradient by the prediction (rows, 3)."""
    error = y[:, None] - prediction
    loss = np.maximum(LEVELS * error, (LEVELS - 1) * error)
    gradient = np.where(error > 0, -LEVELS, 1 - LEVELS) / error.size
    return float(loss.mean()), gradient.astype(np.float32)


def main() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (6000, 1)).astype(np.float32)
    # noise that grows with x: the quantiles fan out, which no mean squared error would show
    y = (np.sin(2 * x) + (0.2 + 0.2 * np.abs(x)) * random.standard_normal(x.shape))[:, 0].astype(np.float32)
    train, test = slice(0, 5000), slice(5000, None)

    model = hl.nn.Sequential(
        hl.nn.Linear(1, 64), hl.nn.SiLU(), hl.nn.Linear(64, 64), hl.nn.SiLU(), hl.nn.Linear(64, 3)
    )
    step = hl.TrainStep(model, optimizer=hl.optim.AdamW(5e-3))
    for epoch in range(20):
        for rows in np.array_split(random.permutation(5000), 50):
            loss, gradient = pinball(step.forward(x[train][rows]), y[train][rows])
            step.backward(gradient)
            step.update(lr=5e-3 * 0.85**epoch)
    print(f"last pinball loss {loss:.3f}")

    below = (y[test, None] < step.predict(x[test])).mean(axis=0)
    for level, share in zip(LEVELS, below, strict=True):
        print(f"quantile {level:.1f}: {share:.3f} of unseen values lie below")
    print(f"farthest from its level: {np.abs(below - LEVELS).max():.3f}")


if __name__ == "__main__":
    main()
