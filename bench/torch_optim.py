# SPDX-License-Identifier: Apache-2.0
"""Our optimisers beside torch's fused and foreach ones, in torch: python -m bench.torch_optim [--save]

A whole ``optimizer.step()``, on one thread, in alternating rounds. Before it is timed, a training of 200 steps in
float32 is compared with torch's in float64: it must end no further from it than twice torch's own float32.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch

import hotloop.torch as ours
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits
from hotloop.runtime.threads import set_num_threads

SETTINGS = {
    "4 tensors, 10 k": (64 * 128, 128, 128 * 10, 10),  # the network 64-128-10
    "64 tensors, 100 k": (100_000 // 64,) * 64,
    "64 tensors, 1 M": ((1 << 20) // 64,) * 64,
    "1 tensor, 1 M": (1 << 20,),
    "1 tensor, 16 M": (1 << 24,),
}
CONTESTANTS: dict[str, Callable[[list[Any]], Any]] = {
    "hotloop": lambda params: ours.AdamW(params, lr=1e-3),
    "torch fused": lambda params: torch.optim.AdamW(params, lr=1e-3, fused=True),
    "torch foreach": lambda params: torch.optim.AdamW(params, lr=1e-3, foreach=True),
}
ROUNDS, SAMPLE_S = 21, 0.004


def parameters(sizes: tuple[int, ...]) -> list[Any]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(size, generator=generator)) for size in sizes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator)
    return params


def sample(step: Callable[[], object], repeats: int) -> float:
    begin = time.perf_counter()
    for _ in range(repeats):
        step()
    return (time.perf_counter() - begin) / repeats


def measure(name: str, sizes: tuple[int, ...]) -> list[Row]:
    steps = {who: make(parameters(sizes)).step for who, make in CONTESTANTS.items()}
    repeats = {}
    for who, step in steps.items():
        sample(step, 2)
        repeats[who] = max(1, round(SAMPLE_S / sample(step, 2)))
    times: dict[str, list[float]] = {who: [] for who in steps}
    for _ in range(ROUNDS):
        for who, step in steps.items():
            times[who].append(sample(step, repeats[who]))
    return [Row(name, who, tuple(found), {"elements": sum(sizes)}) for who, found in times.items()]


def trained(make: Callable[..., Any], dtype: Any) -> Any:
    """All parameters of a small network after 200 steps, as float64."""
    generator = torch.Generator().manual_seed(1)
    x, y = (torch.randn(64, n, generator=generator).to(dtype) for n in (10, 1))
    network = torch.nn.Sequential(torch.nn.Linear(10, 32), torch.nn.Tanh(), torch.nn.Linear(32, 1)).to(dtype)
    with torch.no_grad():
        for param in network.parameters():
            param.copy_(0.3 * torch.randn(param.shape, generator=generator))
    rule = make(network.parameters(), lr=1e-3)
    for _ in range(200):
        rule.zero_grad()
        (network(x) - y).square().mean().backward()
        rule.step()
    return torch.cat([param.detach().flatten().double() for param in network.parameters()])


def distance_ratio() -> float:
    """Our distance from float64 over that of torch in float32. Raises `AssertionError` above 2."""
    exact = trained(torch.optim.AdamW, torch.float64)
    mine = float((trained(ours.AdamW, torch.float32) - exact).norm())
    theirs = float((trained(torch.optim.AdamW, torch.float32) - exact).norm())
    assert mine <= 2 * theirs, f"{mine:g} from float64, torch {theirs:g}"
    return mine / theirs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-torch_optim.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    set_num_threads(1)
    ratio = distance_ratio()
    print(f"after 200 steps: {ratio:.2f} of torch's distance from float64")
    rows = [row for name, sizes in SETTINGS.items() for row in measure(name, sizes)]
    mine = {row.setting: row.best for row in rows if row.contestant == "hotloop"}
    lines = [
        [row.setting, row.contestant, f"{row.best * 1e6:.1f}", f"{row.best / mine[row.setting]:.2f}"]
        for row in rows
    ]
    print(table(["parameters", "optimiser", "best us", "of ours"], lines))
    if arguments.save:
        stamp = {**machine(asdict(measure_limits())), "distance_ratio": ratio}
        print(f"saved {save('torch_optim', rows, stamp)}")


if __name__ == "__main__":
    main()
