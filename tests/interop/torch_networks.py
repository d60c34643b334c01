# SPDX-License-Identifier: Apache-2.0
"""What the tests of `hotloop.torch.Module` share: the same network twice, data, and how near is near enough."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hotloop.torch import Module, from_torch

ROWS = 12


def tanh_net() -> Any:
    nn = torch.nn
    return nn.Sequential(
        nn.Linear(6, 16), nn.Tanh(), nn.LayerNorm(16), nn.Linear(16, 8), nn.GELU(), nn.Linear(8, 3)
    )


def norm_net() -> Any:
    nn = torch.nn
    return nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


NETS: dict[str, Callable[[], Any]] = {"tanh": tanh_net, "norm": norm_net}


def pair(name: str = "tanh") -> tuple[Any, Any]:
    """Ours and, with the same weights, torch's in float64."""
    torch.manual_seed(5)
    theirs = NETS[name]()
    return Module(from_torch(theirs)), theirs.double()


def features(rows: int = ROWS, seed: int = 0, width: int = 6) -> Any:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32))


def close(got: Any, want: Any, tolerance: float = 2e-5, beside: float = 1e-3) -> None:
    want = want.detach().double().numpy()
    # float32 beside float64: rounding of sums of some dozen terms, next to the largest of them
    largest = max(beside, np.abs(want).max())
    np.testing.assert_allclose(got.detach().double().numpy(), want, rtol=tolerance, atol=tolerance * largest)


def same_gradients(ours: Any, theirs: Any) -> None:
    # a bias before a batch norm has no gradient but rounding, of sums of terms like those of the others
    largest = max(float(p.grad.abs().max()) for p in theirs.parameters() if p.grad is not None)
    for (name, p), (peer, q) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == peer
        assert (p.grad is None) == (q.grad is None), name
        if p.grad is not None:
            close(p.grad, q.grad, beside=largest)
