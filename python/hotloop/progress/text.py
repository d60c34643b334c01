# SPDX-License-Identifier: Apache-2.0
"""Numbers as people read them: 12.3k samples, 3m05s, a loss with four digits."""

from __future__ import annotations

from collections.abc import Mapping


def quantity(value: float) -> str:
    """Three digits and a unit.

    >>> quantity(950), quantity(12345), quantity(4.56e6)
    ('950', '12.3k', '4.56M')
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """Seconds as 4.2s, 3m05s or 2h07m.

    >>> duration(185)
    '3m05s'
    """
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"


def number(name: str, value: float) -> str:
    """One metric; learning rates with an exponent.

    >>> number("loss", 0.123456), number("lr", 1e-3)
    ('0.1235', '1.0e-03')
    """
    return f"{value:.1e}" if name == "lr" else f"{value:.4g}"


def epoch_line(epoch: int, epochs: int, metrics: Mapping[str, float], rows_per_second: float) -> str:
    """``epoch  3/20  loss 0.1234  val_loss 0.2345  lr 1.0e-03  12.3k samples/s``"""
    width = len(str(epochs))
    parts = [f"epoch {epoch:>{width}}/{epochs}"]
    parts += [f"{name} {number(name, value)}" for name, value in metrics.items()]
    return "  ".join([*parts, f"{quantity(rows_per_second)} samples/s"])
