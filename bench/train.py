# SPDX-License-Identifier: Apache-2.0
"""Whole training runs beside torch, JAX, scikit-learn and the floor: pytest bench/train.py [--save] [--quick]

One test per network: equal loss curves of all contestants, then timed rounds in turn, each contestant in a
process of its own. The work is done by `hotloop.benchmarks.training`, as in ``hotloop bench train``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.conftest import Kept
from hotloop.benchmarks import contestants
from hotloop.benchmarks.networks import NETWORKS, Network
from hotloop.benchmarks.published import MATRIX_EXPONENTIAL
from hotloop.benchmarks.training import Options, Training


@pytest.fixture(scope="module")
def training(pytestconfig: pytest.Config, kept: Kept) -> Iterator[Training]:
    options = Options()
    if pytestconfig.getoption("--quick"):
        options = Options.quick(contestants.PEERS, options.counts)
    with Training(options) as found:
        kept.limits = {"fma_gflops": found.peaks, "left_out": found.left_out}
        yield found


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.key)
def test_network(network: Network, training: Training, kept: Kept) -> None:
    kept.rows += training.measure(network)


def test_network_of_published_figures(training: Training, kept: Kept) -> None:
    kept.rows += training.measure(MATRIX_EXPONENTIAL, peers=False)
