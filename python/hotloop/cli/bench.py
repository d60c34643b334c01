# SPDX-License-Identifier: Apache-2.0
"""``hotloop bench``: times of training and kernels; the work and its options are those of hotloop.benchmarks.

Each benchmark gets the options that all commands have. What it saves is what ``--json`` gives: one format.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import sys
import tempfile
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cyclopts

from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common, described

EXAMPLES = """Examples:
  hotloop bench train --quick
  hotloop bench train --networks 64-128-10 --peers none --json
  hotloop bench kernels --save kernels.json"""


def group(*, loaded: bool) -> cyclopts.App:
    """The group of commands; ``loaded`` says whether it is going to be used, else it has its help alone."""
    app = cyclopts.App(
        name="bench",
        help="Time training or kernels on this machine.",
        help_format="plaintext",
        sort_key=9,
        help_epilogue=EXAMPLES,
    )
    if loaded:
        from hotloop.benchmarks import commands  # with the compile passes, which other commands start without

        for name, command in (("train", commands.train), ("kernels", commands.time_kernels)):
            app.command(_adapted(command), name=name, help=described(command), help_format="plaintext")
    return app


def _adapted(command: Callable[..., int]) -> Callable[..., Result]:
    """The command with the common options too, and with a result."""

    def run(*, common: Common = COMMON, **options: Any) -> Result:
        return _run(command, common, **options)

    hints = {**typing.get_type_hints(command), "common": Common, "return": Result}
    given = inspect.signature(command)
    common = inspect.Parameter("common", inspect.Parameter.KEYWORD_ONLY, default=COMMON)
    parameters = [p.replace(annotation=hints[p.name]) for p in (*given.parameters.values(), common)]
    run.__signature__ = inspect.Signature(parameters, return_annotation=Result)  # type: ignore[attr-defined]
    run.__annotations__ = hints
    run.__doc__ = command.__doc__
    return run


def _run(command: Callable[..., int], common: Common, *, save: str | None = None, **options: Any) -> Result:
    """Text is printed as it is measured; for a machine it goes to stderr, and the saved file is the result."""
    if not common.json:
        return Result(code=command(save=save, **options))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        path = Path(folder) / "rounds.json" if save is None else Path(save)
        code = command(save=str(path), **options)
        return Result(data=json.loads(path.read_text(encoding="utf-8")), code=code)
