# SPDX-License-Identifier: Apache-2.0
"""A network of ours in torch's autograd beside torch's own: python -m bench.torch_module [--save]

Forward, and forward with backward from a gradient of the output, parameters' gradients let go of between calls;
one thread. Beside them: the native steps of the same passes alone (a program run many times in one call),
`TrainStep`'s forward and backward, and empty autograd functions, which compute nothing: of as many tensors as the
module, and of a single one without a gradient, as with direct_grad. They are what torch itself takes for a call that
Python wrote. Rounds in turn; the best of them counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

import hotloop as hl
from bench._harness import Row, machine, save, table
from hotloop.benchmarks.harness import measure_limits
from hotloop.benchmarks.networks import Network, selected
from hotloop.compile.plan import PlanSpec
from hotloop.torch import Module, from_torch

ROUNDS = 40
#: Of one contestant in one round.
RUN_S = 0.004
SMALL = "64-128-10,10-32-32-10,10-46-46-10,4-120-84-2,784-30-10"

Call = Callable[[], object]


def torch_network(network: Network) -> Any:
    layers: list[Any] = []
    for fan_in, fan_out in network.layers:
        layers += [torch.nn.Linear(fan_in, fan_out), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def passes(module: Any, x: Any, doutput: Any) -> tuple[Call, Call]:
    """Forward, and forward with backward, of a module of torch."""
    parameters = list(module.parameters())

    def both() -> None:
        module(x).backward(doutput)
        for parameter in parameters:
            parameter.grad = None

    return lambda: module(x), both


def empty_function(parameters: list[Any], shape: tuple[int, ...], gives: bool = True) -> Any:
    """A module whose call is one autograd function that does nothing; ``gives``: but give gradients."""
    arrays = [np.zeros(tuple(p.shape), np.float32) for p in parameters]

    class Nothing(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, *tensors: Any) -> Any:
            ctx.save_for_backward(x, *tensors)
            return torch.empty(shape)

        @staticmethod
        def backward(ctx: Any, doutput: Any) -> Any:
            assert ctx.saved_tensors
            return (None, *(map(torch.from_numpy, arrays) if gives else [None] * len(parameters)))

    class Empty(torch.nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            return iter(parameters)

        def forward(self, x: Any) -> Any:
            return Nothing.apply(x, *parameters)

    return Empty()


def native_steps(module: Any, rows: int) -> tuple[Call, Call]:
    """The kernels of forward, and of forward and backward, in one native call."""
    session = module._native.session
    exe = session.build(session.graph, PlanSpec("vjp", rows))
    middle = exe.plan.section("forward")[1]
    params = np.zeros(0)
    times = 50
    return (
        lambda: exe.program.run(exe.team, rows, end=middle, params=params, times=times),
        lambda: exe.program.run(exe.team, rows, params=params, times=times),
    )


def step_parts(theirs: Any, x: Any, doutput: Any) -> tuple[Call, Call]:
    step = hl.TrainStep(from_torch(theirs), "mse", threads=1)
    features, gradient = x.numpy(), doutput.numpy()

    def both() -> None:
        step.forward(features)
        step.backward(gradient)

    return lambda: step.forward(features), both


def seconds(call: Call, times: int) -> float:
    begin = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - begin) / times


def measure(network: Network) -> list[Row]:
    torch.manual_seed(0)
    theirs = torch_network(network)
    ours = Module(from_torch(theirs), threads=1)
    direct = Module(from_torch(theirs), threads=1, direct_grad=True)
    x = torch.randn(network.batch, network.sizes[0])
    doutput = torch.randn(network.batch, network.sizes[-1])
    for module in (ours, direct):  # equal work before any time
        torch.testing.assert_close(module(x), theirs(x), rtol=1e-4, atol=1e-5)
    shape = tuple(doutput.shape)
    empty = empty_function(list(theirs.parameters()), shape)
    anchor = empty_function([torch.zeros((), requires_grad=True)], shape, gives=False)
    # name -> (forward, both), and how many passes one call is
    contestants: dict[str, tuple[tuple[Call, Call], int]] = {
        "hotloop.torch.Module": (passes(ours, x, doutput), 1),
        "direct_grad": (passes(direct, x, doutput), 1),
        "torch": (passes(theirs, x, doutput), 1),
        "TrainStep in parts": (step_parts(theirs, x, doutput), 1),
        "empty autograd function": (passes(empty, x, doutput), 1),
        "empty function of one tensor": (passes(anchor, x, doutput), 1),
        "native steps": (native_steps(ours, network.batch), 50),
    }
    calls = {
        (name, what): (call, many)
        for name, (pair, many) in contestants.items()
        for what, call in zip(("forward", "forward and backward"), pair, strict=True)
    }
    for call, _ in calls.values():
        seconds(call, 20)  # compiles, and warms up
    times = {key: max(1, round(RUN_S / max(seconds(call, 20), 1e-7))) for key, (call, _) in calls.items()}
    found: dict[tuple[str, str], list[float]] = {key: [] for key in calls}
    for _ in range(ROUNDS):
        for key, (call, many) in calls.items():
            found[key].append(seconds(call, times[key]) / many)
    return [
        Row(f"{network.name}, {what}", name, tuple(values)) for (name, what), values in sorted(found.items())
    ]


def line(rows: dict[str, Row], setting: str) -> list[str]:
    """One line of the table: microseconds, and what they say."""
    us = {name: row.best * 1e6 for name, row in rows.items()}
    ours, direct, native = us["hotloop.torch.Module"], us["direct_grad"], us["native steps"]
    order = (
        "hotloop.torch.Module", "direct_grad", "torch", "TrainStep in parts", "empty autograd function",
        "empty function of one tensor", "native steps",
    )  # fmt: skip
    return [
        setting,
        *(f"{us[name]:.1f}" for name in order),
        f"{us['torch'] / ours:.1f}",
        f"{us['torch'] / direct:.1f}",
        f"{direct - native:.1f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--save", action="store_true", help="write bench/results/<date>-torch_module.json")
    parser.add_argument("--networks", default=SMALL, help="keys as in hotloop.benchmarks.networks")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    limits = asdict(measure_limits())
    rows = [row for network in selected(arguments.networks) for row in measure(network)]
    lines = []
    for setting in dict.fromkeys(row.setting for row in rows):
        lines.append(line({row.contestant: row for row in rows if row.setting == setting}, setting))
    head = [
        "us per call", "Module", "direct", "torch", "TrainStep", "empty", "empty of one", "native",
        "times torch", "direct", "over native",
    ]  # fmt: skip
    print(table(head, lines))
    if arguments.save:
        print(f"saved {save('torch_module', rows, machine(limits))}")


if __name__ == "__main__":
    main()
