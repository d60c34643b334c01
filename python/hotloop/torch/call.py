# SPDX-License-Identifier: Apache-2.0
"""One call of a network as a node of torch's graph: forward and backward from addresses to addresses.

What is saved for backward is the native pass with its arena, and the tensors, so that autograd notices changes
in place. A pass serves once; gone back from again, it is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hotloop.errors import GraphError
from hotloop.torch import cuda
from hotloop.torch.inputs import WHERE
from hotloop.torch.passes import Kind, Native
from hotloop.torch.there import There

_CPU = torch.device("cpu")


def draw() -> int:
    """63 bits from torch's CPU generator."""
    return int(torch.empty((), dtype=torch.int64, device=_CPU).random_())


def new(shape: Any, there: There | None = None) -> Any:
    """A tensor for native code to write, whatever torch's defaults are at present."""
    if there is not None:
        return cuda.empty(shape, there.device)
    return torch.empty(shape, dtype=torch.float32, device=_CPU)


def _dense(tensor: Any) -> Any:
    """The tensor as it can be read from its address on."""
    if tensor.is_contiguous() and not tensor.is_neg():
        return tensor
    return tensor.contiguous().resolve_neg()


def run_forward(
    native: Native, names: tuple[str, ...], inputs: Any, needs: tuple[bool, ...], training: bool, keep: bool
) -> tuple[Any, Any, Any, int]:
    """(output, kind, native pass or True, seed) of a call; ``keep`` what backward needs."""
    with native.lock:
        kind, shape = native.kind(names, inputs, needs, training)
        seed = draw() if kind.draws else 0
        if kind.there is not None:
            output = cuda.empty(shape, kind.there.device)
        else:
            output = torch.empty(shape, dtype=torch.float32, device=_CPU)  # what `new` does, without its call
        dense = [x if x.is_contiguous() and not x.is_neg() else _dense(x) for x in inputs]
        start = kind.passes.start if keep else kind.passes.run
        given = dense if kind.there is not None else [x.data_ptr() for x in dense]
        run = start(shape[0], given, output.data_ptr(), seed)
    if not run:
        raise native.explain_ids(names, inputs)
    return output, kind, run, seed


def repeated(kind: Kind, seed: int, inputs: Any, doutput: Any) -> Any:
    """A native pass that has served, once more, from the inputs of forward, unchanged. Under the lock."""
    dense = [_dense(x) for x in inputs]
    given = dense if kind.there is not None else [x.data_ptr() for x in dense]
    spare = new(doutput.shape, kind.there)
    return kind.passes.start(len(doutput), given, spare.data_ptr(), seed, True)


class Call(torch.autograd.Function):
    """One call of a network, as autograd sees it: ((native, names, training), *inputs, *parameters)."""

    @staticmethod
    def forward(ctx: Any, how: tuple[Native, tuple[str, ...], bool], *tensors: Any) -> Any:
        native, names, training = how
        needs = ctx.needs_input_grad[1:]
        n = len(names)
        keep = True in needs
        output, kind, run, seed = run_forward(native, names, tensors[:n], needs, training, keep)
        if keep:
            ctx.call = native, n, kind, run, seed
            # Of the tensors, the inputs are read again only if the pass is repeated; all are saved so that
            # autograd notices if one of them was changed in place before backward.
            ctx.save_for_backward(*tensors)
        return output

    @staticmethod
    def backward(ctx: Any, doutput: Any) -> Any:
        tensors = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return _backward(ctx.call, tensors, doutput)
        with torch.no_grad():  # create_graph=True
            found = _backward(ctx.call, tensors, doutput)
        return first_only(found, doutput, *tensors)


#: `Call.apply` without its part for torch.func's transforms, which takes 1.5 us: for calls outside of them.
apply = super(torch.autograd.Function, Call).apply


def _backward(call: Any, tensors: Any, doutput: Any) -> tuple[Any, ...]:
    """The gradients by all arguments of `Call.forward`."""
    native, n_inputs, kind, run, seed = call
    doutput = _dense(doutput)
    dinputs = [new(tensors[i].shape, kind.there) for i in kind.inputs]
    with native.lock:
        if not run.is_open:
            run = repeated(kind, seed, tensors[:n_inputs], doutput)
        gradients = run.backward(doutput.data_ptr(), [x.data_ptr() for x in dinputs])
    if not kind.makes_tensors:
        gradients = tuple(map(torch.from_numpy, gradients))
    if not dinputs and len(gradients) == len(tensors) - n_inputs:
        return (*(None,) * (1 + n_inputs), *gradients)
    found: list[Any] = [None] * (1 + len(tensors))
    for i, gradient in zip(kind.inputs, dinputs, strict=True):
        found[1 + i] = gradient
    for i, gradient in zip(kind.parameters, gradients, strict=True):
        found[1 + n_inputs + i] = gradient
    return tuple(found)


def first_only(gradients: Sequence[Any], *made_from: Any) -> tuple[Any, ...]:
    """Gradients that raise where somebody differentiates them by what they were made from."""
    found = list(gradients)
    positions = [i for i, gradient in enumerate(found) if gradient is not None]
    if not positions:
        return tuple(found)
    marked = _NoSecond.apply(len(positions), *(found[i] for i in positions), *made_from)
    for i, gradient in zip(positions, marked, strict=True):
        found[i] = gradient
    return tuple(found)


class _NoSecond(torch.autograd.Function):
    """Gradients as they are; who differentiates them learns why that is not possible."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Any) -> Any:
        return tuple(t.view_as(t) for t in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise GraphError(
            f"[{WHERE}] second derivatives are not available: the native backward pass has no gradient of its own; "
            "use the same network in torch (hotloop.torch.to_torch)"
        )
