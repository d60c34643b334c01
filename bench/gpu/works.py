# SPDX-License-Identifier: Apache-2.0
"""What kernels are measured on: the shapes that have a target, and what torch calls for the same work.

Operands are drawn once and are the same numbers for everybody. A peer's function gets them as tensors on its
device and gives the tensors to compare. ``tiny`` sizes are for the emulator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hotloop.benchmarks.kernel_settings import Setting, matmul, optimizer

Arrays = dict[str, Any]
#: (torch, fields, tensors by operand) -> a call that gives tensors by the operand they are compared with
MakePeer = Callable[[Any, Arrays, Mapping[str, Any]], Callable[[], Mapping[str, Any]]]


@dataclass(frozen=True)
class Work:
    """One kernel on one shape.

    ``flops``, ``n_bytes``: what has to be computed, and read and written, at least; flops 0: memory is the limit.
    ``target``: a peer's time over ours, by contestant; ``of_copy``: the share of the rate of copies to reach.
    ``compiled``: torch.compile takes part, too.
    """

    name: str
    kernel: str
    setting: Setting
    tiny: Setting
    n_bytes: float
    flops: float = 0.0
    precision: str = "float32"
    peer: MakePeer | None = None
    target: Mapping[str, float] | None = None
    of_copy: float | None = None
    compiled: bool = False
    signed: tuple[str, ...] = ()  # operands drawn around zero


def _layout(m: int, n: int, k: int, form: str) -> Setting:
    """A (m, k) and B (k, n), stored transposed where ``form`` says T."""
    setting = matmul(m, n, k)
    numbers = dict(setting.numbers)
    if form[0] == "T":
        numbers |= {"a_stride_m": 1, "a_stride_k": m}
    if form[1] == "T":
        numbers |= {"b_stride_k": 1, "b_stride_n": k}
    return Setting(numbers, "", flops=setting.flops)


def product(
    m: int,
    n: int,
    k: int,
    *,
    form: str = "NN",
    precision: str = "float32",
    relu: bool = False,
    **target: float,
) -> Work:
    """``A B``, or ``relu(A B + bias)``, beside torch's matmul at the same precision."""

    def setting(m: int, n: int, k: int) -> Setting:
        found = _layout(m, n, k, form)
        # activation 0 is the first of unary.def, relu
        return replace(found, numbers={**found.numbers, "activation": 0}, optional="bias") if relu else found

    def peer(torch: Any, fields: Arrays, tensors: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
        m, n, k = fields["m"], fields["n"], fields["k"]
        a = tensors["a"].reshape((k, m) if form[0] == "T" else (m, k))
        b = tensors["b"].reshape((n, k) if form[1] == "T" else (k, n))
        a, b = (a.T if form[0] == "T" else a), (b.T if form[1] == "T" else b)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        a, b = a.to(dtype), b.to(dtype)
        bias = tensors["bias"].to(dtype) if relu else None

        def call() -> Mapping[str, Any]:
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
            return {"out": torch.relu(torch.addmm(bias, a, b)) if relu else torch.mm(a, b)}

        return call

    name = f"matmul {m}x{n}x{k} {form} {precision}" + (" +bias+relu" if relu else "")
    return Work(
        name, "matmul", setting(m, n, k), setting(12, 20, 28), 4.0 * (m * k + k * n + m * n), 2.0 * m * n * k,
        precision, peer, target, compiled=relu, signed=("a", "b", "bias"),
    )  # fmt: skip


def adamw(n: int, tensors: int = 1, **target: float) -> Work:
    """One launch over all parameters beside torch's fused AdamW over ``tensors`` tensors of equal size."""

    def setting(n: int) -> Setting:
        found = optimizer()
        return replace(found, numbers={**found.numbers, "n": n})

    def peer(torch: Any, fields: Arrays, found: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
        parameters = [p.clone().requires_grad_() for p in found["param"].chunk(tensors)]
        for parameter, gradient in zip(parameters, found["grad"].chunk(tensors), strict=True):
            parameter.grad = gradient.clone()
        update = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=1e-2, fused=True, capturable=True)

        def call() -> Mapping[str, Any]:
            update.step()
            return {}  # it begins with moments of zero: tests compare optimisers, here only the time is

        return call

    name = f"adamw {n}" + (f" in {tensors} tensors" if tensors > 1 else "")
    return Work(
        name, "adam", setting(n), setting(1000), 28.0 * n, peer=peer, target=target,
        of_copy=0.9 if tensors == 1 else None,
    )  # fmt: skip


def cross_entropy(rows: int, classes: int, **target: float) -> Work:
    """Row losses and gradients by the logits in one pass; torch: cross_entropy and its backward."""

    def setting(rows: int, classes: int) -> Setting:
        labels = np.arange(rows) * 7919 % classes
        return Setting({"rows": rows, "cols": classes}, "row_loss dlogits drow labels", {"labels": labels})

    def peer(torch: Any, fields: Arrays, tensors: Mapping[str, Any]) -> Callable[[], Mapping[str, Any]]:
        logits = tensors["logits"].reshape(fields["rows"], fields["cols"]).clone().requires_grad_()
        labels, weight = tensors["labels"].long(), tensors["drow"]

        def call() -> Mapping[str, Any]:
            losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
            (gradient,) = torch.autograd.grad(losses, logits, weight)
            return {"row_loss": losses.detach(), "dlogits": gradient.reshape(-1)}

        return call

    return Work(
        f"cross entropy {rows}x{classes}", "cross_entropy", setting(rows, classes), setting(6, 37),
        8.0 * rows * classes, peer=peer, target=target, compiled=True, signed=("logits",),
    )  # fmt: skip


#: The shapes of the project's targets, and the three transpose forms of one of them.
WORKS: tuple[Work, ...] = (
    product(4096, 4096, 4096, precision="bf16", torch=0.6),
    product(4096, 4096, 4096, torch=1.8),
    product(4096, 4096, 4096, precision="tf32"),
    product(1024, 1024, 1024, relu=True, torch=1.2),
    product(1024, 1024, 1024, relu=True, precision="bf16", torch=1.2),
    product(1024, 1024, 1024, form="NT"),
    product(1024, 1024, 1024, form="TN"),
    product(128, 512, 784, relu=True, torch=1.2),
    product(128, 512, 784, relu=True, precision="bf16", torch=1.2),
    adamw(10_000_000, torch=1.0),
    adamw(102_400, 100, torch=3.0),
    cross_entropy(8192, 32000, torch=2.0),
)
