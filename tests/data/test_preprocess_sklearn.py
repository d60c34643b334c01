# SPDX-License-Identifier: Apache-2.0
"""Preprocessing beside scikit-learn's: equal wherever both mean the same.

The numbers that are learnt agree to 1e-12 in float64; what `transform` gives is theirs rounded to float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hotloop.data.preprocess import Preprocessor

pytest.importorskip("sklearn")
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, RobustScaler, StandardScaler

RANDOM = np.random.Generator(np.random.Philox(3))
X = RANDOM.normal(5, 3, (301, 6)) * [1, 1e-6, 1e9, 1, 1, 1] + [0, 0, 0, 1e6, 0, 0]
X[:, 4] = np.round(X[:, 4])
HOLES = np.where(RANDOM.random(X.shape) < 0.15, np.nan, X)
HOLES[:, 0] = X[:, 0]
SCALERS: dict[str, Any] = {"standard": StandardScaler, "robust": RobustScaler}


@pytest.mark.parametrize("missing", ["median", "mean", -7.0])
@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_numbers_as_a_pipeline_of_imputer_and_scaler(scale: Any, missing: Any) -> None:
    fitted = Preprocessor.fit(HOLES, scale=scale, missing=missing, indicator=False)
    filler = {"strategy": "constant", "fill_value": missing} if missing == -7.0 else {"strategy": missing}
    theirs = make_pipeline(SimpleImputer(**filler), SCALERS[scale]()).fit(HOLES)
    imputer, scaler = (step for _, step in theirs.steps)
    center = scaler.mean_ if scale == "standard" else scaler.center_
    np.testing.assert_allclose(fitted.numbers.fill, imputer.statistics_.astype(float), rtol=1e-12)
    np.testing.assert_allclose(fitted.numbers.center, center, rtol=1e-12)
    np.testing.assert_allclose(fitted.numbers.scale, scaler.scale_, rtol=1e-12)
    rows = np.vstack([HOLES, np.full((1, 6), np.nan)])
    np.testing.assert_allclose(fitted.transform(rows), theirs.transform(rows), rtol=2e-7, atol=1e-7)


def test_without_a_scale_missing_values_are_filled_and_nothing_else_happens() -> None:
    fitted = Preprocessor.fit(HOLES, scale=None, indicator=False)
    theirs = SimpleImputer(strategy="median").fit_transform(HOLES)
    np.testing.assert_array_equal(fitted.transform(HOLES), theirs.astype(np.float32))


def test_indicators_stand_where_training_missed_something() -> None:
    fitted = Preprocessor.fit(HOLES)
    flags = MissingIndicator(features="missing-only").fit(HOLES)
    rows = np.vstack([HOLES, np.full((1, 6), np.nan)])
    with np.errstate(all="raise"):
        found = fitted.transform(rows)
    assert fitted.num_names[6:] == tuple(f"x{i} missing" for i in range(1, 6))
    theirs = MissingIndicator(features="missing-only", error_on_new=False).fit(HOLES).transform(rows)
    np.testing.assert_array_equal(found[:, 6:], theirs)
    assert flags.features_.tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("rare", [0, 3, 0.05])
def test_one_hot_as_the_encoder_with_infrequent_categories(rare: Any) -> None:
    words = np.array([f"w{i:02d}" for i in range(40)], object)
    table = words[np.minimum(RANDOM.geometric(0.12, (300, 2)), 40) - 1]
    seen = [*table[:20], ["new", "new"]]
    fitted = Preprocessor.fit(table, rare=rare, text="onehot")
    theirs = OneHotEncoder(
        handle_unknown="infrequent_if_exist", min_frequency=rare or None, sparse_output=False
    ).fit(table)
    np.testing.assert_array_equal(fitted.transform(seen), theirs.transform(seen))
    ours = [name.partition("=")[2] for name in fitted.num_names]
    names = [name.partition("_")[2] for name in theirs.get_feature_names_out()]
    assert ours == ["other" if name == "infrequent_sklearn" else name for name in names]


def test_missing_text_as_the_most_frequent() -> None:
    table = np.array([["a"], ["b"], ["b"], [None], ["c"]], object)
    fitted = Preprocessor.fit(table, indicator=False, rare=0)
    theirs = make_pipeline(
        SimpleImputer(strategy="most_frequent", missing_values=None), OneHotEncoder(sparse_output=False)
    )
    np.testing.assert_array_equal(fitted.transform(table), theirs.fit_transform(table))


@pytest.mark.parametrize("scale", ["standard", "robust"])
def test_targets_are_scaled_alike(scale: Any) -> None:
    y = RANDOM.normal(20_000, 300, 301)
    fitted = Preprocessor.fit(X, y, scale_target=scale)
    theirs = SCALERS[scale]().fit(y.reshape(-1, 1))
    scaled = fitted.transform_target(y)
    np.testing.assert_allclose(scaled, theirs.transform(y.reshape(-1, 1))[:, 0], rtol=1e-6, atol=1e-7)
    np.testing.assert_allclose(fitted.inverse_target(scaled), y, rtol=1e-8)
