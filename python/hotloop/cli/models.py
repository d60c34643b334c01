# SPDX-License-Identifier: Apache-2.0
"""Model files for the commands that use one."""

from __future__ import annotations

from typing import Any


def load(model: str) -> Any:
    """The trainer of a file that ``hotloop train`` wrote: one that knows its preprocessing."""
    import hotloop

    trainer = hotloop.load(model)
    if trainer.preprocessor is None:
        raise ValueError(
            f"[cli] {model} holds no preprocessing; it was not written by hotloop train: use hl.load in Python"
        )
    return trainer
