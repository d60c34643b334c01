# SPDX-License-Identifier: Apache-2.0
"""torch's optimisers with our update: one native call a step for all tensors of all groups.

They are torch's classes: groups, schedulers, hooks, closures and ``state_dict`` are its own code, so a state goes
from one to the other and back. Only ``step`` is replaced, and what it cannot do is refused when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch.optim import optimizer as torch_optimizer

from hotloop import _core
from hotloop.errors import DeviceError, DTypeError
from hotloop.ops.launch import ALONE_BELOW_NS, team_for
from hotloop.torch import cuda, cuda_update
from hotloop.torch import kernels as kernels  # which introduces torch's tensors to the native side

Place = tuple[int, int]  # (group, number of the parameter in it)

_SGD, _ADAM, _ADAMW = range(3)  # Rule::kind of update_many.cc


class _Native:
    """``step`` for torch's optimiser classes. Subclasses say which numbers and which state a group has."""

    param_groups: list[dict[str, Any]]
    state: Any
    _state_names: tuple[str, ...] = ("exp_avg", "exp_avg_sq")
    _step_supports_amp_scaling = False  # a GradScaler unscales by itself, as for any optimiser

    def _rule(self, group: dict[str, Any]) -> tuple[Any, ...]:
        raise NotImplementedError

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what ``closure`` does, if there is one.

        Raises `DTypeError`, `DeviceError` or `TypeError` for a parameter that cannot be updated; then none is.
        """
        watched = (
            torch_optimizer._global_optimizer_pre_hooks
            or torch_optimizer._global_optimizer_post_hooks
            or self._optimizer_step_pre_hooks  # type: ignore[attr-defined]
            or self._optimizer_step_post_hooks  # type: ignore[attr-defined]
            or torch.autograd.profiler._is_profiler_enabled
        )
        return _watched_step(self, closure) if watched else self._step(closure)

    step.hooked = True  # type: ignore[attr-defined]  # torch need not wrap it: its wrapper takes 7 us

    def _step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups = [(group["params"], self._rule(group)) for group in self.param_groups]
        team = team_for(ALONE_BELOW_NS)
        changed, odd = _core.update_tensors(groups, self.state, team)
        if odd:
            changed = self._step_odd(groups, odd)
        torch.autograd.graph.increment_version(changed)  # so that autograd sees writes that it did not make
        return loss

    def _step_odd(self, groups: list[tuple[list[Any], Any]], odd: list[Place]) -> list[torch.Tensor]:
        """The step where something was not plain: state is made, parameters on devices go there, strange layouts are
        copied and put back."""
        fresh = frozenset(place for place in odd if self._prepare(place))
        there = [place for place in odd if cuda.is_there(self._parts(place)[0])]
        if not there:
            return self._step_here(groups, fresh)
        gone = set(there)
        here = [
            ([_ABSENT if (g, i) in gone else p for i, p in enumerate(params)], rule)
            for g, (params, rule) in enumerate(groups)
        ]
        changed = self._step_here(here, fresh)
        update = cuda_update.Update(f"torch.{type(self).__name__}")
        for g, i in there:
            p, state = self._parts((g, i))
            update.add(p, state, groups[g][1], (g, i) in fresh)
            changed.append(p)
        update.finish()
        return changed

    def _step_here(self, groups: list[tuple[list[Any], Any]], fresh: frozenset[Place]) -> list[torch.Tensor]:
        """The step of parameters on the CPU, of whatever layout."""
        team = team_for(ALONE_BELOW_NS)
        changed, odd = _core.update_tensors(groups, self.state, team, fresh)
        if not odd:
            return list(changed)
        lent = {place: _Lent.of(*self._parts(place)) for place in odd}
        state = _ById()
        lists = []
        for g, (params, rule) in enumerate(groups):
            stands = [lent[g, i].param if (g, i) in lent else p for i, p in enumerate(params)]
            for i, (p, stand) in enumerate(zip(params, stands, strict=True)):
                if p.grad is not None:
                    state[id(stand)] = lent[g, i].state if (g, i) in lent else self.state[p]
            lists.append((stands, rule))
        changed, still_odd = _core.update_tensors(lists, state, team, fresh)
        if still_odd:
            g, i = still_odd[0]
            raise TypeError(
                f"{self._at((g, i))} cannot be read, got {type(groups[g][0][i]).__name__}; allowed dense tensors on "
                "the CPU whose state has their shape and dtype; use torch.optim for this one"
            )
        for one in lent.values():
            one.put_back()
        return [p for params, _ in groups for p in params if p.grad is not None]

    def _parts(self, place: Place) -> tuple[torch.Tensor, dict[str, Any]]:
        param = self.param_groups[place[0]]["params"][place[1]]
        return param, self.state[param]

    def _at(self, place: Place) -> str:
        return f"[torch.{type(self).__name__}] parameter {place[1]} of group {place[0]}"

    def _prepare(self, place: Place) -> bool:
        """Refuse what cannot be updated; make the state that is missing. True if there was none."""
        p, state = self._parts(place)
        where = self._at(place)
        if cuda.is_there(p):
            cuda.check(type(self).__name__, **{"a parameter": p})
        elif p.device.type != "cpu":
            raise DeviceError(
                f"{where} is on {p.device}; allowed: cpu and cuda; use torch.optim.{type(self).__name__} there"
            )
        if p.dtype not in (torch.float32, torch.float64):
            raise DTypeError(
                f"{where} is {p.dtype}; allowed torch.float32 and torch.float64: keep the parameters in float32 "
                "and compute under torch.autocast"
            )
        assert p.grad is not None
        if p.grad.layout is not torch.strided:
            raise TypeError(
                f"{where} has a gradient of layout {p.grad.layout}; allowed dense ones; give its embedding "
                "sparse=False"
            )
        names = self._state_names if self._rule(self.param_groups[place[0]])[0] else self._state_names[:1]
        missing = [name for name in names if state.get(name) is None]
        if "exp_avg" in self._state_names and not (
            torch.is_tensor(state.get("step")) and state["step"].dtype == torch.float32
        ):  # older versions of torch kept a number
            state["step"] = torch.tensor(float(state.get("step", 0.0)), dtype=torch.float32)
        for name in missing:
            state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return bool(missing)


_watched_step = torch.optim.Optimizer.profile_hook_step(_Native._step)


class _ById(dict[int, Any]):
    """State by the identity of what is looked up: arrays have no hash."""

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(id(key))


class _Array(np.ndarray[Any, Any]):
    """A view of a tensor that may carry its gradient."""

    grad: Any = None


#: Stands for a parameter that is updated elsewhere.
_ABSENT = np.empty(0, np.float32).view(_Array)


class _Lent:
    """A parameter, its gradient and its state as arrays in row-major order: views where they are, else copies."""

    def __init__(self) -> None:
        self.copies: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.state: dict[str, Any] = {}
        self.param: Any = None

    @classmethod
    def of(cls, param: torch.Tensor, state: dict[str, Any]) -> _Lent:
        lent = cls()
        lent.param = lent._array(param)
        lent.param.grad = lent._array(param.grad)
        lent.state = {name: lent._array(value) for name, value in state.items() if torch.is_tensor(value)}
        return lent

    def _array(self, tensor: Any) -> Any:
        plain = tensor.detach().resolve_neg()
        if type(plain) is not torch.Tensor or not plain.is_contiguous():
            own = torch.empty(tensor.shape, dtype=tensor.dtype)
            own.copy_(plain)
            self.copies.append((tensor, own))
            plain = own
        return plain.numpy().view(_Array)

    def put_back(self) -> None:
        with torch.no_grad():
            for tensor, own in self.copies:
                tensor.copy_(own)


def _refuse(where: str, **unsupported: Any) -> None:
    """Raises `ValueError` for the first of torch's options that is asked for and not offered here."""
    why = {
        "amsgrad": "the maximum of the second moments is not kept",
        "capturable": "it is for graphs of CUDA kernels",
        "differentiable": "the update is not recorded for gradients",
    }
    for name, value in unsupported.items():
        if value:
            raise ValueError(
                f"[torch.{where}] {name} must be False, got {value!r}: {why[name]}; use torch.optim.{where}"
            )


class _AdamFamily(_Native):
    _kind = _ADAM

    def _rule(self, group: dict[str, Any]) -> tuple[Any, ...]:
        beta1, beta2 = group["betas"]
        return (
            self._kind, float(group["lr"]), float(group["weight_decay"]), float(beta1), float(beta2), group["eps"],
            0.0, False, group["maximize"],
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[misc]
        for group in self.param_groups:
            group.setdefault("maximize", False)
            names = ("amsgrad", "capturable", "differentiable")
            _refuse(type(self).__name__, **{name: group.get(name, False) for name in names})


class AdamW(_AdamFamily, torch.optim.AdamW):
    """``torch.optim.AdamW`` (Loshchilov and Hutter 2019) with one native call a step.

    Args:
        params: tensors or groups, as torch takes them; float32 or float64 on the CPU, float32 on a CUDA device, in
            any layout.
        lr, betas, eps, weight_decay, maximize: as in torch.
        amsgrad, capturable, differentiable: False; anything else raises `ValueError`.
        foreach, fused: taken and kept in the groups, for whom the state goes to; here there is one way.

    Its ``state_dict`` is torch's: either loads the other's and goes on. Parameters without a gradient are skipped.

    >>> import torch, hotloop.torch
    >>> layer = torch.nn.Linear(2, 1)
    >>> rule = hotloop.torch.AdamW(layer.parameters(), lr=1e-2)
    >>> layer(torch.ones(3, 2)).square().mean().backward()
    >>> rule.step()
    >>> sorted(rule.state_dict()["state"][0])
    ['exp_avg', 'exp_avg_sq', 'step']
    """

    _kind = _ADAMW

    def __init__(
        self, params: Iterable[Any], lr: float | torch.Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *, maximize: bool = False,
        foreach: bool | None = None, capturable: bool = False, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        _refuse("AdamW", amsgrad=amsgrad, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize=maximize, foreach=foreach, fused=fused
        )
        self._step_supports_amp_scaling = False


class Adam(_AdamFamily, torch.optim.Adam):
    """``torch.optim.Adam`` (Kingma and Ba 2015), the decay added to the gradient; all else as `AdamW`.

    >>> import torch, hotloop.torch
    >>> rule = hotloop.torch.Adam(torch.nn.Linear(2, 1).parameters())
    >>> isinstance(rule, torch.optim.Optimizer)
    True
    """

    def __init__(
        self, params: Iterable[Any], lr: float | torch.Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0.0, amsgrad: bool = False, *, maximize: bool = False,
        foreach: bool | None = None, capturable: bool = False, differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:  # fmt: skip
        _refuse("Adam", amsgrad=amsgrad, capturable=capturable, differentiable=differentiable)
        super().__init__(
            params, lr, betas, eps, weight_decay, maximize=maximize, foreach=foreach, fused=fused
        )
        self._step_supports_amp_scaling = False

    def _rule(self, group: dict[str, Any]) -> tuple[Any, ...]:
        decoupled = group.get("decoupled_weight_decay", False)  # torch.optim.Adam has such a switch
        return (_ADAMW if decoupled else _ADAM, *super()._rule(group)[1:])


class SGD(_Native, torch.optim.SGD):
    """``torch.optim.SGD``: momentum, dampening and Nesterov's form as there; all else as `AdamW`.

    >>> import torch, hotloop.torch
    >>> weight = torch.nn.Parameter(torch.ones(2))
    >>> rule = hotloop.torch.SGD([weight], lr=0.5, momentum=0.9)
    >>> weight.sum().backward()
    >>> rule.step()
    >>> weight.tolist()
    [0.5, 0.5]
    """

    _state_names = ("momentum_buffer",)

    def __init__(
        self, params: Iterable[Any], lr: float | torch.Tensor = 1e-3, momentum: float = 0.0, dampening: float = 0.0,
        weight_decay: float = 0.0, nesterov: bool = False, *, maximize: bool = False, foreach: bool | None = None,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        _refuse("SGD", differentiable=differentiable)
        super().__init__(
            params, lr, momentum, dampening, weight_decay, nesterov, maximize=maximize, foreach=foreach,
            fused=fused,
        )  # fmt: skip
        self._step_supports_amp_scaling = False

    def _rule(self, group: dict[str, Any]) -> tuple[Any, ...]:
        return (
            _SGD, float(group["lr"]), float(group["weight_decay"]), float(group["momentum"]), 0.0, 0.0,
            float(group["dampening"]), group["nesterov"], group["maximize"],
        )  # fmt: skip

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            _refuse("SGD", differentiable=group.get("differentiable", False))
