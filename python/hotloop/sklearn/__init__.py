# SPDX-License-Identifier: Apache-2.0
"""Estimators for scikit-learn: its multi-layer perceptrons, trained by the native loop.

Needs scikit-learn (``pip install 'hotloop[sklearn]'``), which importing hotloop does not load.
"""

from __future__ import annotations

try:
    import sklearn as _sklearn
except ImportError:
    raise ImportError(
        "[sklearn] the estimators need scikit-learn; install the extra: pip install 'hotloop[sklearn]'"
    ) from None

from hotloop.sklearn.classifier import MLPClassifier
from hotloop.sklearn.cross_validation import cross_validate
from hotloop.sklearn.regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "cross_validate"]
