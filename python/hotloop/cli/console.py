# SPDX-License-Identifier: Apache-2.0
"""Where output goes: results to stdout, everything else to stderr; text for people, one JSON document for machines.

A command returns a `Result`, which has both forms; it prints nothing to stdout itself, except for rows that it
streams. The document is described in docs/command_line.md; its fields may be added to, never renamed.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np

from hotloop.errors import HotloopWarning

DONE, BAD_INPUT, FOUND, INTERRUPTED = 0, 2, 3, 130
#: Of the JSON document; raised when a field changes its meaning.
SCHEMA = 1


@dataclass(frozen=True)
class Result:
    """What a command has to say: ``text`` for people, ``data`` (JSON-like) for machines, and its exit code.

    ``rows``: a file of JSON texts, one a line, that belong into the empty list at the end of ``data``: more than
    memory may hold.
    """

    text: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    code: int = DONE
    rows: IO[str] | None = None


class CommandError(Exception):
    """Ends a command: one line on stderr, and this exit code."""

    def __init__(self, message: str, code: int = BAD_INPUT) -> None:
        super().__init__(message)
        self.code = code


def note(text: str) -> None:
    """Tell people how it goes, beside the results."""
    print(text, file=sys.stderr, flush=True)


def document(command: str, code: int, notes: Sequence[str], **body: Any) -> dict[str, Any]:
    """The JSON document of a command that ended with ``code``; body: ``result`` or ``error``."""
    from hotloop import __version__

    head = {"schema": SCHEMA, "hotloop": __version__, "command": command, "exit_code": code}
    return {**head, "warnings": list(notes), **body}


def to_json(data: Any) -> str:
    """One line of strict JSON: what is not a finite number becomes null.

    >>> to_json({"loss": float("nan"), "rows": np.int64(3), "of": ("a", None)})
    '{"loss": null, "rows": 3, "of": ["a", null]}'
    """
    return json.dumps(_plain(data), ensure_ascii=False, allow_nan=False)


def write_document(head: Mapping[str, Any], rows: IO[str] | None, out: TextIO) -> None:
    """A document as one line; see `Result.rows`."""
    text = to_json(head)
    if rows is not None:
        with rows:
            out.write(text.removesuffix("]}}"))
            rows.seek(0)
            for i, row in enumerate(rows):
                out.write((", " if i else "") + row.rstrip("\n"))
        text = "]}}"
    out.write(text + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def fail(message: str) -> None:
    """One line on stderr."""
    print(f"hotloop: {one_line(message)}", file=sys.stderr)


def one_line(message: str) -> str:
    """A message without its line breaks."""
    return " ".join(message.split())


def width(stream: TextIO) -> int:
    """Columns of the terminal behind a stream; 100 where there is none."""
    if not stream.isatty():
        return 100
    return max(shutil.get_terminal_size((100, 24)).columns, 40)


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Warnings go to stderr as one line each; the list collects those of hotloop for the document."""
    seen: list[str] = []

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int,
        file: TextIO | None = None, line: str | None = None,
    ) -> None:  # fmt: skip
        text = one_line(str(message))
        if issubclass(category, HotloopWarning):
            seen.append(text)
        print(f"hotloop: warning: {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("always", HotloopWarning)
        warnings.showwarning = show
        yield seen
