# SPDX-License-Identifier: Apache-2.0
"""Who takes part, with how many threads, and what a contestant must be able to do.

Each library is used as its own experts would for the shortest time: see the module of each. What is not
installed is left out and named.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

from hotloop.benchmarks.networks import Network, Weights


class Runner(Protocol):
    """One network in one library. Made, it is described and has its first weights; nothing is compiled."""

    def first_step(self) -> float:
        """Compile and train one step; the seconds until that step is done."""

    def reset(self) -> None:
        """Back to the first weights, with a fresh optimiser."""

    def run(self, epochs: int, *, shuffle: bool) -> None:
        """Train whole epochs, in a new order each or in the order of the rows."""

    def weights(self) -> Weights:
        """What has been learnt."""


class Library(Protocol):
    """A module of runners."""

    def prepare(self, contestant: str, threads: int | None) -> None:
        """Limit this process's threads and load what is needed, once, before any runner is made."""

    def make(self, network: Network, contestant: str, threads: int | None) -> Runner: ...


@dataclass(frozen=True)
class Contestant:
    """``module``: its runners; ``needs``: what must be installed; ``family``: its column in summaries.

    What follows a comma in a contestant's name says how its runners are used: ", Adam"; ", cuda"; ", cuda bf16".

    ``adam``: trains with Adam instead of AdamW, because it has nothing else. ``variant``: another way to use a
    library that takes part already; quick runs go without.
    """

    name: str
    family: str
    module: str
    needs: str
    adam: bool = False
    variant: bool = False


CONTESTANTS = (
    Contestant("hotloop", "hotloop", "run_hotloop", "hotloop"),
    Contestant("torch eager", "torch", "run_torch", "torch"),
    Contestant("torch compiled", "torch", "run_torch", "torch", variant=True),
    Contestant("torch compiled, update too", "torch", "run_torch", "torch", variant=True),
    Contestant("JAX scan", "jax", "run_jax", "jax"),
    Contestant("JAX scan, jax.random.permutation", "jax", "run_jax", "jax", variant=True),
    Contestant("scikit-learn", "sklearn", "run_sklearn", "sklearn", adam=True),
)
#: Only on a GPU; see bench/gpu/training.py.
ON_GPU = (Contestant("torch graph", "torch", "run_torch_graph", "torch"),)
#: Names that a user may choose from with ``--peers``.
PEERS = tuple(dict.fromkeys(c.family for c in CONTESTANTS if c.family != "hotloop"))
BY_NAME = {contestant.name: contestant for contestant in (*CONTESTANTS, *ON_GPU)}


@dataclass(frozen=True)
class Entry:
    """A contestant with a number of threads; None lets hotloop decide."""

    contestant: str
    threads: int | None

    @property
    def label(self) -> str:
        return f"{self.contestant} / {'auto' if self.threads is None else self.threads}"


def library(contestant: str) -> Library:
    return cast(Library, importlib.import_module(f"hotloop.benchmarks.{BY_NAME[contestant].module}"))


def thread_counts(processors: int) -> tuple[int, ...]:
    """1, 2, 4, 8, 16 as far as there are processors.

    >>> thread_counts(6)
    (1, 2, 4)
    """
    return tuple(n for n in (1, 2, 4, 8, 16) if n <= processors)


def entries(peers: Sequence[str], counts: Sequence[int], *, variants: bool = True) -> list[Entry]:
    """hotloop with its own choice and every count; peers with one thread and the most, and those for whom
    the best count is not known beforehand (torch eager, JAX) with every count.

    ``variants``: whether torch.compile and other second ways take part; they compile for minutes in all.
    """
    found = [Entry("hotloop", None), *(Entry("hotloop", n) for n in counts)]
    ends = tuple(dict.fromkeys((counts[0], counts[-1])))
    for contestant in CONTESTANTS:
        if contestant.family not in peers or not importlib.util.find_spec(contestant.needs):
            continue
        if contestant.variant and not variants:
            continue
        every = contestant.name in ("torch eager", "JAX scan")
        found += [Entry(contestant.name, n) for n in (counts if every else ends)]
    return found


def absent(peers: Sequence[str]) -> list[str]:
    """Chosen peers that are not installed."""
    found = [c.needs for c in CONTESTANTS if c.family in peers and not importlib.util.find_spec(c.needs)]
    return list(dict.fromkeys(found))
