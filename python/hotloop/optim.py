# SPDX-License-Identifier: Apache-2.0
"""Optimisers as data: which update rule, with which numbers. Formulas and defaults are torch's.

An optimiser holds no parameters and no state: the training session owns the moments, and a schedule
multiplies the learning rate step by step. Hence ``AdamW(lr=1e-3)``, not ``AdamW(model.parameters())``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, asdict, dataclass
from typing import Any, ClassVar, Literal, cast

import numpy as np

from hotloop.arguments import choice, number, rate
from hotloop.compile.plan import OptimizerSpec

Decay = Literal["all", "weights"]


class Optimizer:
    """What every optimiser offers. Not to be made itself: choose AdamW, Adam, SGD or RMSprop."""

    kind: ClassVar[Literal["adam", "adamw", "sgd", "rmsprop"]]
    lr: float
    weight_decay: float
    decay: Decay

    @property
    def state_names(self) -> tuple[str, ...]:
        """torch's name of each moment buffer, in the order of the session's moments."""
        raise NotImplementedError

    @property
    def n_moments(self) -> int:
        """Number of moment buffers, each of the parameters' size."""
        return len(self.state_names)

    def spec(self) -> OptimizerSpec:
        """What the compiler needs; learning rate and weight decay vary by step and are not part of it."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON data; `from_dict` gives an equal optimiser back."""
        return {"kind": self.kind, **asdict(cast(Any, self))}


@dataclass(frozen=True)
class _AdamFamily(Optimizer):
    """The fields that Adam and AdamW share; they differ in where the weight decay goes."""

    kind: ClassVar[Literal["adam", "adamw"]]
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    _: KW_ONLY
    eps: float = 1e-8
    weight_decay: float = 0.0
    decay: Decay = "all"

    def __post_init__(self) -> None:
        _check(self)
        _check_eps(self, self.eps)
        where = type(self).__name__
        betas: Any = self.betas
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise TypeError(f"[{where}] betas must be a pair such as (0.9, 0.999), got {betas!r:.80}")
        pair = tuple(rate(where, f"betas[{i}]", beta) for i, beta in enumerate(betas))
        object.__setattr__(self, "betas", pair)

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def spec(self) -> OptimizerSpec:
        return OptimizerSpec(self.kind, self.betas[0], self.betas[1], self.eps, decay=self.decay)


@dataclass(frozen=True)
class AdamW(_AdamFamily):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019), as ``torch.optim.AdamW``.

    ``m += (1-b1)(g-m);  v = b2 v + (1-b2) g^2;  p = p (1 - lr wd) - lr m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps)``

    Args:
        lr: learning rate, >= 0; a schedule multiplies it.
        betas: (b1, b2), each in [0, 1).
        eps: > 0.
        weight_decay: >= 0.
        decay: "all" decays every parameter (torch); "weights" leaves biases, norms and every other
            one-dimensional parameter alone.

    Raises `TypeError` or `ValueError` for anything else.

    >>> AdamW(1e-3).state_names
    ('exp_avg', 'exp_avg_sq')
    """

    kind: ClassVar[Literal["adam", "adamw"]] = "adamw"
    _: KW_ONLY
    weight_decay: float = 1e-2


@dataclass(frozen=True)
class Adam(_AdamFamily):
    """Adam (Kingma and Ba 2015), as ``torch.optim.Adam``: the weight decay is added to the gradient.

    Arguments as `AdamW`, with ``weight_decay=0``.

    >>> Adam(1e-3, (0.9, 0.95)).betas
    (0.9, 0.95)
    """

    kind: ClassVar[Literal["adam", "adamw"]] = "adam"


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent, as ``torch.optim.SGD`` without dampening.

    ``g += wd p;  b = momentum b + g;  p -= lr (g + momentum b if nesterov else b)``

    Args: lr >= 0; momentum in [0, 1); nesterov needs momentum > 0; weight_decay >= 0; decay as in `AdamW`.

    >>> SGD(0.1, 0.9, nesterov=True).n_moments
    1
    """

    kind: ClassVar[Literal["sgd"]] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.0
    _: KW_ONLY
    nesterov: bool = False
    weight_decay: float = 0.0
    decay: Decay = "all"

    def __post_init__(self) -> None:
        _check(self, rates=("momentum",))
        if not isinstance(self.nesterov, bool):
            raise TypeError(f"[SGD] nesterov must be True or False, got {self.nesterov!r}")
        if self.nesterov and not self.momentum:
            raise ValueError("[SGD] nesterov=True needs momentum > 0, got 0; try momentum=0.9")

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def spec(self) -> OptimizerSpec:
        return OptimizerSpec(self.kind, momentum=self.momentum, nesterov=self.nesterov, decay=self.decay)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Running mean of squared gradients (Hinton 2012), as ``torch.optim.RMSprop``, not centred.

    ``g += wd p;  s = alpha s + (1-alpha) g^2;  u = g / (sqrt(s) + eps);  b = momentum b + u;  p -= lr b``

    Args: lr >= 0; alpha in [0, 1); eps > 0; weight_decay >= 0; momentum in [0, 1); decay as in `AdamW`.

    >>> RMSprop(1e-2).state_names
    ('square_avg',)
    """

    kind: ClassVar[Literal["rmsprop"]] = "rmsprop"
    lr: float = 1e-2
    alpha: float = 0.99
    _: KW_ONLY
    eps: float = 1e-8
    weight_decay: float = 0.0
    momentum: float = 0.0
    decay: Decay = "all"

    def __post_init__(self) -> None:
        _check_eps(self, self.eps)
        _check(self, rates=("alpha", "momentum"))

    @property
    def state_names(self) -> tuple[str, ...]:
        return ("square_avg", "momentum_buffer") if self.momentum else ("square_avg",)

    def spec(self) -> OptimizerSpec:
        return OptimizerSpec(
            self.kind, eps=self.eps, momentum=self.momentum, alpha=self.alpha, decay=self.decay
        )


_KINDS: dict[str, type[AdamW | Adam | SGD | RMSprop]] = {cls.kind: cls for cls in (AdamW, Adam, SGD, RMSprop)}


def resolve(optimizer: object) -> Optimizer:
    """The optimiser itself, or the one of that name ("adamw", "adam", "sgd", "rmsprop") with its defaults.

    Raises `ValueError` for other names, `TypeError` for other objects.

    >>> resolve("adamw") == AdamW()
    True
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        if optimizer.lower() in _KINDS:
            return _KINDS[optimizer.lower()]()
        raise ValueError(f"[optim] unknown optimizer {optimizer!r}; allowed: {', '.join(_KINDS)}")
    hint = f"; write hl.optim.{optimizer.__name__}()" if isinstance(optimizer, type) else ""
    raise TypeError(
        f"[optim] an optimizer is one of {', '.join(_KINDS)} or an object from hl.optim, "
        f"got {optimizer!r:.80}{hint}"
    )


def from_dict(data: Mapping[str, Any]) -> Optimizer:
    """The optimiser that `Optimizer.to_dict` described. Raises `ValueError` or `TypeError` for bad data."""
    fields = dict(data)
    kind = fields.pop("kind", None)
    if kind not in _KINDS:
        raise ValueError(f"[optim] unknown optimizer {kind!r}; allowed: {', '.join(_KINDS)}")
    return _KINDS[kind](**fields)


# --- checks ---------------------------------------------------------------------------------------


def _check(optimizer: Optimizer, rates: tuple[str, ...] = ()) -> None:
    """Check what all share and the rates named, and store them as plain Python numbers."""
    where = type(optimizer).__name__
    _refuse_parameters(where, optimizer.lr)
    for name in ("lr", "weight_decay"):
        object.__setattr__(optimizer, name, number(where, name, getattr(optimizer, name), low=0))
    for name in rates:
        object.__setattr__(optimizer, name, rate(where, name, getattr(optimizer, name)))
    choice(where, "decay", optimizer.decay, ("all", "weights"))


def _check_eps(optimizer: Optimizer, eps: object) -> None:
    where = type(optimizer).__name__
    value = number(where, "eps", eps, low=0)
    if value < np.finfo(np.float32).tiny:  # flushed to zero in the native loop
        raise ValueError(
            f"[{where}] eps must be > 0 in float32, got {eps}; where a gradient is 0 the update would be 0/0: "
            "use 1e-30 or more"
        )
    object.__setattr__(optimizer, "eps", value)


def _refuse_parameters(where: str, lr: object) -> None:
    """The habit of other libraries, ``AdamW(model.parameters())``, gets the form used here as an answer."""
    if not isinstance(lr, (str, type, np.generic)) and (hasattr(lr, "__iter__") or hasattr(lr, "data")):
        raise TypeError(
            f"[{where}] the first argument is the learning rate, got {type(lr).__name__}; an optimizer takes no "
            f"parameters here: write hl.Trainer(model, optimizer=hl.optim.{where}(lr=1e-3)) and the trainer "
            "connects them"
        )
