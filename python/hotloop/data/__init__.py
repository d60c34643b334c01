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
    from hotloop.data.schema import Schema as Schema
    from hotloop.data.stream import Stream as Stream
    from hotloop.data.table_check import Issue as Issue
    from hotloop.data.table_check import TableCheck as TableCheck
    from hotloop.data.table_files import FileTable as FileTable
    from hotloop.data.table_files import read as read
    from hotloop.data.table_files import read_blocks as read_blocks
    from hotloop.data.tables import Table as Table
    from hotloop.data.tables import read_table as read_table

_LAZY = {
    "FileTable": "table_files",
    "Issue": "table_check",
    "Preprocessor": "preprocess",
    "Schema": "schema",
    "Stream": "stream",
    "Table": "tables",
    "TableCheck": "table_check",
    "read": "table_files",
    "read_blocks": "table_files",
    "read_table": "tables",
}

__all__ = ["SealedData", "Split", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'hotloop.data' has no attribute {name!r}")
    return getattr(importlib.import_module(f"hotloop.data.{_LAZY[name]}"), name)
