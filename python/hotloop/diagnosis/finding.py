# SPDX-License-Identifier: Apache-2.0
"""`Finding` and `Diagnosis`: what the rules say, as plain frozen data with a text and a JSON form."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args

#: error: the model is of no use as it is; warning: it is worse than it need be; advice: it works.
Severity = Literal["error", "warning", "advice"]
Numbers = Mapping[str, Union[int, float, str]]


@dataclass(frozen=True)
class Finding:
    """One thing that went wrong: why we think so, in figures, and one thing to do next.

    rule       its name in docs/diagnosis.md, such as "overfitting"
    severity   "error" | "warning" | "advice"
    reason     one sentence with the figures
    next_step  one sentence, in hotloop's own arguments
    numbers    the figures by name, for programs
    """

    rule: str
    severity: Severity
    reason: str
    next_step: str
    numbers: Numbers = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.rule.replace('_', ' ')}: {self.reason}\n  next: {self.next_step}"


@dataclass(frozen=True)
class Diagnosis:
    """The findings of a run, the most severe first, and what was looked at and what could not be.

    >>> from hotloop import History
    >>> diagnosis = History().diagnosis
    >>> len(diagnosis), diagnosis.main
    (0, None)
    """

    findings: tuple[Finding, ...] = ()
    looked_at: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @property
    def main(self) -> Finding | None:
        """The first finding; None if the run is healthy as far as could be seen."""
        return self.findings[0] if self.findings else None

    def __len__(self) -> int:
        return len(self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __getitem__(self, index: int) -> Finding:
        return self.findings[index]

    def __str__(self) -> str:
        if self.findings:
            return "\n".join(f"{i}. [{f.severity}] {f}" for i, f in enumerate(self.findings, 1))
        lines = [
            f"healthy: looked at {'; '.join(self.looked_at)}" if self.looked_at else "nothing to look at"
        ]
        if self.missing:
            lines.append(f"  not looked at: {'; '.join(self.missing)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; `from_dict` gives an equal Diagnosis back."""
        return {
            "findings": [{**dataclasses.asdict(f), "numbers": dict(f.numbers)} for f in self.findings],
            "looked_at": list(self.looked_at),
            "missing": list(self.missing),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Diagnosis:
        """Raises `KeyError`, `TypeError` or `ValueError` for data that `to_dict` did not give."""
        findings = tuple(Finding(**item) for item in data["findings"])
        if any(finding.severity not in get_args(Severity) for finding in findings):
            raise ValueError("[Diagnosis] unknown severity")
        return cls(findings, tuple(data["looked_at"]), tuple(data["missing"]))
