# SPDX-License-Identifier: Apache-2.0
"""Data on its way in: the border, splits, preprocessing, tables. `split` itself is `hotloop.split`."""

from __future__ import annotations

from hotloop.data.preprocess import Preprocessor
from hotloop.data.split import SealedData, Split
from hotloop.data.tables import Table, read_table

__all__ = ["Preprocessor", "SealedData", "Split", "Table", "read_table"]
