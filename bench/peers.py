# SPDX-License-Identifier: Apache-2.0
"""The same training run in hotloop, torch and scikit-learn: same data, sizes, optimiser and precision.

Each contestant is a function that runs a number of epochs and a way to say what it is. Peers get their best
configuration: fused and default AdamW, one thread and all, gradients set to None, no checks of the loss
value inside the loop. What is not installed is left out.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

import hotloop as hl

LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Problem:
    """A fully connected ReLU classifier on ``steps`` batches of standard-normal rows."""

    name: str
    sizes: tuple[int, ...]
    batch: int
    steps: int  # of one epoch
    epochs: int  # of one timed call

    @property
    def rows(self) -> int:
        return self.batch * self.steps

    def data(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """X (rows, sizes[0]) and labels y (rows,) that a linear rule explains."""
        rng = np.random.default_rng(0)
        x = rng.standard_normal((self.rows, self.sizes[0]), dtype=np.float32)
        rule = rng.standard_normal((self.sizes[0], self.sizes[-1]), dtype=np.float32)
        return x, np.argmax(x @ rule, axis=1)

    @property
    def flops_per_step(self) -> float:
        """Forward, weight gradient and input gradient of every product, less the first input gradient."""
        macs = [a * b for a, b in zip(self.sizes, self.sizes[1:], strict=False)]
        return 2.0 * self.batch * (3 * sum(macs) - macs[0])


PROBLEMS = (
    Problem("64-128-10, batch 32", (64, 128, 10), batch=32, steps=56, epochs=20),
    Problem("784-512-512-10, batch 128", (784, 512, 512, 10), batch=128, steps=16, epochs=2),
)


def hotloop_model(problem: Problem) -> hl.nn.Sequential:
    layers: list[hl.nn.Module] = []
    for fan_in, fan_out in zip(problem.sizes, problem.sizes[1:], strict=False):
        layers += [hl.nn.Linear(fan_in, fan_out), hl.nn.ReLU()]
    return hl.nn.Sequential(*layers[:-1])


def hotloop_run(problem: Problem) -> Callable[[], object]:
    """Whole calls of `fit`, with everything a user pays for: checks, compilation, history."""
    x, y = problem.data()
    trainer = hl.Trainer(
        hotloop_model(problem), loss="cross_entropy", optimizer=hl.optim.AdamW(LEARNING_RATE), progress=False
    )
    return lambda: trainer.fit(x, y, epochs=problem.epochs, batch_size=problem.batch, reset_optimizer=False)


def torch_model(problem: Problem) -> Any:
    import torch

    layers: list[Any] = []
    for fan_in, fan_out in zip(problem.sizes, problem.sizes[1:], strict=False):
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def torch_run(problem: Problem, *, fused: bool, threads: int) -> Callable[[], object]:
    import torch

    x, y = map(torch.from_numpy, problem.data())
    model = torch_model(problem)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, fused=fused)
    loss_of = torch.nn.CrossEntropyLoss()

    def run() -> None:
        torch.set_num_threads(threads)
        for _ in range(problem.epochs):
            order = torch.randperm(problem.rows)
            for begin in range(0, problem.rows, problem.batch):
                rows = order[begin : begin + problem.batch]
                optimizer.zero_grad(set_to_none=True)
                loss_of(model(x[rows]), y[rows]).backward()
                optimizer.step()

    return run


def sklearn_run(problem: Problem, *, threads: int) -> Callable[[], object]:
    from sklearn.neural_network import MLPClassifier
    from threadpoolctl import threadpool_limits

    x, y = problem.data()
    classes = np.arange(problem.sizes[-1])
    model = MLPClassifier(
        problem.sizes[1:-1],
        solver="adam",
        batch_size=problem.batch,
        learning_rate_init=LEARNING_RATE,
        random_state=0,
    )

    def run() -> None:
        with threadpool_limits(threads):
            for _ in range(problem.epochs):
                model.partial_fit(x, y, classes=classes)  # one pass in mini-batches

    return run


def contestants(problem: Problem, threads: int) -> dict[str, Callable[[], object]]:
    """Every peer that is installed, in each of its configurations: name / threads -> one timed call."""
    found: dict[str, Callable[[], object]] = {}
    counts = sorted({1, threads})
    if importlib.util.find_spec("torch"):
        for count in counts:
            found[f"torch, fused AdamW / {count}"] = torch_run(problem, fused=True, threads=count)
            found[f"torch, default AdamW / {count}"] = torch_run(problem, fused=False, threads=count)
    if importlib.util.find_spec("sklearn"):
        for count in counts:
            found[f"scikit-learn / {count}"] = sklearn_run(problem, threads=count)
    return found


def torch_losses(problem: Problem, state: dict[str, Any]) -> list[float]:
    """The loss of each step of one unshuffled epoch of torch from these weights."""
    import torch

    x, y = map(torch.from_numpy, problem.data())
    model = torch_model(problem)
    model.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in state.items()})
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    losses = []
    for begin in range(0, problem.rows, problem.batch):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(
            model(x[begin : begin + problem.batch]), y[begin : begin + problem.batch]
        )
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def hotloop_losses(problem: Problem) -> tuple[dict[str, Any], list[float]]:
    """Fresh weights, and the loss of each step of one unshuffled epoch from them."""
    x, y = problem.data()
    model = hotloop_model(problem)
    step = hl.TrainStep(model, "cross_entropy", hl.optim.AdamW(LEARNING_RATE))
    state = {name: np.array(value) for name, value in model.state_dict().items()}
    batches = range(0, problem.rows, problem.batch)
    return state, [step(x[b : b + problem.batch], y[b : b + problem.batch]) for b in batches]
