# SPDX-License-Identifier: Apache-2.0
"""`from_torch` and `to_torch`: a Sequential of one library as that of the other, weights and all.

Layers have the same names and arguments in both, so one table says which attributes make a layer. Whatever is
not in it, or is set to something that the other side has not, is refused by name and position.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from hotloop import nn
from hotloop.errors import DTypeError, GraphError, HotloopError

#: Layer -> the attributes that its constructor takes, on both sides.
LAYERS: dict[str, tuple[str, ...]] = {
    "Identity": (),
    "ReLU": (),
    "SELU": (),
    "SiLU": (),
    "Mish": (),
    "Tanh": (),
    "Sigmoid": (),
    "LeakyReLU": ("negative_slope",),
    "ELU": ("alpha",),
    "GELU": ("approximate",),
    "Softplus": ("beta", "threshold"),
    "Softmax": ("dim",),
    "LogSoftmax": ("dim",),
    "Dropout": ("p",),
    "Flatten": ("start_dim", "end_dim"),
    "Linear": ("in_features", "out_features", "bias"),
    "Embedding": ("num_embeddings", "embedding_dim"),
    "LayerNorm": ("normalized_shape", "eps", "elementwise_affine", "bias"),
    "RMSNorm": ("normalized_shape", "eps", "elementwise_affine"),
    "BatchNorm1d": ("num_features", "eps", "momentum", "affine", "track_running_stats"),
}
#: What torch can set and we have not, with its only value here.
_ONLY: dict[str, dict[str, Any]] = {
    "Embedding": {"padding_idx": None, "max_norm": None, "scale_grad_by_freq": False, "sparse": False},
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def from_torch(model: Any) -> nn.Sequential:
    """A `hl.nn.Sequential` that computes what a `torch.nn.Sequential` does, with copies of its weights.

    Covered: Linear, Embedding, LayerNorm, RMSNorm, BatchNorm1d, Dropout, Flatten, Identity, the activations
    of `hl.nn`, and Sequential inside of Sequential. Names, running statistics, layers and weights that are
    used twice, and what does not require gradients (frozen here) are kept.

    Raises:
        GraphError: a layer, or a setting of one, that hotloop has not; it is named with its position.
        DTypeError: weights that are not float32.

    Example:
        >>> import torch
        >>> from_torch(torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU()))
        Sequential(
          (0): Linear(in_features=4, out_features=3, bias=True)
          (1): ReLU()
        )
    """
    if type(model) is not torch.nn.Sequential:
        raise GraphError(
            f"[from_torch] model must be a torch.nn.Sequential, got {_kind(model)}; describe other models with "
            "hotloop.nn, and load their weights with load_state_dict"
        )
    return _Conversion("from_torch", torch.nn, nn, _fill_ours).sequence(model, "")  # type: ignore[no-any-return]


def to_torch(model: nn.Sequential) -> Any:
    """The opposite of `from_torch`: a `torch.nn.Sequential` with copies of the weights, on the CPU.

    Raises `GraphError` for a layer that torch has not, named with its position.
    """
    if type(model) is not nn.Sequential:
        raise GraphError(
            f"[to_torch] model must be a hotloop.nn.Sequential, got {_kind(model)}; hotloop.torch.Module takes "
            "every model as it is"
        )
    model.initialize(0, overwrite=False)
    return _Conversion("to_torch", nn, torch.nn, _fill_theirs).sequence(model, "")


class _Conversion:
    """One walk over a model; what was met before becomes the same object again."""

    def __init__(
        self, where: str, source: Any, target: Any, fill: Callable[[Any, Any, dict[int, Any]], None]
    ) -> None:
        self.where = where
        self.source = source
        self.target = target
        self.fill = fill
        self._layers: dict[int, Any] = {}
        self._tensors: dict[int, Any] = {}

    def sequence(self, model: Any, path: str) -> Any:
        self._check_plain(model, path)
        children = {}
        for name, child in model._modules.items():
            if id(child) not in self._layers:
                below = f"{path}.{name}" if path else name
                self._layers[id(child)] = self._child(child, below)
            children[name] = self._layers[id(child)]
        return self.target.Sequential(OrderedDict(children))  # torch takes names from no other mapping

    def _child(self, layer: Any, path: str) -> Any:
        if type(layer) is self.source.Sequential:
            return self.sequence(layer, path)
        self._check_plain(layer, path)
        name = type(layer).__name__
        what = f"[{self.where}] layer {path!r} ({name})"
        if name not in LAYERS or type(layer) is not getattr(self.source, name, None):
            raise GraphError(f"{what} is not available; allowed: Sequential, {', '.join(LAYERS)}; replace it")
        for key, value in _ONLY.get(name, {}).items():
            if getattr(layer, key, value) != value:
                raise GraphError(
                    f"{what} has {key}={getattr(layer, key)!r}; allowed: {value!r}; leave it out"
                )
        arguments = {key: _argument(layer, key) for key in LAYERS[name]}
        if name in ("Softmax", "LogSoftmax") and arguments["dim"] is None:
            if self.source is torch.nn:
                raise GraphError(f"{what} has dim=None, which depends on its input; write dim=-1")
            arguments["dim"] = -1
        try:
            made = getattr(self.target, name)(**arguments)
            self.fill(layer, made, self._tensors)
        except HotloopError as error:
            raise type(error)(f"{what} cannot be converted: {error}") from None
        return made

    def _check_plain(self, layer: Any, path: str) -> None:
        if any(getattr(layer, table, None) for table in _HOOKS):
            raise GraphError(
                f"[{self.where}] layer {path!r} ({type(layer).__name__}) has hooks, which do not come along; remove them"
            )


def _argument(layer: Any, key: str) -> Any:
    """A constructor's argument as the layer has it."""
    if key == "bias":
        return layer.bias is not None
    if key == "elementwise_affine":
        return layer.weight is not None
    if key == "track_running_stats":
        return getattr(layer, key, True)
    value = getattr(layer, key)
    return tuple(value) if isinstance(value, torch.Size) else value


def _fill_ours(theirs: Any, ours: Any, known: dict[int, Any]) -> None:
    state = {}
    for name, tensor in theirs.state_dict().items():
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            raise DTypeError(f"{name} is {tensor.dtype}; allowed: torch.float32; call .float() first")
        state[name] = tensor.detach().cpu().numpy()
    ours.load_state_dict(state)
    for name, parameter in theirs._parameters.items():
        if parameter is None:
            continue
        if id(parameter) in known:
            setattr(ours, name, known[id(parameter)])
        known[id(parameter)] = getattr(ours, name)
        known[id(parameter)].frozen = not parameter.requires_grad


def _fill_theirs(ours: Any, theirs: Any, known: dict[int, Any]) -> None:
    state = {name: torch.from_numpy(np.array(value)) for name, value in ours.state_dict().items()}
    theirs.load_state_dict(state)
    for name, parameter in ours._parameters.items():
        if id(parameter) in known:
            setattr(theirs, name, known[id(parameter)])
        known[id(parameter)] = getattr(theirs, name)
        known[id(parameter)].requires_grad_(not parameter.frozen)


def _kind(model: Any) -> str:
    return f"{type(model).__module__}.{type(model).__name__}"
