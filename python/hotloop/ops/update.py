# SPDX-License-Identifier: Apache-2.0
"""One step of an optimiser on arrays of the caller's own, in place: the numbers are torch's.

``step`` counts from 1. Lists of arrays are one native call. For a model of ours `hotloop.TrainStep` updates all
parameters in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Union

import numpy as np

from hotloop import _core, optim
from hotloop.arguments import count
from hotloop.errors import ShapeError
from hotloop.ops import device_work
from hotloop.ops.arrays import Array, dense, overlap, real_arrays, writable
from hotloop.ops.device import View, same_place, waiting_once
from hotloop.ops.launch import ALONE_BELOW_NS, launch, team_for

_NS_ADAM, _NS_SGD = 0.7, 0.4  # of one thread, per element
_SGD, _ADAM, _ADAMW = range(3)  # Rule::kind of update_many.cc


def adamw_(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, *, step: Union[int, Sequence[int]], lr: float,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2,
) -> None:  # fmt: skip
    """``torch.optim.AdamW`` (Loshchilov and Hutter 2019), in place on param, exp_avg and exp_avg_sq.

    Args:
        param, grad, exp_avg, exp_avg_sq: arrays of one shape and dtype; all but grad C-contiguous and writable.
            The averages begin as zeros. Or four lists of such arrays, of any shapes: one call for all.
        step: the number of this step, from 1; with lists, one for all or a list of their own.
        lr, betas, eps, weight_decay: as in `hl.optim.AdamW`.

    Raises `ShapeError`, `DTypeError` or `ValueError` before anything changes.

    >>> import numpy as np, hotloop as hl
    >>> p, g, m, v = (np.full(2, x, np.float32) for x in (1.0, 0.5, 0.0, 0.0))
    >>> hl.ops.adamw_(p, g, m, v, step=1, lr=0.1, weight_decay=0.0)
    >>> print(p.round(4))
    [0.9 0.9]
    """
    rule = _rule(optim.AdamW, lr, betas, eps, weight_decay)
    _adam(rule, "adamw_", param, grad, exp_avg, exp_avg_sq, step)


def adam_(
    param: Any, grad: Any, exp_avg: Any, exp_avg_sq: Any, *, step: Union[int, Sequence[int]], lr: float,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0.0,
) -> None:  # fmt: skip
    """``torch.optim.Adam`` (Kingma and Ba 2015): as `adamw_`, with the decay added to the gradient."""
    rule = _rule(optim.Adam, lr, betas, eps, weight_decay)
    _adam(rule, "adam_", param, grad, exp_avg, exp_avg_sq, step)


def _new_rule(kind: Any, lr: Any, betas: Any, eps: Any, weight_decay: Any) -> Any:
    return kind(lr, betas, eps=eps, weight_decay=weight_decay)


_kept_rule = lru_cache(maxsize=64, typed=True)(_new_rule)


def _rule(kind: Any, *numbers: Any) -> Any:
    """The checked numbers of a step. Those of recent steps are kept: checking takes as long as 20 000 updates."""
    try:
        hash(numbers)
    except TypeError:
        return _new_rule(kind, *numbers)
    return _kept_rule(kind, *numbers)


def sgd_(
    param: Any, grad: Any, momentum_buffer: Any = None, *, lr: float, momentum: float = 0.0, nesterov: bool = False,
    weight_decay: float = 0.0,
) -> None:  # fmt: skip
    """``torch.optim.SGD`` without dampening, in place on param and momentum_buffer (zeros before the first step).

    Arguments and errors as `adamw_`, lists included; ``momentum > 0`` needs the buffer.
    """
    rule = optim.SGD(lr, momentum, nesterov=nesterov, weight_decay=weight_decay)
    if (momentum_buffer is None) == (rule.momentum > 0):
        raise ValueError(f"[ops.sgd_] momentum={rule.momentum:g} needs a momentum_buffer, and 0 takes none")
    if isinstance(param, (list, tuple)):
        arrays = {"param": param, "grad": grad, "momentum_buffer": momentum_buffer}
        numbers = (_SGD, rule.lr, rule.weight_decay, rule.momentum, 0.0, 0.0, 0.0, rule.nesterov, False)
        _many("sgd_", "sgd", arrays, numbers, [1], lambda views, _: _sgd_fields(rule, *views))
        return
    views = _checked("sgd_", param=param, grad=grad, momentum_buffer=momentum_buffer)
    _one("sgd", _sgd_fields(rule, *views), _NS_SGD)


def _sgd_fields(rule: optim.SGD, p: Array, g: Array, buffer: Array | None = None) -> tuple[Any, ...]:
    """What the kernel is given, of arrays that have been checked."""
    return p, buffer, g, _scalars(rule, 1), p.size, int(rule.nesterov), rule.momentum


def _adam(
    rule: optim.AdamW | optim.Adam,
    where: str,
    param: Any,
    grad: Any,
    exp_avg: Any,
    exp_avg_sq: Any,
    step: Union[int, Sequence[int]],
) -> None:
    if isinstance(param, (list, tuple)):
        arrays = {"param": param, "grad": grad, "exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq}
        kind = _ADAMW if rule.kind == "adamw" else _ADAM
        numbers = (kind, rule.lr, rule.weight_decay, *rule.betas, rule.eps, 0.0, False, False)
        steps = step if isinstance(step, (list, tuple)) else [step]
        counts = [count(f"ops.{where}", "step", one, low=1) for one in steps]
        _many(where, "adam", arrays, numbers, counts, lambda views, step: _adam_fields(rule, step, *views))
        return
    step = count(f"ops.{where}", "step", step, low=1)
    views = _checked(where, param=param, grad=grad, exp_avg=exp_avg, exp_avg_sq=exp_avg_sq)
    _one("adam", _adam_fields(rule, step, *views), _NS_ADAM)


def _adam_fields(
    rule: optim.AdamW | optim.Adam, step: int, p: Array, g: Array, m: Array, v: Array
) -> tuple[Any, ...]:
    """What the kernel is given, of arrays that have been checked."""
    beta1, beta2 = rule.betas
    scalars = _scalars(rule, step, 1 - beta1**step, math.sqrt(1 - beta2**step))
    return p, m, v, g, scalars, p.size, int(rule.kind == "adamw"), beta1, beta2, rule.eps


def _one(kernel: str, fields: tuple[Any, ...], element_ns: float) -> None:
    """The update of one set of arrays; ``element_ns``: of an element, on one thread."""
    param = fields[0]
    if not param.size:
        return
    if isinstance(param, View):
        device_work.update_list(kernel, [fields])
    else:
        launch(kernel, param.dtype, fields, param.size * element_ns)


def _many(
    where: str, kernel: str, arrays: dict[str, Any], rule: tuple[Any, ...], steps: list[int],
    fields_of: Callable[[list[Array], int], tuple[Any, ...]],
) -> None:  # fmt: skip
    """One call for lists of arrays. What the native side does not take as it is, is checked and explained here.

    ``fields_of``: what a GPU's kernel is given of one set of arrays, for that step.
    """
    given = {name: value for name, value in arrays.items() if value is not None}
    length = len(given["param"])
    for name, value in given.items():
        if not isinstance(value, (list, tuple)) or len(value) != length:
            raise ShapeError(
                f"[ops.{where}] {name} must be a list of {length} arrays, as param, got {type(value).__name__}"
                + (f" of {len(value)}" if isinstance(value, (list, tuple)) else "")
            )
    if len(steps) not in (1, length):
        raise ShapeError(f"[ops.{where}] step must be one number or {length}, got {len(steps)}")
    team = team_for(ALONE_BELOW_NS)
    if _update(list(given.values()), steps, rule, team):
        return
    with waiting_once():
        rows = [
            _fitting(where, dict(zip(given, row, strict=True))) for row in zip(*given.values(), strict=True)
        ]
    if any(isinstance(row[0], View) for row in rows):
        _check_apart(where, rows)
        steps = steps * (length if len(steps) == 1 else 1)
        for_kernel = [fields_of(row, step) for row, step in zip(rows, steps, strict=True) if row[0].size]
        if for_kernel:
            device_work.update_list(kernel, for_kernel)
        return
    if not _update([list(column) for column in zip(*rows, strict=True)], steps, rule, team):
        raise ValueError(f"[ops.{where}] two of the arrays overlap; each needs memory of its own")


def _check_apart(where: str, rows: list[list[Any]]) -> None:
    """Raises unless all arrays, which are dense, lie in one memory and none that is written overlaps another."""
    for row in rows:
        same_place({"param": rows[0][0], "another": row[0]}, where)
    pieces = sorted(
        (v.address, v.address + v.size * v.dtype.itemsize, i != 1)  # row[1] is the gradient
        for row in rows for i, v in enumerate(row) if v.size
    )  # fmt: skip
    end = written_end = 0  # of the pieces before
    for begin, after, written in pieces:
        if begin < (end if written else written_end):
            raise ValueError(f"[ops.{where}] two of the arrays overlap; each needs memory of its own")
        end = max(end, after)
        written_end = max(written_end, after) if written else written_end


def _update(columns: list[Any], steps: list[int], rule: tuple[Any, ...], team: Any) -> bool:
    """Parameters, gradients and what state there is, as lists: whether they were plain, and are updated."""
    lists = [column if type(column) is list else list(column) for column in columns]
    params, grads, firsts, seconds = lists + [[]] * (4 - len(columns))
    return _core.update_arrays(params, grads, firsts, seconds, steps, rule, team)


def _scalars(rule: optim.Optimizer, step: int, correction1: float = 1.0, correction2: float = 1.0) -> Array:
    """What optimizer_begin of args.h would give: [skip, lr, decay, scale of the gradient, corrections, t, norm]."""
    return np.array([0.0, rule.lr, rule.weight_decay, 1.0, correction1, correction2, step, 0.0])


def _checked(where: str, **arrays: Any) -> list[Any]:
    """The arrays of one update as kernels read them, none of which overlap."""
    result = _fitting(where, arrays)
    filled = [view for view in result if view is not None and view.size]
    for i, view in enumerate(filled):
        if any(overlap(view, other) for other in filled[:i]):
            raise ValueError(f"[ops.{where}] two of the arrays overlap; each needs memory of its own")
    return result


def _fitting(where: str, arrays: dict[str, Any]) -> list[Any]:
    """The arrays of one update as kernels read them: of one shape, what is written in place."""
    views = real_arrays(where, **arrays)
    shape = views[0].shape
    result: list[Any] = []
    for name, view in zip(arrays, views, strict=True):
        if view is not None and view.shape != shape:
            raise ShapeError(f"[ops.{where}] {name} must be {shape}, as param, got {view.shape}")
        if view is None:
            result.append(None)
        else:
            result.append(dense(view) if name == "grad" else writable(view, where, name))
    return result
