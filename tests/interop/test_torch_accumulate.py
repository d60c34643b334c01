# SPDX-License-Identifier: Apache-2.0
"""Accumulated gradients and averaged weights beside the loops that one writes for them with torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import hotloop as hl

torch = pytest.importorskip("torch")

ROWS, BATCH, GROUP, EPOCHS, DECAY = 104, 8, 4, 6, 0.9


def networks() -> tuple[hl.nn.Module, Any]:
    """The same small network twice, on the same weights; torch's in float64."""
    ours = hl.nn.Sequential(hl.nn.Linear(6, 16), hl.nn.BatchNorm1d(16), hl.nn.GELU(), hl.nn.Linear(16, 4))
    nn = torch.nn
    theirs = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.GELU(), nn.Linear(16, 4)).double()
    ours.initialize(3)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    return ours, theirs


@pytest.mark.parametrize("weighted", [False, True])
def test_updates_and_averages_follow_torch(weighted: bool) -> None:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((ROWS, 6)).astype(np.float32)
    y = rng.integers(0, 4, ROWS)
    weight = rng.uniform(0.1, 3, ROWS).astype(np.float32) if weighted else np.ones(ROWS, np.float32)
    ours, theirs = networks()
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.9)
    average = torch.optim.swa_utils.AveragedModel(
        theirs, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(DECAY)
    )
    trainer = hl.Trainer(
        ours, "cross_entropy", optimizer=hl.optim.SGD(0.05, momentum=0.9), accumulate=GROUP, ema=DECAY,
        clip_norm=0.5, progress=False,
    )  # fmt: skip
    trainer.fit(
        X, y, epochs=EPOCHS, batch_size=BATCH, shuffle=False, sample_weight=weight if weighted else None
    )
    x, target, w = torch.tensor(X).double(), torch.tensor(y), torch.tensor(weight).double()
    for _ in range(EPOCHS):
        for group in range(0, ROWS, BATCH * GROUP):
            end = min(group + BATCH * GROUP, ROWS)
            optimizer.zero_grad()
            for first in range(group, end, BATCH):
                at = slice(first, min(first + BATCH, ROWS))
                losses = torch.nn.functional.cross_entropy(theirs(x[at]), target[at], reduction="none")
                ((losses * w[at]).sum() / w[group:end].sum()).backward()
            torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
            optimizer.step()
            average.update_parameters(theirs)
    assert int(average.n_averaged) == EPOCHS * 4 == trainer.optimizer_state()["0.weight.step"]
    got = ours.state_dict()
    for name, value in average.module.state_dict().items():
        # the bias before BatchNorm has no gradient but rounding's
        atol = 1e-4 if name == "0.bias" else 2e-5
        np.testing.assert_allclose(got[name], value.numpy(), rtol=2e-4, atol=atol, err_msg=name)
    raw = theirs.state_dict()
    assert not np.allclose(
        raw["0.weight"].numpy(), average.module.state_dict()["0.weight"].numpy(), rtol=1e-2
    )
