# SPDX-License-Identifier: Apache-2.0
"""Gradients of several batches as one, in NumPy: their mean, weighted by each batch's sum of row weights."""

from __future__ import annotations

from types import SimpleNamespace

from hotloop.reference import Context, reference


@reference("accumulate_begin")
def accumulate_begin(a: SimpleNamespace, ctx: Context) -> None:
    before, total = (0.0 if ctx.first else a.tally[0]), a.total[0]
    unit = a.tally[1] if before else total
    a.tally[:] = [before + total, unit]
    weight = total / unit if unit else 0.0
    a.scalars[:] = [before != 0, weight, ctx.last, unit / (before + total) if before + total else 0.0]


@reference("accumulate")
def accumulate(a: SimpleNamespace, ctx: Context) -> None:
    keep, weight, last, scale = a.scalars
    if last and not keep:
        return
    total = weight * a.grad + (a.sum if keep else 0.0)
    if last:
        a.grad[:] = scale * total
    else:
        a.sum[:] = total
