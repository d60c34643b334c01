# SPDX-License-Identifier: Apache-2.0
"""``hotloop check``: what is wrong with a table, and what training would do about it."""

from __future__ import annotations

from typing import Annotated, Any

from hotloop.cli import source
from hotloop.cli.console import DONE, FOUND, Result, note
from hotloop.cli.options import COMMON, Common, Switch
from hotloop.data.columns import Columns
from hotloop.data.table_files import read

EXAMPLES = """Examples:
  hotloop check penguins.csv
  hotloop check penguins.csv --target species --strict"""


def check(
    data: str,
    *,
    target: str | None = None,
    strict: Annotated[bool, Switch] = False,
    common: Common = COMMON,
) -> Result:
    """Say what is wrong with a table, and what training does about it.

    Missing, constant, duplicate and leaking columns, repeated rows, mixed types, spellings, outliers, classes
    out of balance: errors and warnings are for you to mend, notes are what preprocessing takes care of.

    Parameters
    ----------
    data
        A .csv, .tsv, .parquet, .feather or .npz file, or digits, iris, wine, breast_cancer, diabetes.
    target
        The column to learn, for the rules about one.
    strict
        Exit with 3 if there are errors or warnings.
    """
    import hotloop

    table = read(data)
    name = target or source.known_target(data)
    if name is not None:
        source.target_name(data, table, name)
    found = hotloop.check(table, name)
    code = FOUND if strict and not found.ok else DONE
    return Result(f"{data}: {found}", {"data": data, **found.to_dict()}, code)


def note_check(table: source.TrainingTable, data: str) -> Any:
    """Before training: errors and warnings on stderr, and how many notes there are."""
    import hotloop

    found = hotloop.check(Columns((*table.features.columns, table.column)), table.column.name)
    shown = [issue for issue in found.issues if issue.severity != "note"]
    for issue in shown:
        note(f"{issue.severity}: {issue.rule.replace('_', ' ')}: {issue}")
    more = len(found.issues) - len(shown)
    if more:
        notes = "note" if more == 1 else "notes"
        note(f"{more} {notes} about the data: hotloop check {data} --target {table.column.name}")
    return found
