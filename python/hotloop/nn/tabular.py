# SPDX-License-Identifier: Apache-2.0
"""A network for what a preprocessor gives: numbers as they are, categories through an embedding, then an MLP.

All categories share one table of one width, as in RealMLP: a step gathers once, whatever the number of columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Union

import numpy as np

from hotloop import nn
from hotloop.data.preprocess import Preprocessor
from hotloop.errors import ShapeError
from hotloop.nn.init import Array, Normal
from hotloop.trace import Tensor

#: Dimensions of an embedded category: those of RealMLP (Holzmüller, Grinsztajn, Steinwart: Better by Default,
#: 2024, arXiv 2407.04491).
EMBEDDING_DIM = 8
#: Activations that can be asked for by name.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "mish": nn.Mish, "selu": nn.SELU, "elu": nn.ELU,
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid,
}  # fmt: skip
Activation = Union[str, Callable[[], nn.Module]]


class TabularMLP(nn.Module):
    """Numbers (n, d) and ids (n, k) to (n, outputs): embeddings beside the numbers, hidden layers, a head.

    Either input may be absent. Column j of the ids points into rows ``sum(tables[:j])`` to
    ``sum(tables[:j + 1])`` of the one table, as `Preprocessor.transform` has it. The first of them, "other",
    begins as 0, so that a category that training never saw is neutral.

    Args:
        numbers: d, the columns of the input ``num``; 0 if there is none.
        tables: the rows of the table that each of the k columns of ``cat`` has; empty if there is none.
        outputs: classes, or 1 for a quantity.
        hidden: widths of the hidden layers.
        dropout: the share that is dropped after each activation.
        activation: one of `ACTIVATIONS`, or what makes a module.
        embedding_dim: dimensions of each embedded category.

    Raises `ShapeError` without inputs or for a width below 1, `ValueError` for an unknown activation.

    >>> TabularMLP(3, (4, 6), 2, hidden=(16,)).mlp[0].weight.shape
    (16, 19)
    """

    def __init__(
        self,
        numbers: int,
        tables: Sequence[int],
        outputs: int,
        *,
        hidden: Sequence[int] = (128,),
        dropout: float = 0.0,
        activation: Activation = "relu",
        embedding_dim: int = EMBEDDING_DIM,
    ) -> None:
        if numbers + len(tables) == 0:
            raise ShapeError(
                "[TabularMLP] there are neither numbers nor tables; at least one input is needed"
            )
        make = ACTIVATIONS.get(activation) if isinstance(activation, str) else activation
        if make is None:
            raise ValueError(
                f"[TabularMLP] activation must be one of {', '.join(ACTIVATIONS)}, or make a module; got {activation!r}"
            )
        self.embedding = None
        if len(tables):
            starts = np.cumsum([0, *tables])
            self.embedding = nn.Embedding(int(starts[-1]), embedding_dim)
            shape = self.embedding.weight.shape
            self.embedding.weight = nn.Parameter(shape, _NormalBut(zero_rows=tuple(starts[:-1].tolist())))
        width = numbers + len(tables) * embedding_dim
        layers: list[nn.Module] = []
        for units in hidden:
            layers += [nn.Linear(width, units), make(), *([nn.Dropout(dropout)] if dropout else [])]
            width = units
        self.mlp = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, num: Tensor | None = None, cat: Tensor | None = None) -> Tensor:
        parts: list[Any] = [] if num is None else [num]
        if cat is not None and self.embedding is not None:
            parts.append(nn.functional.flatten(self.embedding(cat), 1))
        output: Tensor = self.mlp(parts[0] if len(parts) == 1 else nn.functional.concat(parts, 1))
        return output


def tabular_model(
    preprocessor: Preprocessor,
    *,
    hidden: Sequence[int] = (128,),
    dropout: float = 0.0,
    activation: Activation = "relu",
    embedding_dim: int = EMBEDDING_DIM,
) -> TabularMLP:
    """A `TabularMLP` that takes what ``preprocessor.transform`` gives: one output for each class of a
    classification (cross-entropy), one for the scaled target of a regression (a squared loss).

    Raises `ValueError` if the preprocessor was fitted without a target, and as `TabularMLP`.

    >>> import hotloop as hl
    >>> data = {"size": [1.0, 2.0, 3.0, 4.0], "city": ["Rome", "Oslo", "Rome", "Bonn"]}
    >>> p = hl.data.Preprocessor.fit(data, [1.5, 3.5, 2.5, 4.5], text="embedding")
    >>> trainer = hl.Trainer(tabular_model(p, hidden=(8,)), "mse")
    >>> run = trainer.fit(p.transform(data), p.transform_target([1.5, 3.5, 2.5, 4.5]), epochs=2)
    >>> p.inverse_target(trainer.predict(p.transform(data))).shape
    (4,)
    """
    if preprocessor.task is None:
        raise ValueError(
            "[tabular_model] the preprocessor was fitted without a target, so the outputs are unknown; "
            "fit it with one, or make a TabularMLP"
        )
    outputs = len(preprocessor.class_names) if preprocessor.task == "classification" else 1
    return TabularMLP(
        len(preprocessor.num_names), preprocessor.cat_sizes, outputs, hidden=hidden, dropout=dropout,
        activation=activation, embedding_dim=embedding_dim,
    )  # fmt: skip


@dataclass(frozen=True)
class _NormalBut(Normal):
    """N(0, std^2), but zeros in some rows."""

    zero_rows: tuple[int, ...] = ()

    def sample(self, shape: tuple[int, ...], bits: np.random.Philox) -> Array:
        values = super().sample(shape, bits)
        values[list(self.zero_rows)] = 0
        return values
