# SPDX-License-Identifier: Apache-2.0
"""Configuration files: the options of a command in TOML, in a table of the command's name.

``--config FILE`` is looked for before the command line is parsed, because the file may hold what the command
requires. What stands on the command line overrules the file; a key that is no option is refused.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FLAG = "--config"


def path_in(tokens: Sequence[str]) -> str | None:
    """The file that ``--config FILE`` or ``--config=FILE`` names; the last one counts.

    >>> path_in(["train", "--config", "run.toml", "--epochs", "3"])
    'run.toml'
    """
    found = None
    for i, token in enumerate(tokens):
        if token == "--":
            break
        if token == FLAG and i + 1 < len(tokens):
            found = tokens[i + 1]
        elif token.startswith(f"{FLAG}="):
            found = token[len(FLAG) + 1 :]
    return found


def read(path: str) -> dict[str, Any]:
    """The tables of a TOML file. Raises `OSError`, or `ValueError` that says where it cannot be read."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # bad TOML or bad UTF-8
        raise ValueError(f"[cli] {path} is not TOML in UTF-8 ({error})") from None
    return {name: _as_flags(value) for name, value in tables.items()}


def _as_flags(value: Any) -> Any:
    """Numbers in a list as a flag has them, with commas between: ``hidden = [256, 256]``."""
    if isinstance(value, dict):
        return {name: _as_flags(item) for name, item in value.items()}
    if isinstance(value, list) and value and all(isinstance(item, int) for item in value):
        return ",".join(map(str, value))
    return value


def checks(path: str, tables: Mapping[str, Any], commands: Sequence[str]) -> Callable[..., None]:
    """What refuses tables that are no commands, and keys that are no options, naming the nearest.

    The result has the form of a configuration of cyclopts: it is called with the arguments of the command.
    """

    def check(app: Any, command: tuple[str, ...], arguments: Any) -> None:
        for key, value in tables.items():
            if key not in commands:
                place = "is not a command" if isinstance(value, dict) else "stands outside of a table"
                hint = f"; options of a command stand below its name, such as [{command[0]}]"
                raise ValueError(f"[cli] {path}: {key!r} {place}{_near(key, commands)}{hint}")
        table: Any = tables
        for name in command:
            table = table.get(name, {})
            if not isinstance(table, dict):
                raise ValueError(f"[cli] {path}: {name!r} must be a table, [{'.'.join(command)}]")
        options = sorted({name.removeprefix("--") for a in arguments for name in a.names if name[:2] == "--"})
        options = [name for name in options if not name.startswith(("no-", "config", "print-config"))]
        for key in table:
            if key.replace("_", "-") not in options:
                hint = _near(key.replace("_", "-"), options) or f"; allowed: {', '.join(options)}"
                raise ValueError(f"[cli] {path}, table [{'.'.join(command)}]: unknown key {key!r}{hint}")

    return check


def to_toml(table: str, values: Mapping[str, Any]) -> str:
    """A table in TOML; options that are not set (None) stand in a comment.

    >>> print(to_toml("train", {"epochs": 3, "ignore": ("id",), "target": 'a "b"', "out": None}))
    [train]
    epochs = 3
    ignore = ["id"]
    target = "a \\"b\\""
    # out is not set
    """
    lines = [f"[{table}]"]
    for name, value in values.items():
        key = name.replace("_", "-")
        lines.append(f"# {key} is not set" if value is None else f"{key} = {_literal(value)}")
    return "\n".join(lines)


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_literal, value))}]"
    escaped = str(value).replace("\\", "\\\\").replace('"', '\\"')
    # control characters, which a basic string may not hold as they are
    return '"' + "".join(c if c >= " " and c != "\x7f" else f"\\u{ord(c):04x}" for c in escaped) + '"'


def _near(name: str, allowed: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.4)
    return f"; did you mean {close[0]!r}?" if close else ""
