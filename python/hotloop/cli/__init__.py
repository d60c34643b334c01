# SPDX-License-Identifier: Apache-2.0
"""The command ``hotloop``: train on a table, predict, evaluate, export, look at data, inspect, benchmark.

Every command is a plain function that returns a `console.Result`; cyclopts (the extra ``cli``) turns signatures
and docstrings into options and help. Exit codes: 0 done, 2 bad input (one line on stderr), 3 ``check --strict``
found something, 130 Ctrl-C (an interrupted training still reports and saves its best epoch).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from hotloop.cli import console


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line (default: the process's own arguments) and return its exit code.

    >>> main(["info"])  # doctest: +SKIP
    0
    """
    try:
        import cyclopts as _  # its absence is explained, not shown as a traceback
    except ImportError:
        console.fail("the command line needs cyclopts; install the extra: pip install 'hotloop[cli]'")
        return console.BAD_INPUT
    from hotloop.cli import app

    return app.run(list(sys.argv[1:] if argv is None else argv))
