# SPDX-License-Identifier: Apache-2.0
"""What preprocessing found and what it did about it, as data that prints as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

#: Every kind of finding, and what it is about.
KINDS = (
    "missing",  # cells without a value, and what stands for them
    "empty",  # a column without any value
    "constant",  # a column that says nothing
    "numerals",  # text that is numbers
    "mixed",  # a column of text and numbers
    "spelling",  # one category written in several ways
    "rare",  # categories pooled as "other"
    "unseen",  # categories that training did not have
    "outliers",  # numbers far beyond the quartiles
    "duplicates",  # rows that are there before
    "target",  # what was decided about the target
)


@dataclass(frozen=True)
class Finding:
    """One finding: its kind (see `KINDS`), the column or None for the whole table, the rows that it is about
    and how many there are, and a sentence."""

    kind: str
    column: str | None
    rows: int
    of: int
    text: str

    def __str__(self) -> str:
        return self.text if self.column is None else f"{self.column}: {self.text}"


@dataclass(frozen=True)
class Report:
    """The findings about one table, in the order of its columns.

    >>> report = Report((Finding("constant", "a", 3, 3, "always 7; gives 0"),))
    >>> print(report)
    a: always 7; gives 0
    >>> [f.column for f in report.of_kind("constant")], len(report)
    (['a'], 1)
    """

    findings: tuple[Finding, ...] = ()

    def __str__(self) -> str:
        return "\n".join(map(str, self.findings)) or "nothing to report"

    def __len__(self) -> int:
        return len(self.findings)

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def to_list(self) -> list[dict[str, Any]]:
        """As plain data; `from_list` undoes it."""
        return [asdict(finding) for finding in self.findings]

    @classmethod
    def from_list(cls, data: list[Mapping[str, Any]]) -> Report:
        """The report that `to_list` described."""
        return cls(
            tuple(
                Finding(str(f["kind"]), f["column"], int(f["rows"]), int(f["of"]), str(f["text"]))
                for f in data
            )
        )


def share(rows: int, of: int) -> str:
    """How many, for people.

    >>> share(3, 12), share(1, 100_000)
    ('3 of 12 (25 %)', '1 of 100000 (0.001 %)')
    """
    return f"{rows} of {of} ({100 * rows / of:.2g} %)" if 0 < rows < of else f"{rows} of {of}"


def quoted(texts: Sequence[str], of: int | None = None, limit: int = 5) -> str:
    """Texts for a sentence, the first ``limit`` of them; ``of`` says how many there are, if these are not all.

    >>> quoted(("a", "b", "c"), limit=2), quoted(("a", "b"), of=7)
    ("'a', 'b' and 1 more", "'a', 'b' and 5 more")
    """
    rest = (len(texts) if of is None else of) - len(texts[:limit])
    shown = ", ".join(repr(text[:40]) for text in texts[:limit])
    return f"{shown} and {rest} more" if rest else shown
