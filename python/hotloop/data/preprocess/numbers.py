# SPDX-License-Identifier: Apache-2.0
"""Columns of numbers: missing values filled in, centred and scaled, clipped if asked for, in float64.

Learnt column by column; applied in blocks of rows that stay in cache, with columns contiguous unless rows are
long, so that every loop runs over contiguous memory whether the table is an array or a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Union

import numpy as np
from numpy.typing import NDArray

from hotloop.errors import NonFiniteError

Float64 = NDArray[np.float64]
#: A 2-D array (n, d), or d columns (n,).
Source = Union[NDArray[Any], Sequence[NDArray[Any]]]
Missing = Union[Literal["median", "mean", "refuse"], float]
Scale = Literal["standard", "robust"] | None

_FLOAT32_MAX = float(np.finfo(np.float32).max)
#: float64 elements of a block: it fits the second-level cache, and the calls are few enough to cost nothing.
_BLOCK = 32768
#: Rows of an array at least this long stay as they lie: turning them costs more than short loops do.
_WIDE = 8
#: What differs by a few units in the last place only is a constant that was computed.
_CONSTANT = 10 * np.finfo(np.float64).eps


@dataclass(frozen=True, eq=False)
class Numbers:
    """``z = (x - center) / scale`` of d columns, and if ``clip`` is set ``z / sqrt(1 + (z / clip)^2)``.

    fill (d,): stands for what is missing, NaN where missing values are refused. scale (d,): 0 where the
    column is constant and gives 0. indicator (d,) bool: a further column says where a value was missing.
    """

    fill: Float64
    center: Float64
    scale: Float64
    indicator: NDArray[np.bool_]
    clip: float | None = None

    @property
    def width(self) -> int:
        """How many columns of output these are: d and the indicators."""
        return len(self.fill) + int(np.count_nonzero(self.indicator))

    def transform(self, source: Source, out: NDArray[np.float32], error: Callable[..., Exception]) -> None:
        """Fill the first `width` columns of ``out`` (n, >= width) float32.

        ``error(kind, row, column, value, n_bad)`` makes the exception for a value that cannot be taken: kind
        is "missing", "infinite" or "overflow".
        """
        d, n = len(self.fill), len(out)
        if d == 0:
            return
        flagged = np.flatnonzero(self.indicator)
        rows = min(max(16, _BLOCK // d), max(n, 1))
        wide = isinstance(source, np.ndarray) and d >= _WIDE
        buffer = np.empty((rows, d)).T if wide else np.empty((d, rows))
        center, scale = self.center[:, None], np.where(self.scale == 0, 1.0, self.scale)[:, None]
        for start in range(0, n, rows):
            stop = min(start + rows, n)
            z = buffer[:, : stop - start]
            _copy(source, start, stop, z)
            missing = np.isnan(z)
            if missing.any():
                np.copyto(z, self.fill[:, None], where=missing)
            if len(flagged):
                out[start:stop, d : d + len(flagged)] = missing[flagged].T
            self._scaled(z, center, scale)
            if not (z.min() >= -_FLOAT32_MAX and z.max() <= _FLOAT32_MAX):  # NaN is neither
                raise self._reason(source, error)
            out[start:stop, :d] = z.T

    def _scaled(self, z: Float64, center: Float64, scale: Float64) -> None:
        """In place: (d, k), what is missing filled in, to what the network gets."""
        with np.errstate(over="ignore", invalid="ignore"):  # reported by the caller, with its place
            z -= center
            z /= scale
            if self.clip is not None:
                np.divide(z, np.hypot(1.0, z / self.clip), out=z)  # inf / inf is NaN: seen by the caller
        constant = self.scale == 0
        if constant.any():
            rest = z[constant]
            z[constant] = np.where(np.isfinite(rest), 0.0, rest)

    def _reason(self, source: Source, error: Callable[..., Exception]) -> Exception:
        """What is wrong with a source that holds what cannot be taken: its first bad value, row by row."""
        columns = source.T if isinstance(source, np.ndarray) else source
        found: dict[str, list[tuple[int, int, int]]] = {"missing": [], "infinite": [], "overflow": []}
        for j, column in enumerate(columns):
            x = np.asarray(column, np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                z = (x - self.center[j]) / (self.scale[j] or np.inf)
            far = np.isfinite(x) & (np.abs(z) > _FLOAT32_MAX)
            missing = np.isnan(x) & np.isnan(self.fill[j])
            for kind, bad in (("missing", missing), ("infinite", np.isinf(x)), ("overflow", far)):
                if bad.any():
                    found[kind].append((int(np.argmax(bad)), j, int(np.count_nonzero(bad))))
        kind = next(kind for kind, places in found.items() if places)
        row, j, _ = min(found[kind])
        return error(kind, row, j, columns[j][row], sum(count for _, _, count in found[kind]))


def _copy(source: Source, start: int, stop: int, out: Float64) -> None:
    if isinstance(source, np.ndarray):
        out[...] = source[start:stop].T
    else:
        for row, column in zip(out, source, strict=True):
            row[...] = column[start:stop]


@dataclass(frozen=True)
class Learnt:
    """What one column of numbers taught."""

    fill: float
    center: float
    scale: float
    n_missing: int
    n_outliers: int


#: Tukey's outer fences (Exploratory Data Analysis, 1977): this many interquartile ranges beyond the quartiles.
FENCE = 3.0


def learn(name: str, values: NDArray[Any], *, missing: Missing, scale: Scale) -> Learnt:
    """Learn one column (n,). Raises `NonFiniteError` for infinity, and for what is missing if refused.

    Centre and scale are those of the column with its missing values filled in, as a pipeline of
    scikit-learn's SimpleImputer and StandardScaler or RobustScaler has them.
    """
    x = np.array(values, np.float64)  # a copy, contiguous
    absent = np.isnan(x)
    n_missing = int(np.count_nonzero(absent))
    if n_missing and missing == "refuse":
        raise NonFiniteError(
            f"[Preprocessor.fit] column {name!r}, row {int(np.argmax(absent))} is missing ({n_missing} missing in "
            f"{len(x)}); drop those rows, or choose missing='median'"
        )
    if np.isinf(x).any():
        row = int(np.argmax(np.isinf(x)))
        raise NonFiniteError(
            f"[Preprocessor.fit] column {name!r}, row {row} is {x[row]} ({np.count_nonzero(np.isinf(x))} bad "
            "values); use NaN for what is missing"
        )
    present = np.sort(x[~absent] if n_missing else x)
    fill = _fill(present, missing)
    if not len(present):
        return Learnt(fill, 0.0, 0.0, n_missing, 0)
    x[absent] = 0.0 if np.isnan(fill) else fill
    if scale == "robust":
        center, spread = _robust(np.sort(x) if n_missing else present)
    else:
        center, spread = _standard(x)
    if not np.isfinite(spread):
        raise NonFiniteError(f"[Preprocessor.fit] column {name!r} spreads beyond float64; rescale it")
    if scale is None and spread != 0:
        center, spread = 0.0, 1.0
    return Learnt(fill, center, spread, n_missing, _outliers(present))


def quantile(ordered: Float64, share: float) -> float:
    """Between neighbours by linear interpolation, as NumPy's default, of values in order (n,).

    >>> quantile(np.array([1.0, 2.0, 4.0, 8.0]), 0.5)
    3.0
    """
    place = (len(ordered) - 1) * share
    low = int(place)
    a, b = float(ordered[low]), float(ordered[min(low + 1, len(ordered) - 1)])
    return a + (b - a) * (place - low)


def distinct(values: Float64) -> Float64:
    """The distinct values, in order. By sorting, which for many values is far faster than `numpy.unique`."""
    ordered = np.sort(values)
    return ordered[np.concatenate([[True], ordered[1:] != ordered[:-1]])] if len(ordered) else ordered


def _outliers(ordered: Float64) -> int:
    """How many values lie beyond the outer fences; none where the quartiles are equal."""
    low, high = quantile(ordered, 0.25), quantile(ordered, 0.75)
    reach = FENCE * (high - low)
    if reach == 0:
        return 0
    inside = np.searchsorted(ordered, high + reach, "right") - np.searchsorted(ordered, low - reach, "left")
    return len(ordered) - int(inside)


def _fill(ordered: Float64, missing: Missing) -> float:
    if missing == "refuse":
        return float("nan")
    if not isinstance(missing, str):
        return float(missing)
    if not len(ordered):
        return 0.0
    return quantile(ordered, 0.5) if missing == "median" else _standard(ordered)[0]


def _standard(x: Float64) -> tuple[float, float]:
    """Mean and standard deviation (of the population); the value itself and 0 for a constant.

    Measured from the first row and in units of the largest deviation, so that a constant column gives exact
    zeros and neither sums nor squares leave the range of float64.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        mean = x[0] + (x - x[0]).mean()
        deviation = x - mean
        spread = np.abs(deviation).max()
        unit = spread if spread != 0 else 1.0
        deviation /= unit
        scale = spread * np.sqrt(np.mean(np.square(deviation, out=deviation)))
    return _unless_constant(x, float(mean), float(scale))


def _robust(ordered: Float64) -> tuple[float, float]:
    """Median and interquartile range; half the whole range where the quartiles are equal, as RealMLP has it
    (Holzmüller, Grinsztajn, Steinwart: Better by Default, 2024, arXiv 2407.04491)."""
    low, median, high = (quantile(ordered, share) for share in (0.25, 0.5, 0.75))
    scale = high - low
    if scale == 0:
        scale = float(ordered[-1] - ordered[0]) / 2
    return _unless_constant(ordered, median, scale)


def _unless_constant(x: Float64, center: float, scale: float) -> tuple[float, float]:
    if scale <= _CONSTANT * np.abs(x).max():
        return float(x[0]), 0.0
    return center, scale
