# SPDX-License-Identifier: Apache-2.0
"""The update: clipping, and one pass of the optimiser over each segment of the flat buffers.

    accumulate (a section of its own, which runs after every batch; what follows, after the last of several)
    clamp (clip_value) -> square_sum (clip_norm, over all gradients) -> per segment: optimizer_begin, adam ...
    -> ema

A segment is a run of parameters with the same step parameters and equally many steps behind them; frozen
parameters are in none, so that nothing here reads or writes them.

Its few scratch doubles are never shared (the memory pass keeps them live throughout), so that this section
can run on its own, at any time.
"""

from __future__ import annotations

from typing import Any, Protocol

from hotloop.compile.kernels import SQUARE_SUM_RUN
from hotloop.compile.layout import trained_runs, update_segments
from hotloop.compile.plan import BufferDType, BufferKind, Operand, OptimizerSpec, ParamLayout, PlanSpec
from hotloop.errors import GraphError
from hotloop.graph import Affine


class _Lowerer(Protocol):
    def step(self, kernel: str, **fields: Any) -> None: ...
    def scratch(self, size: Affine | int, dtype: BufferDType = "real") -> Operand: ...
    def flat(self, kind: BufferKind, begin: int, end: int, name: str) -> Operand: ...
    def memory(
        self, name: str, kind: BufferKind, size: Affine, *, dtype: BufferDType = "real", offset: int = 0
    ) -> Operand: ...
    def metric(self, name: str, kind: Any, size: int) -> Operand: ...
    def note(self, text: str) -> None: ...


def lower_accumulate(ctx: _Lowerer, spec: PlanSpec, layout: ParamLayout, total: Operand | None) -> Operand:
    """Append the accumulate section; the sum of row weights that the update goes by. Without ``total``, as in
    a plan whose loss is the caller's, the caller writes it to the metric block."""
    ctx.note("accumulate")
    tally = ctx.metric("accumulated", "accumulated", 2)
    scalars = ctx.scratch(4, "double")
    total = total or ctx.metric("batch_weight", "batch_weight", 1)
    ctx.step("accumulate_begin", scalars=scalars, tally=tally, total=total)
    assert spec.optimizer is not None
    for begin, end in trained_runs(update_segments(layout, spec.optimizer, spec.trainable)):
        kept = ctx.flat("accumulated", begin, end, "accumulated")
        gradients = ctx.flat("gradient", begin, end, "gradients")
        ctx.step("accumulate", sum=kept, grad=gradients, scalars=scalars, n=end - begin)
    return tally


def lower_update(ctx: _Lowerer, spec: PlanSpec, layout: ParamLayout, total: Operand | None) -> None:
    """Append the update section. ``total`` is the sum of the row weights it goes by: 0 skips the update."""
    optimizer = spec.optimizer
    assert optimizer is not None
    segments = update_segments(layout, optimizer, spec.trainable)
    partial, n_partial = _clip(ctx, spec, trained_runs(segments))
    for segment in segments:
        ctx.note(f"{optimizer.kind}, group {segment.group}")
        scalars = ctx.scratch(8, "double")
        n_counter = segment.last - segment.first
        counter = f"counter[{segment.first}:{segment.last}]"
        ctx.step(
            "optimizer_begin",
            scalars=scalars,
            counter=ctx.memory(
                counter, "counter", Affine(0, n_counter), dtype="int64", offset=8 * segment.first
            ),
            total=total,
            partial=partial,
            n_counter=n_counter,
            n_partial=n_partial,
            group=segment.group,
            clip_norm=spec.clip_norm or 0.0,
            beta1=optimizer.beta1,
            beta2=optimizer.beta2 if optimizer.corrects_root else 0.0,
        )
        _optimizer_step(ctx, optimizer, scalars, segment.begin, segment.end)
    if spec.ema is not None and layout.entries:
        _average(ctx, spec.ema, layout.size, total)


def _clip(ctx: _Lowerer, spec: PlanSpec, runs: tuple[tuple[int, int], ...]) -> tuple[Operand | None, int]:
    """Limit the gradients of what is trained, and sum their squares: the partial sums, and how many."""
    gradients = [(ctx.flat("gradient", *run, "gradients"), run[1] - run[0]) for run in runs]
    if spec.clip_value is not None:
        ctx.note("clip_value")
        for x, n in gradients:
            ctx.step("clamp", x=x, n=n, lo=-spec.clip_value, hi=spec.clip_value)
    if spec.clip_norm is None or not runs:
        return None, 0
    ctx.note("clip_norm")
    sizes = [-(-n // SQUARE_SUM_RUN) for _, n in gradients]
    partial = ctx.scratch(sum(sizes), "double")
    at = 0
    for (x, n), size in zip(gradients, sizes, strict=True):
        ctx.step("square_sum", partial=Operand(partial.buffer, at), x=x, n=n)
        at += size
    return partial, at


def _average(ctx: _Lowerer, decay: float, n: int, total: Operand | None) -> None:
    """The moving average, of all parameters: those that are frozen now may have moved before."""
    ctx.note("ema")
    scalars = ctx.scratch(1, "double")
    counter = ctx.memory("updates in the average", "ema_counter", Affine(0, 1), dtype="int64")
    ctx.step("ema_begin", scalars=scalars, counter=counter, total=total, decay=decay)
    average, param = ctx.flat("ema", 0, n, "ema"), ctx.flat("parameter", 0, n, f"parameter[0:{n}]")
    ctx.step("ema", average=average, param=param, scalars=scalars, n=n)


def _optimizer_step(ctx: _Lowerer, spec: OptimizerSpec, scalars: Operand, begin: int, end: int) -> None:
    def flat(kind: BufferKind) -> Operand:
        return ctx.flat(kind, begin, end, f"{kind}[{begin}:{end}]")

    shared = {"param": flat("parameter"), "grad": flat("gradient"), "scalars": scalars, "n": end - begin}
    if spec.kind in ("adam", "adamw"):
        ctx.step(
            "adam",
            exp_avg=flat("moment1"),
            exp_avg_sq=flat("moment2"),
            decoupled=spec.kind == "adamw",
            beta1=spec.beta1,
            beta2=spec.beta2,
            eps=spec.eps,
            **shared,
        )
    elif spec.kind == "sgd":
        ctx.step(
            "sgd",
            momentum_buffer=flat("moment1") if spec.momentum else None,
            nesterov=spec.nesterov,
            momentum=spec.momentum,
            **shared,
        )
    elif spec.kind == "rmsprop":
        ctx.step(
            "rmsprop",
            square_avg=flat("moment1"),
            momentum_buffer=flat("moment2") if spec.momentum else None,
            alpha=spec.alpha,
            eps=spec.eps,
            momentum=spec.momentum,
            **shared,
        )
    else:
        raise GraphError(f"[compile] unknown optimizer {spec.kind!r}; allowed: adam, adamw, sgd, rmsprop")
