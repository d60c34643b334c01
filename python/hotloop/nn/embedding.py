# SPDX-License-Identifier: Apache-2.0
"""Embedding."""

from __future__ import annotations

from hotloop.nn import functional
from hotloop.nn.base import Module
from hotloop.nn.checks import check_positive
from hotloop.nn.init import Normal
from hotloop.nn.parameter import Parameter
from hotloop.trace import Tensor


class Embedding(Module):
    """A table of vectors, picked by integer ids.

    Shapes: ids (...) of an integer input -> (..., embedding_dim); weight (num_embeddings, embedding_dim),
    which begins as N(0, 1). Ids are checked against the table before anything runs.

    Raises:
        ShapeError: a size below 1.
        DTypeError: the input is not an integer input.
    """

    def __init__(self, num_embeddings: int, embedding_dim: int) -> None:
        check_positive("Embedding", num_embeddings=num_embeddings, embedding_dim=embedding_dim)
        self.num_embeddings = int(num_embeddings)
        self.embedding_dim = int(embedding_dim)
        self.weight = Parameter((num_embeddings, embedding_dim), Normal())

    def forward(self, input: Tensor) -> Tensor:
        return functional.embedding(input, self.weight)

    def extra_repr(self) -> str:
        return f"{self.num_embeddings}, {self.embedding_dim}"
