# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning: a network that knows 0 to 4, anywhere in the picture, learns 5 to 9 from ten rows of each.

The model comes from its file, without the code that made it, and gets a new head. The head learns alone at
first; then the layers below join in, each slower than the one above. (Digits in the middle gain nothing.)
"""

from __future__ import annotations

import tempfile

import numpy as np
from sklearn.datasets import load_digits

import hotloop as hl

ROWS_PER_CLASS, SEEDS = 10, 5
SETTINGS = {"optimizer": hl.optim.AdamW(3e-3, decay="weights"), "schedule": "cosine"}


def shifted(X: np.ndarray, times: int, seed: int) -> np.ndarray:
    """So many copies of the pictures (n, 64), each moved by at most a pixel: (times * n, 64)."""
    images = np.pad(np.tile(X.reshape(-1, 8, 8), (times, 1, 1)), ((0, 0), (1, 1), (1, 1)))
    places = np.random.Generator(np.random.Philox(seed)).integers(0, 3, (len(images), 2))
    return np.stack([im[y : y + 8, x : x + 8].ravel() for im, (y, x) in zip(images, places, strict=True)])


def network() -> hl.nn.Sequential:
    nn = hl.nn
    hidden = [layer for n in (64, 256) for layer in (nn.Linear(n, 256), nn.ReLU(), nn.Dropout(0.3))]
    return nn.Sequential(*hidden, nn.Linear(256, 5))


def main() -> None:
    X, y = load_digits(return_X_y=True)
    old, X_new, y_new = y < 5, shifted(X[y >= 5] / 16, 1, seed=1), y[y >= 5] - 5
    accuracy = []
    with tempfile.TemporaryDirectory() as folder:
        known = hl.Trainer(network(), **SETTINGS)
        known.fit(shifted(X[old] / 16, 20, seed=0), np.tile(y[old], 20), epochs=10)
        known.save(f"{folder}/zero_to_four.safetensors")
        for seed in range(SEEDS):
            order = np.random.Generator(np.random.Philox(seed)).permutation(len(y_new))
            few = np.concatenate([order[y_new[order] == label][:ROWS_PER_CLASS] for label in range(5)])
            rest = np.setdiff1d(order, few)
            tuned = hl.load(f"{folder}/zero_to_four.safetensors")
            tuned.model.replace_head(hl.nn.Linear(256, 5))
            tuned.freeze = hl.FreezePlan.gradual(["0", "3", "6"], every=5, decay=0.7)
            scratch = hl.Trainer(network(), **SETTINGS, seed=seed)
            for trainer in (tuned, scratch):
                trainer.fit(X_new[few], y_new[few], epochs=80, batch_size=10)
            accuracy.append([t.evaluate(X_new[rest], y_new[rest])["accuracy"] for t in (tuned, scratch)])
    tuned_mean, scratch_mean = np.mean(accuracy, axis=0)
    print(f"test accuracy: fine-tuned {tuned_mean:.3f}, from scratch {scratch_mean:.3f}")
    assert tuned_mean > scratch_mean + 0.03


if __name__ == "__main__":
    main()
