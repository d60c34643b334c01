# SPDX-License-Identifier: Apache-2.0
"""Patterns of dotted names, as of parameters and modules: one meaning wherever names are chosen.

A pattern is a name, a prefix of whole parts ("encoder" means everything below it), or has the wildcards of
`fnmatch` (``*`` also reaches over dots). One that matches nothing is a mistake, and says what is near.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def matches(pattern: str, name: str) -> bool:
    """Whether the pattern means the name.

    >>> matches("encoder", "encoder.0.weight"), matches("*.bias", "encoder.0.bias"), matches("enc", "encoder")
    (True, True, False)
    """
    return fnmatchcase(name, pattern) or name.startswith(pattern + ".")


def matching(
    patterns: Iterable[str], names: Iterable[str], *, where: str, what: str = "parameter"
) -> list[str]:
    """The names that any of the patterns means, in the order of ``names``.

    Raises `TypeError` for patterns that are no text, `ValueError` if one matches nothing.

    >>> matching(["0.*"], ["0.weight", "0.bias", "2.weight"], where="freeze")
    ['0.weight', '0.bias']
    """
    names = list(names)
    found: set[str] = set()
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(f"[{where}] a pattern must be text, got {pattern!r:.80}")
        hits = [name for name in names if matches(pattern, name)]
        if not hits:
            raise ValueError(_nothing(pattern, names, where, what))
        found.update(hits)
    return [name for name in names if name in found]


def _nothing(pattern: str, names: Sequence[str], where: str, what: str) -> str:
    if not names:
        return f"[{where}] pattern {pattern!r} matches nothing: the model has no {what}"
    import difflib

    # a prefix may have been meant, so the names' beginnings count too
    beginnings = {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}
    near = difflib.get_close_matches(pattern, sorted(beginnings), n=3, cutoff=0.5)
    shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
    hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    return f"[{where}] pattern {pattern!r} matches no {what}; {hint}there are {shown}"
