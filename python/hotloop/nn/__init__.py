# SPDX-License-Identifier: Apache-2.0
"""Layers and containers, with torch's names, arguments, parameter names and initial distributions."""

from __future__ import annotations

from hotloop.nn import functional, init
from hotloop.nn.activation import (
    ELU,
    GELU,
    SELU,
    LeakyReLU,
    LogSoftmax,
    Mish,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from hotloop.nn.base import Module
from hotloop.nn.containers import Flatten, ModuleList, Sequential
from hotloop.nn.dropout import Dropout
from hotloop.nn.embedding import Embedding
from hotloop.nn.graph_module import GraphModule
from hotloop.nn.linear import Identity, Linear
from hotloop.nn.norm import BatchNorm1d, LayerNorm, RMSNorm
from hotloop.nn.parameter import Buffer, Parameter

__all__ = [
    "ELU",
    "GELU",
    "SELU",
    "BatchNorm1d",
    "Buffer",
    "Dropout",
    "Embedding",
    "Flatten",
    "GraphModule",
    "Identity",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Mish",
    "Module",
    "ModuleList",
    "Parameter",
    "RMSNorm",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "functional",
    "init",
]
