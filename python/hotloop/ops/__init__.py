# SPDX-License-Identifier: Apache-2.0
"""The kernels as functions of arrays: NumPy's, or any with ``__dlpack__`` on the CPU.

torch and JAX arrays give their own kind back, without torch or JAX being imported here. Nothing is converted
silently, nothing is recorded for gradients, and the GIL is released while a kernel runs.

>>> import numpy as np, hotloop as hl
>>> hl.ops.relu(np.array([-1.0, 2.0], np.float32))
array([0., 2.], dtype=float32)
"""

from __future__ import annotations

from hotloop.ops.elementwise import (
    elu,
    exp,
    gelu,
    leaky_relu,
    log,
    mish,
    relu,
    selu,
    sigmoid,
    silu,
    softplus,
    sqrt,
    tanh,
)
from hotloop.ops.linear import matmul
from hotloop.ops.loss import bce_with_logits, cross_entropy, huber, mae, mse
from hotloop.ops.random import dropout
from hotloop.ops.rows import embedding, layer_norm, log_softmax, rms_norm, softmax
from hotloop.ops.update import adam_, adamw_, sgd_

__all__ = [
    "adam_", "adamw_", "bce_with_logits", "cross_entropy", "dropout", "elu", "embedding", "exp", "gelu", "huber",
    "layer_norm", "leaky_relu", "log", "log_softmax", "mae", "matmul", "mish", "mse", "relu", "rms_norm", "selu",
    "sgd_", "sigmoid", "silu", "softmax", "softplus", "sqrt", "tanh",
]  # fmt: skip
