# SPDX-License-Identifier: Apache-2.0
"""Every operation, by family. Importing this package fills `registry.RULES`."""

from __future__ import annotations

from hotloop.rules import (
    batch_norm,
    dropout,
    elementwise,
    embedding,
    fused,
    loss,
    matmul,
    norm,
    reduce,
    shape,
    softmax,
)
from hotloop.rules.registry import RULES, Emitter, GraphBuilder, Lowering, Rule, rule_of

__all__ = [
    "RULES",
    "Emitter",
    "GraphBuilder",
    "Lowering",
    "Rule",
    "batch_norm",
    "dropout",
    "elementwise",
    "embedding",
    "fused",
    "loss",
    "matmul",
    "norm",
    "reduce",
    "rule_of",
    "shape",
    "softmax",
]
