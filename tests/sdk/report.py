"""Results as lines, as a count, and as a table for a document."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from catalogue import Client
from variants import VARIANTS


class Outcome(enum.Enum):
    PASS = "yes"
    FAIL = "**no**"
    SKIPPED = "not run"


@dataclass(frozen=True)
class Result:
    client: Client
    variant: str
    outcome: Outcome
    reason: str

    def line(self) -> str:
        what = f"{self.client.name}: {self.variant}"
        if self.outcome is Outcome.SKIPPED:
            return f"SKIPPED({self.reason}) {what}"
        indented = "".join(f"\n    {line}" for line in self.reason.splitlines())
        return f"{self.outcome.name} {what}{indented}"


def summary(results: list[Result]) -> str:
    counts = [sum(result.outcome is outcome for result in results) for outcome in Outcome]
    return "{} passed, {} failed, {} skipped".format(*counts)


def markdown(results: list[Result]) -> str:
    rows: dict[Client, dict[str, str]] = {}
    for result in results:
        rows.setdefault(result.client, {})[result.variant] = result.outcome.value
    lines = [row(["Package", "Version", "Client", *VARIANTS]), row(["---"] * (3 + len(VARIANTS)))]
    for client, cells in rows.items():
        toolkit = client.toolkit
        seen = [cells.get(variant, "–") for variant in VARIANTS]
        lines.append(row([toolkit.package, toolkit.version() if ran(cells) else "–", client.title, *seen]))
    return "\n".join(lines) + "\n"


def ran(cells: dict[str, str]) -> bool:
    return any(cell != Outcome.SKIPPED.value for cell in cells.values())


def row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
