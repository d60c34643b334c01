# SPDX-License-Identifier: Apache-2.0
"""Figures that others have published for work of this kind, for orientation only.

They were taken on other machines and are never mixed with what is measured here; what is measured here is
the same amount of work, with hotloop.
"""

from __future__ import annotations

from dataclasses import dataclass

from hotloop.benchmarks.networks import Network

#: Full-batch training on 10 000 pairs of a 2 x 2 matrix and its exponential.
MATRIX_EXPONENTIAL = Network((4, 32, 16, 4), batch=10_000, steps=1, loss="mse", activation="tanh")


@dataclass(frozen=True)
class Published:
    """``seconds``: of one step, as the source says; ``differs``: from how the same network is run here."""

    library: str
    network: Network
    seconds: float
    machine: str
    source: str
    differs: str

    @property
    def gflops(self) -> float:
        return self.network.flops_per_step / self.seconds * 1e-9


_POST = "https://julialang.org/blog/2022/04/simple-chains/"
_DIFFERS = "Adam without decay, rows in their order"
PUBLISHED = (
    Published(
        "SimpleChains.jl", MATRIX_EXPONENTIAL, 41e-6, "Intel i9-10980XE, 18 cores, AVX-512", _POST, _DIFFERS
    ),
    Published("SimpleChains.jl", MATRIX_EXPONENTIAL, 72e-6, "AMD EPYC 7513, 32 cores, AVX2", _POST, _DIFFERS),
)
