# SPDX-License-Identifier: Apache-2.0
"""What the embedding computes, in float64 NumPy."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from hotloop.reference import Context, reference


@reference("embedding_fwd")
def embedding_fwd(a: SimpleNamespace, ctx: Context) -> None:
    a.y[:] = a.weight.reshape(a.vocab, a.dim)[a.ids].ravel()


@reference("embedding_bwd")
def embedding_bwd(a: SimpleNamespace, ctx: Context) -> None:
    dweight = np.zeros((a.vocab, a.dim))
    np.add.at(dweight, a.ids, a.dy.reshape(a.n, a.dim))
    a.dweight[:] = dweight.ravel()
