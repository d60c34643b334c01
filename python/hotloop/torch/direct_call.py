# SPDX-License-Identifier: Apache-2.0
"""One call of a network whose parameters are not in torch's graph: `Module(..., direct_grad=True)`.

The inputs are, and an anchor that stands for all parameters. What `call` leaves to autograd is done here: whether a
parameter has changed in place since forward, and where its gradient goes.
"""

from __future__ import annotations

from typing import Any

import torch

from hotloop.torch.call import _dense, first_only, new, repeated, run_forward
from hotloop.torch.own_gradients import changed, no_graph
from hotloop.torch.passes import Native


class DirectCall(torch.autograd.Function):
    """((native, names, training), parameters, which of them want gradients, anchor or None, *inputs)"""

    @staticmethod
    def forward(
        ctx: Any, how: tuple[Native, tuple[str, ...], bool], parameters: Any, needs: tuple[bool, ...],
        anchor: Any, *inputs: Any,
    ) -> Any:  # fmt: skip
        native, names, training = how
        needs = (*ctx.needs_input_grad[4:], *needs)
        output, kind, run, seed = run_forward(native, names, inputs, needs, training, True in needs)
        ctx.call = native, kind, run, seed, parameters, [p._version for p in parameters]
        ctx.save_for_backward(*inputs)  # so that autograd notices changes, and a second backward
        return output

    @staticmethod
    def backward(ctx: Any, doutput: Any) -> Any:
        inputs = ctx.saved_tensors
        if not torch.is_grad_enabled():
            return _backward(ctx.call, inputs, doutput)
        with torch.no_grad():  # create_graph=True
            found = _backward(ctx.call, inputs, doutput, create_graph=True)
        return first_only(found, doutput, *inputs)


#: `DirectCall.apply` without its part for torch.func's transforms, which takes 1.5 us: for calls outside of them.
apply = super(torch.autograd.Function, DirectCall).apply


def _backward(call: Any, inputs: Any, doutput: Any, create_graph: bool = False) -> tuple[Any, ...]:
    """The gradients by all arguments of `DirectCall.forward`; those by parameters go to their `.grad`."""
    native, kind, run, seed, parameters, versions = call
    own = native.own
    wanted = kind.parameters and own.are_wanted()
    if create_graph and wanted:
        raise no_graph()
    if [p._version for p in parameters] != versions:
        raise changed(parameters, versions)
    doutput = _dense(doutput)
    dinputs = [new(inputs[i].shape, kind.there) for i in kind.inputs]
    addresses = [x.data_ptr() for x in dinputs]
    with native.lock:
        if not run.is_open:
            run = repeated(kind, seed, inputs, doutput)
        if wanted:
            own.take(run, kind.parameters, parameters, doutput.data_ptr(), addresses)
        else:
            run.backward(doutput.data_ptr(), addresses, True)
    if not dinputs:
        return (None,) * (4 + len(inputs))
    found: list[Any] = [None] * (4 + len(inputs))
    for i, gradient in zip(kind.inputs, dinputs, strict=True):
        found[4 + i] = gradient
    return tuple(found)
