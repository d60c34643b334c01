# SPDX-License-Identifier: Apache-2.0
"""Data on its way in: the border, splits, preprocessing, tables. `split` itself is `hotloop.split`.

Tables are loaded when they are first used: training on arrays does not need their readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hotloop.data.preprocess import Preprocessor
from hotloop.data.split import SealedData, Split

if TYPE_CHECKING:
    from hotloop.data.tables import Table as Table
    from hotloop.data.tables import read_table as read_table

__all__ = ["Preprocessor", "SealedData", "Split", "Table", "read_table"]


def __getattr__(name: str) -> Any:
    if name not in ("Table", "read_table"):
        raise AttributeError(f"module 'hotloop.data' has no attribute {name!r}")
    from hotloop.data import tables

    return getattr(tables, name)
