# SPDX-License-Identifier: Apache-2.0
"""Module: how models are described.

A module holds parameters, buffers and other modules under torch's names. Its ``forward`` is never run on
data: it is traced once, and native code runs what was recorded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

import numpy as np

from hotloop.errors import DTypeError, GraphError, ShapeError
from hotloop.nn.parameter import Array, Buffer, Parameter, count_edit
from hotloop.patterns import matching
from hotloop.trace import active_tracer

if TYPE_CHECKING:
    from typing_extensions import Self


class LoadResult(NamedTuple):
    """What `Module.load_state_dict` did not find (``missing``) or not use (``unexpected``)."""

    missing: tuple[str, ...]
    unexpected: tuple[str, ...]


class Module:
    """Base of all layers and models.

    Assign parameters and modules to attributes, and write ``forward`` with tensors, parameters and other
    modules. Calling a module is for inside of ``forward`` only.

    Example:
        >>> from hotloop import nn
        >>> class Block(nn.Module):
        ...     def __init__(self, n):
        ...         self.inner = nn.Linear(n, n)
        ...     def forward(self, x):
        ...         return x + self.inner(x)
        >>> list(Block(3).state_dict())
        ['inner.weight', 'inner.bias']
    """

    _parameters: dict[str, Parameter]
    _buffers: dict[str, Buffer]
    _modules: dict[str, Module]

    def __new__(cls, *args: object, **kwargs: object) -> Self:
        # here and not in __init__, so that a subclass need not call it
        module = super().__new__(cls)
        for table in ("_parameters", "_buffers", "_modules"):
            object.__setattr__(module, table, {})
        return module

    def __init__(self) -> None:
        """Nothing to do; here for subclasses that call it by habit."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Describes the computation; a subclass must write it."""
        raise GraphError(f"[{type(self).__name__}] has no forward(self, x); write one")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        tracer = active_tracer()
        if tracer is None:
            self._refuse_data(*args, *kwargs.values())
        with tracer.scope(self):
            return self.forward(*args, **kwargs)

    def _refuse_data(self, *args: object) -> NoReturn:
        kinds = ", ".join(type(a).__name__ for a in args) or "nothing"
        raise GraphError(
            f"[{type(self).__name__}] a module describes a computation and is called only inside forward, "
            f"got {kinds}; for outputs use Trainer.predict(X) or TrainStep.predict(x)"
        )

    # ---- attributes

    def __setattr__(self, name: str, value: object) -> None:
        count_edit()
        tables: dict[type, dict[str, Any]] = {
            Parameter: self._parameters, Module: self._modules, Buffer: self._buffers
        }  # fmt: skip
        home = next((table for kind, table in tables.items() if isinstance(value, kind)), None)
        for table in (*tables.values(), self.__dict__):
            if table is not home:
                table.pop(name, None)
        if home is None:
            object.__setattr__(self, name, value)
        else:
            home[name] = value

    def __getattr__(self, name: str) -> Any:
        for table in ("_parameters", "_modules", "_buffers"):
            found = self.__dict__.get(table, {})
            if name in found:
                return found[name]
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def __delattr__(self, name: str) -> None:
        count_edit()
        for table in (self._parameters, self._modules, self._buffers):
            if name in table:
                del table[name]
                return
        object.__delattr__(self, name)

    def register_buffer(self, name: str, array: Array) -> None:
        """The same as assigning ``Buffer(array)``."""
        setattr(self, name, Buffer(np.asarray(array)))

    def register_module(self, name: str, module: Module) -> None:
        """The same as ``setattr``, for names that are not identifiers."""
        if not isinstance(module, Module):
            raise GraphError(
                f"[{type(self).__name__}] {name!r} must be a Module, got {type(module).__name__}"
            )
        count_edit()
        self._modules[name] = module

    # ---- who is there, in torch's order

    def children(self) -> Iterator[Module]:
        """The modules one level down."""
        yield from self._modules.values()

    def named_modules(self) -> Iterator[tuple[str, Module]]:
        """This module ("") and all below it; a shared module comes once, under its first name."""
        seen: set[int] = set()
        for name, module in self._walk(""):
            if id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def _walk(self, name: str) -> Iterator[tuple[str, Module]]:
        yield name, self
        for key, child in self._modules.items():
            yield from child._walk(f"{name}.{key}" if name else key)

    def _entries(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        """All parameters and buffers, what is shared under each of its names."""
        for name, module in self._walk(""):
            prefix = f"{name}." if name else ""
            for key, item in module._own():
                yield prefix + key, item

    def _own(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        """Parameters and buffers of this module alone, in the order of the state dict."""
        yield from self._parameters.items()
        yield from self._buffers.items()

    def named_tensors(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        """All parameters and buffers in the order of the state dict, what is shared under each of its names."""
        return self._entries()

    def _once(self) -> Iterator[tuple[str, Parameter | Buffer]]:
        seen: set[int] = set()
        for name, item in self._entries():
            if id(item) not in seen:
                seen.add(id(item))
                yield name, item

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Every parameter once, under its first name."""
        return ((name, item) for name, item in self._once() if isinstance(item, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once."""
        return (parameter for _, parameter in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Every buffer once, under its first name."""
        return ((name, item) for name, item in self._once() if isinstance(item, Buffer))

    def tied_names(self) -> dict[str, str]:
        """Further names of shared parameters and buffers, each with the first name."""
        first = {id(item): name for name, item in self._once()}
        return {name: first[id(item)] for name, item in self._entries() if first[id(item)] != name}

    # ---- what training may change

    def freeze(self, *patterns: str) -> tuple[str, ...]:
        """Keeps training from changing the parameters that any of the patterns means (none given: all).

        A pattern is a parameter's name, a module's ("encoder": everything below it), or has the wildcards of
        `fnmatch` ("*.bias"; ``*`` reaches over dots). Frozen parameters get no gradient, no update and no
        weight decay, and cost none of their work. A BatchNorm with all its parameters frozen uses its running
        statistics and leaves them alone, in training too.

        Returns the names that the patterns mean. Raises `ValueError` for a pattern that matches nothing.

        Example:
            >>> from hotloop import nn
            >>> nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).freeze("0")
            ('0.weight', '0.bias')
        """
        return self._set_frozen(patterns, True)

    def unfreeze(self, *patterns: str) -> tuple[str, ...]:
        """The opposite of `freeze`."""
        return self._set_frozen(patterns, False)

    def _set_frozen(self, patterns: tuple[str, ...], value: bool) -> tuple[str, ...]:
        # by all names: a shared parameter is meant by each of them
        named = [(name, item) for name, item in self._entries() if isinstance(item, Parameter)]
        where = "freeze" if value else "unfreeze"
        chosen = set(matching(patterns or ("*",), (name for name, _ in named), where=where))
        for name, item in named:
            if name in chosen:
                item.frozen = value
        return tuple(name for name, _ in named if name in chosen)

    def frozen_names(self) -> tuple[str, ...]:
        """The names of the frozen parameters, each once."""
        return tuple(name for name, parameter in self.named_parameters() if parameter.frozen)

    def set_dropout(self, p: float, *patterns: str) -> tuple[str, ...]:
        """Sets the drop probability of the Dropout layers that any of the patterns means (none given: all).

        Patterns as in `freeze`, of modules' names. Returns the names. Raises `ValueError` for a pattern that
        matches none, and `GraphError` for p outside of [0, 1].
        """
        layers = dict(self._dropout_layers())
        names = matching(patterns or ("*",), layers, where="set_dropout", what="Dropout layer")
        for name in names:
            layers[name].check(p)
        for name in names:
            layers[name].p = p
        return tuple(names)

    def _dropout_layers(self) -> Iterator[tuple[str, Any]]:
        """What has a drop probability, by the name of its module."""
        for name, module in self.named_modules():
            yield from ((f"{name}.{key}".strip("."), layer) for key, layer in module._own_dropout())

    def _own_dropout(self) -> Iterator[tuple[str, Any]]:
        """Layers of this module alone that have a drop probability ``p``: "" for the module itself."""
        return iter(())

    def replace_head(self, head: Module) -> Self:
        """Puts ``head`` in place of the last linear layer and whatever follows it; returns the module.

        For a `Sequential`, or a model from `hl.load`. A module with a forward of its own says itself which
        attribute its head is: assign it, ``model.head = nn.Linear(128, 5)``; this raises `GraphError` there.

        Example:
            >>> from hotloop import nn
            >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 10))
            >>> model.replace_head(nn.Linear(8, 2))[2].out_features
            2
        """
        names = ", ".join(self._modules) or "none"
        raise GraphError(
            f"[replace_head] {type(self).__name__} has a forward of its own, which says what its head is; assign "
            f"the attribute (modules: {names}), as in model.head = nn.Linear(128, 5)"
        )

    def _holds_head(self) -> bool:
        """Whether a linear layer is here or below."""
        return any(module._holds_head() for module in self.children())

    # ---- values

    @property
    def is_initialized(self) -> bool:
        """Whether every parameter has values."""
        return all(p.is_initialized for p in self.parameters())

    def initialize(self, seed: int = 0, *, overwrite: bool = True) -> Module:
        """Draws every parameter anew and resets buffers; ``overwrite=False`` fills gaps only.

        The parameter at position i of `named_parameters` reads the stream (seed, i), so adding a layer at
        the end leaves the others as they were.
        """
        if isinstance(seed, bool) or not 0 <= seed < 2**64:
            raise GraphError(f"[initialize] seed must be a whole number from 0 to 2**64 - 1, got {seed!r}")
        for position, parameter in enumerate(self.parameters()):
            if overwrite or not parameter.is_initialized:
                parameter.draw(int(seed), position)
        if overwrite:
            for _, buffer in self.named_buffers():
                buffer.reset()
        return self

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers under torch's names; shared ones under each of their names."""
        self.initialize(0, overwrite=False)
        return {name: item.look().copy() for name, item in self._entries()}

    def load_state_dict(self, state: Mapping[str, Any], strict: bool = True) -> LoadResult:
        """Copies values in, in place. Everything is checked before anything changes.

        Args:
            state: name to array (anything `numpy.asarray` takes), in torch's shapes. A narrower dtype of
                the same kind widens (float16 to float32); nothing is narrowed.
            strict: whether missing and unexpected names are an error.

        Raises:
            ShapeError: names or shapes do not fit; lists all of them.
            DTypeError: a dtype cannot be converted without loss.
        """
        own = dict(self._entries())
        result = LoadResult(tuple(n for n in own if n not in state), tuple(n for n in state if n not in own))
        if strict and (result.missing or result.unexpected):
            raise ShapeError(
                f"[load_state_dict] names do not fit {type(self).__name__}; "
                f"missing: {', '.join(result.missing) or '-'}; "
                f"unexpected: {', '.join(result.unexpected) or '-'}; strict=False loads what fits"
            )
        arrays = {name: _loadable(name, state[name], item) for name, item in own.items() if name in state}
        self.initialize(0, overwrite=False)
        for name, array in arrays.items():
            own[name].data[...] = array
        return result

    def export_onnx(
        self,
        path: str | PathLike[str],
        example: Any = None,
        *,
        probabilities: Literal["softmax", "sigmoid"] | None = None,
        class_names: Sequence[str] = (),
        input_names: Mapping[str, str] | None = None,
        output_name: str = "output",
    ) -> None:
        """Writes the model, in evaluation mode, as an ONNX file of opset 18 (extra ``onnx``).

        The number of rows stays free. Numbers are float32 and ids int64, under the names of the inputs ("x"
        for a plain array). A `Trainer` exports its preprocessing too: `Trainer.export_onnx`.

        Args:
            path: the file, which is replaced in one step.
            example: a few rows as `fit` takes them, which tell the inputs; None: those of the last use.
            probabilities: adds the outputs "probabilities", float32 (batch, classes), and "label", by softmax
                of logits or by the sigmoid of each; one sigmoid output gives two columns.
            class_names: what the label is called; else it is an int64 number.
            input_names: other names for inputs in the file.
            output_name: the name of the raw output.

        Raises:
            GraphError: the inputs are not known, names collide, or the weights exceed 2 GiB.
            ShapeError: the output is not one of classes.
            ImportError: onnx is not installed.

        >>> import tempfile
        >>> from hotloop import nn
        >>> import numpy as np
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     nn.Linear(3, 2).export_onnx(f"{folder}/model.onnx", np.zeros((1, 3)))
        """
        from hotloop.export import export_onnx  # with the compile passes, which describing does not need

        export_onnx(
            self, path, example=example, probabilities=probabilities, class_names=class_names,
            input_names=input_names, output_name=output_name,
        )  # fmt: skip

    # ---- text

    def extra_repr(self) -> str:
        """What stands between the parentheses."""
        return ""

    def __repr__(self) -> str:
        if not self._modules:
            return f"{type(self).__name__}({self.extra_repr()})"
        lines = [self.extra_repr()] if self.extra_repr() else []
        for key, child in self._modules.items():
            lines.append(f"({key}): " + repr(child).replace("\n", "\n  "))
        return f"{type(self).__name__}(\n  " + "\n  ".join(lines) + "\n)"


def _loadable(name: str, value: Any, item: Parameter | Buffer) -> Array:
    array = np.asarray(value)
    if array.shape != item.shape:
        raise ShapeError(f"[load_state_dict] {name} must have shape {item.shape}, got {array.shape}")
    drawn = isinstance(item, Buffer) or item.is_initialized
    dtype = item.look().dtype if drawn else np.dtype(np.float32)
    if array.dtype.kind != dtype.kind or not np.can_cast(array.dtype, dtype, "safe"):
        raise DTypeError(
            f"[load_state_dict] {name} must be {dtype}, got {array.dtype}; use .astype(np.{dtype})"
        )
    return array
