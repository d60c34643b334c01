# SPDX-License-Identifier: Apache-2.0
"""`check`: what is wrong with a table, before anything is trained on it, and what is done about it.

The preprocessor is fitted for its report, so that what is said here about missing values, spellings or outliers is
what will happen. What it cannot know of or cannot mend is added by check_rules.py and check_target.py.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from hotloop.data import check_rules, check_target
from hotloop.data.check_rules import Issue as Issue
from hotloop.data.check_rules import Severity
from hotloop.data.columns import Column, Columns, as_columns
from hotloop.data.preprocess import Preprocessor
from hotloop.data.preprocess.categories import factorize
from hotloop.data.preprocess.report import Finding
from hotloop.data.schema import counted
from hotloop.errors import ShapeError

#: What the preprocessor reports: our name for it, and how bad it is at least.
_REPORTED: dict[str, tuple[str, Severity]] = {
    "missing": ("missing", "note"),
    "empty": ("empty", "warning"),
    "constant": ("constant", "note"),
    "numerals": ("numerals", "note"),
    "spelling": ("spelling", "note"),
    "rare": ("rare", "note"),
    "outliers": ("outliers", "note"),
    "duplicates": ("duplicate_rows", "note"),
}
#: Notes that are about so much of the table that they are warnings.
_MUCH = {"missing": 0.5, "duplicate_rows": 0.05}
_ORDER = ("error", "warning", "note")
_LISTED = 4  # columns with the same kind of note that are printed one by one


@dataclass(frozen=True)
class TableCheck:
    """What `hotloop.check` found: data that prints as a report.

    issues come worst first; ``ok`` says that there is neither an error nor a warning among them.
    """

    rows: int
    columns: int
    target: str | None
    task: str | None
    classes: tuple[tuple[str, int], ...]  # of a classification: name and rows, most frequent first
    issues: tuple[Issue, ...]

    @property
    def ok(self) -> bool:
        """No error and no warning; there may be notes."""
        return all(issue.severity == "note" for issue in self.issues)

    def of(self, rule: str) -> tuple[Issue, ...]:
        """The issues of one rule."""
        return tuple(issue for issue in self.issues if issue.rule == rule)

    def to_dict(self) -> dict[str, Any]:
        """As plain data for JSON."""
        return {**asdict(self), "ok": self.ok}

    def __str__(self) -> str:
        lines = [self._head()]
        width = max((len(issue.rule) for issue in self.issues), default=0)
        for kind, issues in self._grouped():
            severity, rule = kind
            shown = issues if len(issues) <= _LISTED + 1 else issues[:_LISTED]
            lines += [f"{severity:<8} {rule:<{width}}  {issue}" for issue in shown]
            if len(shown) < len(issues):
                names = ", ".join(name for issue in issues[_LISTED:] for name in issue.columns)
                names = names if len(names) <= 70 else names[:67] + "..."
                lines.append(f"{severity:<8} {rule:<{width}}  and {len(issues) - _LISTED} more: {names}")
        counts = [sum(issue.severity == severity for issue in self.issues) for severity in _ORDER]
        tally = ", ".join(counted(n, severity) for n, severity in zip(counts, _ORDER, strict=True) if n)
        return "\n".join([*lines, tally or "nothing to report"])

    def _head(self) -> str:
        head = f"{counted(self.rows, 'row')}, {counted(self.columns, 'column')}"
        if self.target is None:
            return f"{head}, no target named"
        if not self.classes:
            return f"{head}, target {self.target!r} ({self.task})"
        shown = ", ".join(f"{n} {name}" for name, n in self.classes[:6])
        more = f", and {len(self.classes) - 6} classes more" if len(self.classes) > 6 else ""
        return f"{head}, target {self.target!r} ({self.task}: {shown}{more})"

    def _grouped(self) -> list[tuple[tuple[str, str], list[Issue]]]:
        groups: dict[tuple[str, str], list[Issue]] = {}
        for issue in self.issues:
            groups.setdefault((issue.severity, issue.rule), []).append(issue)
        return list(groups.items())


def check(data: Any, target: Any = None) -> TableCheck:
    """Find out what is wrong with a table.

    Args:
        data: a path or bundled name for `hotloop.data.read`, or what `hotloop.data.columns.as_columns` takes:
            a frame, a mapping of columns, an array (n, d).
        target: the name of the column to learn, or its values (n,); None leaves out the rules about one.

    docs/check.md lists the rules and their thresholds. Nothing is changed. A million rows of 20 columns take
    some seconds. Raises `ShapeError` for a target that is not there or an empty table, and as the readers.

    >>> found = check({"town": ["Rome", " rome", "Oslo"] * 20, "code": [1, 1, 2] * 20}, ["a", "a", "b"] * 20)
    >>> [(issue.rule, issue.columns) for issue in found.issues if issue.severity == "warning"]
    [('leaking', ('town',)), ('leaking', ('code',)), ('duplicate_rows', ())]
    >>> found.ok
    False
    """
    features, column = _table(data, target)
    column = None if column is None else check_target.as_target(column)
    task = None if column is None else check_target.task_of(column)
    facts = check_rules.Facts(features)
    issues = [
        *check_rules.infinite(facts),
        *check_rules.identifiers(facts),
        *check_rules.mixed_types(facts),
        *check_rules.duplicate_columns(facts),
    ]
    if column is not None and task is not None:
        issues += check_target.without_target(column)
        issues += check_target.classes(column, task)
        issues += check_target.leaks(features, column, task)
        if task == "classification":
            issues += check_target.contradictions(features, column)
    issues += _reported(features, column, task)
    issues.sort(key=lambda issue: _ORDER.index(issue.severity))
    return TableCheck(
        features.rows,
        len(features.columns),
        None if column is None else column.name,
        task,
        _classes(column, task),
        tuple(issues),
    )


def _table(data: Any, target: Any) -> tuple[Columns, Column | None]:
    """The features, and the target if there is one."""
    if isinstance(data, (str, os.PathLike)):
        from hotloop.data.table_files import read

        data = read(data)
    table = as_columns(data, where="check")
    if isinstance(target, str):
        column, table = table.select([target], where="check").columns[0], table.drop(target)
    elif target is not None:
        column = as_columns({"target": target}, where="check").columns[0]
        if len(column.values) != table.rows:
            raise ShapeError(f"[check] target has {len(column.values)} rows, the table has {table.rows}")
    else:
        column = None
    if not table.columns or table.rows == 0:
        raise ShapeError(
            f"[check] the table has {table.rows} rows and {len(table.columns)} feature columns; at least one of each"
        )
    return table, column


def _reported(features: Columns, target: Column | None, task: Any) -> Iterator[Issue]:
    """What the preprocessor would report. Infinite values and rows without a target, which it refuses, are put
    out of its way; they have been told."""
    known = None if target is None else check_target.usable(target)
    if known is not None and not known.any():
        target = known = None
    rows: Any = slice(None) if known is None or known.all() else np.flatnonzero(known)
    table = Columns(
        tuple(_finite(c) if check_rules.is_infinite(c).any() else c for c in features.take(rows).columns)
    )
    values = None if target is None else target.values[rows]
    name = "target" if target is None else target.name
    report = Preprocessor.fit(table, values, task=task or "auto", target_name=name).report
    yield from filter(None, (_issue(finding) for finding in report.findings))


def _finite(column: Column) -> Column:
    """With the median where a value is infinite: what has been told as infinite is not missing as well."""
    infinite = check_rules.is_infinite(column)
    rest = column.values[~infinite & ~column.missing]
    return replace(column, values=np.where(infinite, np.median(rest) if len(rest) else np.nan, column.values))


def _issue(finding: Finding) -> Issue | None:
    if finding.kind not in _REPORTED:
        return None
    rule, severity = _REPORTED[finding.kind]
    if finding.rows > _MUCH.get(rule, 1.0) * finding.of:
        severity = "warning"
    columns = () if finding.column is None else (finding.column,)
    return Issue(rule, severity, columns, finding.rows, finding.text)


def _classes(target: Column | None, task: str | None) -> tuple[tuple[str, int], ...]:
    if target is None or task != "classification":
        return ()
    distinct, codes = factorize(target.values[check_target.usable(target)])
    counts = np.bincount(codes, minlength=len(distinct)).tolist()
    named = [(check_target.class_name(value), n) for value, n in zip(distinct, counts, strict=True)]
    return tuple(sorted(named, key=lambda pair: (-pair[1], pair[0])))
