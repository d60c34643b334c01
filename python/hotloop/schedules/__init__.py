# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as data: one factor per optimiser step, written as a table before the run.

Step t uses ``lr * factors[t]``, t counted from 0. The optimiser is not known here, so that one schedule
serves any. Values equal torch's and Keras's at the same step, where they have the schedule; docs/schedules.md
has a table of all, with a picture.
"""

from __future__ import annotations

from hotloop.schedules.base import FactorFunction, Factors, Schedule, Warmup
from hotloop.schedules.curves import Constant, Cosine, Linear, Polynomial
from hotloop.schedules.custom import Custom
from hotloop.schedules.cycles import CosineRestarts, OneCycle
from hotloop.schedules.names import from_dict, resolve
from hotloop.schedules.plateau import PlateauTracker, ReduceOnPlateau
from hotloop.schedules.steps import Exponential, MultiStep, Step

__all__ = [
    "Constant", "Cosine", "CosineRestarts", "Custom", "Exponential", "FactorFunction", "Factors", "Linear",
    "MultiStep", "OneCycle", "PlateauTracker", "Polynomial", "ReduceOnPlateau", "Schedule", "Step", "Warmup",
    "from_dict", "resolve",
]  # fmt: skip
