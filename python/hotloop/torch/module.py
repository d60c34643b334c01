# SPDX-License-Identifier: Apache-2.0
"""`Module`: a hotloop network as a `torch.nn.Module`, inside torch's autograd and optimisers.

Its parameters are torch's, over the flat memory that the native code computes on; a call is one node of
torch's graph (call.py), whose forward and backward are one native call each on what passes.py has compiled.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch

from hotloop.errors import DeviceError, DTypeError, GraphError
from hotloop.nn import Module as Network
from hotloop.runtime.threads import check_threads
from hotloop.torch import call, cuda, direct_call
from hotloop.torch.call import draw, new, run_forward
from hotloop.torch.inputs import WHERE, check_input, names_by_position
from hotloop.torch.passes import Native
from hotloop.torch.there import check_number


class Module(torch.nn.Module):
    """A hotloop network as a module of torch: trained by torch's autograd and any of its optimisers.

    Args:
        model: a `hl.nn.Module`. It is used, not copied: its values are the parameters' values. What it has not
            drawn yet is drawn from torch's generator.
        threads: of the native code; None decides by the model's cost. torch's own number does not matter.
        direct_grad: let backward write the parameters' gradients itself, into views of one buffer that are their
            ``.grad``. A sixth to a quarter less time for a small network. Autograd does not know these parameters then:
            ``torch.autograd.grad`` by a parameter raises (torch's own error), so do hooks of parameters and
            ``create_graph=True`` (`GraphError`); ``backward(inputs=...)`` gives parameters nothing, as does
            DistributedDataParallel. What was ``.grad`` before `zero_grad` is written over: clone what you keep.
            All else is as without: several backwards add up, after both kinds of `zero_grad`; any optimiser,
            gradient clipping and scaling; gradients of inputs; frozen parameters.

    Call it with a float32 tensor (rows, ...), int32 or int64 ids for an `Embedding`, or several inputs by
    position or name; the output is float32 (rows, ...). `train` and `eval` decide on dropout and batch norm,
    as in torch; dropout is drawn from torch's CPU generator. Gradients flow to inputs and parameters that
    require them. A pass may be gone back from twice (``retain_graph=True``): it is then computed anew.

    On a CUDA device (``module.to("cuda")``) parameters, inputs and gradients are torch's there. The network's own
    values follow when `hotloop_model` is asked for; what is written to them meanwhile is not taken over.

    Not available, and refused: second derivatives, other dtypes than float32, other devices.

    Raises:
        ShapeError, DTypeError, LabelError, DeviceError: an input that the network cannot take, as it is called.
        GraphError: ``model`` is no `hl.nn.Module`, or inside of another Module; a parameter was replaced by
            something else.

    Example:
        >>> import torch, hotloop as hl
        >>> from hotloop.torch import Module
        >>> net = Module(hl.nn.Sequential(hl.nn.Linear(4, 8), hl.nn.ReLU(), hl.nn.Linear(8, 2)))
        >>> net(torch.randn(3, 4)).sum().backward()
        >>> net.get_parameter("0.weight").grad.shape
        torch.Size([8, 4])
    """

    def __init__(self, model: Network, *, threads: int | None = None, direct_grad: bool = False) -> None:
        if not isinstance(model, Network):
            raise GraphError(
                f"[{WHERE}] model must be a hotloop.nn.Module, got {type(model).__module__}.{type(model).__name__}; "
                "from_torch converts an nn.Sequential"
            )
        if model in _WRAPPED and _WRAPPED[model]() is not None:
            raise GraphError(
                f"[{WHERE}] this model is inside of another Module, and would be trained in two places; use that one, "
                "or copy.deepcopy(model)"
            )
        super().__init__()
        if not model.is_initialized:
            model.initialize(draw(), overwrite=False)
        self._attach(model, check_threads(threads, WHERE), direct_grad)

    def _attach(self, model: Network, threads: int | None, direct_grad: bool) -> None:
        """Make torch's parameters and buffers over the model's arrays, under the same names."""
        self._native = Native(model, threads, direct_grad)
        _WRAPPED[model] = weakref.ref(self)
        made: dict[int, Any] = {}
        for name, item in model.named_tensors():
            parent, _, key = name.rpartition(".")
            home = _holder(self, parent)
            if id(item) not in made:
                tensor = torch.from_numpy(item.data)
                frozen = getattr(item, "frozen", None)
                made[id(item)] = (
                    tensor if frozen is None else torch.nn.Parameter(tensor, requires_grad=not frozen)
                )
            if isinstance(made[id(item)], torch.nn.Parameter):
                home.register_parameter(key, made[id(item)])
            else:
                home.register_buffer(key, made[id(item)])
        self._native.homes.locate(self._tables())

    def _tables(self) -> dict[str, tuple[dict[str, Any], str]]:
        """Where torch keeps the tensor of each name."""
        return {
            f"{prefix}.{key}" if prefix else key: (table, key)
            for prefix, module in self.named_modules()
            for table in (module._parameters, module._buffers)
            for key in table
        }

    @property
    def hotloop_model(self) -> Network:
        """The network itself; its arrays are those of the parameters, or on a device copies made now."""
        self._native.fetch()
        return self._native.network

    # --- calls ---

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """The output (rows, ...) for one tensor, several by position, or by name (or one mapping of names)."""
        if _is_compiling():
            return _outside_of_compilers(self, inputs, named)
        if named or len(inputs) != 1 or not isinstance(inputs[0], torch.Tensor):
            names, tensors = self._named_inputs(inputs, named)
        else:
            names, tensors = _ONE, inputs
        native = self._native
        if not native.is_current:
            native.refresh(self._tables(), names, tensors)
        parameters = native.homes.parameters()
        if not torch.is_grad_enabled():
            needs = (False,) * (len(tensors) + len(parameters))
            return run_forward(native, names, tensors, needs, self.training, False)[0]
        how = native, names, self.training
        if native.own is None:
            apply = call.Call.apply if _transforms_active() else call.apply
            return apply(how, *tensors, *parameters)
        apply = direct_call.DirectCall.apply if _transforms_active() else direct_call.apply
        needs = tuple([p.requires_grad for p in parameters])
        return apply(how, parameters, needs, native.own.anchor if True in needs else None, *tensors)

    def _named_inputs(
        self, inputs: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            return self._named_inputs((), {**inputs[0], **named})
        if inputs and named:
            raise TypeError(f"[{WHERE}] inputs come by position or by name, not both")
        if not inputs and not named:
            raise TypeError(f"[{WHERE}] no input was given")
        names = tuple(named) if named else names_by_position(self._native.network, len(inputs))
        tensors = tuple(named.values()) if named else inputs
        for name, x in zip(names, tensors, strict=True):
            check_input(x, name, self._native.device)
        return names, tensors

    # --- what torch does to modules ---

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        probe = fn(new((1,)).zero_())
        is_there = cuda.is_there(probe)
        if probe.device.type != "cpu" and not is_there:
            raise DeviceError(f"[{WHERE}] cannot move to {probe.device}; allowed: cpu and cuda")
        if probe.dtype != torch.float32:
            raise DTypeError(f"[{WHERE}] cannot become {probe.dtype}; allowed: torch.float32")
        native = self._native
        if (native.device, native.is_there) == (probe.device, is_there):
            return super()._apply(fn, recurse)
        if is_there:
            cuda.check(WHERE.partition(".")[2], **{"the module": probe})
            check_number(probe.device)
        native.move(probe.device, is_there)
        moved = super()._apply(fn, recurse)
        native.homes.locate(self._tables(), {} if is_there else None)
        return moved

    def __getstate__(self) -> dict[str, Any]:
        native = self._native
        native.fetch()
        tensors = native.homes.parameters()
        frozen = {native.homes.places[i].name: not tensor.requires_grad for i, tensor in enumerate(tensors)}
        made_anew = ("_native", "_modules", "_parameters", "_buffers")
        kept = {name: value for name, value in self.__dict__.items() if name not in made_anew}
        settings = {"threads": native.threads, "direct_grad": native.own is not None}
        state = {"kept": kept, "model": native.network, "settings": settings, "frozen": frozen}
        return {**state, "device": native.device}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__init__()
        self.__dict__.update(state["kept"])
        self._attach(state["model"], **state["settings"])
        for name, frozen in state["frozen"].items():
            self.get_parameter(name).requires_grad_(not frozen)
        if state["device"].type != "cpu":
            self.to(state["device"])

    def __repr__(self) -> str:
        network = repr(self._native.network).replace("\n", "\n  ")
        return f"{type(self).__name__}(\n  {network}\n)"


#: Which module has a network, as long as both live.
_WRAPPED: weakref.WeakKeyDictionary[Network, weakref.ref[Module]] = weakref.WeakKeyDictionary()
_is_compiling = torch.compiler.is_compiling
_transforms_active = torch._C._are_functorch_transforms_active
#: What a single input is called.
_ONE: tuple[str, ...] = ("x",)


class _Names(torch.nn.Module):
    """Parameters and buffers under a dotted name; what computes with them is the module above."""

    def forward(self, *inputs: Any) -> Any:
        raise GraphError(f"[{WHERE}] its parts only hold parameters; call the whole module")

    def __repr__(self) -> str:
        return f"tensors: {', '.join([*self._parameters, *self._buffers, *self._modules])}"


def _holder(module: torch.nn.Module, path: str) -> torch.nn.Module:
    """The module of a dotted path, made where it is missing."""
    for key in filter(None, path.split(".")):
        if key not in module._modules:
            module.add_module(key, _Names())
        module = module._modules[key]
    return module


def _outside_of_compilers(module: Module, inputs: Any, named: Any) -> Any:
    """The call as torch.compile leaves it: a break in its graph."""
    return _disabled()(module, inputs, named)


def _disabled() -> Any:
    global _disabled_call
    if _disabled_call is None:
        _disabled_call = torch.compiler.disable(
            lambda module, inputs, named: module.forward(*inputs, **named)
        )
    return _disabled_call


_disabled_call: Any = None
