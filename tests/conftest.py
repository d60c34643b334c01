# SPDX-License-Identifier: Apache-2.0
"""What the tests of the Python side share: small data, small models, a digest of what training changes."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import signal
from typing import Any

import numpy as np
import pytest

import hotloop as hl

# A shell that starts a job in the background has it ignore Ctrl-C, and so would every test's child process.
signal.signal(signal.SIGINT, signal.default_int_handler)


class TwoInputs(hl.nn.Module):
    def __init__(self) -> None:
        self.table = hl.nn.Embedding(4, 3)
        self.head = hl.nn.Linear(5, 2)

    def forward(self, num: Any, cat: Any) -> Any:
        return self.head(hl.nn.functional.concat([num, self.table(cat)], 1))


class Toy:
    """Small data and models that train in milliseconds."""

    @staticmethod
    def classes(rows: int = 300, features: int = 6, classes: int = 3, seed: int = 0) -> tuple[Any, Any]:
        """X float32 (rows, features) and learnable labels int64 (rows,)."""
        rng = np.random.Generator(np.random.PCG64(seed))
        X = rng.normal(size=(rows, features)).astype(np.float32)
        y = (X @ rng.normal(size=(features, classes))).argmax(axis=1)
        return X, y

    @staticmethod
    def mlp(*sizes: int, dropout: float = 0.0) -> Any:
        """A ReLU network of these layer sizes."""
        layers: list[Any] = []
        for n_in, n_out in itertools.pairwise(sizes[:-1]):
            layers += [hl.nn.Linear(n_in, n_out), hl.nn.ReLU()]
            if dropout:
                layers.append(hl.nn.Dropout(dropout))
        return hl.nn.Sequential(*layers, hl.nn.Linear(*sizes[-2:]))

    @staticmethod
    def batch_norm(features: int = 6, classes: int = 3) -> Any:
        """A network whose training also changes state."""
        return hl.nn.Sequential(
            hl.nn.Linear(features, 8), hl.nn.BatchNorm1d(8), hl.nn.Tanh(), hl.nn.Linear(8, classes)
        )

    @staticmethod
    def two_inputs() -> Any:
        """A model of "num" (n, 2), numbers, and "cat" (n,), ids below 4; two classes."""
        return TwoInputs()

    @staticmethod
    def turning(lr: float = 0.005, **options: Any) -> tuple[Any, dict[str, Any]]:
        """(trainer, arguments of fit) of a run whose best epoch lies in the middle.

        One weight starts at 0 and moves towards 2, which the training data asks for; the validation data
        asks for 1, so that its loss falls, turns, and rises.
        """
        model = hl.nn.Sequential(hl.nn.Linear(1, 1, bias=False))
        model.load_state_dict({"0.weight": np.zeros((1, 1), np.float32)})
        X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(-1, 1)
        trainer = hl.Trainer(model, "mse", optimizer=hl.optim.SGD(lr), **options)
        return trainer, {"X": X, "y": 2 * X, "validation": (X, X), "batch_size": 16, "epochs": 200}


def digest(trainer: Any) -> str:
    """A hash of parameters, buffers and the optimiser's state."""
    hasher = hashlib.blake2b()
    states = [trainer.model.state_dict()]
    with contextlib.suppress(RuntimeError):  # there is none before the first use
        states.append(trainer.optimizer_state())
    for state in states:
        for name in sorted(state):
            hasher.update(name.encode() + np.ascontiguousarray(state[name]).tobytes())
    return hasher.hexdigest()


@pytest.fixture
def toy() -> type[Toy]:
    return Toy


@pytest.fixture(name="digest")
def digest_fixture() -> Any:
    return digest
