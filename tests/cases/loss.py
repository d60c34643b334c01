# SPDX-License-Identifier: Apache-2.0
"""Cases of row weights, losses and metrics: every tail, one column, each operand present and absent, and the
values where a careless formula overflows or divides by zero."""

from __future__ import annotations

import numpy as np

from tests.cases import Fields, KernelCase

SHAPES = [(0, 3), (1, 1), (9, 1), (600, 1), (3, 2), (2, 7), (5, 8), (4, 9), (33, 10), (3, 16), (2, 17),
          (3, 33), (1000, 10), (2, 1030)]  # fmt: skip
LOSSES = {"mse": 0.0, "mae": 0.0, "huber": 0.75, "bce_with_logits": 0.0}  # name -> p0


def row_weight(rows: int, sample: bool, classes: bool, zero: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        sample_weight = (np.zeros(rows) if zero else rng.uniform(0, 2, rows)).astype(dtype)
        return dict(
            weight=np.empty(rows, dtype),
            drow=np.empty(rows, dtype),
            total=np.empty(1),
            sample_weight=sample_weight if sample else None,
            class_weight=rng.uniform(0.5, 2, 4).astype(dtype) if classes else None,
            labels=rng.integers(0, 4, rows).astype(np.int32) if classes else None,
            rows=rows,
        )

    label = f"{rows}{' sample' if sample else ''}{' class' if classes else ''}{' zero' if zero else ''}"
    return KernelCase("row_weight", label, make)


def cross_entropy(
    rows: int, cols: int, *, probs: bool = False, smoothing: float = 0.0, outputs: str = "both",
    drow: bool = True, special: bool = False,
) -> KernelCase:  # fmt: skip
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        logits = (3 * rng.standard_normal((rows, cols))).astype(dtype)
        labels = rng.integers(0, cols, rows).astype(np.int32)
        if special:  # huge, all equal, a class ruled out, certain, hopeless, and a NaN
            logits[0] *= 1e30
            logits[1] = 1.25
            logits[2, (labels[2] + 1) % cols] = -np.inf
            logits[3, labels[3]] = 200
            logits[4, labels[4]] = -200
            logits[5, 0] = np.nan
        target = rng.dirichlet(np.ones(cols), rows).astype(dtype)
        return dict(
            row_loss=np.empty(rows, dtype) if outputs in ("both", "loss") else None,
            dlogits=np.empty_like(logits) if outputs in ("both", "grad") else None,
            logits=logits,
            labels=None if probs else labels,
            probs=target if probs else None,
            drow=rng.uniform(0, 0.1, rows).astype(dtype) if drow else None,
            rows=rows,
            cols=cols,
            label_smoothing=smoothing,
        )

    label = f"{rows}x{cols} {'probs' if probs else 'labels'} s={smoothing:g} {outputs}"
    extra = f"{'' if drow else ' no drow'}{' special' if special else ''}"
    return KernelCase("cross_entropy", label + extra, make)


def loss(
    kernel: str, rows: int, cols: int, *, outputs: str = "both", drow: bool = True, pos_weight: bool = False,
    special: bool = False,
) -> KernelCase:  # fmt: skip
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        pred = (2 * rng.standard_normal((rows, cols))).astype(dtype)
        target = rng.standard_normal((rows, cols)).astype(dtype)
        if kernel == "bce_with_logits":
            target = rng.integers(0, 3, (rows, cols)).astype(dtype) / dtype(2)
        if special:
            pred.ravel()[:8] = [-100, 100, -30, 30, 0, -0.0, 1e4, np.nan]
            target.ravel()[:8] = [0, 1, 1, 0, 0, 0, 1, 1]
        return dict(
            row_loss=np.empty(rows, dtype) if outputs in ("both", "loss") else None,
            dpred=np.empty_like(pred) if outputs in ("both", "grad") else None,
            pred=pred,
            target=target,
            pos_weight=rng.uniform(0.5, 3, cols).astype(dtype) if pos_weight else None,
            drow=rng.uniform(0, 1, rows).astype(dtype) if drow else None,
            rows=rows,
            cols=cols,
            p0=LOSSES[kernel],
        )

    extra = (
        f"{'' if drow else ' no drow'}{' pos_weight' if pos_weight else ''}{' special' if special else ''}"
    )
    return KernelCase(kernel, f"{rows}x{cols} {outputs}{extra}", make)


def loss_stats(rows: int, zero: bool = False) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        weight = (np.zeros(rows) if zero else rng.uniform(0, 2, rows)).astype(dtype)
        row_loss = rng.standard_normal(rows).astype(dtype)
        return dict(
            loss=np.empty(1), totals=rng.uniform(0, 9, 2), row_loss=row_loss, weight=weight, rows=rows
        )

    return KernelCase("loss_stats", f"{rows}{' zero' if zero else ''}", make)


def accuracy(rows: int, cols: int, probs: bool) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        logits = np.round(2 * rng.standard_normal((rows, cols))).astype(dtype)  # whole numbers tie
        logits[3::5, cols // 2] = np.nan
        target = rng.dirichlet(np.ones(cols), rows).astype(dtype)
        labels = np.where(rng.random(rows) < 0.5, np.nan_to_num(logits).argmax(axis=1), 0).astype(np.int32)
        return dict(
            totals=rng.uniform(0, 9, 2),
            logits=logits,
            labels=None if probs else labels,
            probs=target if probs else None,
            rows=rows,
            cols=cols,
        )

    return KernelCase("accuracy", f"{rows}x{cols} {'probs' if probs else 'labels'}", make)


def top_k_accuracy(rows: int, cols: int, k: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        logits = np.round(2 * rng.standard_normal((rows, cols))).astype(dtype)  # whole numbers tie
        logits[3::5, cols // 2] = np.nan
        logits[4::5] = -np.inf
        labels = rng.integers(0, cols, rows).astype(np.int32)
        return dict(totals=rng.uniform(0, 9, 2), logits=logits, labels=labels, rows=rows, cols=cols, top_k=k)

    return KernelCase("top_k_accuracy", f"{rows}x{cols} k={k}", make)


def element_metric(kernel: str, rows: int, cols: int) -> KernelCase:
    def make(rng: np.random.Generator, dtype: type) -> Fields:
        pred = rng.standard_normal((rows, cols)).astype(dtype)
        if kernel == "regression_stats":
            target = rng.standard_normal((rows, cols)).astype(dtype)
            return dict(
                totals=rng.uniform(0, 9, 1 + 4 * cols), pred=pred, target=target, rows=rows, cols=cols
            )
        pred.ravel()[::7] = 0
        pred.ravel()[3::7] = np.nan
        target = (rng.integers(0, 3, (rows, cols)) / 2).astype(dtype)
        return dict(totals=rng.uniform(0, 9, 2), logits=pred, target=target, rows=rows, cols=cols)

    return KernelCase(kernel, f"{rows}x{cols}", make)


CASES = [
    *(row_weight(rows, s, c) for rows in (0, 1, 9, 300) for s in (False, True) for c in (False, True)),
    row_weight(5, sample=True, classes=True, zero=True),
    *(
        cross_entropy(*shape, probs=p, smoothing=s)
        for shape in SHAPES
        for p in (False, True)
        for s in (0.0, 0.1)
    ),
    *(
        cross_entropy(4, 11, probs=p, outputs=o, smoothing=0.2)
        for p in (False, True)
        for o in ("loss", "grad")
    ),
    cross_entropy(4, 11, drow=False),
    cross_entropy(4, 11, drow=False, probs=True),
    cross_entropy(7, 10, special=True),
    *(loss(kernel, *shape) for kernel in LOSSES for shape in SHAPES),
    *(loss(kernel, r, 5, outputs=o) for kernel in LOSSES for r in (1, 6) for o in ("loss", "grad")),
    *(loss(kernel, 11, 1, outputs=o) for kernel in LOSSES for o in ("loss", "grad")),
    *(loss(kernel, *shape, drow=False) for kernel in LOSSES for shape in ((11, 1), (3, 4))),
    *(loss(kernel, *shape, special=True) for kernel in LOSSES for shape in ((19, 1), (3, 11))),
    *(loss("bce_with_logits", *shape, pos_weight=True) for shape in ((9, 1), (4, 7), (3, 33))),
    *(loss_stats(rows) for rows in (0, 1, 9, 1000)),
    loss_stats(4, zero=True),
    *(
        accuracy(rows, cols, p)
        for rows, cols in ((0, 3), (1, 1), (9, 2), (40, 10), (30, 33))
        for p in (False, True)
    ),
    *(
        top_k_accuracy(rows, cols, k)
        for rows, cols in ((0, 3), (1, 1), (9, 2), (40, 10), (100, 33))
        for k in (1, 2, 5)
    ),
    *(
        element_metric(kernel, *shape)
        for kernel in ("binary_accuracy", "regression_stats")
        for shape in ((0, 2), (1, 1), (100, 1), (33, 5))
    ),
]
