# SPDX-License-Identifier: Apache-2.0
"""`Setting`: an attribute of the trainer that is checked whenever it is set, at first or between two runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, Union, overload

T = TypeVar("T")


class Setting(Generic[T]):
    """Holds what ``check`` makes of the value that is given; ``changed`` is told of each later one.

    A check that raises leaves the old value.
    """

    def __init__(self, check: Callable[[Any], T], changed: Callable[[Any, T], None] | None = None) -> None:
        self._check, self._changed = check, changed

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, owner: None, kind: type) -> Setting[T]: ...
    @overload
    def __get__(self, owner: object, kind: type) -> T: ...
    def __get__(self, owner: object | None, kind: type) -> Union[Setting[T], T]:
        if owner is None:
            return self
        value: T = vars(owner)[self._name]
        return value

    def __set__(self, owner: object, value: Any) -> None:
        checked = self._check(value)
        if self._changed is not None and self._name in vars(owner):
            self._changed(owner, checked)
        vars(owner)[self._name] = checked
