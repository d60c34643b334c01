# SPDX-License-Identifier: Apache-2.0
"""What stands between a table and a network: learnt from the training rows, stored with the model.

`Preprocessor` is the whole; `numbers`, `categories` and `target` know one kind of column each.
"""

from __future__ import annotations

from hotloop.data.preprocess.preprocessor import Preprocessor
from hotloop.data.preprocess.report import Finding, Report

__all__ = ["Finding", "Preprocessor", "Report"]
