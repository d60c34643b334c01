# SPDX-License-Identifier: Apache-2.0
"""``hotloop check``: what is wrong with a table, and what training would do about it."""

from __future__ import annotations

from hotloop.cli.console import DONE, FOUND, Result
from hotloop.cli.options import COMMON, Common

EXAMPLES = """Examples:
  hotloop check penguins.csv
  hotloop check penguins.csv --target species --strict"""


def check(data: str, *, target: str | None = None, strict: bool = False, common: Common = COMMON) -> Result:
    """Say what is wrong with a table: missing, constant, duplicate, leaking, mixed, out of balance.

    Parameters
    ----------
    data
        A .csv, .tsv or .parquet file.
    target
        The column to learn, to look for leaks and imbalance.
    strict
        Exit with 3 if anything was found.
    """
    import hotloop

    table = hotloop.data.read(data)
    found = hotloop.check(table, target)
    code = FOUND if strict and found.findings else DONE
    return Result(str(found), {"data": data, "target": target, **found.to_dict()}, code)
