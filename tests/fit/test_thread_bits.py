# SPDX-License-Identifier: Apache-2.0
"""The same bits for any number of threads, free or pinned to one processor, on an idle or a loaded machine.

Four processes (free or pinned, alone or beside a busy one) train every network with 1, 2, 3, 7 and the
default number of threads: 20 runs, of which everything that is left behind must be equal. This file is also
the program that those processes run.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import hotloop as hl

THREADS = (1, 2, 3, 7, None)
PARTS = ("parameters and state", "optimizer state", "history", "evaluate", "predict")


class Residual(hl.nn.Module):
    """Two inputs, an embedding, a residual block with a norm of rows."""

    def __init__(self) -> None:
        self.table = hl.nn.Embedding(7, 6)
        self.stem = hl.nn.Linear(16, 48)
        self.norm = hl.nn.LayerNorm(48)
        self.inner = hl.nn.Linear(48, 48)
        self.drop = hl.nn.Dropout(0.2)
        self.head = hl.nn.Linear(48, 5)

    def forward(self, num: Any, cat: Any) -> Any:
        f = hl.nn.functional
        h = f.relu(self.stem(f.concat([num, self.table(cat)], 1)))
        return self.head(h + self.drop(f.gelu(self.inner(self.norm(h)))))


def mlp(*sizes: int, between: Callable[[int], list[Any]]) -> Any:
    """A fully connected network with the layers ``between(width)`` after each hidden product."""
    layers: list[Any] = []
    for n_in, n_out in itertools.pairwise(sizes[:-1]):
        layers += [hl.nn.Linear(n_in, n_out), *between(n_out)]
    return hl.nn.Sequential(*layers, hl.nn.Linear(*sizes[-2:]))


def dropped(p: float) -> Callable[[int], list[Any]]:
    return lambda width: [hl.nn.ReLU(), hl.nn.Dropout(p)]


def batch_normed(width: int) -> list[Any]:
    return [hl.nn.BatchNorm1d(width), hl.nn.Tanh()]


def row_normed(width: int) -> list[Any]:
    return [hl.nn.LayerNorm(width), hl.nn.GELU(), hl.nn.Dropout(0.1)]


@dataclass(frozen=True)
class Case:
    """A run of two epochs over ``rows`` rows of 10 features (two inputs: and ids below 7), 5 outputs."""

    model: Callable[[], Any]
    rows: int
    batch_size: int
    optimizer: hl.optim.Optimizer
    options: dict[str, Any] = field(default_factory=dict)  # of the Trainer
    loss: str = "cross_entropy"
    weighted: bool = False
    two_inputs: bool = False

    def data(self, rows: int) -> tuple[Any, Any, Any]:
        """(X, y, sample weights or None); some weights are 0."""
        rng = np.random.Generator(np.random.PCG64(rows))
        X: Any = rng.standard_normal((rows, 10), dtype=np.float32)
        rule = np.random.Generator(np.random.PCG64(0)).standard_normal((10, 5), dtype=np.float32)
        y: Any = X @ rule
        if self.loss == "cross_entropy":
            y = y.argmax(axis=1)
        weight = rng.integers(0, 4, rows) / np.float32(3) if self.weighted else None
        return ({"num": X, "cat": rng.integers(0, 7, rows)} if self.two_inputs else X), y, weight


# A stage of rows is cut into blocks of a multiple of some tile height, so batches around 12, 24, 48 and 96
# rows end in blocks of one row, of all but one, and of none. The last batch of each epoch has one row.
RAGGED = (1, 2, 5, 11, 12, 13, 23, 24, 25, 47, 48, 49, 95, 97)
CASES = {
    "dropout": Case(
        lambda: mlp(10, 64, 32, 5, between=dropped(0.3)), 3 * 64 + 1, 64, hl.optim.AdamW(0.01)
    ),
    "two inputs, residual, LayerNorm": Case(
        Residual, 4 * 49 + 13, 49, hl.optim.Adam(0.01, weight_decay=0.01), two_inputs=True
    ),
    "BatchNorm": Case(
        lambda: mlp(10, 96, 40, 5, between=batch_normed), 4 * 50 + 3, 50,
        hl.optim.SGD(0.05, momentum=0.9, nesterov=True),
    ),
    "wide, clip_norm": Case(  # products of several chunks in every direction, sums of gradients likewise
        lambda: mlp(10, 700, 300, 5, between=dropped(0.1)), 2 * 192 + 25, 192, hl.optim.RMSprop(1e-3),
        {"clip_norm": 0.5},
    ),
    "mse, sample weights, clip_value": Case(
        lambda: mlp(10, 33, 17, 5, between=row_normed), 5 * 37 + 6, 37, hl.optim.SGD(0.01),
        {"clip_value": 0.05, "metrics": ("r2", "mae")}, loss="mse", weighted=True,
    ),
    "sample weights, clip_norm": Case(
        lambda: mlp(10, 46, 46, 5, between=dropped(0.5)), 128 + 127, 128, hl.optim.AdamW(0.01),
        {"clip_norm": 1.0}, weighted=True,
    ),
    "long batches": Case(  # weight gradients summed in parts, of which the last is short or has no rows
        lambda: mlp(10, 64, 24, 5, between=dropped(0.2)), 2 * 3000 + 1100, 3000, hl.optim.AdamW(0.01)
    ),
    **{
        f"batches of {size}": Case(
            lambda: mlp(10, 40, 24, 5, between=row_normed), (8 if size < 8 else 2) * size + 1, size,
            hl.optim.AdamW(0.01),
        )
        for size in RAGGED
    },
}  # fmt: skip


def sha(arrays: dict[str, Any]) -> str:
    hasher = hashlib.sha256()
    for name in sorted(arrays):
        hasher.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return hasher.hexdigest()


def left_behind(case: Case, threads: int | None) -> dict[str, str]:
    """Hashes of all that a run leaves behind, by part."""
    X, y, weight = case.data(case.rows)
    # 256 rows are evaluated at a time: one row is left over
    other_X, other_y, other_weight = case.data(257)
    trainer = hl.Trainer(
        case.model(), case.loss, optimizer=case.optimizer, threads=threads, seed=3, progress=False,
        restore_best=False, **case.options,
    )  # fmt: skip
    run = trainer.fit(
        X, y, epochs=2, batch_size=case.batch_size, sample_weight=weight,
        validation=(other_X, other_y) if other_weight is None else (other_X, other_y, other_weight),
    )  # fmt: skip
    first = {k: v[:1] for k, v in other_X.items()} if case.two_inputs else other_X[:1]
    found = (
        trainer.model.state_dict(),
        trainer.optimizer_state(),
        {name: np.array(values) for name, values in run.history.items()},
        trainer.evaluate(other_X, other_y, sample_weight=other_weight),
        {"many": trainer.predict(other_X), "one": trainer.predict(first)},
    )
    return {part: sha(arrays) for part, arrays in zip(PARTS, found, strict=True)}


def main(processor: str) -> None:
    """Prints {case: {threads: {part: hash}}} as JSON; ``processor``: the one to be pinned to, or "any"."""
    if processor != "any":
        os.sched_setaffinity(0, {int(processor)})
    found = {name: {str(n): left_behind(case, n) for n in THREADS} for name, case in CASES.items()}
    json.dump(found, sys.stdout)


@contextlib.contextmanager
def busy(processor: str) -> Iterator[None]:
    """Keeps one processor busy from another process."""
    pin = "" if processor == "any" else f"os.sched_setaffinity(0, {{{processor}}})"
    spinner = subprocess.Popen([sys.executable, "-c", f"import os\n{pin}\nwhile True: pass"])
    try:
        yield
    finally:
        spinner.kill()
        spinner.wait()


@pytest.fixture(scope="module")
def runs() -> dict[str, Any]:
    """{what the process was like: what `main` printed}."""
    places = {"free": "any"}
    if hasattr(os, "sched_setaffinity"):
        places["pinned"] = str(min(os.sched_getaffinity(0)))
    found = {}
    for (place, processor), load in itertools.product(places.items(), ("alone", "loaded")):
        with busy(processor) if load == "loaded" else contextlib.nullcontext():
            done = subprocess.run(
                [sys.executable, __file__, processor], capture_output=True, text=True, timeout=300
            )
        assert done.returncode == 0, done.stderr
        found[f"{place}, {load}"] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_whatever_the_threads_and_the_machine_do(runs: dict[str, Any], case: str) -> None:
    first = next(iter(runs.values()))[case][str(THREADS[0])]
    for process, results in runs.items():
        assert results[case].keys() == {str(n) for n in THREADS}
        for threads, hashes in results[case].items():
            for part in PARTS:
                assert hashes[part] == first[part], f"{part} of {threads} threads, {process}"


def test_the_hashes_tell_runs_apart(runs: dict[str, Any]) -> None:
    """One seed, but different networks and batches: no two of these cases may agree in any part."""
    results = next(iter(runs.values()))
    for part in PARTS:
        assert len({results[case]["1"][part] for case in CASES}) == len(CASES)


if __name__ == "__main__":
    main(sys.argv[1])
