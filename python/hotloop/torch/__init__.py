# SPDX-License-Identifier: Apache-2.0
"""hotloop inside PyTorch: networks as modules of torch, converted, and our optimisers and fused ops for torch.

>>> from hotloop.torch import AdamW, Module  # doctest: +SKIP

Needs torch, which is imported with the first name that is used: ``import hotloop`` never loads it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotloop.torch.convert import from_torch as from_torch
    from hotloop.torch.convert import to_torch as to_torch
    from hotloop.torch.functional import cross_entropy as cross_entropy
    from hotloop.torch.functional import dropout as dropout
    from hotloop.torch.functional import layer_norm as layer_norm
    from hotloop.torch.functional import linear_gelu as linear_gelu
    from hotloop.torch.module import Module as Module
    from hotloop.torch.optim import SGD as SGD
    from hotloop.torch.optim import Adam as Adam
    from hotloop.torch.optim import AdamW as AdamW

_HOMES = {
    "Module": "module",
    **dict.fromkeys(("from_torch", "to_torch"), "convert"),
    **dict.fromkeys(("AdamW", "Adam", "SGD"), "optim"),
    **dict.fromkeys(("linear_gelu", "cross_entropy", "layer_norm", "dropout"), "functional"),
}

__all__ = [*_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hotloop.torch' has no attribute {name!r}")
    try:
        module = importlib.import_module(f"hotloop.torch.{_HOMES[name]}")
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ModuleNotFoundError(
            f"[hotloop.torch] {name} needs PyTorch, which is not installed; pip install 'hotloop[torch]'",
            name="torch",
        ) from None
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
