# SPDX-License-Identifier: Apache-2.0
"""Which names a pattern means, and what is said of one that means none."""

from __future__ import annotations

import pytest

from hotloop.patterns import matches, matching

NAMES = ["encoder.0.weight", "encoder.0.bias", "encoder.10.weight", "head.weight", "scale"]


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [
        ("*", NAMES),
        ("encoder", NAMES[:3]),
        ("encoder.*", NAMES[:3]),
        ("encoder.0", NAMES[:2]),  # a whole part: not 0 of 10
        ("encoder.1", None),
        ("enc", None),
        ("*.weight", ["encoder.0.weight", "encoder.10.weight", "head.weight"]),
        ("encoder.?.weight", ["encoder.0.weight"]),
        ("[es]*", [*NAMES[:3], "scale"]),
        ("scale", ["scale"]),
        ("SCALE", None),
    ],
)
def test_what_a_pattern_means(pattern: str, meant: list[str] | None) -> None:
    assert [name for name in NAMES if matches(pattern, name)] == (meant or [])
    if meant is None:
        with pytest.raises(
            ValueError, match=r"\[freeze\] pattern '.*' matches no parameter; .*there are encoder"
        ):
            matching([pattern], NAMES, where="freeze")
    else:
        assert matching([pattern], NAMES, where="freeze") == meant


def test_several_patterns_are_one_set_in_the_order_of_the_names() -> None:
    assert matching(["scale", "*.bias", "scale"], NAMES, where="freeze") == ["encoder.0.bias", "scale"]
    assert matching([], NAMES, where="freeze") == []


def test_near_names_are_told() -> None:
    with pytest.raises(ValueError, match=r"'encodr.0' matches no parameter; did you mean 'encoder.0' or"):
        matching(["head", "encodr.0"], NAMES, where="freeze")
    with pytest.raises(ValueError, match=r"matches nothing: the model has no Dropout layer"):
        matching(["*"], [], where="set_dropout", what="Dropout layer")
    with pytest.raises(TypeError, match=r"a pattern must be text, got 3"):
        matching([3], NAMES, where="freeze")  # type: ignore[list-item]
