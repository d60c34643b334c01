# SPDX-License-Identifier: Apache-2.0
"""The recipes that need torch run where torch is: our optimisers in a plain loop, in Lightning and in skorch."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from tests.project import test_examples as examples


@pytest.mark.parametrize("name", ["torch_loop", "lightning_fit", "skorch_fit"])
def test_recipe(name: str, tmp_path: Path) -> None:
    examples.test_example(name, tmp_path)
