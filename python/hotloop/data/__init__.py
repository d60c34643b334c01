# SPDX-License-Identifier: Apache-2.0
"""Data on its way in: the border, splits, preprocessing, tables. `split` itself is `hotloop.split`.

Tables and preprocessing are loaded when they are first used: training on arrays needs neither.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hotloop.data.split import SealedData, Split

if TYPE_CHECKING:
    from hotloop.data.preprocess import Preprocessor as Preprocessor
    from hotloop.data.tables import Table as Table
    from hotloop.data.tables import read_table as read_table

__all__ = ["Preprocessor", "SealedData", "Split", "Table", "read_table"]

_LAZY = {
    "Preprocessor": "hotloop.data.preprocess",
    "Table": "hotloop.data.tables",
    "read_table": "hotloop.data.tables",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'hotloop.data' has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
