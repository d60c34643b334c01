# SPDX-License-Identifier: Apache-2.0
"""Numbers in the page's words."""

from __future__ import annotations

import math


def number(value: float | None) -> str:
    """Four digits; a dash for what is not known.

    >>> number(0.123456), number(None), number(1234567.0)
    ('0.1235', '-', '1.235e+06')
    """
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"


def named(name: str, value: float) -> str:
    """A metric: shares as per cent.

    >>> named("val_accuracy", 0.9666), named("val_mae", 12.34567)
    ('96.7 %', '12.35')
    """
    return f"{100 * value:.1f} %" if name.endswith("accuracy") and not math.isnan(value) else number(value)


def label(text: str, most: int = 36) -> str:
    """A name as figures can show it: one line, not too long, nothing that a font cannot be asked for.

    >>> label("a\\nb"), label("x" * 50, 10)
    ('a b', 'xxxxxxx...')
    """
    text = "".join(c if c.isprintable() else " " for c in text.encode("utf-8", "replace").decode())
    text = text if len(text) <= most else text[: most - 3] + "..."
    return " " + text if text.startswith("_") else text  # a legend leaves out what begins with one


def amount(value: float) -> str:
    """A count: with separators while it is short, then with a unit.

    >>> amount(9610), amount(59143502)
    ('9,610', '59.1 M')
    """
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def flop_text(value: float) -> str:
    """
    >>> flop_text(59143502), flop_text(668985)
    ('59.1 MFLOP', '669 kFLOP')
    """
    for limit, unit in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}FLOP"
    return f"{value:.0f} FLOP"


def bytes_text(value: float) -> str:
    """
    >>> bytes_text(153864)
    '150 KiB'
    """
    for limit, unit in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f} B"


def seconds_text(value: float | None) -> str:
    """
    >>> seconds_text(0.00052992), seconds_text(2.5), seconds_text(185.0), seconds_text(None)
    ('530 µs', '2.5 s', '3 min 05 s', '-')
    """
    if value is None:
        return "-"
    if value >= 60:
        minutes, rest = divmod(round(value), 60)
        return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min {rest:02d} s"
    for limit, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"
