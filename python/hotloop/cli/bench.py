# SPDX-License-Identifier: Apache-2.0
"""``hotloop bench``: times of training and kernels; the work is in hotloop.benchmarks.

What a benchmark saves is what ``--json`` gives, so that both are one format.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cyclopts

from hotloop.cli.console import Result
from hotloop.cli.options import COMMON, Common, described

EXAMPLES = """Examples:
  hotloop bench train --quick
  hotloop bench train --networks 64-128-10 --peers none --threads 1 --json
  hotloop bench kernels --save kernels.json"""


def group() -> cyclopts.App:
    """The commands; libraries beside ours are imported by the workers, not here."""
    app = cyclopts.App(
        name="bench",
        help="Time training or kernels on this machine.",
        help_format="plaintext",
        sort_key=9,
        help_epilogue=EXAMPLES,
    )
    for command in (train, kernels):
        app.command(command, help=described(command), help_format="plaintext")
    return app


def train(
    *, quick: bool = False, networks: str | None = None, peers: str | None = None,
    threads: str | None = None, save: str | None = None, common: Common = COMMON,
) -> Result:  # fmt: skip
    """Time whole training runs beside torch, JAX, scikit-learn and the floor of this machine.

    The floor is the arithmetic of the matrix products at the rate of multiply-adds measured in the same run.
    Before anything is timed, all must have the same loss curves. Libraries that are not installed are left
    out. Takes some minutes on a quiet machine; every contestant works alone while it is timed.

    Parameters
    ----------
    quick
        Three short rounds, without torch.compile: a minute or so.
    networks
        Some of the networks only, such as 64-128-10,784-30-10.
    peers
        Some of the peers only, of torch,jax,sklearn; none measures hotloop alone.
    threads
        Thread counts, such as 1,2; default: 1, 2, 4, 8 and 16 as far as there are processors.
    save
        A JSON file for all rounds; the chart goes beside it as SVG if matplotlib is installed.
    """
    options = dict(quick=quick, networks=networks, peers=peers, threads=threads)
    return _run("train", save, common, **options)


def kernels(*, save: str | None = None, common: Common = COMMON) -> Result:
    """Time every kernel on one core beside the limits of this machine, each checked first.

    Parameters
    ----------
    save
        A JSON file for all rounds.
    """
    return _run("time_kernels", save, common)


def _run(name: str, save: str | None, common: Common, **options: Any) -> Result:
    """Text is printed as it is measured; for a machine it goes to stderr, and the saved file is the result."""
    from hotloop.benchmarks import commands  # with the compile passes, which other commands start without

    command: Callable[..., int] = getattr(commands, name)
    if not common.json:
        return Result(code=command(save=save, **options))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        path = Path(folder) / "rounds.json" if save is None else Path(save)
        code = command(save=str(path), **options)
        return Result(data=json.loads(path.read_text(encoding="utf-8")), code=code)
