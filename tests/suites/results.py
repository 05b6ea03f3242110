"""What every suite's runner hands back."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Results:
    """The outcome of each test by its id; a failure carries its first line, a skip its reason where there is one."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    # Failures that no second try takes back.
    certain: set[str] = field(default_factory=set)
