# SPDX-License-Identifier: Apache-2.0
"""The exponential moving average of the parameters, in NumPy, as torch.optim.swa_utils.AveragedModel."""

from __future__ import annotations

from types import SimpleNamespace

from hotloop.reference import Context, reference


@reference("ema_begin")
def ema_begin(a: SimpleNamespace, ctx: Context) -> None:
    skip = a.total is not None and a.total[0] == 0
    if not skip:
        a.counter += 1
    a.scalars[:] = 0.0 if skip else 1.0 if a.counter[0] == 1 else 1.0 - a.decay


@reference("ema")
def ema(a: SimpleNamespace, ctx: Context) -> None:
    weight = a.scalars[0]
    if weight:
        a.average[:] = a.param if weight == 1 else (1 - weight) * a.average + weight * a.param
