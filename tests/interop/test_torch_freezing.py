# SPDX-License-Identifier: Apache-2.0
"""Frozen layers and groups of parameters beside torch's: ``requires_grad=False``, and lists of groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

ROWS, BATCH, EPOCHS = 96, 32, 6


def data() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    return rng.standard_normal((ROWS, 10)).astype(np.float32), rng.integers(0, 4, ROWS)


def ours() -> Any:
    nn = hl.nn
    return nn.Sequential(
        nn.Linear(10, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)
    )


def theirs(weights: dict[str, np.ndarray]) -> Any:
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(10, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 12), nn.Tanh(), nn.Linear(12, 4)
    ).double()
    model.load_state_dict({name: torch.tensor(value).double() for name, value in weights.items()})
    return model


def run_torch(model: Any, optimizer: Any, freeze: Callable[[int], None], clip: float | None = None) -> None:
    """Whole epochs in the order of the rows; ``freeze`` sets requires_grad before each (1-based)."""
    X, y = data()
    for epoch in range(1, EPOCHS + 1):
        freeze(epoch)
        for rows in np.split(np.arange(ROWS), ROWS // BATCH):
            optimizer.zero_grad(set_to_none=True)
            logits = model(torch.tensor(X[rows]).double())
            torch.nn.functional.cross_entropy(logits, torch.tensor(y[rows])).backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()


def fit(model: Any, optimizer: Any, **options: Any) -> None:
    X, y = data()
    trainer = hl.Trainer(model, "cross_entropy", optimizer=optimizer, restore_best=False, **options)
    trainer.fit(X, y, epochs=EPOCHS, batch_size=BATCH, shuffle=False)


def compare(model: Any, peer: Any, start: dict[str, np.ndarray], frozen: set[str]) -> None:
    for name, value in peer.state_dict().items():
        got = model.state_dict()[name]
        if name in frozen:
            assert got.tobytes() == start[name].tobytes(), name
        else:
            assert not np.array_equal(got, start[name]), name
        np.testing.assert_allclose(got, value.numpy(), rtol=2e-4, atol=2e-5, err_msg=name)


OPTIMIZERS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "adamw": (
        hl.optim.AdamW(3e-3, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=3e-3, weight_decay=0.1),
    ),
    "adam": (
        hl.optim.Adam(3e-3, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, lr=3e-3, weight_decay=0.01),
    ),
    "sgd": (
        hl.optim.SGD(0.05, 0.9, weight_decay=0.01),
        lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.01),
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("patterns", [("0",), ("2", "3.weight"), ("0", "2", "3"), ("*.bias",)])
def test_frozen_layers_follow_requires_grad(
    optimizer: str, clip: float | None, patterns: tuple[str, ...]
) -> None:
    mine, make = OPTIMIZERS[optimizer]
    model = ours().initialize(1)
    frozen, start = set(model.freeze(*patterns)), model.state_dict()
    peer = theirs(start)
    for name, parameter in peer.named_parameters():
        parameter.requires_grad = name not in frozen
    run_torch(peer, make(peer.parameters()), lambda epoch: None, clip)
    fit(model, mine, clip_norm=clip)
    compare(model, peer, start, frozen)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_phases_and_rates_follow_parameter_groups(optimizer: str) -> None:
    """Layer 0 from epoch 4 on at a tenth of the rate, layers 2 and 3 from epoch 2 on at half; the last at
    once. Each parameter's bias correction counts its own steps, as torch's state does."""
    mine, make = OPTIMIZERS[optimizer]
    until, scale = {"0": 3, "2": 1, "3": 1, "5": 0}, {"0": 0.1, "2": 0.5, "3": 0.5, "5": 1.0}
    model = ours().initialize(2)
    start = model.state_dict()
    peer = theirs(start)
    groups = [{"params": list(peer[int(i)].parameters()), "lr": mine.lr * s} for i, s in scale.items()]

    def freeze(epoch: int) -> None:
        for name, parameter in peer.named_parameters():
            parameter.requires_grad = epoch > until[name[0]]

    run_torch(peer, make(groups), freeze)
    plan = hl.FreezePlan({i: {"until_epoch": until[i], "lr_scale": scale[i]} for i in until})
    fit(model, mine, freeze=plan)
    compare(model, peer, start, set())


def test_decay_of_weights_is_two_groups_for_each_rate() -> None:
    model = ours().initialize(3)
    start = model.state_dict()
    peer = theirs(start)
    groups = [
        {"params": [p], "lr": 3e-3 * (0.2 if name[0] in "03" else 1), "weight_decay": 0.3 * (p.ndim > 1)}
        for name, p in peer.named_parameters()
    ]
    run_torch(peer, torch.optim.AdamW(groups), lambda epoch: None)
    plan = hl.FreezePlan({"0": {"lr_scale": 0.2}, "3": {"lr_scale": 0.2}})
    fit(model, hl.optim.AdamW(3e-3, weight_decay=0.3, decay="weights"), freeze=plan)
    compare(model, peer, start, set())
