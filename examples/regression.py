# SPDX-License-Identifier: Apache-2.0
"""A noisy surface with features and a target of very different sizes: preprocess, fit, save, load, predict."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

import hotloop as hl
from hotloop.data.preprocess import Preprocessor


def surface(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """X (rows, 3): metres, pascals and a constant; y (rows,) around 20 000."""
    random = np.random.Generator(np.random.Philox(seed))
    X = np.stack([random.uniform(-2, 2, rows), random.normal(101_325, 500, rows), np.full(rows, 7.0)], axis=1)
    y = 20_000 + 3_000 * np.sin(2 * X[:, 0]) + 2 * (X[:, 1] - 101_325) + random.normal(0, 100, rows)
    return X, y


def main() -> None:
    data = hl.split(*surface(3000, seed=0), seed=0)
    prepare = Preprocessor.fit(*data.train, task="regression")  # learns from the training rows alone

    model = hl.nn.Sequential(hl.nn.Linear(3, 64), hl.nn.SiLU(), hl.nn.Linear(64, 1))
    trainer = hl.Trainer(model, loss=hl.losses.Huber(1.0), optimizer=hl.optim.AdamW(3e-3))
    trainer.preprocessor = prepare  # travels in the model's file
    X_val, y_val = data.validation
    trainer.fit(
        prepare.transform(data.train.X),
        prepare.transform_target(data.train.y),
        validation=(prepare.transform(X_val), prepare.transform_target(y_val)),
        epochs=60,
        batch_size=64,
    )

    X_test, y_test = data.test.open("the one look at the test rows")
    with tempfile.TemporaryDirectory() as folder:
        trainer.save(Path(folder) / "surface.safetensors")
        loaded = hl.load(Path(folder) / "surface.safetensors")
    predicted = loaded.preprocessor.inverse_target(loaded.predict(loaded.preprocessor.transform(X_test)))
    rmse = np.sqrt(np.mean((predicted - y_test) ** 2))
    print(
        f"test RMSE {rmse:.1f} (the noise has 100.0) on a target with standard deviation {y_test.std():.0f}"
    )


if __name__ == "__main__":
    main()
