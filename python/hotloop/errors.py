# SPDX-License-Identifier: Apache-2.0
"""Every exception and warning of hotloop.

One root, `HotloopError`; each subclass is also the built-in that NumPy or scikit-learn users would catch.
Messages read: ``[where] what, got X; allowed Y; what to do next``. Input/output failures stay `OSError`.
"""

from __future__ import annotations


class HotloopError(Exception):
    """Root of all errors that hotloop raises on its own account."""


class ShapeError(HotloopError, ValueError):
    """A shape, rank or length does not fit."""


class DTypeError(HotloopError, TypeError, ValueError):
    """A dtype is not accepted where it was given."""


class LabelError(HotloopError, IndexError, ValueError):
    """A class label or embedding index lies outside its range."""


class NonFiniteError(HotloopError, ValueError):
    """Input data holds NaN or infinity, or overflows float32."""


class CheckpointError(HotloopError, ValueError):
    """A file is not a hotloop model, is damaged, or comes from a newer version."""


class DivergenceError(HotloopError, FloatingPointError):
    """The loss or the parameters became NaN or infinite."""


class DeviceError(HotloopError, RuntimeError):
    """The asked-for device cannot be used here."""


class GraphError(HotloopError, ValueError):
    """A model's forward cannot be traced, differentiated or compiled."""


class InternalError(HotloopError, RuntimeError):
    """An invariant of hotloop's own is broken; please report it."""


class HotloopWarning(UserWarning):
    """Something went on, but not as asked."""
