# SPDX-License-Identifier: Apache-2.0
"""From the words of a command line to an exit code: parse, configure, run, and say how it ended.

Whatever goes wrong in a foreseeable way ends as one line on stderr, and with ``--json`` as a document with
``error`` on stdout; anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import cyclopts

from hotloop.cli import bench, check, config, console, evaluate, export, info, predict, train
from hotloop.cli.console import BAD_INPUT, INTERRUPTED, CommandError, Result
from hotloop.cli.options import Common, described
from hotloop.errors import HotloopError

_HELP = """Train neural networks at the speed of the hardware.

hotloop COMMAND --help explains a command, with examples.
Results go to stdout, everything else to stderr; --json makes the result one JSON document.
Exit codes: 0 done, 2 bad input, 3 check --strict found something, 130 Ctrl-C.
"""
_FORESEEN = (cyclopts.CycloptsError, HotloopError, ValueError, OSError, ImportError, CommandError)


def run(tokens: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    given = tokens[: tokens.index("--")] if "--" in tokens else tokens
    words = given[: 2 if given[:1] == ["bench"] else 1]
    shown = _Shown(" ".join(word for word in words if not word.startswith("-")), "--json" in given)
    with console.noted_warnings() as notes:
        try:
            result = _call(tokens, shown)
            if isinstance(result, Result):
                shown.result(result, notes)
            sys.stdout.flush()
            return result.code if isinstance(result, Result) else int(result or 0)
        except BrokenPipeError:  # the reader, such as head, has enough; what is left has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except KeyboardInterrupt:
            return shown.error(CommandError("interrupted", INTERRUPTED), notes)
        except _FORESEEN as error:
            return shown.error(error, notes)


def make_app(first: str = "bench") -> cyclopts.App:
    """All commands; those of a group that is not the ``first`` word are left out, since they take long to load."""
    app = cyclopts.App(name="hotloop", help=_HELP, help_format="plaintext")
    for order, module in enumerate((train, evaluate, predict, export, check, info)):
        command = getattr(module, module.__name__.rpartition(".")[2])
        app.command(
            command,
            help=described(command),
            help_epilogue=module.EXAMPLES,
            sort_key=order,
            help_format="plaintext",
        )
    app.command(bench.group(loaded=first == "bench"))
    return app


def _call(tokens: Sequence[str], shown: _Shown) -> Any:
    """What the command returns; help and version print themselves and return None."""
    app = make_app(next(iter(tokens), ""))
    path = config.path_in(tokens)
    if path is not None:
        tables = config.read(path)
        commands = [name for name in app if not name.startswith("-")]
        app.config = (
            config.checks(path, tables, commands),
            cyclopts.config.Dict(tables, source=path),
        )
    command, bound, _ = app.parse_args(list(tokens), print_error=False, exit_on_error=False)
    for value in bound.arguments.values():
        if isinstance(value, Common):
            shown.as_json = value.json
    return command(*bound.args, **bound.kwargs)


class _Shown:
    """How this run answers: as text or as a document."""

    def __init__(self, command: str, as_json: bool) -> None:
        self.command, self.as_json = command, as_json

    def result(self, result: Result, notes: Sequence[str]) -> None:
        if self.as_json:
            head = console.document(self.command, result.code, notes, result=result.data)
            console.write_document(head, result.rows, sys.stdout)
        elif result.text:
            print(result.text)

    def error(self, error: BaseException, notes: Sequence[str]) -> int:
        code = error.code if isinstance(error, CommandError) else BAD_INPUT
        text = console.one_line(str(error))
        console.fail(text)
        if self.as_json:
            kind = "Interrupted" if code == INTERRUPTED else type(error).__name__
            what = {"type": kind, "message": text}
            print(console.to_json(console.document(self.command, code, notes, error=what)), flush=True)
        return code
