# SPDX-License-Identifier: Apache-2.0
"""Sequential, ModuleList, Flatten: modules that arrange others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

from hotloop.errors import GraphError
from hotloop.nn.base import Module
from hotloop.nn.linear import Linear
from hotloop.trace import Tensor

if TYPE_CHECKING:
    from typing_extensions import Self


class _Ordered(Module):
    """Modules by position; the names are what they were added under."""

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Module]:
        return iter(tuple(self._modules.values()))

    def _key(self, index: int) -> str:
        if not -len(self) <= index < len(self):
            raise IndexError(f"[{type(self).__name__}] index {index} is out of range for {len(self)} modules")
        return tuple(self._modules)[index]

    def __setitem__(self, index: int, module: Module) -> None:
        self.register_module(self._key(index), module)

    def append(self, module: Module) -> Any:
        """Adds a module at the end; gives back the container."""
        self.register_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Adds modules at the end; gives back the container."""
        for module in modules:
            self.append(module)
        return self


class Sequential(_Ordered):
    """Modules one after the other, named "0", "1", ..., or by the keys of one mapping.

    Example:
        >>> from hotloop import nn
        >>> model = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
        >>> len(model), type(model[1]).__name__, list(model[:1].state_dict())
        (2, 'ReLU', ['0.weight', '0.bias'])
    """

    def __init__(self, *modules: Module | Mapping[str, Module]) -> None:
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.register_module(name, module)
        else:
            self.extend(modules)  # type: ignore[arg-type]

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> Sequential: ...

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return type(self)(dict(list(self._modules.items())[index]))
        return self._modules[self._key(index)]

    def forward(self, input: Tensor) -> Tensor:
        for module in self:
            input = module(input)
        return input

    def replace_head(self, head: Module) -> Self:
        if not isinstance(head, Module):
            raise GraphError(f"[replace_head] the head must be a Module, got {type(head).__name__}")
        names = list(self._modules)
        last = next((name for name in reversed(names) if self._modules[name]._holds_head()), None)
        if last is None:
            raise GraphError("[replace_head] the model has no linear layer that could be its head")
        if isinstance(self._modules[last], Linear):
            self.register_module(last, head)
        else:
            self._modules[last].replace_head(head)
        for name in names[names.index(last) + 1 :]:
            delattr(self, name)
        return self


class ModuleList(_Ordered):
    """A list of modules that the model knows, for use in a forward of one's own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    @overload
    def __getitem__(self, index: int) -> Module: ...

    @overload
    def __getitem__(self, index: slice) -> ModuleList: ...

    def __getitem__(self, index: int | slice) -> Module:
        if isinstance(index, slice):
            return type(self)(list(self)[index])
        return self._modules[self._key(index)]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise GraphError(
            "[ModuleList] is a list and computes nothing; call its modules in a forward of your own"
        )


class Flatten(Module):
    """Axes ``start_dim..end_dim`` as one; by default all but the batch."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, input: Tensor) -> Tensor:
        return input.flatten(self.start_dim, self.end_dim)

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"
